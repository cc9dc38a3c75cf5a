"""Trained classifiers by name, shipped with the package."""

from __future__ import annotations

import json
import pathlib

import keras
import numpy as np

from gat_tf.models.gat import classifier

FOLDER = pathlib.Path(__file__).parent / "weights"


def pretrained(name: str | None = None) -> keras.Model | dict[str, dict]:
    """Returns a trained classifier of Table 2 of the GAT paper, or the cards of all of them.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        name: Data set and method, such as `"cifar10/baseline"`. None returns the cards.

    Returns:
        A Keras model from images `[B, 32, 32, 3]` in [0, 1] to probabilities, which needs nothing
        of gat_tf once it is saved as `.keras`; for None each name's card: data set, method,
        hyperparameters, test accuracy in [0, 1], the command and the versions that made it.

    Raises:
        ValueError: There is no network of that name.

    Examples:
        >>> model = models.pretrained("cifar10/baseline")
        >>> model.input_shape
        (None, 32, 32, 3)
        >>> card = models.pretrained()["cifar10/baseline"]
        >>> card["dataset"], card["method"]
        ('cifar10', 'baseline')
    """
    cards = json.loads((FOLDER / "cards.json").read_text(encoding="utf-8"))
    if name is None:
        return cards
    if name not in cards:
        raise ValueError(f"Expected one of {', '.join(cards)}. Received: {name!r}")
    with np.load(FOLDER / cards[name]["file"]) as stored:
        weights = [stored[key].astype(np.float32) for key in stored.files]
    model = classifier(num_classes=len(weights[-1]))
    model.set_weights(weights)
    return model
