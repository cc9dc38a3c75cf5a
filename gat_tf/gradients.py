"""Gradients with respect to images: the one place where they are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Array
from gat_tf.logits import Logits, logits_of

__all__ = ["input_gradient"]  # the rest serves attacks and schemes

# Derivatives of F(x)_y, of J and of the margin m with respect to m, from m. By hand, because each
# form is exact where 1 - F(x)_y would round to zero.
_SLOPES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "probability": lambda m: -tf.sigmoid(m) * tf.sigmoid(-m),
    "cross_entropy": tf.sigmoid,
    "margin": tf.ones_like,
}
QUANTITIES = tuple(_SLOPES)


def input_gradient(
    model: keras.Model,
    images: Array,
    labels: Array,
    of: str = "probability",
    from_logits: bool = False,
) -> tf.Tensor:
    """Returns the gradient of the label's probability or loss with respect to the images.

    The model runs in inference mode, so an image's gradient does not depend on the other images of
    its batch.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        images: `[B, H, W, C]` floats in [0, 1].
        labels: `[B]` integers in [0, K).
        of: `"probability"` for dF(x)_y/dx, the generator's input in eq. 9 of the GAT paper;
            `"cross_entropy"` for dJ/dx, J of eq. 8; `"margin"` for the gradient of the margin of
            `gat_tf.losses`, a positive multiple of dJ/dx that does not vanish in float32 for an
            image whose label has all the probability.
        from_logits: Whether the model gives logits instead of probabilities.

    Returns:
        `[B, H, W, C]`.

    Raises:
        ValueError: The images, labels, model or `of` are not as described above.

    Examples:
        >>> gradient = gradients.input_gradient(model, images, labels)
        >>> gradient.shape
        TensorShape([8, 8, 8, 3])
    """
    checks.one_of("of", of, QUANTITIES)
    logits = logits_of(model, from_logits)
    images, labels = logits.checked(images, labels)
    return logits_and_input_gradient(logits, images, labels, of)[1]


def logits_and_input_gradient(
    logits: Logits, images: tf.Tensor, labels: tf.Tensor, of: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """`input_gradient` without the checks; also returns the logits `[B, K]`."""
    z, _, gradient = loss_and_input_gradient(
        logits, images, lambda z: losses.margin(z, labels), _SLOPES[of]
    )
    return z, gradient


def loss_and_input_gradient(
    logits: Logits,
    images: tf.Tensor,
    loss: Callable[[tf.Tensor], tf.Tensor],
    slope: Callable[[tf.Tensor], tf.Tensor] = tf.ones_like,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the logits `[B, K]`, their loss `[B]`, and its gradient with respect to the images.

    The gradient `[B, H, W, C]` is that of each image's own loss, times `slope` of that loss.

    Raises:
        ValueError: There is no gradient.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        z = logits(images)
        values = loss(z)
    try:
        gradient = tape.gradient(values, images, output_gradients=slope(values))
    except LookupError:  # an operation for which TensorFlow knows no gradient
        gradient = None
    if gradient is None:
        raise ValueError(
            f"The model {logits.model.name!r} has no gradient with respect to its images: "
            "a layer of it cannot be differentiated, or its output does not depend on them."
        )
    logits.differentiated(images)
    return z, values, gradient


class ClassifierPass(NamedTuple):
    """One forward and one backward pass of a classifier over a batch.

    Attributes:
        loss: J(x) per image, `[B]`.
        probability: F(x)_y per image, `[B]`.
        correct: Whether each image is classified correctly, `[B]` booleans.
        weight_gradients: Gradients of the sum of J over the batch, one for each trainable variable.
        input_gradient: dJ/dx, `[B, H, W, C]`, or None where it was not asked for.
    """

    loss: tf.Tensor
    probability: tf.Tensor
    correct: tf.Tensor
    weight_gradients: list[tf.Tensor]
    input_gradient: tf.Tensor | None


def classifier_pass(
    logits: Logits,
    images: tf.Tensor,
    labels: tf.Tensor,
    with_input_gradient: bool,
    loss_scale: float | tf.Tensor = 1.0,
) -> ClassifierPass:
    """Runs the classifier in training mode; one backward pass serves weights and images.

    Args:
        logits: The classifier.
        images: `[B, H, W, C]`.
        labels: `[B]`.
        with_input_gradient: Whether to return dJ/dx. It is taken in training mode, so request it
            only if `logits.same_in_training`.
        loss_scale: The loss is multiplied by it before, and dJ/dx divided by it after, the
            backward pass (mixed precision). The weight gradients stay multiplied.
    """
    variables = logits.model.trainable_variables
    with tf.GradientTape() as tape:
        if with_input_gradient:
            tape.watch(images)
        z = logits(images, training=True)
        margins = losses.margin(z, labels)
    # dJ/dm = sigmoid(m), kept above zero: for an image so confident that it underflows, the weights
    # do not notice 1e-20, and the direction of the input gradient stays.
    factor = tf.maximum(tf.sigmoid(margins), 1e-20) * loss_scale
    sources = [*variables, images] if with_input_gradient else variables
    gradients = tape.gradient(margins, sources, output_gradients=factor)
    return ClassifierPass(
        loss=losses.cross_entropy(margins),
        probability=losses.probability(margins),
        correct=losses.is_correct(z, labels),
        weight_gradients=gradients[: len(variables)],
        input_gradient=gradients[-1] / loss_scale if with_input_gradient else None,
    )
