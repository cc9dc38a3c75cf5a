"""Runs many attacks against a classifier on a fixed set of images, and counts their cost."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, checks
from gat_tf._keras import all_layers
from gat_tf._types import Bounds, Data
from gat_tf.attacks import compiled
from gat_tf.evaluation.accuracy import is_correct, prepared, require_images, signature
from gat_tf.evaluation.lipschitz import gradient_norms
from gat_tf.evaluation.progress import Progress
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits

_MOST_CONSTANTS = 20_000_000  # numbers: a graph holds them once for each call, and 2 GB at most
_MOST_KEPT = 500_000  # numbers, of a graph that is kept: larger models run longer than they trace


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


class _Traced(NamedTuple):
    """A compiled function of a model and what its runs have cost. It does not hold the model."""

    function: Callable
    evaluations: tf.Variable
    gradients: tf.Variable

    @property
    def counts(self) -> tuple[int, int]:
        return int(self.evaluations.numpy()), int(self.gradients.numpy())


class _Counted(Logits):
    """A classifier that counts the images passed through it and the gradients taken."""

    _constants: Sequence[tuple[keras.Variable, np.ndarray]] = ()

    def __init__(self, model: keras.Model, from_logits: bool):
        super().__init__(model, from_logits)
        self.evaluations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.gradients = tf.Variable(0, dtype=tf.int64, trainable=False)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        self.evaluations.assign_add(tf.cast(tf.shape(images)[0], tf.int64))
        return self._passed(images, training)

    def differentiated(self, images: tf.Tensor) -> None:
        self.gradients.assign_add(tf.cast(tf.shape(images)[0], tf.int64))

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

    @property
    def frozen(self) -> list[keras.Variable]:
        """The weights that a trace may hold as constants: none of a large model."""
        weights = [v for v in self.model.variables if keras.backend.is_float_dtype(v.dtype)]
        return weights if _size(weights) <= _MOST_CONSTANTS else []

    def with_constant_weights(self) -> _Counted:
        """The same function of today's weights.

        Where weights are constants, TensorFlow folds batch norm into the convolution before it,
        and a convolution prepares its kernel once.
        """
        constant = copy.copy(self)
        with tf.init_scope():  # also while something is traced
            constant._constants = [(v, keras.ops.convert_to_numpy(v)) for v in self.frozen]
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
            self.correct = self._of_batches("correct", is_correct)

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def numbers(self) -> np.ndarray:
        """The images' numbers in the whole set, `[N]`."""
        return self.first + np.arange(self.size)

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
        traced = self._attacked(attack, source)
        epsilon = [tf.constant(attack.epsilon, tf.float32)] if _takes_epsilon(attack) else []  # type: ignore[attr-defined]
        evaluations, gradients = traced.counts
        started = time.perf_counter()
        robust, adversarial = self.correct.copy(), self.images.copy()
        progress = Progress(-(-len(chosen) // self.batch_size), self.verbose)
        for i, batch in enumerate(_batches(chosen, self.batch_size)):
            with checks.readable_errors():
                x, correct = traced.function(
                    tf.constant(self.images[batch]),
                    tf.constant(self.labels[batch]),
                    tf.constant([self.seed, self.first + i]),
                    *epsilon,
                )
            adversarial[batch], robust[batch] = x.numpy(), correct.numpy()
            progress.show("robust", robust[batch].sum(), len(batch))
        progress.end()
        seconds = time.perf_counter() - started
        after = traced.counts
        return Attacked(robust, adversarial, after[0] - evaluations, after[1] - gradients, seconds)

    def gradient_norms(self) -> np.ndarray:
        """‖∂J/∂x‖₂ per image, differentiated directly through the loss: `[N]`. An attack that
        differentiates the loss in float32 fails where this is zero; the attacks of this library
        follow the margin instead.
        """
        return self._of_batches("gradient norms", gradient_norms)

    def change(self) -> float:
        """The largest change of a logit between two calls on the first images, compiled or not. In
        units of the largest logit. For a deterministic model it is only rounding.
        """
        x = tf.constant(self.images[: self.batch_size])
        largest = 0.0
        spec = tf.TensorSpec(x.shape, x.dtype)
        traced = self._traced("logits", lambda logits, images: logits(images), [spec])
        for call in (traced.function, self.logits):
            once, twice = (call(x).numpy() for _ in range(2))
            largest = max(largest, np.abs(twice - once).max() / max(np.abs(once).max(), 1e-20))
        return float(largest)

    def _of_batches(self, name: str, function: Callable) -> np.ndarray:
        """`function(logits, images, labels)` of all images, compiled."""
        images_and_labels = signature((self.images, self.labels))[:2]
        call = self._traced(name, function, images_and_labels).function
        parts = [
            call(tf.constant(self.images[batch]), tf.constant(self.labels[batch])).numpy()
            for batch in _batches(np.arange(self.size), self.batch_size)
        ]
        return np.concatenate(parts)

    def _attacked(self, attack: attacks.Attack, source: Logits | None) -> _Traced:
        """Compiled (images, labels, seed, ε) -> the attacked images and whether each is robust."""
        ours = dataclasses.replace(attack, clip=self.bounds)
        # Against another model there is nothing to stop early for.
        ours = ours.for_accuracy() if source is None else ours

        def attacked(logits, images, labels, seed, *epsilon):
            form = compiled.with_epsilon(ours, *epsilon)
            follows = source or logits.with_constant_weights()
            perturbation = form.perturb(follows, images, labels, seed)
            adversarial = form.apply(images, perturbation)
            return adversarial, is_correct(logits, adversarial, labels)

        inputs = signature((self.images, self.labels))
        if _takes_epsilon(attack):
            inputs.append(tf.TensorSpec([], tf.float32))
        followed = None if source is None else source.from_logits
        key = compiled.hyperparameters(attack), tuple(map(float, self.bounds)), followed
        models = compiled.models_in(attack)
        frozen = self.logits.frozen if source is None else []
        models += [] if source is None else [source.model]
        return self._traced(key, attacked, inputs, models, frozen, own=not _is_ours(attack))

    def _traced(
        self,
        key: Hashable,
        function: Callable,
        inputs: Sequence[tf.TensorSpec],
        models: Sequence[keras.Layer] = (),
        frozen: Sequence[keras.Variable] = (),
        own: bool = False,
    ) -> _Traced:
        """`function(logits, *inputs)`, compiled, and kept with the model if that is safe.

        Args:
            key: What distinguishes the function from others of this model.
            function: Its first argument is the classifier, which counts.
            inputs: The signature of its other arguments.
            models: Other models that it calls.
            frozen: The weights that it holds as constants.
            own: Whether it runs an attack of the user's own, which may have Python's `if` and `for`
                on tensors, and settings that cannot be compared.
        """
        model, from_logits = self.logits.model, self.logits.from_logits

        def trace():
            logits = _Counted(model, from_logits)
            called = tf.function(
                functools.partial(function, logits), input_signature=inputs, autograph=own
            )
            return _Traced(called.get_concrete_function(), logits.evaluations, logits.gradients)

        layers = [layer for m in (model, *models) for layer in all_layers(m)]
        # Whether a layer of the user's own has changed cannot be known.
        known = not own and all(map(_is_ours, layers))
        if not known or _size(frozen) > _MOST_KEPT:
            return trace()
        return compiled.kept(
            model,
            (key, from_logits, tuple(inputs)),
            lambda: [*compiled.state(model, *models), _digest(frozen)],
            trace,
        )


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
    require_images(len(batches))
    images, labels = map(np.concatenate, zip(*batches, strict=True))
    return images, labels


def _batches(indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    return (indices[i : i + batch_size] for i in range(0, len(indices), batch_size))


def _is_ours(thing: keras.Layer | attacks.Attack) -> bool:
    """Whether it is a layer of Keras, or a layer or an attack of this library."""
    return type(thing).__module__.startswith(("keras.", "gat_tf."))


def _takes_epsilon(attack: attacks.Attack) -> bool:
    """Whether ε is an input of the compiled attack, so that a curve against ε takes one trace."""
    return _is_ours(attack) and hasattr(attack, "epsilon")


def _size(weights: Sequence[keras.Variable]) -> int:
    return sum(int(np.prod(v.shape)) for v in weights)


def _digest(weights: Sequence[keras.Variable]) -> bytes:
    """Changes when a weight changes."""
    digest = hashlib.sha256()
    for v in weights:
        digest.update(keras.ops.convert_to_numpy(v).tobytes())
    return digest.digest()
