"""Accuracy against the size of an attack, without repeated work along the curve.

The direction of a fast gradient attack does not depend on ε, so one gradient per image serves the
whole curve. An image that PGD has fooled within a ball counts as fooled within every larger ball,
and is not attacked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._types import Bounds, Data
from gat_tf.attacks import PGD, Attack, GradientAttack, iterative
from gat_tf.evaluation.accuracy import is_correct, prepared, require_images, signature
from gat_tf.evaluation.progress import Progress
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits, logits_of


@checks.in_a_pair
def accuracy_curve(
    model: keras.Model,
    dataset: Data,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    from_logits: bool = False,
    seed: int = 0,
    bounds: Bounds = (0.0, 1.0),
    verbose: int = 0,
) -> np.ndarray:
    """Returns the accuracy under the attack at each ε: Fig. 3 of the GAT paper.

    For the fast gradient, the values equal `accuracy` at each ε. Under PGD, an image counts as
    fooled at ε if it is misclassified without an attack or was fooled at a smaller ε of the curve.
    So the values never rise, and are at most those of `accuracy` at each ε.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387), Fig. 3.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        dataset: (images, labels), batches or arrays, as for `accuracy`.
        attack: An untargeted attack with an `epsilon`, whose value is ignored. If PGD has a
            `step_size`, it is kept; by default the step size is proportional to ε.
        epsilons: Sizes in the attack's norm, rising, in units of pixel values.
        from_logits: Whether the model gives logits instead of probabilities.
        seed: Seed of the attack's random choices.
        bounds: `(low, high)` of the pixels where the attack has no `clip`.
        verbose: 0 for silence, 1 for Keras's progress bar, 2 for a line at the end; with the
            accuracy at the largest ε.

    Returns:
        `[len(epsilons)]`, each in [0, 1].

    Raises:
        ValueError: `epsilons` is empty, not finite, negative or not rising; the attack has no ε; or
            the dataset or model is not as described above.

    Examples:
        >>> fast = attacks.FastGradient(epsilon=1, norm=math.inf)  # this ε is not used
        >>> curve = evaluation.accuracy_curve(model, dataset, fast, epsilons=[0, 0.25, 0.5])
        >>> curve.shape
        (3,)
        >>> float(curve[0])
        1.0
    """
    epsilons = _checked_epsilons(attack, epsilons)
    logits, dataset = prepared(model, dataset, attack, from_logits, bounds)
    if isinstance(attack, PGD):
        count = _robust_counts(logits, attack.for_accuracy(), epsilons)
    else:
        count = _correct_counts(logits, [logits], attack, epsilons)
    return _curve(count, dataset, seed, verbose).reshape(-1)


@checks.in_a_pair
def transfer_curves(
    models: Sequence,
    source: keras.Model,
    dataset: Data,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    from_logits: bool = False,
    seed: int = 0,
    bounds: Bounds = (0.0, 1.0),
    verbose: int = 0,
) -> np.ndarray:
    """Returns each model's accuracy on images made to attack another model: Fig. 4 of the GAT
    paper.

    The attacker knows only the source: for each ε the full attack is run against it, once for all
    models.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387), Fig. 4.

    Args:
        models: Keras classifiers from images to probabilities or logits `[B, K]`.
        source: The classifier whose gradients the attack follows.
        dataset: (images, labels), batches or arrays, as for `accuracy`.
        attack: An untargeted attack with an `epsilon`, the value of which is not used.
        epsilons: Sizes in the attack's norm, rising, in units of pixel values.
        from_logits: Whether the models and the source give logits instead of probabilities.
        seed: Seed of the attack's random choices.
        bounds: `(low, high)` of the pixels where the attack has no `clip`.
        verbose: 0 for silence, 1 for Keras's progress bar, 2 for a line at the end; with the
            accuracy at the largest ε.

    Returns:
        `[len(models), len(epsilons)]`, each in [0, 1].

    Raises:
        ValueError: As for `accuracy_curve`.

    Examples:
        >>> other = keras.models.clone_model(model)  # the same layers, new weights
        >>> fast = attacks.FastGradient(epsilon=1, norm=2)
        >>> curves = evaluation.transfer_curves([model, other], other, dataset, fast, [0, 0.5])
        >>> curves.shape  # models, epsilons
        (2, 2)
    """
    epsilons = _checked_epsilons(attack, epsilons)
    source, dataset = prepared(source, dataset, attack, from_logits, bounds)
    targets = [logits_of(model, from_logits) for model in models]
    if not targets:
        raise ValueError("Expected at least one model to attack. Received: none.")
    count = _correct_counts(source, targets, attack, epsilons)
    return _curve(count, dataset, seed, verbose)


def _curve(count: Callable, dataset: tf.data.Dataset, seed: int, verbose: int) -> np.ndarray:
    counts: Any = 0
    seen = 0
    progress = Progress(dataset, verbose)
    compiled = tf.function(count, input_signature=signature(dataset.element_spec), autograph=False)
    compiled = compiled.get_concrete_function()
    with checks.readable_errors():
        for i, (images, labels) in enumerate(dataset):
            right, size = compiled(images, labels, tf.constant([seed, i])).numpy(), len(images)
            progress.show("accuracy", right[0, -1], size)
            counts, seen = counts + right, seen + size
    progress.end()
    require_images(seen)
    return counts / seen


def _correct_counts(
    source: Logits, targets: list[Logits], attack: Attack, epsilons: tf.Tensor
) -> Callable:
    """(images, labels, seed) -> how many are right, `[models, epsilons]`."""

    def count(images, labels, seed):
        if isinstance(attack, GradientAttack):
            _, gradient = logits_and_input_gradient(source, images, labels, attack.gradient_of)

        def at(epsilon):
            ours = dataclasses.replace(attack, epsilon=epsilon)
            if isinstance(attack, GradientAttack):
                perturbation = ours.from_gradient(gradient)
            else:
                perturbation = ours.perturb(source, images, labels, seed)
            attacked = ours.apply(images, perturbation)
            right = [is_correct(target, attacked, labels) for target in targets]
            return tf.reduce_sum(tf.cast(right, tf.int32), axis=-1)

        # One ε after the other: the memory of one.
        counts = tf.map_fn(at, epsilons, parallel_iterations=1, fn_output_signature=tf.int32)
        return tf.transpose(counts)

    return count


def _robust_counts(logits: Logits, attack: PGD, epsilons: tf.Tensor) -> Callable:
    """(images, labels, seed) -> how many are robust up to each ε, `[1, epsilons]`."""

    def count(images, labels, seed):
        robust = tf.where(is_correct(logits, images, labels))[:, 0]
        robust = tf.cast(robust, tf.int32)
        counts = tf.zeros_like(epsilons, tf.int32)
        counts = tf.where(epsilons == 0, tf.size(robust), counts)  # nothing to attack with

        def unfinished(i, robust, _):
            return (i < tf.size(epsilons)) & (tf.size(robust) > 0)

        def at(i, robust, counts):
            ours = dataclasses.replace(attack, epsilon=epsilons[i])
            perturbation = ours.perturb(logits, images, labels, seed, only=robust)
            attacked = tf.gather(ours.apply(images, perturbation), robust)
            right = is_correct(logits, attacked, tf.gather(labels, robust))
            robust = iterative.kept(robust, right)
            return i + 1, robust, tf.tensor_scatter_nd_update(counts, [[i]], [tf.size(robust)])

        first = tf.reduce_sum(tf.cast(epsilons == 0, tf.int32))
        counts = iterative.loop(unfinished, at, (first, robust, counts), shrinking=[1])[2]
        return counts[None]

    return count


def _checked_epsilons(attack: Attack, epsilons: Sequence[float]) -> tf.Tensor:
    if not hasattr(attack, "epsilon"):
        raise ValueError(
            f"Expected an attack with an epsilon, whose size can vary. Received: {attack!r}"
        )
    array = np.asarray(epsilons, np.float64)
    rising = array.ndim == 1 and len(array) and np.isfinite(array).all() and array[0] >= 0
    if not rising or (np.diff(array) <= 0).any():
        raise ValueError(
            "Expected `epsilons` as finite numbers of at least 0, each larger than the one before. "
            f"Received: {epsilons}"
        )
    return tf.constant(array, tf.float32)
