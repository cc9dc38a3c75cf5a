"""Times Keras `fit` on an in-memory data set over the bare compiled step, interleaved.

python benchmarks/fit_overhead.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time

import methods
import tensorflow as tf

from gat_tf import data

STEPS = 40


def main(rounds: int) -> None:
    split = data.draw_shapes(STEPS * methods.BATCH, seed=0)
    print("| method | fit over bare step |\n|---|---|")
    for name in methods.METHODS:
        model, one = methods.build(name), methods.batch(name)
        bare = tf.function(lambda m=model, d=one: m.train_step(d), autograph=False)
        # An ordinary data set: GAT draws its own second minibatches from it.
        dataset = data.batches(split, methods.BATCH)

        def fit(m=model, d=dataset):
            m.fit(d, epochs=1, verbose=0, shuffle=False)

        fit()
        bare()
        ratios = []
        for _ in range(rounds):
            started = time.perf_counter()
            fit()
            middle = time.perf_counter()
            for _ in range(STEPS):
                bare()["loss"].numpy()
            ratios.append((middle - started) / (time.perf_counter() - middle))
        print(f"| {name} | {statistics.median(ratios):.3f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
