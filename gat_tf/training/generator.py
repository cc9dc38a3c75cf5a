"""Eq. 9 of the GAT paper: a generator of perturbations against a classifier."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.optimizers import Optimizer

from gat_tf import checks
from gat_tf._types import Bounds
from gat_tf.attacks import norms
from gat_tf.gradients import ClassifierPass, logits_and_input_gradient
from gat_tf.logits import Logits
from gat_tf.training.base import ADAM_EPSILON, require_built
from gat_tf.training.classifier_base import ClassifierScheme, Outcome, outcome, recorded

_WIDE = 20.0  # a range of pixels of which 1 is little


class PerturbationGeneratorStep(NamedTuple):
    """The result of a generator step.

    Attributes:
        loss: L_G of eq. 9 per image, `[B]`.
        perturbation: G(Δ), `[B, H, W, C]`.
        adversarial: The outcome of x + G(Δ).
        gradients: Gradients of the summed `loss` of the batch, one per trainable variable of G.
    """

    loss: tf.Tensor
    perturbation: tf.Tensor
    adversarial: Outcome | ClassifierPass
    gradients: list[tf.Tensor]


def perturbation_generator_step(
    logits: Logits,
    generator: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    gradient: tf.Tensor,
    c_g: float,
    *,
    loss_scale: float | tf.Tensor = 1.0,
) -> PerturbationGeneratorStep:
    """Loss and gradients of eq. 9, computed directly; nothing is updated.

    Args:
        logits: The classifier, run in inference mode.
        generator: G, run in training mode.
        images: `[B, H, W, C]`.
        labels: `[B]`.
        gradient: Δ, `[B, H, W, C]`: a constant, so that no second-order gradient is taken.
        c_g: Weight of the perturbation's power.
        loss_scale: Factor by which the gradients are multiplied (mixed precision).
    """
    variables = generator.trainable_variables
    with tf.GradientTape() as tape:
        perturbation = tf.cast(generator(gradient, training=True), images.dtype)
        adversarial = outcome(logits(images + perturbation), labels)
        loss = adversarial.probability + c_g * norms.power(perturbation)
        scaled = tf.reduce_sum(loss) * loss_scale
    return PerturbationGeneratorStep(
        loss=loss,
        perturbation=perturbation,
        adversarial=adversarial,
        gradients=tape.gradient(scaled, variables),
    )


class GeneratorScheme(ClassifierScheme):
    """A scheme with a generator of perturbations against the classifier.

    Args:
        classifier: F, a Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
        generator: G, a Keras model from gradients `[B, H, W, C]` to perturbations of that shape.
        c_g: Weight of the perturbation's power in eq. 9, not negative.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels.
        seed: Seed of the scheme's random choices.
    """

    _arguments = (*ClassifierScheme._arguments, "generator", "c_g")

    def __init__(
        self,
        classifier: keras.Model,
        generator: keras.Model,
        c_g: float,
        *,
        from_logits: bool = False,
        bounds: Bounds = (0.0, 1.0),
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(classifier, bounds, from_logits=from_logits, seed=seed, name=name)
        _check_shapes(classifier, generator)
        require_built(generator)
        _warn_of_small_perturbations(generator, self.bounds)
        self.generator = generator
        self.c_g = checks.number("c_g", c_g, low=0)
        for name in (
            "generator_loss",  # L_G of eq. 9
            "gradient_norm",  # ||Δ||_2
            "generator_bias_norm",  # ||G(0)||_2: what G adds whatever the gradient
        ):
            self.results[name] = keras.metrics.Mean(name=name)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        clean, gradient = logits_and_input_gradient(self._logits, images, labels, "probability")
        perturbation = tf.cast(self.generator(gradient, training=False), images.dtype)
        adversarial = outcome(self._logits(images + perturbation), labels)
        return self._record_with_generator(
            gradient,
            generator_loss=adversarial.probability + self.c_g * norms.power(perturbation),
            **recorded(outcome(clean, labels), adversarial, perturbation),
        )

    def _objective(self, values: dict) -> tf.Tensor:
        """The objective `loss`, `[B]`, from the other recorded values: L_G of eq. 9."""
        return values["generator_loss"]

    def _update_generator(
        self, optimizer: Optimizer, images: tf.Tensor, labels: tf.Tensor, gradient: tf.Tensor
    ) -> PerturbationGeneratorStep:
        step = perturbation_generator_step(
            self._logits,
            self.generator,
            images,
            labels,
            gradient,
            self.c_g,
            loss_scale=optimizer.scale_loss(1.0),
        )
        self._apply_mean(optimizer, self.generator, step.gradients, images)
        return step

    def _record_with_generator(
        self, gradient: tf.Tensor, **values: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        nothing = tf.zeros([1, *gradient.shape[1:]], gradient.dtype)
        bias = tf.cast(self.generator(nothing, training=False), gradient.dtype)
        return self._record(
            loss=self._objective(values),
            gradient_norm=norms.l2_norm(gradient),
            generator_bias_norm=norms.l2_norm(bias),
            **values,
        )


@keras.saving.register_keras_serializable("gat_tf")
class GeneratorTraining(GeneratorScheme):
    """Trains a generator against a fixed classifier (eq. 9; Fig. 2 of the GAT paper).

    The loss, and `loss` among the metrics, is L_G of eq. 9; x + G(Δ) is not clipped.

    Δ and G(Δ) are in units of pixel values. For pixels from 0 to 255 Δ is 255 times smaller than on
    [0, 1], and the perturbations that fool F are 255 times larger: put
    `keras.layers.Rescaling(255)` before and after G, and divide c_g by 255².

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        classifier: F, a trained Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
            It runs in inference mode and is not changed.
        generator: G, a Keras model from gradients `[B, H, W, C]` to perturbations of that shape.
        c_g: Weight of the perturbation's power in eq. 9, not negative: the larger, the smaller
            the perturbations.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels.

    Raises:
        ValueError: c_g is negative, `from_logits` does not fit the classifier, or the generator's
            shapes do not fit the classifier's images.

    Examples:
        >>> scheme = training.GeneratorTraining(model, generator, c_g=1.0)
        >>> scheme.compile(keras.optimizers.Adam(1e-3))
        >>> history = scheme.fit(dataset, epochs=1, verbose=0)
        >>> attack = attacks.GeneratorAttack(scheme.generator)
    """

    @property
    def _learner(self):
        return self.generator

    def _default_optimizer(self):
        return slow_adam()

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        clean, gradient = logits_and_input_gradient(self._logits, images, labels, "probability")
        step = self._update_generator(self.optimizer, images, labels, gradient)
        return self._record_with_generator(
            gradient,
            generator_loss=step.loss,
            **recorded(outcome(clean, labels), step.adversarial, step.perturbation),
        )


def slow_adam() -> keras.optimizers.Adam:
    """The GAT paper's optimiser for the generator."""
    return keras.optimizers.Adam(1e-6, epsilon=ADAM_EPSILON)


def _check_shapes(classifier: keras.Model, generator: keras.Model) -> None:
    if not isinstance(generator, keras.Model):
        raise TypeError(f"Expected a Keras model as generator. Received: {generator!r}")
    shapes = {
        "the classifier's images": getattr(classifier, "input_shape", None),
        "the generator's gradients": getattr(generator, "input_shape", None),
        "the generator's perturbations": getattr(generator, "output_shape", None),
    }
    known = {name: shape[1:] for name, shape in shapes.items() if isinstance(shape, tuple)}
    first = next(iter(known.values()), ())
    if not all(tf.TensorShape(shape).is_compatible_with(first) for shape in known.values()):
        described = ", ".join(f"{name} {shape}" for name, shape in known.items())
        raise ValueError(f"Expected a generator for the classifier's images. Received: {described}")


def _warn_of_small_perturbations(generator: keras.Model, bounds: Bounds) -> None:
    """Warns of a generator that ends in tanh, as Table 1's does, on pixels such as 0 to 255."""
    low, high = bounds
    last = generator
    while getattr(last, "layers", None):  # a model may end in another
        last = last.layers[-1]
    if high - low > _WIDE and getattr(last, "activation", None) is keras.activations.tanh:
        warnings.warn(
            f"The generator ends in tanh, so it changes a pixel by less than 1, in a range from "
            f"{low:g} to {high:g}. Train on images in [0, 1] instead, with "
            f"keras.layers.Rescaling({high - low:g}, {low:g}) before the classifier; or put "
            f"Rescaling({high - low:g}) before and after the generator and divide `c_g` by "
            f"{high - low:g}².",
            stacklevel=4,
        )
