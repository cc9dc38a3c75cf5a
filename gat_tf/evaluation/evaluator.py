"""Runs many attacks against a classifier on a fixed set of images, and counts their cost."""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, checks
from gat_tf._types import Bounds, Data
from gat_tf.attacks import norms
from gat_tf.evaluation.accuracy import is_correct, prepared
from gat_tf.evaluation.progress import Progress
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits

_MOST_CONSTANTS = 20_000_000  # numbers: a graph holds them once for each call, and 2 GB at most


class Attacked(NamedTuple):
    """The result of an attack on a set of images.

    Attributes:
        robust: Whether each image is still classified correctly, `[N]` booleans.
        adversarial: The attacked images, `[N, H, W, C]`.
        evaluations: Number of images passed through the model.
        gradients: Number of input gradients, counted per image.
        seconds: Time of the attack, without compilation.
    """

    robust: np.ndarray
    adversarial: np.ndarray
    evaluations: int
    gradients: int
    seconds: float


class _Counted(Logits):
    """A classifier that counts the images passed through it and the gradients taken."""

    _constants: Sequence[tuple[keras.Variable, np.ndarray]] = ()

    def __init__(self, model: keras.Model, from_logits: bool):
        super().__init__(model, from_logits)
        self.evaluations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.gradients = tf.Variable(0, dtype=tf.int64, trainable=False)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        count = tf.cast(tf.shape(images)[0], tf.int64)
        self.evaluations.assign_add(count)

        @tf.custom_gradient
        def passed(z):
            def backward(upstream):
                self.gradients.assign_add(count)
                return upstream

            return tf.identity(z), backward

        return passed(self._passed(images, training))

    def _passed(self, images, training):
        scope = keras.StatelessScope(self._constants)
        constants = list(scope.state_mapping.values())
        if constants:
            with scope:
                z = super().__call__(images, training)
            if list(map(id, scope.state_mapping.values())) == list(map(id, constants)):
                return z
            # It sets a variable, the seed of its random numbers say, which a scope prevents.
        return super().__call__(images, training)

    def with_constant_weights(self) -> _Counted:
        """The same function of today's weights, for a trace that is not kept.

        Where weights are constants, TensorFlow folds batch norm into the convolution before it,
        and a convolution prepares its kernel once.
        """
        weights = [v for v in self.model.variables if keras.backend.is_float_dtype(v.dtype)]
        if sum(np.prod(v.shape) for v in weights) > _MOST_CONSTANTS:
            return self
        constant = copy.copy(self)
        constant._constants = [(v, keras.ops.convert_to_numpy(v)) for v in weights]
        return constant


class Evaluator:
    """Runs attacks against a classifier on a fixed set of images.

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        dataset: (images, labels), batches or arrays; all images are kept in memory.
        from_logits: Whether the model gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels; every attack is clipped to it.
        batch_size: Images attacked at a time.
        seed: Seed of the attacks' random choices.
        first: Number of the first image, where these are some of a larger set: each chunk of it has
            random numbers of its own.
        verbose: 0 for silence, 1 for a progress bar per attack, 2 for one line at its end.

    Attributes:
        images: `[N, H, W, C]`.
        labels: `[N]`.
        correct: Whether each clean image is classified correctly, `[N]`.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Data,
        *,
        from_logits: bool = False,
        bounds: Bounds = (0.0, 1.0),
        batch_size: int = 100,
        seed: int = 0,
        first: int = 0,
        verbose: int = 0,
    ):
        self.images, self.labels = arrays(model, dataset, from_logits, bounds)
        self.bounds = bounds
        self.batch_size = checks.count("batch_size", batch_size)
        self.seed = seed
        self.first = first
        self.verbose = verbose
        self.logits = _Counted(model, from_logits)
        # The dataset's own check cannot see how many classes a subclassed model has.
        self.logits.checked(self.images, self.labels, bounds)
        with checks.readable_errors():
            self.correct = self._of_batches(
                tf.function(lambda x, y: is_correct(self.logits, x, y)), np.arange(self.size)
            )

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K."""
        classes = self.logits.num_classes
        assert classes is not None  # `checked` has seen the outputs
        return classes

    @functools.cached_property
    def differentiable(self) -> bool:
        """Whether the model has a gradient with respect to its images."""
        x, y = tf.constant(self.images[:1]), tf.constant(self.labels[:1])
        try:
            logits_and_input_gradient(self.logits, x, y, "margin")
        except ValueError:
            return False
        return True

    def require_same_classes(self, source: Logits) -> None:
        """Raises ValueError unless another model has the same number of classes."""
        theirs = source(tf.constant(self.images[:1])).shape[-1]
        if theirs != self.classes:
            raise ValueError(
                f"Expected a source with {self.classes} classes, as the model has. "
                f"Received: {source.model.name!r} with {theirs}"
            )

    def attack(
        self, attack: attacks.Attack, only: np.ndarray | None = None, source: Logits | None = None
    ) -> Attacked:
        """Attacks the images selected by `only`, in full batches; the others are left unchanged.

        Args:
            attack: An untargeted attack with one ε.
            only: `[N]` booleans; by default the images classified correctly.
            source: Another model whose gradients the attack follows; by default this one.
        """
        chosen = np.flatnonzero(self.correct if only is None else only)
        if not len(chosen):
            return Attacked(self.correct.copy(), self.images.copy(), 0, 0, 0.0)
        attack = dataclasses.replace(attack, clip=self.bounds)
        # Against another model there is nothing to stop early for.
        attack = attack.for_accuracy() if source is None else attack
        images = tf.TensorSpec([None, *self.images.shape[1:]], tf.float32)
        labels = tf.TensorSpec([None], self.labels.dtype)
        seed = tf.TensorSpec([2], tf.int32)

        logits = source or self.logits.with_constant_weights()

        @tf.function(input_signature=[images, labels, seed])
        def attacked(images, labels, seed):
            perturbation = attack.perturb(logits, images, labels, seed)
            adversarial = attack.apply(images, perturbation)
            return adversarial, is_correct(self.logits, adversarial, labels)

        compiled = attacked.get_concrete_function()
        evaluations, gradients = self._counts()
        started = time.perf_counter()
        robust, adversarial = self.correct.copy(), self.images.copy()
        progress = Progress(-(-len(chosen) // self.batch_size), self.verbose)
        for i, batch in enumerate(_batches(chosen, self.batch_size)):
            with checks.readable_errors():
                x, correct = compiled(
                    tf.constant(self.images[batch]),
                    tf.constant(self.labels[batch]),
                    tf.constant([self.seed, self.first + i]),
                )
            adversarial[batch], robust[batch] = x.numpy(), correct.numpy()
            progress.show("robust", robust[batch].sum(), len(batch))
        progress.end()
        seconds = time.perf_counter() - started
        after = self._counts()
        return Attacked(robust, adversarial, after[0] - evaluations, after[1] - gradients, seconds)

    def gradient_norms(self) -> np.ndarray:
        """‖∂J/∂x‖₂ per image, differentiated directly through the loss: `[N]`. An attack that
        differentiates the loss in float32 fails where this is zero; the attacks of this library
        follow the margin instead.
        """
        compiled = tf.function(
            lambda x, y: norms.l2_norm(
                logits_and_input_gradient(self.logits, x, y, "cross_entropy")[1]
            )
        )
        return self._of_batches(compiled, np.arange(self.size))

    def change(self) -> float:
        """The largest change of a logit between two calls on the first images, compiled or not. In
        units of the largest logit. For a deterministic model it is only rounding.
        """
        x = tf.constant(self.images[: self.batch_size])
        largest = 0.0
        for call in (tf.function(self.logits).get_concrete_function(x), self.logits):
            once, twice = (call(x).numpy() for _ in range(2))
            largest = max(largest, np.abs(twice - once).max() / max(np.abs(once).max(), 1e-20))
        return float(largest)

    def _of_batches(self, function: Callable, indices: np.ndarray) -> np.ndarray:
        parts = [
            function(tf.constant(self.images[batch]), tf.constant(self.labels[batch])).numpy()
            for batch in _batches(indices, self.batch_size)
        ]
        return np.concatenate(parts)

    def _counts(self) -> tuple[int, int]:
        return int(self.logits.evaluations.numpy()), int(self.logits.gradients.numpy())


def arrays(
    model: keras.Model, dataset: Data, from_logits: bool, bounds: Bounds
) -> tuple[np.ndarray, np.ndarray]:
    """All images `[N, H, W, C]` and labels `[N]` of a dataset that fits the model.

    Raises:
        ValueError: They do not fit, or there are none.
    """
    checks.bounds(bounds)
    _, dataset = prepared(model, dataset, None, from_logits, bounds)
    with checks.readable_errors():
        batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    if not batches:
        raise ValueError("Expected a dataset of (images, labels) batches. Received: no images.")
    images, labels = map(np.concatenate, zip(*batches, strict=True))
    return images, labels


def _batches(indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    return (indices[i : i + batch_size] for i in range(0, len(indices), batch_size))
