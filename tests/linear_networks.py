"""A tiny folder of networks that are linear ones, for the experiments on them."""

import dataclasses

import keras
import numpy as np

from gat_tf import data
from gat_tf.experiments import settings
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import files
from gat_tf.experiments.networks import Network

NETWORKS = dataclasses.replace(
    settings.Config(**settings.PRESETS["quick"]),
    train_size=100,
    validation_size=50,
    test_size=50,
    width=1 / 12,
    batch_size=40,
    epochs=2,
    patience=2,
)


def images_tested():
    """(images `[50, 32, 32, 3]` float32 in [0, 1], labels `[50]`)."""
    split = data.load("shapes", train_size=100, validation_size=50, test_size=50).test
    return split.images / np.float32(255), split.labels


def write(folder, **known):
    """Writes the folder.

    Args:
        folder: Where.
        **known: Method to how many of the 50 test images its network of each seed knows, such as
            `baseline={0: 40}`.
    """
    configs.bind_folder("networks", NETWORKS, folder)
    for method, seeds in known.items():
        for seed, count in seeds.items():
            write_network(folder, method, seed, count)
    return folder


def path(folder, method, seed, suffix=".keras"):
    return folder / "units" / f"{Network('shapes', method, seed).name}{suffix}"


def write_network(folder, method, seed, known):
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
    unit = {
        "format": configs.FORMAT,
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
    files.write_json(path(folder, method, seed, ".json"), unit)
    model.save(path(folder, method, seed))


def times(folder):
    """When each file of a folder was written; locks are no results."""
    return {
        p: p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.parent.name != ".locks"
    }


def linear_classifier(settings, splits, dropout=0.0):
    """A stand-in for `methods._classifier` where only what is around the network is tested."""
    images = keras.Input(splits.image_shape)
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(images))
    z = keras.layers.Dense(splits.num_classes, name="logits")(x)
    return keras.Model(images, keras.layers.Softmax(dtype="float32")(z))


def two_halves(size, seed, swapped=False):
    """Images that a linear network learns at once: the label says which half is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    images = rng.integers(0, 100, (size, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 16 * label : 16 * (label + 1)] += 100
    return data.Split(images, (1 - labels if swapped else labels).astype(np.int64))
