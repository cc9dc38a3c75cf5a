"""AWP (Wu et al. 2020): adversarial training at the worst weights nearby."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Gradients
from gat_tf.attacks import Attack
from gat_tf.gradients import ClassifierPass, classifier_pass
from gat_tf.logits import Logits
from gat_tf.training.adversarial import AdversarialTraining
from gat_tf.training.base import require_weight_regularisers
from gat_tf.training.classifier_base import ClassifierScheme, outcome, recorded


class AWPStep(NamedTuple):
    """What one step of AWP computes.

    Attributes:
        loss: J(x') at w + v per image, `[B]`.
        at_weights: The pass over x' at w.
        gradients: Gradients of the summed `loss` of the batch, one per trainable variable.
    """

    loss: tf.Tensor
    at_weights: ClassifierPass
    gradients: list[tf.Tensor]


def awp_step(
    logits: Logits,
    perturbed: tf.Tensor,
    labels: tf.Tensor,
    gamma: float | tf.Tensor,
    *,
    loss_scale: float | tf.Tensor = 1.0,
) -> AWPStep:
    """Loss and gradients of AWP at w + v; no weight is changed.

    Args:
        logits: The classifier.
        perturbed: x' `[B, H, W, C]`, taken as constants.
        labels: `[B]`.
        gamma: ‖v‖ over ‖w‖ of each kernel.
        loss_scale: Factor by which the gradients are multiplied (mixed precision).
    """
    at_weights = classifier_pass(logits, perturbed, labels, False, loss_scale)
    require_weight_regularisers(logits.model)  # the next pass leaves no trace of others
    variables = logits.model.trainable_variables
    worst = worst_weights(variables, at_weights.weight_gradients, gamma)
    with tf.GradientTape() as tape:
        tape.watch(worst)
        # The layers read w + v in it. What batch norm and dropout would remember of it is dropped.
        with keras.StatelessScope(state_mapping=list(zip(variables, worst, strict=True))):
            margins = losses.margin(logits(perturbed, training=True), labels)
        loss = losses.cross_entropy(margins)
        scaled = tf.reduce_sum(loss) * loss_scale
    return AWPStep(loss, at_weights, tape.gradient(scaled, worst))


def worst_weights(
    variables: list, gradients: Gradients, gamma: float | tf.Tensor
) -> list[tf.Tensor]:
    """w + v: each kernel moved by γ ‖w‖ along the gradient of the loss of the whole batch.

    Vectors, such as biases and the scales of batch norm, stay where they are, and so do kernels
    whose gradient is not finite.
    """
    context = tf.distribute.get_replica_context()
    moved = []
    for variable, gradient in zip(variables, gradients, strict=True):
        w = tf.convert_to_tensor(variable.value)
        if gradient is not None and len(variable.shape) > 1:
            gradient = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, gradient), w.dtype)
            length, size = tf.cast(gamma, w.dtype) * tf.norm(w), tf.norm(gradient)
            step = length * gradient / tf.maximum(size, _SMALLEST)
            # A scaled gradient may overflow in half precision; the update is then left out too.
            w += tf.where(tf.math.is_finite(size), step, 0.0)
        moved.append(w)
    return moved


_SMALLEST = 1e-20  # a gradient of zero moves nothing


@keras.saving.register_keras_serializable("gat_tf")
class AWP(AdversarialTraining):
    """Adversarial training with adversarial weight perturbation.

    The attack finds x'. Then v, with ‖v‖ = γ ‖w‖ in each kernel, takes the weights w one step
    along the gradient of J(x'), and the classifier is updated by the gradient at w + v (Wu et al.
    2020, eqs. 8 to 12, with one step of each kind). Their setting for CIFAR-10:

        attack = PGD(8 / 255, math.inf, steps=10, step_size=2 / 255)
        scheme = AWP(classifier, attack, gamma=0.005)
        scheme.compile(keras.optimizers.SGD(0.1, momentum=0.9))

    A step costs one more forward and backward pass than adversarial training. Batch norm's moving
    statistics are those at w, and `loss` of `evaluate` is J(x') at w (ours).

    A network without batch norm, such as Table 1's, may never leave its first plateau: its loss
    there is so flat that v undoes what an update gains. `warmup_steps` lets it learn first.

    Paper: [Wu et al. 2020](https://arxiv.org/abs/2004.05884).

    Args:
        classifier: Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
        attack: Attack from `gat_tf.attacks`, which finds x'.
        gamma: γ, not negative: the larger, the further from the weights. 0 is adversarial training
            with `alpha=0`.
        warmup_steps: Number of steps of the optimiser at the beginning with γ = 0.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels. By default the attack's `clip`, or [0, 1] where that is
            None.
        seed: Seed of the attack's random choices.

    Raises:
        ValueError: γ or `warmup_steps` is negative, `from_logits` does not fit the classifier, or
            `bounds` not the attack's `clip`.
        TypeError: The attack is not an `Attack`, or the classifier is not a Keras model.

    Examples:
        >>> pgd = attacks.PGD(8 / 255, math.inf, steps=3)
        >>> scheme = training.AWP(model, pgd, gamma=0.005)
        >>> scheme.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        >>> history = scheme.fit(dataset, epochs=1, verbose=0)
        >>> accuracies = history.history["adversarial_accuracy"]  # one value per epoch
    """

    _arguments = (*ClassifierScheme._arguments, "attack", "gamma", "warmup_steps")

    def __init__(
        self,
        classifier: keras.Model,
        attack: Attack,
        gamma: float = 0.005,
        *,
        warmup_steps: int = 0,
        from_logits: bool = False,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(
            classifier, attack, 0.0, from_logits=from_logits, bounds=bounds, seed=seed, name=name
        )
        self.gamma = checks.number("gamma", gamma, low=0)
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, low=0)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        perturbation = self.attack.perturb(self._logits, images, labels, self._step_seed())
        clean = outcome(self._logits(images), labels)
        warm = tf.convert_to_tensor(self.optimizer.iterations) >= self.warmup_steps
        step = awp_step(
            self._logits,
            self.attack.apply(images, perturbation),
            labels,
            tf.where(warm, self.gamma, 0.0),
            loss_scale=self.optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.optimizer, self.classifier, step.gradients, images)
        return self._record(loss=step.loss, **recorded(clean, step.at_weights, perturbation))
