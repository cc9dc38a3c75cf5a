"""What attacks with several steps, restarts and target classes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import norms
from gat_tf.attacks.base import EpsilonAttack

AnyIterative = TypeVar("AnyIterative", bound="IterativeAttack")


@dataclasses.dataclass(frozen=True, eq=False)
class IterativeAttack(EpsilonAttack):
    """An attack of many steps within a ball, which may stop attacking an image once it is fooled.

    The subclasses describe the arguments.
    """

    steps: int = 100
    early_stop: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        checks.count("steps", self.steps)

    def for_accuracy(self: AnyIterative) -> AnyIterative:
        return dataclasses.replace(self, early_stop=True)

    def _project(self, images: tf.Tensor, perturbation: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        """The perturbation projected onto the ball, and then clipped."""
        return self._clipped(images, norms.project(perturbation, epsilon, self.norm))

    def _random_start(self, images: tf.Tensor, epsilon: tf.Tensor, seed: Seed) -> tf.Tensor:
        """Random perturbations of norm ε before clipping, where AutoAttack's attacks start.

        Uniform noise over its largest magnitude for L-infinity, Gaussian noise over its length for
        L2.
        """
        shape = tf.shape(images)
        if self.norm == 2:
            start = epsilon * norms.random_direction(shape, 2, seed)
        else:
            noise = tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
            start = epsilon * noise / tf.reduce_max(tf.abs(noise), norms.AXES, keepdims=True)
        return self._clipped(images, start)


class Best(NamedTuple):
    """The best perturbation found so far for each image.

    Attributes:
        perturbation: `[B, H, W, C]`.
        score: `[B]`, the larger the better. Each attack defines its own score.
    """

    perturbation: tf.Tensor
    score: tf.Tensor

    @classmethod
    def initial(cls, images: tf.Tensor) -> Best:
        """Zero perturbations with the lowest possible score."""
        return cls(tf.zeros_like(images), tf.fill(tf.shape(images)[:1], images.dtype.min))

    def update(self, index: tf.Tensor, perturbation: tf.Tensor, score: tf.Tensor) -> Best:
        """Returns the best so far, with better new perturbations of the images `index`."""
        previous, previous_score = tf.gather(self.perturbation, index), tf.gather(self.score, index)
        better = score > previous_score
        perturbation = tf.where(better[:, None, None, None], perturbation, previous)
        score = tf.where(better, score, previous_score)
        rows = index[:, None]
        return Best(
            tf.tensor_scatter_nd_update(self.perturbation, rows, perturbation),
            tf.tensor_scatter_nd_update(self.score, rows, score),
        )


def loop(
    condition: Callable, body: Callable, variables: Sequence, shrinking: Sequence[int] = ()
) -> tuple:
    """`tf.while_loop` over tensors or tuples of them.

    Keras compiles training steps without AutoGraph, so loops are written out. `shrinking` are the
    positions of the variables `[n, ...]` whose number of images n may fall during the loop.
    """
    variables = tf.nest.map_structure(tf.convert_to_tensor, tuple(variables))
    shapes = [tf.nest.map_structure(lambda t: t.shape, variable) for variable in variables]
    for i in shrinking:
        shapes[i] = tf.nest.map_structure(
            lambda t: tf.TensorShape([None, *t.shape[1:]]), variables[i]
        )
    return tf.while_loop(condition, body, variables, shape_invariants=tuple(shapes))


def kept(tensors: Any, keep: tf.Tensor) -> Any:
    """The rows `[m, ...]` of tensors `[n, ...]` where `keep`, `[n]` booleans, is true.

    `tf.boolean_mask` looks for them again for each tensor.
    """
    rows = tf.where(keep)[:, 0]
    return tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors)


def averaged(samples: int, compute: Callable) -> Any:
    """The mean, over `samples` calls, of the tensors that `compute()` returns.

    For stochastic models. The mean of the gradients estimates the gradient of the expected loss
    (expectation over transformation, Athalye et al. 2018).
    """
    first = compute()
    if samples == 1:
        return first

    def again(i, total):
        return i + 1, tf.nest.map_structure(tf.add, total, compute())

    total = loop(lambda i, _: i < samples, again, (1, first))[1]
    return tf.nest.map_structure(lambda t: t / samples, total)


def top_wrong_classes(logits: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """The `count` wrong classes with the largest logits, or all wrong classes: `[B, count]`."""
    count = min(count, logits.shape[-1] - 1)
    others, _ = losses.split(logits, labels)
    return tf.cast(tf.math.top_k(others, count).indices, labels.dtype)
