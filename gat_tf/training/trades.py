"""TRADES (Zhang et al. 2019): a trade-off of clean accuracy and stability around the images."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import PGD, Attack
from gat_tf.gradients import loss_and_input_gradient
from gat_tf.logits import Logits
from gat_tf.training.classifier_base import ClassifierScheme, bounds_with, outcome, recorded


class TradesStep(NamedTuple):
    """What one step of TRADES computes.

    Attributes:
        loss: CE(f(x), y) + β·KL(f(x) || f(x')) per image, `[B]`.
        divergence: KL(f(x) || f(x')) per image, `[B]`.
        clean: Logits of the images, `[B, K]`.
        adversarial: Logits of x', `[B, K]`.
        perturbation: x' - x, `[B, H, W, C]`, before clipping.
        gradients: Gradients of the summed `loss` of the batch, one per trainable variable.
    """

    loss: tf.Tensor
    divergence: tf.Tensor
    clean: tf.Tensor
    adversarial: tf.Tensor
    perturbation: tf.Tensor
    gradients: list[tf.Tensor]


def trades_step(
    logits: Logits,
    attack: PGD,
    images: tf.Tensor,
    labels: tf.Tensor,
    beta: float,
    *,
    seed: Seed = None,
    loss_scale: float | tf.Tensor = 1.0,
) -> TradesStep:
    """Loss and gradients of TRADES; nothing is updated.

    x' is found in inference mode and is a constant. The gradient goes through both f(x) and f(x').

    Args:
        logits: The classifier.
        attack: The PGD that finds x'.
        images: `[B, H, W, C]`.
        labels: `[B]`.
        beta: Weight of the divergence.
        seed: `[2]` integers for the random start.
        loss_scale: Factor by which the gradients are multiplied (mixed precision).
    """
    perturbation = divergent(logits, attack, images, seed)
    perturbed = attack.apply(images, perturbation)
    variables = logits.model.trainable_variables
    with tf.GradientTape() as tape:
        clean = logits(images, training=True)
        adversarial = logits(perturbed, training=True)
        divergence = kl_divergence(clean, adversarial)
        loss = losses.cross_entropy(losses.margin(clean, labels)) + beta * divergence
        scaled = tf.reduce_sum(loss) * loss_scale
    gradients = tape.gradient(scaled, variables)
    return TradesStep(loss, divergence, clean, adversarial, perturbation, gradients)


def divergent(logits: Logits, attack: PGD, images: tf.Tensor, seed: Seed = None) -> tf.Tensor:
    """Returns the perturbations `[B, H, W, C]` that PGD finds by ascent on KL(f(x) || f(x'))."""
    clean = logits(images)

    def uphill(perturbed):
        return loss_and_input_gradient(logits, perturbed, lambda z: kl_divergence(clean, z))[2]

    return attack.ascend(uphill, images, seed)


def kl_divergence(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """KL(p || q) per image, `[B]`, of the distributions with logits `[B, K]`."""
    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(others)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


@keras.saving.register_keras_serializable("gat_tf")
class TRADES(ClassifierScheme):
    """Trains a classifier to be accurate on images and stable around them.

    The loss is CE(f(x), y) + β·KL(f(x) || f(x')) (Zhang et al. 2019, eq. 5), x' found by PGD on the
    divergence. Their setting for CIFAR-10:

        attack = PGD(0.031, math.inf, steps=10, step_size=0.007)
        scheme = TRADES(classifier, attack, beta=6.0)
        scheme.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        scheme.fit(dataset, epochs=76)

    At x itself the divergence has no gradient. Theirs starts at Gaussian noise of 0.001 around it;
    this one, as PGD elsewhere in the library, at a uniform point of the ball.

    Paper: [Zhang et al. 2019](https://arxiv.org/abs/1901.08573).

    Args:
        classifier: f, a Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
        attack: Untargeted PGD with a random start, without restarts, early stop or samples.
        beta: β, weight of the divergence, not negative: the larger, the more robust and the less
            accurate. 1/λ in the paper; 6 is their best for CIFAR-10.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels. By default the attack's `clip`, or [0, 1] where that is
            None.
        seed: Seed of the random starts.

    Raises:
        ValueError: β is negative, `from_logits` does not fit the classifier, `bounds` not the
            attack's `clip`, or the attack is not as above.
        TypeError: The attack is not a PGD, or the classifier is not a Keras model.

    Examples:
        >>> pgd = attacks.PGD(0.031, math.inf, steps=3, step_size=0.007)
        >>> scheme = training.TRADES(model, pgd, beta=6.0)
        >>> scheme.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        >>> history = scheme.fit(dataset, epochs=1, verbose=0)
        >>> divergence = history.history["divergence"]  # one value per epoch
    """

    _arguments = (*ClassifierScheme._arguments, "attack", "beta")
    _recorded = (*ClassifierScheme._recorded, "divergence")

    def __init__(
        self,
        classifier: keras.Model,
        attack: PGD,
        beta: float = 6.0,
        *,
        from_logits: bool = False,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        _require_ascent(attack)
        bounds = bounds_with(attack, bounds)
        super().__init__(classifier, bounds, from_logits=from_logits, seed=seed, name=name)
        self.attack = attack
        self.beta = checks.number("beta", beta, low=0)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        step = trades_step(
            self._logits,
            self.attack,
            images,
            labels,
            self.beta,
            seed=self._step_seed(),
            loss_scale=self.optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.optimizer, self.classifier, step.gradients, images)
        return self._recorded_of(labels, step.clean, step.adversarial, step.perturbation)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        perturbation = divergent(self._logits, self.attack, images, (self.seed, 0))
        adversarial = self._logits(self.attack.apply(images, perturbation))
        return self._recorded_of(labels, self._logits(images), adversarial, perturbation)

    def _recorded_of(
        self, labels: tf.Tensor, clean: tf.Tensor, adversarial: tf.Tensor, perturbation: tf.Tensor
    ) -> dict:
        outcomes = outcome(clean, labels), outcome(adversarial, labels)
        divergence = kl_divergence(clean, adversarial)
        return self._record(
            loss=outcomes[0].loss + self.beta * divergence,
            divergence=divergence,
            **recorded(*outcomes, perturbation),
        )


def _require_ascent(attack: Attack) -> None:
    if not isinstance(attack, PGD):
        raise TypeError(f"Expected attacks.PGD, which finds x'. Received: {attack!r}")
    plain = not (attack.targeted or attack.early_stop) and attack.restarts == attack.samples == 1
    if not (plain and attack.random_start):
        raise ValueError(
            "Expected an untargeted PGD with random_start=True, because at x itself the divergence "
            "has no gradient, and without restarts, early_stop or samples, which look at labels. "
            f"Received: {attack!r}"
        )
