"""Projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import iterative, norms
from gat_tf.attacks.base import seed_or_random
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits


@dataclasses.dataclass(frozen=True, eq=False)
class PGD(iterative.IterativeAttack):
    """Steepest ascent of the loss inside the ε-ball: step, project to the ball, clip.

    Paper: [Madry et al. 2018](https://arxiv.org/abs/1706.06083).

    Args:
        epsilon: Radius of the ball in `norm`, in units of pixel values: one number, or a vector
            `[B]` with one per image.
        norm: 2 or `math.inf`.
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in `norm`. By default 2.5 ε / steps.
        random_start: Whether to start at a uniform point of the ball instead of the image.
        restarts: Number of runs from random starts; the most successful one is kept.
        targeted: Whether the labels are targets to reach instead of true labels.
        early_stop: Whether to stop attacking an image as soon as it fools the classifier. The
            accuracy under the attack then counts every iterate, at a fraction of the cost, but the
            image's loss is not maximised. `gat_tf.evaluation` turns this on. Not supported with
            XLA.
        samples: For a stochastic model, the number of forward and backward passes to average in
            each step. Both the gradients and the logits that decide success are averaged
            (expectation over transformation, Athalye et al. 2018).

    Raises:
        ValueError: An argument is out of range, or there are restarts without a random start.

    Examples:
        >>> attack = attacks.PGD(epsilon=0.5, norm=2, steps=10, restarts=2)
        >>> perturbation = attack.perturbation(model, images, labels)  # η, before clipping
        >>> norms = np.linalg.norm(np.reshape(perturbation, (8, -1)), axis=1)
        >>> bool(norms.max() <= 0.5 + 1e-6)
        True
    """

    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    targeted: bool = dataclasses.field(default=False, kw_only=True)
    samples: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        checks.count("restarts", self.restarts)
        checks.count("samples", self.samples)
        if self.step_size is not None:
            checks.number("step_size", self.step_size, low=0)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                "Restarts from the same point are the same: `restarts` > 1 needs random_start=True."
                f" Received: restarts={self.restarts}"
            )

    def perturb(
        self,
        logits: Logits,
        images: tf.Tensor,
        labels: tf.Tensor,
        seed: Seed = None,
        only: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """As `Attack.perturb`.

        `only`, `[n]` integers, are the indices of the images to attack; the other perturbations are
        zero. Each image gets the same perturbation as if all were attacked.
        """
        epsilon = norms.radius(self.epsilon, images)
        drawn = seed_or_random(seed)
        if self.restarts == 1 and not self.early_stop and only is None:
            return self.ascend(self._margin_gradient(logits, labels), images, drawn)

        seeds = drawn[None] if self.restarts == 1 else tf.random.split(drawn, self.restarts)

        def unfinished(i, active, *_):
            return (i < self.restarts) & (tf.size(active) > 0)

        def restart(i, active, worst):
            x, y, radius = (tf.gather(t, active) for t in (images, labels, epsilon))
            # Drawn for all images, so that each one's does not depend on which are left.
            start = tf.gather(self._start(images, epsilon, seeds[i]), active)
            if self.early_stop:
                perturbation = self._ascend_until_fooled(logits, x, y, radius, start)
            else:
                perturbation = self._ascend(self._margin_gradient(logits, y), x, radius, start)
            z = iterative.averaged(self.samples, lambda: logits(x + perturbation))
            margin = self._success_margin(z, y)
            worst = worst.update(active, perturbation, margin)
            if self.early_stop:
                active = iterative.kept(active, margin <= 0)
            return i + 1, active, worst

        attacked = tf.range(tf.shape(labels)[0]) if only is None else only
        worst = iterative.Best.initial(images)
        _, _, worst = iterative.loop(unfinished, restart, (0, attacked, worst), shrinking=[1])
        return worst.perturbation

    def ascend(self, gradient: Callable, images: tf.Tensor, seed: Seed = None) -> tf.Tensor:
        """Returns the perturbation `[B, H, W, C]` after all steps of one run.

        Args:
            gradient: Function from perturbed images `[B, H, W, C]` to the gradient of their summed
                loss.
            images: `[B, H, W, C]` within `clip`.
            seed: `[2]` integers for the random start; drawn from `tf.random` by default.
        """
        epsilon = norms.radius(self.epsilon, images)
        start = self._start(images, epsilon, seed_or_random(seed))
        return self._ascend(gradient, images, epsilon, start)

    def _ascend(self, gradient, images, epsilon, start):
        step_size = self._step_size(epsilon)

        def step(i, perturbation):
            uphill = gradient(images + perturbation)
            return i + 1, self._move(images, perturbation, uphill, step_size, epsilon)

        return iterative.loop(lambda i, _: i < self.steps, step, (0, start))[1]

    def _ascend_until_fooled(self, logits, images, labels, epsilon, start):
        """As `_ascend` on the margin, but each step takes only the images not fooled yet."""
        step_size = self._step_size(epsilon)

        def unfinished(i, active, _):
            return (i < self.steps) & (tf.size(active) > 0)

        def step(i, active, perturbation):
            x, eta, y, size, radius = (
                tf.gather(t, active) for t in (images, perturbation, labels, step_size, epsilon)
            )
            z, gradient = self._logits_and_gradient(logits, x + eta, y)
            robust = self._success_margin(z, y) <= 0
            moved = self._move(x, eta, gradient, size, radius)
            active, moved = iterative.kept((active, moved), robust)
            perturbation = tf.tensor_scatter_nd_update(perturbation, active[:, None], moved)
            return i + 1, active, perturbation

        all_indices = tf.range(tf.shape(labels)[0])
        return iterative.loop(unfinished, step, (0, all_indices, start), shrinking=[1])[2]

    def _start(self, images, epsilon, seed):
        if not self.random_start:
            return tf.zeros_like(images)
        noise = norms.random_in_ball(tf.shape(images), epsilon, self.norm, seed)
        return self._clipped(images, noise)

    def _step_size(self, epsilon):
        if self.step_size is None:
            return 2.5 * epsilon / self.steps
        return tf.fill(tf.shape(epsilon), float(self.step_size))

    def _move(self, images, perturbation, gradient, step_size, epsilon):
        step = step_size * norms.direction(gradient, self.norm)
        moved = perturbation - step if self.targeted else perturbation + step
        return self._project(images, moved, epsilon)

    def _success_margin(self, logits, labels):
        """The margin of the attack's success, `[B]`: positive where it has succeeded."""
        margin = losses.logit_margin(logits, labels)
        return -margin if self.targeted else margin

    def _logits_and_gradient(self, logits, images, labels):
        return iterative.averaged(
            self.samples, lambda: logits_and_input_gradient(logits, images, labels, "margin")
        )

    def _margin_gradient(self, logits: Logits, labels: tf.Tensor) -> Callable:
        return lambda images: self._logits_and_gradient(logits, images, labels)[1]
