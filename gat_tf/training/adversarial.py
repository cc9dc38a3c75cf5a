"""Adversarial training: eqs. 2 and 4 of the GAT paper."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from gat_tf import checks
from gat_tf._types import Seed
from gat_tf.attacks import Attack, GradientAttack
from gat_tf.gradients import classifier_pass
from gat_tf.logits import Logits
from gat_tf.training.classifier_base import (
    ClassifierScheme,
    MixedStep,
    bounds_with,
    mixed,
    mixed_step,
    outcome,
    recorded,
)


def adversarial_step(
    logits: Logits,
    attack: Attack,
    images: tf.Tensor,
    labels: tf.Tensor,
    alpha: float,
    *,
    seed: Seed = None,
    loss_scale: float | tf.Tensor = 1.0,
) -> tuple[MixedStep, tf.Tensor]:
    """Losses and gradients of eqs. 2 and 4, and η before clipping; nothing is updated.

    If the attack is a function of one input gradient, and the network computes the same in training
    and inference, then the backward pass of the clean loss also gives that gradient: two forward
    and backward passes in total. Otherwise the attack runs its own passes, in inference mode.

    Args:
        logits: The classifier.
        attack: The attack that makes η.
        images: `[B, H, W, C]`.
        labels: `[B]`.
        alpha: Weight of the clean loss, in [0, 1].
        seed: `[2]` integers for the attack's random choices.
        loss_scale: Factor by which the gradients are multiplied (mixed precision).
    """
    shared = attack if isinstance(attack, GradientAttack) and logits.same_in_training else None
    clean = classifier_pass(logits, images, labels, shared is not None, loss_scale)
    if shared is not None:
        gradient = clean.input_gradient
        if shared.gradient_of == "probability":
            gradient *= -clean.probability[:, None, None, None]
        perturbation = shared.from_gradient(gradient)
    else:
        perturbation = attack.perturb(logits, images, labels, seed)
    perturbed = attack.apply(images, perturbation)
    step = mixed_step(clean, logits, perturbed, labels, alpha, loss_scale=loss_scale)
    return step, perturbation


@keras.saving.register_keras_serializable("gat_tf")
class AdversarialTraining(ClassifierScheme):
    """Trains a classifier on clean and attacked images (eqs. 2 and 4 of the GAT paper).

    With `FastGradient` it is the paper's fast-gradient training, with `RandomPerturbation` its
    random perturbation, with `PGD` and `alpha=0` that of Madry et al. (2018).

    Papers: [Goodfellow et al. 2015](https://arxiv.org/abs/1412.6572),
    [Madry et al. 2018](https://arxiv.org/abs/1706.06083).

    Args:
        classifier: Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
        attack: Attack from `gat_tf.attacks`. The attack's `clip` decides about clipping. The
            paper's equations do not clip: to follow them exactly, pass `clip=None` to the attack.
        alpha: Weight of the clean loss, in [0, 1]. 0.5 in the paper.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels. By default the attack's `clip`, or [0, 1] where that is
            None.
        seed: Seed of the attack's random choices.

    Raises:
        ValueError: α is outside [0, 1], `from_logits` does not fit the classifier, or `bounds` not
            the attack's `clip`.
        TypeError: The attack is not an `Attack`, or the classifier is not a Keras model.

    Examples:
        >>> pgd = attacks.PGD(2 / 255, math.inf, steps=3)
        >>> scheme = training.AdversarialTraining(model, pgd, alpha=0)  # that of Madry et al.
        >>> scheme.compile(keras.optimizers.Adam(1e-3))
        >>> history = scheme.fit(dataset, epochs=1, verbose=0)
        >>> sorted(history.history)[:3]
        ['adversarial_accuracy', 'adversarial_loss', 'clean_accuracy']
    """

    _arguments = (*ClassifierScheme._arguments, "attack", "alpha")

    def __init__(
        self,
        classifier: keras.Model,
        attack: Attack,
        alpha: float = 0.5,
        *,
        from_logits: bool = False,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        if not isinstance(attack, Attack):
            raise TypeError(f"Expected an attack from gat_tf.attacks. Received: {attack!r}")
        bounds = bounds_with(attack, bounds)
        super().__init__(classifier, bounds, from_logits=from_logits, seed=seed, name=name)
        self.attack = attack
        self.alpha = checks.number("alpha", alpha, 0, 1)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        step, perturbation = adversarial_step(
            self._logits,
            self.attack,
            images,
            labels,
            self.alpha,
            seed=self._step_seed(),
            loss_scale=self.optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.optimizer, self.classifier, step.gradients, images)
        return self._record(loss=step.loss, **recorded(step.clean, step.adversarial, perturbation))

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        perturbation = self.attack.perturb(self._logits, images, labels, (self.seed, 0))
        adversarial = outcome(self._logits(self.attack.apply(images, perturbation)), labels)
        clean = outcome(self._logits(images), labels)
        loss = mixed(clean.loss, adversarial.loss, self.alpha)
        return self._record(loss=loss, **recorded(clean, adversarial, perturbation))
