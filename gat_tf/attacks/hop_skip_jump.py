"""HopSkipJump (Chen, Jordan and Wainwright 2020), which uses only the predicted class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import iterative, norms
from gat_tf.attacks.base import EpsilonAttack, seed_or_random
from gat_tf.logits import Logits

_TRIALS = 100  # of noise to start from
_PROBE = 3e-4  # of the pixels' range, at least, at a pixel: less is lost in float32's rounding
_HALVINGS = 20  # of a step, and of an interval: float32 cannot tell smaller ones apart


@dataclasses.dataclass(frozen=True, eq=False)
class HopSkipJump(EpsilonAttack):
    """Walks along the decision boundary towards the image, using only the predicted class.

    Each step samples points around the current point on the boundary and estimates from their
    classes the direction of misclassification. It moves in that direction, by a length that is
    halved until the new point is misclassified, and then goes back towards the image as far as the
    boundary.

    The perturbation is the smallest one found that fools the classifier. It is zero if that is
    larger than ε, and if the image is already misclassified. The walk starts at an image of uniform
    noise; if all of 100 such images are classified as the label, the perturbation is zero too.

    Paper: [Chen et al. 2020](https://arxiv.org/abs/1904.02144).

    Args:
        epsilon: Largest size of a perturbation in `norm`, in units of pixel values: one number, or
            a vector `[B]` with one per image.
        norm: 2 or `math.inf`.
        steps: Number of steps along the boundary, at least 1.
        evaluations: Number of points sampled in the first step, at least 1. Step t samples √t times
            as many.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> attack = attacks.HopSkipJump(epsilon=10.0, norm=2, steps=2, evaluations=20)
        >>> adversarial = attack(model, images[:2], labels[:2])
        >>> adversarial.shape
        TensorShape([2, 8, 8, 3])
    """

    steps: int = 20
    evaluations: int = 100

    def __post_init__(self):
        super().__post_init__()
        checks.count("steps", self.steps)
        checks.count("evaluations", self.evaluations)

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        def fools(perturbation):
            """Whether images + perturbation are misclassified, `[B]`."""
            return ~losses.is_correct(logits(self.apply(images, perturbation)), labels)

        start_seed, seed = tf.unstack(tf.random.split(seed_or_random(seed), 2))
        delta = self._to_boundary(fools, self._start(fools, images, start_seed))
        closest = iterative.Best(delta, -self._size(delta))
        all_indices = tf.range(tf.shape(images)[0])

        def step(t, delta, closest):
            length = self._size(delta) / tf.sqrt(tf.cast(t, tf.float32))
            uphill = self._direction(fools, images, delta, t, tf.random.fold_in(seed, t))
            delta = self._to_boundary(fools, self._jump(fools, images, delta, length, uphill))
            return t + 1, delta, closest.update(all_indices, delta, -self._size(delta))

        closest = iterative.loop(lambda t, *_: t <= self.steps, step, (1, delta, closest))[2]
        size = norms.per_image(-closest.score)
        return tf.where(size <= norms.radius(self.epsilon, images), closest.perturbation, 0.0)

    def _start(self, fools, images, seed):
        """Perturbations to uniform noise that fools; zero if none was found or needed.

        From zero every further step leads to zero.
        """
        low, high = self.clip or (0.0, 1.0)

        def to_noise(i):
            seed_of_trial = tf.random.fold_in(seed, i)
            return tf.random.stateless_uniform(tf.shape(images), seed_of_trial, low, high) - images

        zero = tf.zeros_like(images)
        return _first_that_fools(fools, to_noise, _TRIALS, zero, fools(zero))

    def _to_boundary(self, fools, perturbation):
        """Shrinks the perturbation, by bisection, until it only just fools the classifier."""

        def halve(i, inside, outside):
            middle = (inside + outside) / 2
            fooled = norms.per_image(fools(norms.project(perturbation, middle, self.norm)))
            return i + 1, tf.where(fooled, inside, middle), tf.where(fooled, middle, outside)

        size = norms.per_image(self._size(perturbation))
        variables = (0, tf.zeros_like(size), size)
        outside = iterative.loop(lambda i, *_: i < _HALVINGS, halve, variables)[2]
        return norms.project(perturbation, outside, self.norm)

    def _direction(self, fools, images, delta, t, seed):
        """The estimated direction of misclassification, of norm 1, from points around `delta`."""
        # One point of each image at a time: the memory of one batch.
        count = tf.cast(self.evaluations * tf.sqrt(tf.cast(t, tf.float32)), tf.int32)
        dimensions = tf.cast(tf.size(images[0]), tf.float32)
        low, high = self.clip or (0.0, 1.0)
        radius = norms.per_image(self._size(delta)) / dimensions  # the paper's
        radius = tf.maximum(radius, _PROBE * (high - low) * tf.sqrt(dimensions))

        def point(i, total, weighted, signs):
            probe = norms.random_direction(tf.shape(images), 2, tf.random.fold_in(seed, i))
            probe = self._clipped(images, delta + radius * probe) - delta
            sign = norms.per_image(tf.where(fools(delta + probe), 1.0, -1.0))
            return i + 1, total + probe, weighted + sign * probe, signs + sign

        zero = tf.zeros_like(images)
        variables = (0, zero, zero, norms.per_image(zero[:, 0, 0, 0]))
        _, total, weighted, signs = iterative.loop(lambda i, *_: i < count, point, variables)
        mean = signs / tf.cast(count, tf.float32)
        # The mean is a baseline that lowers the variance, unless all signs are the same.
        baseline = tf.where(tf.abs(mean) < 1, mean, 0.0)
        return norms.direction(weighted - baseline * total, self.norm)

    def _jump(self, fools, images, delta, length, uphill):
        """The perturbation after the longest step of length, length / 2, ... that still fools."""

        def shorter(i):
            step = norms.per_image(length) * 0.5 ** tf.cast(i, tf.float32) * uphill
            return self._clipped(images, delta + step)

        arrived = tf.zeros_like(length, tf.bool)
        return _first_that_fools(fools, shorter, _HALVINGS, delta, arrived)

    def _size(self, perturbation):
        return norms.size(perturbation, self.norm)


def _first_that_fools(
    fools: Callable, attempt: Callable, attempts: int, start: tf.Tensor, found: tf.Tensor
) -> tf.Tensor:
    """For each image the first of attempt(0), attempt(1), ... that fools the classifier.

    `start` for images that have `found` one already, `[B]` booleans, and where no attempt does.
    """

    def unfinished(i, _, found):
        return (i < attempts) & ~tf.reduce_all(found)

    def attempted(i, chosen, found):
        perturbation = attempt(i)
        fooled = fools(perturbation)
        chosen = tf.where(norms.per_image(fooled & ~found), perturbation, chosen)
        return i + 1, chosen, found | fooled

    return iterative.loop(unfinished, attempted, (0, start, found))[1]
