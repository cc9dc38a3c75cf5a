"""The losses of a K-class classifier, all of them functions of one margin.

With m = log(sum over j != y of exp(z_j)) - z_y, the paper's quantities are

    J = -log F(x)_y = softplus(m),    F(x)_y = sigmoid(-m),    1 - F(x)_y = sigmoid(m),

so that grad J = sigmoid(m) grad m and grad F_y = -sigmoid(m) sigmoid(-m) grad m, image by image.
m keeps its gradient where J and F_y, in float32, have lost theirs: sigmoid(m) is exactly zero for
a network that is confident enough, while m is still nearly linear.
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
    of_label = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(of_label, logits.dtype.min, logits)
    # Without an entry for the label the sum over nothing would be 0, a plausible logit.
    valid = tf.reduce_any(of_label, axis=-1)
    label_logit = tf.reduce_sum(tf.where(of_label, logits, 0), axis=-1)
    label_logit = tf.where(valid, label_logit, float("nan"))
    return tf.reduce_logsumexp(others, axis=-1) - label_logit


def cross_entropy(margins: tf.Tensor) -> tf.Tensor:
    """J of eq. 8 of the GAT paper from margins `[B]`."""
    return tf.math.softplus(margins)


def probability(margins: tf.Tensor) -> tf.Tensor:
    """F(x)_y from margins `[B]`."""
    return tf.sigmoid(-margins)


def worst_margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the largest other logit minus the label's, `[B]`: positive where misclassified."""
    of_label = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    others = tf.reduce_max(tf.where(of_label, logits.dtype.min, logits), axis=-1)
    return others - tf.reduce_sum(tf.where(of_label, logits, 0), axis=-1)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether the first largest logit is the label's, `[B]` booleans."""
    return tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
