"""A tiny folder of Table 2 whose classifiers are linear ones, for the experiments on them."""

import dataclasses

import keras
import numpy as np

from gat_tf import data
from gat_tf.experiments import config as configs
from gat_tf.experiments import files, table2

TABLE2 = dataclasses.replace(
    table2.PRESETS["quick"],
    train_size=100,
    validation_size=50,
    test_size=50,
    width=1 / 12,
    batch_size=40,
    epochs=2,
    patience=2,
)


def images_tested():
    split = data.load("shapes", train_size=100, validation_size=50, test_size=50).test
    return split.images / np.float32(255), split.labels


def write(folder, **known):
    """Writes the folder.

    Args:
        folder: Where.
        **known: Method to how many of the 50 test images its classifier of each seed knows, such as
            `baseline={0: 40}`.
    """
    identity = {"experiment": "table2", **configs.identity(TABLE2)}
    files.write_json(folder / "config.json", identity)
    for method, seeds in known.items():
        for seed, count in seeds.items():
            write_classifier(folder, method, seed, count)
    return folder


def write_classifier(folder, method, seed, known):
    """Writes one, and the results that its training would have had."""
    images, labels = images_tested()
    chosen = np.random.default_rng(seed).permutation(50)[:known]
    x = np.concatenate([images.reshape(50, -1), np.ones((50, 1))], axis=1)[chosen]
    # Logits of 3 for the label and 0 for the others: the least squares of smallest norm.
    solution = np.linalg.pinv(x) @ (3 * np.eye(10)[labels[chosen]])
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.set_weights([solution[:-1], solution[-1]])
    path = table2.unit_path(folder, "shapes", method, seed)
    unit = {
        "dataset": "shapes",
        "method": method,
        "seed": seed,
        "hyperparameters": {},
        "status": "done",
        "reason": None,
        "best_epoch": 1,
        "epochs": 1,
        "seconds_per_epoch": 1.0,
        "test_accuracy": known / 50,
        "history": {"validation_accuracy": [known / 50]},
    }
    files.write_json(path, unit)
    model.save(path.with_suffix(".keras"))


def times(folder):
    """When each file of a folder was written."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
