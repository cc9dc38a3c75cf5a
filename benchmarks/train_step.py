"""Times one step of every method on the Table 1 networks at batch 128, interleaved.

    python benchmarks/train_step.py [--rounds=15] [--precision=mixed_bfloat16]

In each round every method takes one step; a method's ratio is the median over rounds of its time
over the baseline's in the same round, so that a machine that is slow for a while is slow for all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import keras
import methods


def main(rounds: int) -> None:
    steps = {name: methods.step(name) for name in methods.METHODS}
    steps["FG L2, plain"] = methods.plain_fast_gradient_step()
    for step in steps.values():  # trace, and let the allocator settle
        step()
        step()
    seconds = {name: [] for name in steps}
    for i in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
        print(f"\rround {i + 1}/{rounds}", end="", file=sys.stderr, flush=True)

    def over(name, reference):
        pairs = zip(seconds[name], seconds[reference], strict=True)
        return statistics.median(a / b for a, b in pairs)

    print("\n| method | over baseline | counted | measured / counted | images a second |")
    print("|---|---|---|---|---|")
    for name, counted in methods.counted().items():
        ratio = over(name, "baseline")
        rate = methods.BATCH / statistics.median(seconds[name])
        print(f"| {name} | {ratio:.2f} | {counted:.2f} | {ratio / counted:.2f} | {rate:.0f} |")
    shared = over("GAT shared", "FG L2, plain")
    print(f"\nGAT shared over the plainly written FG step: {shared:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="float32", help="a Keras dtype policy")
    args = parser.parse_args()
    keras.config.set_dtype_policy(args.precision)
    main(args.rounds)
