"""Peak memory of each method at the paper's size on the whole of CIFAR-10, a process each.

    python benchmarks/memory.py --data_dir=~/tensorflow_datasets

Loads the data as a run does, takes ten steps, and validates on 5,000 images.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import methods

STEPS = 10


def measure(name: str, data_dir: str) -> None:
    from gat_tf import data, evaluation

    splits = data.load("cifar10", data_dir)
    model = methods.build(name)
    dataset = data.shuffled_batches(splits.train, methods.BATCH, seed=0)
    model.fit(dataset, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    classifier = getattr(model, "classifier", model)
    evaluation.accuracy(
        classifier, data.batches(splits.validation, 500), from_logits=classifier is model
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {name} | {peak:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir")
    parser.add_argument("--method", choices=methods.METHODS, help="only this one, in this process")
    arguments = parser.parse_args()
    data_dir = arguments.data_dir and os.path.expanduser(arguments.data_dir)
    if arguments.method:
        measure(arguments.method, data_dir)
        return
    print("| method | peak memory, GiB |\n|---|---|", flush=True)
    for name in methods.METHODS:
        command = [sys.executable, __file__, "--method", name]
        subprocess.run(command + (["--data_dir", data_dir] if data_dir else []), check=True)


if __name__ == "__main__":
    main()
