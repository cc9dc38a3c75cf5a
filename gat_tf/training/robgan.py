"""Rob-GAN: generator, discriminator and attacker trained together (eqs. 8 and 9 of its paper)."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from gat_tf import checks, losses
from gat_tf.attacks import PGD, Attack
from gat_tf.training.gan import GAN, judged_together

Outputs: TypeAlias = dict[str, tf.Tensor]  # logits, `real` and `classes`
CLASS_LOSSES = ("split", "split_equal", "acgan")


def real_loss(outputs: Outputs, labels: tf.Tensor) -> tf.Tensor:
    """Half of -log P(real | x) plus half of -log P(y | x), `[B]`.

    What the discriminator lowers on real images, what the attacker raises on them, and what the
    generator lowers on its own: its non-saturating share of eqs. 8 and 9.

    Args:
        outputs: Logits of the discriminator, `real` `[B, 1]` and `classes` `[B, K]`.
        labels: `[B]`.
    """
    return 0.5 * tf.math.softplus(-_judgement(outputs)) + 0.5 * class_loss_of(outputs, labels)


def fake_loss(outputs: Outputs, labels: tf.Tensor, class_loss: str) -> tf.Tensor:
    """What the discriminator lowers on fake images, `[B]`.

    -log P(fake | x) under the split loss (eq. 9), which leaves its class head alone there; half of
    it plus half of -log P(y | x) under AC-GAN's (eq. 8). The weights are those of the authors'
    code, in which the split loss weighs -log P(fake | x) twice as much, so that a comparison of the
    two changes two things. `"split_equal"` is the split loss at AC-GAN's weight.

    Args:
        outputs: Logits of the discriminator, `real` `[B, 1]` and `classes` `[B, K]`.
        labels: `[B]`, the classes that the generator was asked for.
        class_loss: One of `CLASS_LOSSES`.
    """
    judged = tf.math.softplus(_judgement(outputs))
    if class_loss == "split":
        return judged
    if class_loss == "split_equal":
        return 0.5 * judged
    return 0.5 * judged + 0.5 * class_loss_of(outputs, labels)


def class_loss_of(outputs: Outputs, labels: tf.Tensor) -> tf.Tensor:
    """-log P(y | x) from the class head, `[B]`."""
    return losses.cross_entropy(losses.margin(outputs["classes"], labels))


def attacked(
    discriminator: keras.Model,
    attack: PGD,
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: int | None = None,
) -> tf.Tensor:
    """The real images under PGD on `real_loss`, `[B, H, W, C]`; D runs in inference mode."""

    def gradient(perturbed):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbed)
            loss = real_loss(discriminator(perturbed, training=False), labels)
        # Over each image's loss: in the same direction, which float16 would lose for a D that is
        # sure of the image.
        return tape.gradient(loss, perturbed, output_gradients=1 / tf.maximum(loss, 1e-30))

    return attack.apply(images, attack.ascend(gradient, images, seed))


class DiscriminatorStep(NamedTuple):
    """What one update of the discriminator needs.

    Attributes:
        loss: `real_loss` plus `fake_loss` of each pair, `[B]`.
        real: Logits on the real images.
        fake: Logits on the fake images.
        gradients: Gradients of the sum of `loss` over the batch, one for each trainable variable.
    """

    loss: tf.Tensor
    real: Outputs
    fake: Outputs
    gradients: list[tf.Tensor]


def discriminator_step(
    discriminator: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    fakes: tf.Tensor,
    fake_labels: tf.Tensor,
    class_loss: str,
    *,
    loss_scale: float | tf.Tensor = 1.0,
) -> DiscriminatorStep:
    """Losses and gradients of D's share of eq. 8 or 9; nothing is updated.

    Args:
        discriminator: D, run in training mode; with batch norm, on reals and fakes apart.
        images: Real images, `[B, H, W, C]`, attacked already.
        labels: `[B]`.
        fakes: `[B, H, W, C]`, taken as constants.
        fake_labels: `[B]`.
        class_loss: One of `CLASS_LOSSES`.
        loss_scale: Factor that the gradients come out multiplied with (mixed precision).
    """
    with tf.GradientTape() as tape:
        real, fake = judged_together(discriminator, images, fakes)
        loss = real_loss(real, labels) + fake_loss(fake, fake_labels, class_loss)
        scaled = tf.reduce_sum(loss) * loss_scale
    gradients = tape.gradient(scaled, discriminator.trainable_variables)
    return DiscriminatorStep(loss, real, fake, gradients)


class GeneratorStep(NamedTuple):
    """What one update of the generator needs.

    Attributes:
        loss: `real_loss` of each fake image, `[B]`.
        fake: Logits on the fake images.
        gradients: Gradients of the sum of `loss` over the batch, one for each trainable variable.
    """

    loss: tf.Tensor
    fake: Outputs
    gradients: list[tf.Tensor]


def generator_step(
    discriminator: keras.Model,
    generator: keras.Model,
    noise: tf.Tensor,
    labels: tf.Tensor,
    *,
    loss_scale: float | tf.Tensor = 1.0,
) -> GeneratorStep:
    """Losses and gradients of G's share of eqs. 8 and 9; nothing is updated.

    Args:
        discriminator: D, run in training mode.
        generator: G, run in training mode.
        noise: `[B, latent size]`.
        labels: `[B]`.
        loss_scale: Factor that the gradients come out multiplied with (mixed precision).
    """
    variables = generator.trainable_variables
    with tf.GradientTape() as tape:
        fake = discriminator(generator([noise, labels], training=True), training=True)
        loss = real_loss(fake, labels)
        scaled = tf.reduce_sum(loss) * loss_scale
    return GeneratorStep(loss, fake, tape.gradient(scaled, variables))


@keras.saving.register_keras_serializable("gat_tf")
class RobGAN(GAN):
    """Trains generator, discriminator and attacker together (Rob-GAN; eqs. 8 and 9 of its paper).

    Without the attack and with `class_loss="acgan"` it is AC-GAN; the four settings of Fig. 8 are
    the four combinations.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        discriminator: D, a Keras model from images `[B, H, W, C]` in [-1, 1] to a dictionary of
            logits, `real` `[B, 1]` and `classes` `[B, K]`.
        generator: G, a Keras model from `[noise, labels]` to such images.
        attack: PGD that perturbs the real images, with `clip=(-1, 1)`, or None. The example has
            the authors' attack for CIFAR: its five steps of 0.0078 never reach their ε of 0.07. D
            runs in inference mode during the attack.
        class_loss: `"split"` (eq. 9): D's class head learns from real images alone. `"acgan"`
            (eq. 8): from fakes too. `"split_equal"`: as `"split"`, with D's judgement of fakes
            weighing 1/2 as under `"acgan"` instead of the authors' 1, so that the class head is all
            that differs.
        discriminator_steps: n_dis, updates of D for each of G, on minibatches of their own. 1 for
            CIFAR and 5 otherwise in the paper. The batches must be of one size then, but for the
            last; those that do not fill a group at the end of the data are left out.
        seed: Seed of noise, classes and random starts.

    Raises:
        ValueError: The networks do not fit each other, or an argument is outside its range.
        TypeError: The attack is not a `PGD`.

    Examples:
        >>> attack = attacks.PGD(
        ...     0.07, math.inf, 5, step_size=0.0078, random_start=False, clip=(-1, 1)
        ... )
        >>> scheme = training.RobGAN(discriminator, image_generator, attack)
        >>> scheme.compile()
        >>> history = scheme.fit(centred_dataset, epochs=1, verbose=0)
        >>> classifier = models.class_head(scheme.discriminator)
    """

    _arguments = (*GAN._arguments, "attack", "class_loss")
    _recorded = (
        "loss",  # the sum of the next two
        "discriminator_loss",
        "generator_loss",
        "adversarial_accuracy",  # of D's class head on real images under attack
        "fake_accuracy",  # of D's class head on fakes, against the class asked for
        "real_judged_real",  # share of attacked real images that D takes for real
        "fake_judged_real",  # share of fakes that D takes for real
    )

    def __init__(
        self,
        discriminator: keras.Model,
        generator: keras.Model,
        attack: PGD | None = None,
        class_loss: str = "split",
        *,
        discriminator_steps: int = 1,
        seed: int = 0,
        name: str | None = None,
    ):
        checks.one_of("class_loss", class_loss, CLASS_LOSSES)
        _check_attack(attack)
        super().__init__(
            discriminator,
            generator,
            _classes(discriminator),
            discriminator_steps=discriminator_steps,
            seed=seed,
            name=name,
        )
        self.attack = attack
        self.class_loss = class_loss

    def _update_discriminator(self, images, labels, noise, fake_labels):
        images = self._attacked(images, labels)
        step = discriminator_step(
            self.discriminator,
            images,
            labels,
            self.generator([noise, fake_labels], training=True),
            fake_labels,
            self.class_loss,
            loss_scale=self.optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.optimizer, self.discriminator, step.gradients, images)
        return _judged(step.loss, step.real, step.fake, labels, fake_labels)

    def _update_generator(self, noise, fake_labels):
        step = generator_step(
            self.discriminator,
            self.generator,
            noise,
            fake_labels,
            loss_scale=self.generator_optimizer.scale_loss(1.0),
        )
        self._apply_mean(self.generator_optimizer, self.generator, step.gradients, noise)
        return {"generator_loss": step.loss}

    def _values(self, images, labels, noise, fake_labels):
        real = self.discriminator(self._attacked(images, labels), training=False)
        fakes = self.generator([noise, fake_labels], training=False)
        fake = self.discriminator(fakes, training=False)
        loss = real_loss(real, labels) + fake_loss(fake, fake_labels, self.class_loss)
        return {
            **_judged(loss, real, fake, labels, fake_labels),
            "generator_loss": real_loss(fake, fake_labels),
        }

    def _attacked(self, images, labels):
        if self.attack is None:
            return images
        seed = tf.stack([self.seed, tf.convert_to_tensor(self.steps)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Far from the streams of `_draw`.
        seed = tf.random.fold_in(seed, 2**20 + tf.cast(replica, tf.int32))
        return attacked(self.discriminator, self.attack, images, labels, seed)


def _judged(
    loss: tf.Tensor, real: Outputs, fake: Outputs, labels: tf.Tensor, fake_labels: tf.Tensor
) -> dict[str, tf.Tensor]:
    return {
        "discriminator_loss": loss,
        "adversarial_accuracy": losses.is_correct(real["classes"], labels),
        "fake_accuracy": losses.is_correct(fake["classes"], fake_labels),
        "real_judged_real": _judgement(real) > 0,
        "fake_judged_real": _judgement(fake) > 0,
    }


def _judgement(outputs: Outputs) -> tf.Tensor:
    """The logit of "real", `[B]`."""
    return outputs["real"][:, 0]


def _classes(discriminator: keras.Model) -> int:
    heads: Any = discriminator.output if getattr(discriminator, "inputs", None) else None
    shapes: Any = (
        {k: tuple(v.shape) for k, v in heads.items()} if isinstance(heads, dict) else heads
    )
    if (
        not isinstance(heads, dict)
        or set(heads) != {"real", "classes"}
        or shapes["real"][1:] != (1,)
    ):
        raise ValueError(
            "Expected a functional discriminator with a dictionary of logits, `real` [B, 1] and "
            f"`classes` [B, K]. Received: outputs {shapes}"
        )
    return shapes["classes"][-1]


def _check_attack(attack: Attack | None) -> None:
    if attack is None:
        return
    if not isinstance(attack, PGD):
        raise TypeError(f"Expected attacks.PGD, or None for no attack. Received: {attack!r}")
    if attack.clip is None or tuple(attack.clip) != (-1, 1) or attack.targeted:
        raise ValueError(
            "Expected an untargeted attack on images in [-1, 1], with clip=(-1, 1). "
            f"Received: {attack!r}"
        )
    if attack.restarts > 1 or attack.early_stop:
        raise ValueError(
            "Expected one run of every step on every image, without restarts or early_stop. "
            f"Received: {attack!r}"
        )
