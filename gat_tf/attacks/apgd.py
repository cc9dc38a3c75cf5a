"""Auto-PGD (Croce and Hein 2020)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import iterative, norms
from gat_tf.attacks.base import seed_or_random
from gat_tf.gradients import loss_and_input_gradient
from gat_tf.logits import Logits

LOSSES = ("cross_entropy", "dlr", "targeted_dlr")

# The paper's α and ρ: the weight of a step against the momentum, and the share of the steps since
# the last checkpoint that have to raise the loss.
STEP_WEIGHT = 0.75
RISING_SHARE = 0.75


@dataclasses.dataclass(frozen=True, eq=False)
class APGD(iterative.IterativeAttack):
    """PGD with momentum that chooses its step size itself.

    The step size starts at 2 ε. At certain steps, called checkpoints, it is halved for each image
    whose loss rose in fewer than 75 % of the steps since the last checkpoint, or whose highest loss
    and step size have not changed since. The image then continues from its best point so far. As in
    `PGD`, each point is projected onto the ball and then clipped, so that it satisfies both
    constraints.

    The attack returns the iterate, over all runs, with the largest logit margin. It fools the
    classifier if any iterate did.

    Paper: [Croce and Hein 2020](https://arxiv.org/abs/2003.01690).

    Args:
        epsilon: Radius of the ball in `norm`, in units of pixel values: one number, or a vector
            `[B]` with one per image.
        norm: 2 or `math.inf`.
        steps: Number of gradient steps, at least 1.
        loss: `"cross_entropy"`; `"dlr"`, the difference of logits ratio, for at least 3 classes; or
            `"targeted_dlr"`, for at least 4: one run towards each of the top wrong classes, where
            any misclassification counts. The margin of `gat_tf.losses` replaces the cross-entropy:
            it grows with the cross-entropy, so every comparison of losses and every direction is
            the same, but it does not vanish in float32.
        restarts: Number of runs from random starts (for each target).
        targets: Number of top wrong classes to aim at with `"targeted_dlr"`; all wrong classes if
            there are fewer.
        early_stop: Whether to stop attacking an image as soon as it fools the classifier. The
            accuracy under the attack is the same at a fraction of the cost, but the image's loss is
            not maximised. `gat_tf.evaluation` turns this on. Not supported with XLA.
        samples: For a stochastic model, the number of forward and backward passes to average in
            each step. Both the gradients and the logits that decide success are averaged
            (expectation over transformation, Athalye et al. 2018).

    Raises:
        ValueError: An argument is out of range, or the classifier has too few classes.

    Examples:
        >>> attack = attacks.APGD(0.5, math.inf, steps=10, loss="dlr")
        >>> adversarial = attack(model, images, labels)
        >>> evaluation.accuracy(model, adversarial.numpy(), labels)
        0.0
    """

    loss: str = "cross_entropy"
    restarts: int = 1
    targets: int = 9
    samples: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        checks.count("restarts", self.restarts)
        checks.count("targets", self.targets)
        checks.count("samples", self.samples)
        checks.one_of("loss", self.loss, LOSSES)

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        """As `Attack.perturb`."""
        epsilon = norms.radius(self.epsilon, images)
        targets = labels[:, None]  # which the untargeted losses do not look at
        if self.loss == "targeted_dlr":
            targets = iterative.top_wrong_classes(logits(images), labels, self.targets)
        runs = self.restarts * targets.shape[1]
        seeds = tf.random.split(seed_or_random(seed), runs)

        def unfinished(run, worst):
            return (run < runs) & (tf.size(self._attacked(worst)) > 0)

        def ascend(run, worst):
            # Drawn for all images, so that each one's does not depend on which are left.
            start = self._random_start(images, epsilon, seeds[run])
            target = targets[:, run // self.restarts]
            return run + 1, self._ascend(logits, images, labels, target, epsilon, start, worst)

        worst = iterative.Best.initial(images)
        return iterative.loop(unfinished, ascend, (0, worst))[1].perturbation

    def _attacked(self, worst: iterative.Best) -> tf.Tensor:
        if self.early_stop:
            return tf.where(worst.score <= 0)[:, 0]
        return tf.range(tf.shape(worst.score, out_type=tf.int64)[0])

    def _ascend(self, logits, images, labels, targets, epsilon, start, worst):
        """One run; returns the worst perturbations of this run and those before it."""
        intervals = tf.constant(_intervals(self.steps), tf.float32)

        def unfinished(k, state, _):
            # Once more than there are steps, for a look at where the last one leads.
            return (k <= self.steps) & (tf.size(state.index) > 0)

        def step(k, state, worst):
            x, y, target, radius = (
                tf.gather(t, state.index) for t in (images, labels, targets, epsilon)
            )
            z, loss, gradient = iterative.averaged(
                self.samples,
                lambda: loss_and_input_gradient(
                    logits, x + state.delta, lambda z: self._loss(z, y, target)
                ),
            )
            margin = losses.logit_margin(z, y)
            worst = worst.update(state.index, state.delta, margin)
            state, uphill = state.seen(loss, gradient).checked(uphill=gradient, since=intervals[k])
            move = state.step_size * radius * norms.direction(uphill, self.norm)
            next_delta = self._project(x, state.delta + move, radius)
            weight = tf.where(k == 0, 1.0, STEP_WEIGHT)
            next_delta = state.delta + weight * (next_delta - state.delta)
            next_delta += (1 - weight) * (state.delta - state.previous_delta)
            next_delta = self._project(x, next_delta, radius)
            state = state._replace(delta=next_delta, previous_delta=state.delta)
            if self.early_stop:
                state = iterative.kept(state, margin <= 0)
            return k + 1, state, worst

        index = self._attacked(worst)
        state = _State.at(index, tf.gather(start, index))
        return iterative.loop(unfinished, step, (0, state, worst), shrinking=[1])[2]

    def _loss(self, z, labels, targets):
        if self.loss == "cross_entropy":
            return losses.margin(z, labels)
        if self.loss == "dlr":
            return losses.dlr(z, labels)
        return losses.targeted_dlr(z, labels, targets)


class _State(NamedTuple):
    """A run's state: `[n]`, `[n, 1, 1, 1]` or `[n, H, W, C]` for the n images attacked.

    Attributes:
        index: Their indices in the batch.
        delta: The perturbation that the step starts from.
        previous_delta: The one that the last step started from.
        loss: The loss of the last step.
        best: The perturbation of the highest loss so far.
        best_loss: Its loss.
        best_gradient: The gradient at `best`.
        step_size: In units of ε.
        rises: Number of steps since the last checkpoint that have raised the loss.
        halved: Whether the step size was halved at the last checkpoint.
        best_at_checkpoint: `best_loss` at the last checkpoint.
    """

    index: tf.Tensor
    delta: tf.Tensor
    previous_delta: tf.Tensor
    loss: tf.Tensor
    best: tf.Tensor
    best_loss: tf.Tensor
    best_gradient: tf.Tensor
    step_size: tf.Tensor
    rises: tf.Tensor
    halved: tf.Tensor
    best_at_checkpoint: tf.Tensor

    @classmethod
    def at(cls, index: tf.Tensor, start: tf.Tensor) -> _State:
        zero = tf.zeros_like(start[:, 0, 0, 0])
        return cls(
            index=index,
            delta=start,
            previous_delta=start,
            loss=zero + zero.dtype.max,  # no rise before the first step
            best=start,
            best_loss=zero + zero.dtype.min,
            best_gradient=tf.zeros_like(start),
            step_size=2 + zero[:, None, None, None],
            rises=zero,
            halved=tf.zeros_like(zero, tf.bool),
            best_at_checkpoint=zero + zero.dtype.min,
        )

    def seen(self, loss: tf.Tensor, gradient: tf.Tensor) -> _State:
        """The state once the loss `[n]` and the gradient at `delta` are known."""
        higher = loss > self.best_loss
        return self._replace(
            loss=loss,
            rises=self.rises + tf.cast(loss > self.loss, tf.float32),
            best=_where(higher, self.delta, self.best),
            best_loss=tf.where(higher, loss, self.best_loss),
            best_gradient=_where(higher, gradient, self.best_gradient),
        )

    def checked(self, uphill: tf.Tensor, since: tf.Tensor) -> tuple[_State, tf.Tensor]:
        """The state after a checkpoint, and the gradient to follow.

        `since` is the number of steps since the last checkpoint. If the step is not a checkpoint,
        it is negative and the state does not change.
        """
        is_checkpoint = since >= 0
        few = self.rises < RISING_SHARE * since
        stuck = ~self.halved & (self.best_loss <= self.best_at_checkpoint)
        halve = is_checkpoint & (few | stuck)
        state = self._replace(
            delta=_where(halve, self.best, self.delta),
            step_size=_where(halve, self.step_size / 2, self.step_size),
            rises=tf.where(is_checkpoint, 0.0, self.rises),
            halved=tf.where(is_checkpoint, halve, self.halved),
            best_at_checkpoint=tf.where(is_checkpoint, self.best_loss, self.best_at_checkpoint),
        )
        return state, _where(halve, self.best_gradient, uphill)


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved, w_j = ceil(p_j steps), ascending.

    p_0 = 0, p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), up to 1.
    """
    percent = [0, 22]  # whole numbers, for 0.57 * 100 is less than 57 in floating point
    while percent[-1] < 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return sorted({-(-p * steps // 100) for p in percent if p <= 100})


def _intervals(steps: int) -> list[int]:
    """For each step the number of steps since the last checkpoint if it is one, else -1."""
    intervals = [-1] * (steps + 1)
    last = 0
    for checkpoint in checkpoints(steps):
        intervals[checkpoint] = checkpoint - last
        last = checkpoint
    return intervals


def _where(condition, yes, no):
    """`tf.where` of `[n]` conditions and `[n, H, W, C]`."""
    return tf.where(condition[:, None, None, None], yes, no)
