"""Compares the same networks of Table 2 trained in two precisions, seed by seed.

    python benchmarks/precision.py experiments/table2/bfloat16 experiments/table2/reduced

The folders are those of Table 2 with the same settings but for the precision. Each row is a method:
the paired difference of the test accuracies, first folder minus second, over the seeds that both
have.
"""

from __future__ import annotations

import json
import pathlib
import sys

from gat_tf.experiments.lab.verdicts import decide, markdown
from gat_tf.experiments.measuring import above
from gat_tf.experiments.methods import METHODS


def read(folder: str) -> tuple[str, dict[str, dict]]:
    """The precision of a folder, and its units by name."""
    config, units = (
        json.loads((pathlib.Path(folder) / name).read_text())
        for name in ("config.json", "units.json")
    )
    return config["precision"], units


def main(one: str, other: str) -> None:
    (precision, ours), (other_precision, theirs) = map(read, (one, other))
    accuracies: dict[str, list[dict[int, float]]] = {}
    for name in sorted(ours.keys() & theirs.keys()):
        pair = ours[name], theirs[name]
        a, b = (unit["hyperparameters"] for unit in pair)
        # Older units lack the hyperparameters that were not searched.
        if any(a[key] != b[key] for key in a.keys() & b.keys()):
            sys.exit(f"Expected {name} with the same hyperparameters. Received: {a} and {b}")
        by_seed = accuracies.setdefault(pair[0]["method"], [{}, {}])
        for of, unit in zip(by_seed, pair, strict=True):
            of[unit["seed"]] = 100 * unit["test_accuracy"]
    claims = [
        above(
            f"{METHODS[method].title}: {precision} above {other_precision}",
            list(ours.values()), *by_seed, "beyond",
        )
        for method, by_seed in accuracies.items()
    ]  # fmt: skip
    print(markdown(decide(claims)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
