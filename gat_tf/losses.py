"""The losses of a K-class classifier, all of them functions of one margin.

With m = log(sum over j != y of exp(z_j)) - z_y, the paper's quantities are

    J = -log F(x)_y = softplus(m),    F(x)_y = sigmoid(-m),    1 - F(x)_y = sigmoid(m),

so that grad J = sigmoid(m) grad m and grad F_y = -sigmoid(m) sigmoid(-m) grad m for each image. m
keeps its gradient where J and F_y, in float32, have lost theirs: sigmoid(m) is exactly zero for a
network that is confident enough, while m is still nearly linear.
"""

from __future__ import annotations

import tensorflow as tf


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns log(sum over j != y of exp(z_j)) - z_y per image.

    Args:
        logits: `[B, K]`, K at least 2.
        labels: `[B]` integers in [0, K). A label outside gives NaN, never a plausible number.

    Returns:
        `[B]`, positive where the label has less than half of the probability.
    """
    others, label_logit = split(logits, labels)
    # Of a label outside it is 0, a plausible logit.
    valid = (labels >= 0) & (labels < logits.shape[-1])
    label_logit = tf.where(valid, label_logit, float("nan"))
    return tf.reduce_logsumexp(others, axis=-1) - label_logit


def cross_entropy(margins: tf.Tensor) -> tf.Tensor:
    """J of eq. 8 of the GAT paper from margins `[B]`."""
    return tf.math.softplus(margins)


def probability(margins: tf.Tensor) -> tf.Tensor:
    """F(x)_y from margins `[B]`."""
    return tf.sigmoid(-margins)


def logit_margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the largest other logit minus the label's, `[B]`: positive where misclassified."""
    others, label_logit = split(logits, labels)
    return tf.reduce_max(others, axis=-1) - label_logit


def split(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The logits `[B, K]` with the lowest number in the label's place, and the label's, `[B]`."""
    of_label = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(of_label, logits.dtype.min, logits)
    return others, tf.reduce_sum(tf.where(of_label, logits, 0), axis=-1)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether the first largest logit is the label's, `[B]` booleans."""
    return tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The difference of logits ratio of Croce and Hein 2020.

    With the logits sorted, z_(1) >= z_(2) >= ..., it is (max over j != y of z_j - z_y) divided by
    (z_(1) - z_(3)): the larger, the further into misclassification, independently of the scale of
    the logits. If exactly two logits are above the label's, it is 1 and has no gradient apart from
    rounding.

    Args:
        logits: `[B, K]`, K at least 3.
        labels: `[B]` integers in [0, K).

    Returns:
        `[B]`, at least -1, positive where misclassified, and finite where the three are equal.

    Raises:
        ValueError: There are fewer classes.
    """
    largest = _largest(logits, 3)
    return _ratio(logit_margin(logits, labels), largest[:, 0] - largest[:, 2])


def targeted_dlr(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The difference of logits ratio towards a target class t (Croce and Hein 2020).

    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), with the logits sorted as in `dlr`.

    Args:
        logits: `[B, K]`, K at least 4.
        labels: `[B]` integers in [0, K).
        targets: `[B]` integers in [0, K).

    Returns:
        `[B]`, positive where the target's logit is above the label's, and finite where the four
        largest are equal.

    Raises:
        ValueError: There are fewer classes.
    """
    largest = _largest(logits, 4)
    scale = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return _ratio(logit_difference(logits, labels, targets), scale)


def logit_difference(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the target's logit minus the label's, `[B]`."""
    of_target, of_label = (tf.gather(logits, c, axis=1, batch_dims=1) for c in (targets, labels))
    return of_target - of_label


def _largest(logits, count):
    if logits.shape[-1] < count:
        raise ValueError(
            f"Expected logits of at least {count} classes for this difference of logits ratio. "
            f"Received: {logits.shape[-1]} classes"
        )
    return tf.math.top_k(logits, count).values


def _ratio(difference, scale):
    return difference / tf.maximum(scale, 1e-12)
