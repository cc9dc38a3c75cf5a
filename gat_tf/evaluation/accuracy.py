"""Accuracy, clean and under attack."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf.attacks import Attack
from gat_tf.logits import Logits, logits_of


def accuracy(
    model, dataset: tf.data.Dataset, attack: Attack | None = None, *, from_logits=False, seed=0
) -> float:
    """Returns the share of images classified correctly, clean or under attack.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        dataset: (images, labels) batches: images `[B, H, W, C]` within the attack's `clip`, or
            [0, 1]; labels `[B]` integers.
        attack: An untargeted attack, or None for the clean accuracy. Images are attacked with
            their true labels.
        from_logits: Whether the model gives logits instead of probabilities.
        seed: Seed of the attack's random choices.

    Returns:
        The accuracy in [0, 1].

    Raises:
        ValueError: The dataset is empty, or its batches or the model are not of the kinds above.
    """
    logits = logits_of(model, from_logits)
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "Expected a tf.data.Dataset of (images, labels) batches. "
            f"Received: {type(dataset).__name__}"
        )
    if attack is not None and not isinstance(attack, Attack):
        raise TypeError(f"Expected an attack from gat_tf.attacks, or None. Received: {attack!r}")
    if getattr(attack, "targeted", False):
        raise ValueError(
            "Expected an untargeted attack: images are attacked with their true labels. "
            f"Received: {attack!r}"
        )
    dataset = checks.checked(dataset, logits.num_classes, (attack and attack.clip) or (0.0, 1.0))
    correct = correct_function(logits, attack, dataset.element_spec)
    right = images_seen = 0
    with checks.readable_errors():
        for i, (images, labels) in enumerate(dataset):
            flags = correct(images, labels, tf.constant([seed, i]))
            right += int(tf.reduce_sum(tf.cast(flags, tf.int32)))
            images_seen += int(flags.shape[0])
    if not images_seen:
        raise ValueError("Expected a dataset of (images, labels) batches. Received: no images.")
    return right / images_seen


def correct_function(
    logits: Logits, attack: Attack | None, element_spec
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a compiled (images, labels, seed) -> `[B]` booleans, traced once for every batch.

    Args:
        logits: The classifier.
        attack: The attack, or None.
        element_spec: Of the (images, labels) batches.
    """
    if attack is not None:
        attack = attack.for_accuracy()
    signature = [tf.TensorSpec([None, *s.shape[1:]], s.dtype) for s in element_spec]

    @tf.function(input_signature=[*signature, tf.TensorSpec([2], tf.int32)])
    def correct(images, labels, seed):
        if attack is not None:
            images = attack.apply(images, attack.perturb(logits, images, labels, seed))
        return losses.is_correct(logits(images), labels)

    # Traced here and never again, whatever the size of a batch.
    return correct.get_concrete_function()
