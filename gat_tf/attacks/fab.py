"""The fast adaptive boundary attack (Croce and Hein 2020), in its targeted form."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import iterative, norms
from gat_tf.attacks.base import seed_or_random
from gat_tf.gradients import loss_and_input_gradient
from gat_tf.logits import Logits

# The paper's α_max, η and β.
MAX_BIAS = 0.1
EXTRAPOLATION = 1.05
BACKWARD = 0.9

# What is found lies close to the boundary. By this part of the logits it has to be beyond, so that
# it fools the classifier also in a batch of another size, whose logits are rounded differently.
ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class FAB(iterative.IterativeAttack):
    """Searches for the smallest perturbation, up to ε, that fools the classifier.

    FAB-T, as in AutoAttack: one run towards each of the top wrong classes. Each step treats the
    classifier as linear and moves, within `clip`, to the boundary of the target class. It moves to
    a mixture of two boundary points, the one nearest to the current point and the one nearest to
    the image, and 5 % beyond. If the new point is misclassified, as any class, the step then goes
    10 % of the way back to the image.

    The perturbation is zero for images without a success within ε and for images already
    misclassified.

    Paper: [Croce and Hein 2020](https://arxiv.org/abs/1907.02044).

    Args:
        epsilon: Largest norm of a perturbation, in units of pixel values: one number, or a vector
            `[B]` with one per image.
        norm: 2 or `math.inf`.
        steps: Number of steps, each with one gradient, at least 1.
        restarts: Number of runs per target. The first starts at the image. The others start at
            random points, at half the distance ε or, if smaller, half the norm of the best
            perturbation so far.
        targets: Number of top wrong classes to aim at; all wrong classes if there are fewer.
        early_stop: Whether to stop attacking an image at its first success. The accuracy under the
            attack is the same at a fraction of the cost, but the perturbations are not the
            smallest. `gat_tf.evaluation` turns this on.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> attack = attacks.FAB(epsilon=10.0, norm=2, steps=10, targets=3)
        >>> perturbation = attack.perturbation(model, images, labels)
        >>> norms = np.linalg.norm(np.reshape(perturbation, (8, -1)), axis=1)
        >>> bool((norms < 10).all())  # each image's distance to the decision boundary
        True
    """

    restarts: int = 1
    targets: int = 9

    def __post_init__(self):
        super().__post_init__()
        checks.count("restarts", self.restarts)
        checks.count("targets", self.targets)

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        """As `Attack.perturb`. Not for XLA: the images attacked become fewer."""
        epsilon = norms.radius(self.epsilon, images)
        z = logits(images)
        targets = iterative.top_wrong_classes(z, labels, self.targets)
        runs = self.restarts * targets.shape[1]
        seeds = tf.random.split(seed_or_random(seed), runs)

        def unfinished(run, smallest):
            return (run < runs) & (tf.size(self._attacked(smallest)) > 0)

        def search(run, smallest):
            index = self._attacked(smallest)
            # Drawn for all images, so that each one's does not depend on which are left.
            radius = tf.minimum(epsilon, -smallest.score[:, None, None, None]) / 2
            radius = tf.where(run % self.restarts == 0, 0.0, radius)
            start = tf.gather(self._random_start(images, radius, seeds[run]), index)
            target = targets[:, run // self.restarts]
            batch = (images, labels, target, epsilon)
            return run + 1, self._search(logits, batch, index, start, smallest)

        # The score is the norm, negative.
        smallest = iterative.Best.initial(images)
        score = tf.where(losses.logit_margin(z, labels) > 0, 0.0, smallest.score)
        _, smallest = iterative.loop(unfinished, search, (0, smallest._replace(score=score)))
        return smallest.perturbation

    def _attacked(self, smallest: iterative.Best) -> tf.Tensor:
        not_found = smallest.score == smallest.score.dtype.min
        return tf.where(not_found if self.early_stop else smallest.score < 0)[:, 0]

    def _search(self, logits, batch, index, start, smallest):
        """One run for the images `index` of a batch; returns the smallest of all runs so far."""

        def unfinished(i, index, *_):
            return (i < self.steps) & (tf.size(index) > 0)

        def step(i, index, delta, smallest):
            x, y, target, radius = (tf.gather(t, index) for t in batch)
            delta = self._step(logits, x, y, target, delta)
            z = logits(x + delta)
            fooled = losses.logit_margin(z, y) > ROUNDING * tf.reduce_max(tf.abs(z), axis=-1)
            size = norms.size(delta, self.norm)
            found = fooled & (size <= radius[:, 0, 0, 0])
            smallest = smallest.update(index, delta, tf.where(found, -size, size.dtype.min))
            delta = tf.where(fooled[:, None, None, None], BACKWARD * delta, delta)
            if self.early_stop:
                index, delta = iterative.kept((index, delta), ~found)
            return i + 1, index, delta, smallest

        variables = (0, index, start, smallest)
        return iterative.loop(unfinished, step, variables, shrinking=[1, 2])[3]

    def _step(self, logits, images, labels, targets, delta):
        """The perturbations after a step from the perturbations `delta`, all `[n, H, W, C]`."""
        _, gap, normal = loss_and_input_gradient(
            logits, images + delta, lambda z: losses.logit_difference(z, labels, targets)
        )
        from_delta = self._to_plane(images + delta, normal, gap)
        gap -= tf.reduce_sum(normal * delta, norms.AXES)  # at the image, by the linear classifier
        from_image = self._to_plane(images, normal, gap)
        near, far = (norms.size(t, self.norm) for t in (from_delta, from_image))
        bias = tf.minimum(tf.math.divide_no_nan(near, near + far), MAX_BIAS)[:, None, None, None]
        next_delta = (1 - bias) * (
            delta + EXTRAPOLATION * from_delta
        ) + bias * EXTRAPOLATION * from_image
        return self._clipped(images, next_delta)

    def _to_plane(self, images, normal, gap):
        return to_hyperplane(images, normal, gap, self.norm, self.clip)


def to_hyperplane(
    points: tf.Tensor,
    normal: tf.Tensor,
    gap: tf.Tensor,
    norm: float,
    clip: tuple[float, float] | None,
) -> tf.Tensor:
    """Returns the smallest step δ to the plane normal · δ + gap = 0 that stays in the box.

    If the plane does not meet the box, δ leads to the corner of the box that is nearest to the
    plane, measured by normal · δ.

    Args:
        points: `[B, H, W, C]` within `clip`.
        normal: `[B, H, W, C]`.
        gap: `[B]`.
        norm: 2 or `math.inf`: of δ.
        clip: `(low, high)` of points + δ, or None for no box.

    Returns:
        `[B, H, W, C]`.
    """
    # Against squares that underflow: only normal / gap matters.
    largest = tf.reduce_max(tf.abs(normal), norms.AXES, keepdims=True)
    downhill = -tf.sign(gap)[:, None, None, None] * tf.math.divide_no_nan(normal, largest)
    distance = tf.math.divide_no_nan(tf.abs(gap), largest[:, 0, 0, 0])  # to go: downhill · δ

    # Every value goes its direction at its speed, until `level` or until it meets the box:
    # δ = sign · speed · min(level, end). L-infinity has them all equally fast, L2 in proportion.
    slope = tf.abs(downhill)
    speed = tf.maximum(slope, 1e-20) if norm == 2 else tf.ones_like(slope)
    rate = slope * speed
    if clip is None:
        level = tf.math.divide_no_nan(distance, tf.reduce_sum(rate, norms.AXES))
        return tf.sign(downhill) * speed * level[:, None, None, None]
    end = tf.where(downhill > 0, clip[1] - points, points - clip[0]) / speed
    ends, rates = (tf.reshape(t, [tf.shape(t)[0], -1]) for t in (end, rate))
    level = _level(ends, rates, distance)
    return tf.sign(downhill) * speed * tf.minimum(end, level[:, None, None, None])


def _level(end: tf.Tensor, rate: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """The level at which sum of rate · min(level, end) is `distance`, or more than every end.

    `end` and `rate` are `[B, D]`, `distance` is `[B]`. The sum is concave and piecewise linear in
    the level, so Newton's steps from zero never overshoot, and the step from the right piece is the
    last. A handful of steps is enough; sorting the ends takes several times as long.
    """

    def step(level, _):
        moving = end > level[:, None]
        ended = tf.reduce_sum(tf.where(moving, 0.0, rate * end), axis=1)
        total_rate = tf.reduce_sum(tf.where(moving, rate, 0.0), axis=1)
        next_level = tf.math.divide_no_nan(distance - ended, total_rate)
        next_level = tf.where(total_rate > 0, next_level, end.dtype.max)
        return tf.maximum(next_level, level), tf.reduce_any(next_level > level)

    zero = tf.zeros_like(distance)
    level, _ = iterative.loop(lambda _, rose: rose, step, (zero, True))
    return level
