"""Accuracy, clean and under attack, and the power of an attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Array, BatchSpec, Bounds, Data
from gat_tf.attacks import Attack, compiled, norms
from gat_tf.attacks.base import require_untargeted
from gat_tf.evaluation.progress import Progress
from gat_tf.logits import Logits, logits_of


def accuracy(
    model: keras.Model,
    x: Data | Array,
    y: Array | Attack | None = None,
    attack: Attack | None = None,
    *,
    batch_size: int | None = None,
    from_logits: bool = False,
    seed: int = 0,
    bounds: Bounds = (0.0, 1.0),
    verbose: int = 0,
) -> float:
    """Returns the share of images classified correctly, clean or under attack.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        x: Images `[N, H, W, C]` within the attack's `clip`, or `bounds` where there is none; or a
            `tf.data.Dataset` of (images, labels) batches; or a tuple (images, labels).
        y: Labels `[N]`, integers, if x is an array of images. If x contains the labels, the attack
            may be passed here.
        attack: An untargeted attack, or None for the clean accuracy. Images are attacked with their
            true labels. If its `epsilon` is a vector, it holds one ε per image, in order.
        batch_size: Batch size for arrays, as in Keras's `evaluate`; 32 by default.
        from_logits: Whether the model gives logits instead of probabilities.
        seed: Seed of the attack's random choices.
        bounds: `(low, high)` of the pixels: (-1, 1) for the networks of Rob-GAN.
        verbose: 0 for silence, 1 for Keras's progress bar, 2 for a line at the end.

    Returns:
        The accuracy in [0, 1].

    Raises:
        ValueError: There are no images; the images, labels, model or `bounds` are not as described
            above; or the number of ε is neither one nor the number of images.

    Examples:
        >>> evaluation.accuracy(model, images, labels)
        1.0
        >>> evaluation.accuracy(model, dataset, attacks.PGD(0.5, math.inf))
        0.0
    """
    if isinstance(y, Attack) and attack is None:
        y, attack = None, y
    data = x if y is None else (x, y)
    logits, dataset = prepared(model, data, attack, from_logits, bounds, batch_size)
    correct = correct_function(logits, attack, dataset.element_spec)
    return float(np.mean(of_each_image(correct, dataset, attack, seed, "accuracy", verbose)))


@checks.in_a_pair
def power(
    model: keras.Model,
    dataset: Data,
    attack: Attack,
    *,
    from_logits: bool = False,
    seed: int = 0,
    clipped: bool = False,
    bounds: Bounds = (0.0, 1.0),
) -> np.ndarray:
    """Returns the power ‖η‖₂² of the perturbation per image: the sum of squares over its values.

    Its mean P is the abscissa of Fig. 2 of the GAT paper. A fast gradient attack of the same power
    has ε = √P under L2, and √(P / values of an image) under L∞.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387), Fig. 2.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        dataset: (images, labels), batches or arrays, as for `accuracy`.
        attack: An untargeted attack, with one ε or one for each image, as for `accuracy`.
        from_logits: Whether the model gives logits instead of probabilities.
        seed: Seed of the attack's random choices.
        clipped: Whether to measure η after the attack's `clip`.
        bounds: `(low, high)` of the pixels if the attack has no `clip`.

    Returns:
        `[N]` float32, in the dataset's order.

    Raises:
        ValueError: As for `accuracy`.

    Examples:
        >>> fast = attacks.FastGradient(epsilon=0.5, norm=2)
        >>> power = evaluation.power(model, dataset, fast)
        >>> round(float(power.mean()), 4)  # ε²
        0.25
    """
    logits, dataset = prepared(model, dataset, attack, from_logits, bounds)

    @tf.function(input_signature=signature(dataset.element_spec, attack), autograph=False)
    def of_batch(images, labels, seed, *epsilon):
        ours = compiled.with_epsilon(attack, *epsilon)
        perturbation = ours.perturb(logits, images, labels, seed)
        if clipped:
            perturbation = ours.apply(images, perturbation) - images
        return norms.power(perturbation)

    return of_each_image(of_batch.get_concrete_function(), dataset, attack, seed)


def correct_function(
    logits: Logits, attack: Attack | None, element_spec: BatchSpec, *, finite: bool = True
) -> Callable[..., tf.Tensor]:
    """Returns a compiled (images, labels, seed) -> `[B]` booleans, traced once for every batch.

    An attack with one ε per image takes the ε of the batch, `[B]`, as a fourth argument.

    Args:
        logits: The classifier.
        attack: The attack, or None.
        element_spec: Element spec of the (images, labels) batches.
        finite: Whether logits that are not finite raise an error. False during training, which may
            diverge.
    """
    if attack is not None:
        attack = attack.for_accuracy()

    @tf.function(input_signature=signature(element_spec, attack), autograph=False)
    def correct(images, labels, seed, *epsilon):
        if attack is not None:
            ours = compiled.with_epsilon(attack, *epsilon)
            images = ours.apply(images, ours.perturb(logits, images, labels, seed))
        if finite:
            return is_correct(logits, images, labels)
        return losses.is_correct(logits(images), labels)

    # Traced here and never again, whatever the size of a batch.
    return correct.get_concrete_function()


def is_correct(logits: Logits, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether each image is classified correctly, `[B]` booleans.

    Raises:
        ValueError: Its logits are not finite; in a graph see `checks.readable_errors`.
    """
    z = checks.finite(logits(images), images, logits.model.name)
    return losses.is_correct(z, labels)


def prepared(
    model: keras.Model,
    data: Data,
    attack: Attack | None,
    from_logits: bool,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int | None = None,
) -> tuple[Logits, tf.data.Dataset]:
    """Checks the arguments of a measurement; returns the classifier and the checked batches.

    `data` is a dataset of (images, labels) batches, or arrays (images, labels).
    """
    logits = logits_of(model, from_logits)
    pair: Any = (data, None) if isinstance(data, tf.data.Dataset) else data
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(
            "Expected a tf.data.Dataset of (images, labels) batches, or arrays (images, labels). "
            f"Received: {type(data).__name__}"
        )
    dataset = checks.as_dataset(*pair, batch_size)
    if attack is not None and not isinstance(attack, Attack):
        raise TypeError(f"Expected an attack from gat_tf.attacks, or None. Received: {attack!r}")
    require_untargeted(attack)
    checks.bounds(bounds)
    bounds = (attack and attack.clip) or bounds
    return logits, checks.checked(dataset, logits.num_classes, bounds)


def require_images(count: int) -> None:
    """Raises ValueError if there are none."""
    if not count:
        raise ValueError("Expected a dataset of (images, labels) batches. Received: no images.")


def signature(element_spec: BatchSpec, attack: Attack | None = None) -> list[tf.TensorSpec]:
    """The input signature of a compiled (images, labels, seed), for batches of any size. With one ε
    per image, the ε of the batch are a fourth input.
    """
    batch = [tf.TensorSpec([None, *s.shape[1:]], s.dtype) for s in element_spec]
    epsilon = [] if _epsilons(attack) is None else [tf.TensorSpec([None], tf.float32)]
    return [*batch, tf.TensorSpec([2], tf.int32), *epsilon]


def of_each_image(
    function: Callable,
    dataset: tf.data.Dataset,
    attack: Attack | None = None,
    seed: int = 0,
    name: str = "mean",
    verbose: int = 0,
) -> np.ndarray:
    """The results of a compiled function with that signature, per image, `[N]`. A progress bar
    shows the mean so far under `name`.
    """
    epsilons, seen, results = _epsilons(attack), 0, []
    progress = Progress(dataset, verbose)
    with checks.readable_errors():
        for i, (images, labels) in enumerate(dataset):
            size = int(tf.shape(images)[0])
            extra = () if epsilons is None else (tf.constant(epsilons[seen : seen + size]),)
            seen += size
            if epsilons is not None and seen > len(epsilons):
                raise _unequal(len(epsilons), "more images than that")
            results.append(function(images, labels, tf.constant([seed, i]), *extra).numpy())
            progress.show(name, np.sum(results[-1]), size)
    progress.end()
    require_images(seen)
    if epsilons is not None and seen != len(epsilons):
        raise _unequal(len(epsilons), f"{seen} images")
    return np.concatenate(results)


def _epsilons(attack: Attack | None) -> np.ndarray | None:
    """One ε per image, `[N]`, or None if one ε is for all images."""
    epsilon = np.asarray(getattr(attack, "epsilon", 0.0), np.float32)
    return epsilon if epsilon.ndim else None


def _unequal(epsilons: int, images: str) -> ValueError:
    return ValueError(
        f"Expected one epsilon, or one for each image. Received: {epsilons} for {images}."
    )
