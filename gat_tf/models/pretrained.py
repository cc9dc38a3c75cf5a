"""Trained networks by name, shipped with the package."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gat_tf.models.gat import classifier
from gat_tf.models.robgan import class_head, discriminator, image_generator

FOLDER = pathlib.Path(__file__).parent / "weights"


def _robgan_classifier(**arguments: Any) -> keras.Model:
    return class_head(discriminator(**arguments))


# What a card calls a network, and the function that builds it.
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "classifier": classifier,
    "class_head": _robgan_classifier,
    "image_generator": image_generator,
}


def pretrained(name: str | None = None) -> keras.Model | dict[str, dict]:
    """Returns a trained network of one of the papers, or the cards of all of them.

    Papers: [Lee et al. 2017](https://arxiv.org/abs/1705.03387),
    [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        name: Data set and method, such as `"cifar10/baseline"`, or `"cifar10/robgan/generator"`.
            None returns the cards.

    Returns:
        For None, each name's card: data set, what was measured, the pixels' range, the command and
        the versions that made it; accuracies are in [0, 1]. For a name a Keras model, which needs
        nothing of gat_tf once it is saved as `.keras`:

        - A method of Table 2 of the GAT paper: a classifier from images `[B, 32, 32, 3]` in [0, 1]
          to probabilities `[B, K]`.
        - `robgan/classifier`, fine-tuned: from images `[B, 32, 32, 3]` in [-1, 1] to logits
          `[B, K]`. Measurements need `from_logits=True`, and attacks `clip=(-1, 1)`.
        - `robgan/generator`: from noise `[B, 128]` and labels `[B]` to images `[B, 32, 32, 3]` in
          (-1, 1). Use `models.sample`, which gives it batches of all classes.

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
    card = cards[name]
    model = NETWORKS[card["network"]](**card["arguments"])
    with np.load(FOLDER / card["file"]) as stored:
        model.set_weights([_float32(stored[key]) for key in stored.files])
    return model


def _float32(stored: np.ndarray) -> np.ndarray:
    """Weights from float16, or from the bits of bfloat16, the upper half of a float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
