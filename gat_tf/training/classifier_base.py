"""The base of schemes that train a classifier, or a generator against one."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Bounds
from gat_tf.attacks import Attack, norms
from gat_tf.gradients import ClassifierPass, classifier_pass
from gat_tf.logits import Logits
from gat_tf.training.base import ADAM_EPSILON, Scheme, require_built
from gat_tf.training.metrics import Quantiles


class ClassifierScheme(Scheme):
    """A scheme around a classifier; called, it is the classifier.

    Args:
        classifier: Keras model from images `[B, H, W, C]` to `[B, K]`.
        bounds: `(low, high)` of the pixels.
        from_logits: Whether the classifier gives logits instead of probabilities.
        seed: Seed of the attack's random choices. Each step's are derived from it and from the
            optimiser's step count, so that a run that is resumed goes on as if never stopped.
    """

    _arguments = ("classifier", "from_logits", "bounds", *Scheme._arguments)
    _recorded: ClassVar[tuple[str, ...]] = (
        "loss",  # the objective of eqs. 2, 4 and 10 of the GAT paper
        "clean_loss",
        "adversarial_loss",
        "clean_accuracy",
        "adversarial_accuracy",
        "power",  # ||η||_2^2
    )

    def __init__(
        self,
        classifier: keras.Model,
        bounds: Bounds = (0.0, 1.0),
        *,
        from_logits: bool = False,
        seed: int = 0,
        name: str | None = None,
    ):
        logits = Logits(classifier, from_logits)
        require_built(classifier)
        bounds = checks.bounds(bounds)
        super().__init__(logits.num_classes, bounds, seed=seed, name=name)
        self._logits = logits
        self.classifier = classifier
        self.from_logits = from_logits
        self.results["power_quantiles"] = Quantiles("power")

    @property
    def _learner(self):
        return self.classifier

    def _default_optimizer(self):
        """Adam with the GAT paper's learning rate of a classifier."""
        return keras.optimizers.Adam(1e-3, epsilon=ADAM_EPSILON)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.classifier(images, training=training)

    def _step_seed(self) -> tf.Tensor:
        return self._seed_of(self.optimizer.iterations)

    def _seed_of(self, step: keras.Variable | tf.Tensor | int) -> tf.Tensor:
        # A tensor already where gradients are accumulated.
        seed = tf.stack([self.seed, tf.cast(tf.convert_to_tensor(step), tf.int32)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.fold_in(seed, replica)

    def _record(self, **values):
        return super()._record(power_quantiles=values["power"], **values)


def bounds_with(attack: Attack, bounds: Bounds | None) -> tuple[float, float]:
    """The pixel range of a scheme: the attack's `clip`, or `bounds` if it has none.

    Raises:
        ValueError: There are both, and they differ.
    """
    if attack.clip is None:
        return (0.0, 1.0) if bounds is None else bounds
    if bounds is not None and tuple(checks.bounds(bounds)) != tuple(attack.clip):
        raise ValueError(
            "Expected the `clip` of the attack to be the range of the images. "
            f"Received: bounds={bounds!r} and clip={attack.clip!r}. Pass clip={bounds!r} to the "
            "attack, or None for no clipping."
        )
    return attack.clip


class Outcome(NamedTuple):
    """What a classifier makes of images: J(x), F(x)_y and whether it is right, `[B]` each."""

    loss: tf.Tensor
    probability: tf.Tensor
    correct: tf.Tensor


def outcome(z: tf.Tensor, labels: tf.Tensor) -> Outcome:
    """The outcome of logits `[B, K]`."""
    margins = losses.margin(z, labels)
    return Outcome(
        losses.cross_entropy(margins), losses.probability(margins), losses.is_correct(z, labels)
    )


def recorded(
    clean: Outcome | ClassifierPass, adversarial: Outcome | ClassifierPass, perturbation: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What every scheme records of images, of perturbed images and of η `[B, H, W, C]`."""
    return {
        "clean_loss": clean.loss,
        "adversarial_loss": adversarial.loss,
        "clean_accuracy": clean.correct,
        "adversarial_accuracy": adversarial.correct,
        "power": norms.power(perturbation),
    }


class MixedStep(NamedTuple):
    """A step of the classifier on clean and perturbed images: eqs. 2, 4 and 10.

    Attributes:
        loss: α·J(x) + (1 - α)·J(x + η) per image, `[B]`.
        clean: The pass over the images.
        adversarial: The pass over the perturbed images.
        gradients: Of the sum of `loss` over the batch, one for each trainable variable.
    """

    loss: tf.Tensor
    clean: ClassifierPass
    adversarial: ClassifierPass
    gradients: list[tf.Tensor]


def mixed_step(
    clean: ClassifierPass,
    logits: Logits,
    perturbed: tf.Tensor,
    labels: tf.Tensor,
    alpha: float,
    *,
    with_input_gradient: bool = False,
    loss_scale: float | tf.Tensor = 1.0,
) -> MixedStep:
    """Losses and gradients of eqs. 2, 4 and 10, given the pass over the clean images.

    Args:
        clean: The pass over the images.
        logits: The classifier.
        perturbed: Perturbed images `[B, H, W, C]`, taken as constants.
        labels: `[B]`.
        alpha: Weight of the clean loss, in [0, 1].
        with_input_gradient: Whether `adversarial.input_gradient` is wanted.
        loss_scale: Factor that the gradients come out multiplied with (mixed precision).
    """
    adversarial = classifier_pass(logits, perturbed, labels, with_input_gradient, loss_scale)
    gradients = adversarial.weight_gradients
    if alpha != 0:  # else the clean loss's backward pass, which nothing needs, leaves the graph
        pairs = zip(clean.weight_gradients, gradients, strict=True)
        gradients = [None if a is None else mixed(c, a, alpha) for c, a in pairs]
    return MixedStep(mixed(clean.loss, adversarial.loss, alpha), clean, adversarial, gradients)


def mixed(clean: tf.Tensor, adversarial: tf.Tensor, alpha: float) -> tf.Tensor:
    """α·clean + (1 - α)·adversarial: eqs. 2, 4 and 10, for losses and for their gradients."""
    return alpha * clean + (1 - alpha) * adversarial
