"""The Generative Adversarial Trainer: eqs. 9 and 10 and Algorithm 1 of the GAT paper."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras.optimizers import Optimizer

from gat_tf import checks
from gat_tf.attacks import norms
from gat_tf.gradients import ClassifierPass, classifier_pass, logits_and_input_gradient
from gat_tf.logits import Logits
from gat_tf.training.base import first_batch_size
from gat_tf.training.classifier_base import (
    MixedStep,
    Outcome,
    mixed,
    mixed_step,
    outcome,
    recorded,
)
from gat_tf.training.generator import GeneratorScheme, PerturbationGeneratorStep, slow_adam

MINIBATCHES = ("separate", "shared")


def clean_pass(
    logits: Logits, images: tf.Tensor, labels: tf.Tensor, loss_scale: float | tf.Tensor = 1.0
) -> tuple[ClassifierPass, tf.Tensor]:
    """The classifier's pass over the images, and Δ = dF(x)_y/dx `[B, H, W, C]`.

    If the network computes the same in training and inference, Δ = -F(x)_y dJ/dx comes from this
    pass. Otherwise a second pass, in inference mode, computes it.
    """
    clean = classifier_pass(logits, images, labels, logits.same_in_training, loss_scale)
    if logits.same_in_training:
        return clean, -clean.probability[:, None, None, None] * clean.input_gradient
    return clean, logits_and_input_gradient(logits, images, labels, "probability")[1]


def shared_step(
    clean: ClassifierPass,
    logits: Logits,
    generator: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    gradient: tf.Tensor,
    c_g: float,
    alpha: float,
    *,
    classifier_loss_scale: float | tf.Tensor = 1.0,
    generator_loss_scale: float | tf.Tensor = 1.0,
) -> tuple[PerturbationGeneratorStep, MixedStep]:
    """Eqs. 9 and 10 on one minibatch, with one perturbation G(Δ) for both; nothing is updated.

    The classifier's backward pass at x + G(Δ) also gives dJ/dη, and dF_y/dη = -F_y dJ/dη, so the
    generator needs no extra pass of the classifier. With dropout or batch norm, one extra pass in
    inference mode is needed to keep the meaning of eq. 9.

    The arguments are those of `perturbation_generator_step` and `mixed_step`.
    """
    variables = generator.trainable_variables
    with tf.GradientTape() as tape:
        perturbation = tf.cast(generator(gradient, training=True), images.dtype)
    of_classifier = mixed_step(
        clean,
        logits,
        images + perturbation,
        labels,
        alpha,
        with_input_gradient=logits.same_in_training,
        loss_scale=classifier_loss_scale,
    )
    adversarial: Outcome | ClassifierPass
    if logits.same_in_training:
        adversarial = of_classifier.adversarial
        slope = -adversarial.probability[:, None, None, None] * adversarial.input_gradient
    else:
        z, slope = logits_and_input_gradient(logits, images + perturbation, labels, "probability")
        adversarial = outcome(z, labels)
    slope += 2 * c_g * perturbation
    of_generator = PerturbationGeneratorStep(
        loss=adversarial.probability + c_g * norms.power(perturbation),
        perturbation=perturbation,
        adversarial=adversarial,
        gradients=tape.gradient(
            perturbation, variables, output_gradients=slope * generator_loss_scale
        ),
    )
    return of_generator, of_classifier


@keras.saving.register_keras_serializable("gat_tf")
class GAT(GeneratorScheme):
    """Trains a classifier against a generator of perturbations (Algorithm 1 of the GAT paper).

    Each step updates the generator k times by eq. 9 and then the classifier once by eq. 10. The
    perturbed images x + G(Δ) are not clipped.

    Δ and G(Δ) are in units of pixel values. For pixels from 0 to 255 Δ is 255 times smaller than on
    [0, 1], and the perturbations that fool F are 255 times larger: put
    `keras.layers.Rescaling(255)` before and after G, and divide c_g by 255².

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        classifier: F, a Keras model from images `[B, H, W, C]` within `bounds` to `[B, K]`.
        generator: G, a Keras model from gradients `[B, H, W, C]` to perturbations of that shape.
        c_g: Weight of the perturbation's power in eq. 9, not negative: the larger, the smaller
            the perturbations.
        alpha: Weight of the clean loss in eq. 10, in [0, 1]. 0.5 in the paper.
        generator_steps: k of Algorithm 1, at least 1. 1 in the paper.
        minibatches: `"separate"`, exactly as in Algorithm 1: every update has its own minibatch.
            `fit` draws the generator's minibatches independently from its dataset; an epoch is one
            pass of the classifier over the dataset. Or `"shared"`: both updates use the same
            minibatch and the same perturbation, made before the generator's (last) update, which
            saves a third of the work.
        from_logits: Whether the classifier gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels.
        seed: Seed of the generator's minibatches.

    Raises:
        ValueError: An argument is outside its range, `from_logits` does not fit the classifier,
            or the generator's shapes do not fit the classifier's images.

    Examples:
        >>> scheme = training.GAT(model, generator, c_g=0.1)
        >>> scheme.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-4))
        >>> history = scheme.fit(dataset, epochs=2, verbose=0)
        >>> accuracies = history.history["clean_accuracy"]  # one value per epoch
        >>> hardened = scheme.classifier  # a plain Keras model, to save or to evaluate
    """

    _arguments = (*GeneratorScheme._arguments, "alpha", "generator_steps", "minibatches")
    _optimizers: ClassVar = {
        "classifier_optimizer": "optimizer",
        "generator_optimizer": "generator_optimizer",
    }

    def __init__(
        self,
        classifier: keras.Model,
        generator: keras.Model,
        c_g: float,
        alpha: float = 0.5,
        generator_steps: int = 1,
        minibatches: str = "separate",
        *,
        from_logits: bool = False,
        bounds: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(
            classifier,
            generator,
            c_g,
            from_logits=from_logits,
            bounds=bounds,
            seed=seed,
            name=name,
        )
        if minibatches not in MINIBATCHES:
            raise ValueError(
                f"`minibatches` must be one of {MINIBATCHES}. Received: {minibatches!r}"
            )
        self.alpha = checks.number("alpha", alpha, 0, 1)
        self.generator_steps = checks.count("generator_steps", generator_steps)
        self.minibatches = minibatches

    def compile(  # type: ignore[override]  # two optimisers for one
        self,
        classifier_optimizer: Optimizer | str | None = None,
        generator_optimizer: Optimizer | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            classifier_optimizer: Keras optimiser of F. By default Adam with the paper's learning
                rate 1e-3 and epsilon 1e-8.
            generator_optimizer: Keras optimiser of G. By default Adam with the paper's learning
                rate 1e-6 and epsilon 1e-8.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`, as for
                `AdversarialTraining`.
        """
        super().compile(classifier_optimizer, **kwargs)
        self.generator_optimizer = self._prepared(
            generator_optimizer or slow_adam(), self.generator
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        if self.minibatches == "shared":
            of_generator, of_classifier, gradient, perturbation = self._shared_updates(data)
        else:
            of_generator, of_classifier, gradient, perturbation = self._separate_updates(data)
        return self._record_with_generator(
            gradient,
            generator_loss=of_generator.loss,
            **recorded(of_classifier.clean, of_classifier.adversarial, perturbation),
        )

    def _objective(self, values):
        return mixed(values["clean_loss"], values["adversarial_loss"], self.alpha)

    def _separate_updates(self, data):
        (images, labels), draws = data
        for drawn_images, drawn_labels in draws:
            _, gradient = logits_and_input_gradient(
                self._logits, drawn_images, drawn_labels, "probability"
            )
            of_generator = self._update_generator(
                self.generator_optimizer, drawn_images, drawn_labels, gradient
            )
        loss_scale = self.optimizer.scale_loss(1.0)
        clean, gradient = clean_pass(self._logits, images, labels, loss_scale)
        perturbation = tf.cast(self.generator(gradient, training=False), images.dtype)
        of_classifier = mixed_step(
            clean,
            self._logits,
            images + perturbation,
            labels,
            self.alpha,
            loss_scale=loss_scale,
        )
        self._apply_mean(self.optimizer, self.classifier, of_classifier.gradients, images)
        return of_generator, of_classifier, gradient, perturbation

    def _shared_updates(self, data):
        images, labels = self._unpacked(data)
        loss_scale = self.optimizer.scale_loss(1.0)
        clean, gradient = clean_pass(self._logits, images, labels, loss_scale)
        for _ in range(self.generator_steps - 1):
            self._update_generator(self.generator_optimizer, images, labels, gradient)
        of_generator, of_classifier = shared_step(
            clean,
            self._logits,
            self.generator,
            images,
            labels,
            gradient,
            self.c_g,
            self.alpha,
            classifier_loss_scale=loss_scale,
            generator_loss_scale=self.generator_optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.generator_optimizer, self.generator, of_generator.gradients, images)
        self._apply_mean(self.optimizer, self.classifier, of_classifier.gradients, images)
        return of_generator, of_classifier, gradient, of_generator.perturbation

    def _require_one_minibatch(self):
        if self.minibatches == "separate":
            raise ValueError(
                "A step of GAT with minibatches='separate' takes a minibatch of its own for each "
                "update: use `fit`, which draws them, or pass minibatches='shared'."
            )

    def _training_data(self, x, y, batch_size, shuffle):
        if self.minibatches == "separate" and _is_drawn(x, self.generator_steps):
            return x.map(self._checked_draws).prefetch(tf.data.AUTOTUNE)
        dataset = super()._training_data(x, y, batch_size, shuffle)
        if self.minibatches == "shared":
            return dataset
        return with_draws(dataset, self.generator_steps, self.seed)

    @tf.autograph.experimental.do_not_convert
    def _checked_draws(self, minibatch, draws):
        def checked(images, labels):
            return checks.batch(images, labels, self.num_classes, self.bounds)

        return checked(*minibatch), tuple(checked(*draw) for draw in draws)


def with_draws(dataset: tf.data.Dataset, draws: int, seed: int) -> tf.data.Dataset:
    """Pairs every minibatch with `draws` others, drawn independently from the same data.

    Args:
        dataset: (images, labels) batches.
        draws: Number of other minibatches, k of Algorithm 1.
        seed: Seed of the draws.

    Returns:
        A dataset of ((images, labels), ((images, labels), ... k times)), as long as `dataset`.
    """
    batch_size = first_batch_size(dataset)
    if batch_size is None:
        raise ValueError("Expected (images, labels) batches. Received: a dataset without any.")
    image_bytes = 4 * int(dataset.element_spec[0].shape[1:].num_elements() or 1)
    buffer = max(2 * batch_size, min(_DRAW_IMAGES, _DRAW_BYTES // image_bytes))
    others = (
        dataset.unbatch()
        .repeat()
        # After repeat: an order a pass over the pair, however far a prefetch has run ahead.
        .shuffle(buffer, seed=seed)
        .batch(batch_size)
        .batch(draws)
    )

    def pair(minibatch, other):
        # As large as the classifier's, which is smaller at the end of an epoch.
        size = tf.shape(minibatch[0])[0]
        images, labels = (tf.unstack(t[:, :size], num=draws) for t in other)
        return minibatch, tuple(zip(images, labels, strict=True))

    return tf.data.Dataset.zip(dataset, others).map(pair).prefetch(tf.data.AUTOTUNE)


# What the generator's minibatches are shuffled in: enough to be independent of the classifier's
# order, and no more memory than a GPU batch takes.
_DRAW_IMAGES = 10_000
_DRAW_BYTES = 2**28


def _is_drawn(x: Any, draws: int) -> bool:
    """Whether x is already a dataset of ((images, labels), k times (images, labels))."""
    if not isinstance(x, tf.data.Dataset):
        return False
    pair = (None, None)
    return tf.nest.map_structure(lambda _: None, x.element_spec) == (pair, (pair,) * draws)
