"""Local Lipschitz value: how steep the loss is at an image."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._types import BatchSpec, Bounds
from gat_tf.attacks import norms
from gat_tf.evaluation.accuracy import of_each_image, prepared, signature
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits


@checks.in_a_pair
def local_lipschitz_value(
    model: keras.Model,
    dataset: tf.data.Dataset,
    *,
    from_logits: bool = False,
    bounds: Bounds = (0.0, 1.0),
) -> np.ndarray:
    """Returns the local Lipschitz value ‖∂ℓ/∂x‖₂ per image: eqs. 4 and 5 of Rob-GAN.

    ℓ is the cross-entropy and x the image as the model takes it. On [-1, 1] a picture's pixels lie
    twice as far apart as on [0, 1], and its value is half as large.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454), section 3.2.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`. It runs in
            inference mode.
        dataset: (images, labels) batches: images `[B, H, W, C]` within `bounds`; labels `[B]`
            integers.
        from_logits: Whether the model gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels: (-1, 1) for the networks of Rob-GAN.

    Returns:
        `[N]` float32, in the dataset's order.

    Raises:
        ValueError: The dataset is empty, or its batches, the model or `bounds` are not as
            described above.

    Examples:
        >>> values = evaluation.local_lipschitz_value(model, dataset)
        >>> values.shape
        (8,)
    """
    logits, dataset = prepared(model, dataset, None, from_logits, bounds)
    return of_each_image(lipschitz_function(logits, dataset.element_spec), dataset)


def lipschitz_function(logits: Logits, element_spec: BatchSpec) -> Callable[..., tf.Tensor]:
    """Returns a compiled (images, labels, seed) -> `[B]` local Lipschitz values.

    Traced once, for every batch and whatever the weights become: for a value after each epoch.

    Args:
        logits: The classifier.
        element_spec: Element spec of the (images, labels) batches.
    """

    @tf.function(input_signature=signature(element_spec), autograph=False)
    def of_batch(images, labels, seed):
        del seed  # nothing is random
        return gradient_norms(logits, images, labels)

    return of_batch.get_concrete_function()


def gradient_norms(logits: Logits, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """‖∂ℓ/∂x‖₂ per image, `[B]`."""
    _, gradient = logits_and_input_gradient(logits, images, labels, "cross_entropy")
    return norms.l2_norm(gradient)
