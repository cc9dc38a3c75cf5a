"""Adds a record's networks to the package, for `models.pretrained`.

    python -m gat_tf.experiments.publish experiments/table2/full

For each data set and method this is the full-size network of seed 0, with weights in float16 and a
card made from the record. `README.md` beside them is a table of the cards.
"""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np

from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.tables import table
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.methods import METHODS
from gat_tf.models.pretrained import FOLDER


def publish(record: pathlib.Path, folder: pathlib.Path = FOLDER) -> list[str]:
    """Writes weights and cards of a record's networks of seed 0, and returns their names.

    Args:
        record: A folder of Table 2, of full-size networks.
        folder: Of the weights and cards.
    """
    width = files.read_json(record / "config.json")["width"]
    if width != 1:
        raise ConfigError(f"Expected a record of full-size networks. Received: width {width:g}.")
    units = Units(record / "units")
    cards_path = folder / "cards.json"
    cards = files.read_json(cards_path) if cards_path.exists() else {}
    names = []
    for unit_name in units.names():
        unit, network = units.read(unit_name), units.path(unit_name, ".keras")
        if unit is None or unit["seed"] != 0 or unit["status"] != "done" or not network.exists():
            continue
        name, file = f"{unit['dataset']}/{unit['method']}", f"{unit_name}.npz"
        weights = keras.models.load_model(network).get_weights()
        with files.replacing(folder / file) as path:
            arrays = {f"{i:02d}": w.astype(np.float16) for i, w in enumerate(weights)}
            np.savez_compressed(path, **arrays)
        cards[name] = {
            "file": file,
            "title": METHODS[unit["method"]].title,
            **{key: unit[key] for key in ("dataset", "method", "seed", "hyperparameters")},
            **{key: unit[key] for key in ("test_accuracy", "best_epoch", "epochs", "precision")},
            "pixels": [0, 1],
            "command": "python -m gat_tf.experiments.table2 --preset=full "
            f"--dataset={unit['dataset']} --methods={unit['method']} --seeds=0",
            "environment": unit["environment"],
        }
        names.append(name)
    files.write_json(cards_path, cards)
    with files.replacing(folder / "README.md") as path:
        path.write_text(_table(cards), encoding="utf-8")
    return names


def _table(cards: dict[str, dict]) -> str:
    rows = [
        [f"`{name}`", c["title"], f"{100 * c['test_accuracy']:.2f}", str(c["best_epoch"]),
         f"`{c['command']}`"]
        for name, c in cards.items()
    ]  # fmt: skip
    lines = [
        "# Trained classifiers",
        "",
        "Table 1 of the GAT paper at full size, seed 0, for pixels in [0, 1]. Written from the",
        "record by `python -m gat_tf.experiments.publish`.",
        "",
        *table(["name", "training", "test accuracy, %", "best epoch", "command"], rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Expected one argument, the folder of a record. See the top of this file.")
    for published in publish(pathlib.Path(sys.argv[1])):
        print(f"{published}: published")
