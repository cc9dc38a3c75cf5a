"""What attacks of many steps, starts and target classes share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from gat_tf import checks
from gat_tf.attacks import norms
from gat_tf.attacks.base import Attack


@dataclasses.dataclass(frozen=True, eq=False)
class IterativeAttack(Attack):
    """An attack of many steps within a ball, which may leave an image alone once it is fooled.

    Its arguments are described where it is subclassed.
    """

    epsilon: float
    norm: float = 2
    steps: int = 100
    early_stop: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        checks.epsilon(self.epsilon)
        checks.norm(self.norm)
        checks.count("steps", self.steps)

    def for_accuracy(self) -> IterativeAttack:
        return dataclasses.replace(self, early_stop=True)


class Best(NamedTuple):
    """The best perturbation found so far for each image.

    Attributes:
        perturbation: `[B, H, W, C]`.
        score: `[B]`, the larger the better: of which quantity is the attack's to say.
    """

    perturbation: tf.Tensor
    score: tf.Tensor

    @classmethod
    def initial(cls, images: tf.Tensor) -> Best:
        """Zero perturbations, of the lowest score."""
        return cls(tf.zeros_like(images), tf.fill(tf.shape(images)[:1], images.dtype.min))

    def update(self, index: tf.Tensor, perturbation: tf.Tensor, score: tf.Tensor) -> Best:
        """Returns the better, for each of the images `index`, of its best so far and a new one."""
        previous, previous_score = tf.gather(self.perturbation, index), tf.gather(self.score, index)
        better = score > previous_score
        perturbation = tf.where(better[:, None, None, None], perturbation, previous)
        score = tf.where(better, score, previous_score)
        rows = index[:, None]
        return Best(
            tf.tensor_scatter_nd_update(self.perturbation, rows, perturbation),
            tf.tensor_scatter_nd_update(self.score, rows, score),
        )


def loop(condition: Callable, body: Callable, variables, shrinking=()) -> tuple:
    """`tf.while_loop` over tensors or tuples of them.

    Keras compiles training steps without AutoGraph, so loops are spelled out. `shrinking` are the
    places of those variables `[n, ...]` that may lose images on the way.
    """
    variables = tf.nest.map_structure(tf.convert_to_tensor, tuple(variables))
    shapes = [tf.nest.map_structure(lambda t: t.shape, variable) for variable in variables]
    for i in shrinking:
        shapes[i] = tf.nest.map_structure(_of_any_number, variables[i])
    return tf.while_loop(condition, body, variables, shape_invariants=tuple(shapes))


def averaged(samples: int, compute: Callable):
    """The mean of the tensors that `compute()` returns, over so many calls one after the other.

    For models with random numbers in them: of gradients it is the gradient of the expected loss
    (expectation over transformation, Athalye et al. 2018).
    """
    first = compute()
    if samples == 1:
        return first

    def again(i, total):
        return i + 1, tf.nest.map_structure(tf.add, total, compute())

    total = loop(lambda i, _: i < samples, again, (1, first))[1]
    return tf.nest.map_structure(lambda t: t / samples, total)


def clipped(attack: Attack, images: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
    """The part of the perturbation that clipping images + perturbation leaves."""
    if attack.clip is None:
        return perturbation
    return attack.apply(images, perturbation) - images


def random_start(shape: tf.Tensor, epsilon: tf.Tensor, norm: float, seed) -> tf.Tensor:
    """Random perturbations of norm ε, `[B, H, W, C]`: where the attacks of AutoAttack start.

    Uniform noise over its largest magnitude for L-infinity, Gaussian noise over its length for L2.
    """
    if norm == 2:
        return epsilon * norms.random_direction(shape, norm, seed)
    noise = tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    return epsilon * noise / tf.reduce_max(tf.abs(noise), norms.AXES, keepdims=True)


def top_wrong_classes(logits: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """The `count` classes of the largest logits but the label's, or all others: `[B, count]`."""
    count = min(count, logits.shape[-1] - 1)
    of_label = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(of_label, logits.dtype.min, logits)
    return tf.cast(tf.math.top_k(others, count).indices, labels.dtype)


def size(perturbation: tf.Tensor, norm: float) -> tf.Tensor:
    """||η|| of each image, `[B]`."""
    if norm == math.inf:
        return tf.reduce_max(tf.abs(perturbation), norms.AXES)
    return norms.l2_norm(perturbation)


def _of_any_number(t: tf.Tensor) -> tf.TensorShape:
    return tf.TensorShape([None, *t.shape[1:]])
