"""SN-GAN, Rob-GAN's rival: hinge losses against a projection discriminator."""

from __future__ import annotations

import keras
import tensorflow as tf

from gat_tf.training.gan import GAN, judged_together


@keras.saving.register_keras_serializable("gat_tf")
class SNGAN(GAN):
    """Trains a generator against a spectrally normalised projection discriminator.

    D lowers max(0, 1 - D(x, y)) + max(0, 1 + D(G(z, y'), y')), G lowers -D(G(z, y'), y').

    Papers: [Miyato et al. 2018](https://arxiv.org/abs/1802.05957) and, for the projection,
    [Miyato and Koyama 2018](https://arxiv.org/abs/1802.05637).

    Args:
        discriminator: D, a Keras model from `[images, labels]`, images in [-1, 1], to `[B, 1]`.
        generator: G, a Keras model from `[noise, labels]` to such images.
        num_classes: K.
        discriminator_steps: n_dis, as for `RobGAN`; 5 in the SN-GAN paper.
        seed: Seed of noise and classes.

    Raises:
        ValueError: The networks do not fit each other.

    Examples:
        >>> projection = models.projection_discriminator(4, image_size=32, width=1 / 16)
        >>> scheme = training.SNGAN(projection, image_generator, 4, discriminator_steps=2)
        >>> scheme.compile()
        >>> history = scheme.fit(centred_dataset, epochs=1, verbose=0)
    """

    _arguments = (*GAN._arguments, "num_classes")
    _recorded = (
        "loss",  # the sum of the next two
        "discriminator_loss",
        "generator_loss",
        "real_judged_real",  # share of real images with D > 0
        "fake_judged_real",
    )

    def __init__(
        self,
        discriminator: keras.Model,
        generator: keras.Model,
        num_classes: int,
        *,
        discriminator_steps: int = 5,
        seed: int = 0,
        name: str | None = None,
    ):
        inputs = getattr(discriminator, "inputs", None) or ()
        if len(inputs) != 2:
            raise ValueError(
                "Expected a discriminator of [images, labels]. "
                f"Received: one with {len(inputs)} input(s) to be seen"
            )
        super().__init__(
            discriminator,
            generator,
            num_classes,
            discriminator_steps=discriminator_steps,
            seed=seed,
            name=name,
        )

    def _update_discriminator(self, images, labels, noise, fake_labels):
        fakes = self.generator([noise, fake_labels], training=True)
        with tf.GradientTape() as tape:
            real, fake = judged_together(self.discriminator, [images, labels], [fakes, fake_labels])
            loss = _hinge(real, fake)
            scaled = self.optimizer.scale_loss(tf.reduce_sum(loss))
        gradients = tape.gradient(scaled, self.discriminator.trainable_variables)
        self._apply_mean(self.optimizer, self.discriminator, gradients, images)
        return _judged(loss, real, fake)

    def _update_generator(self, noise, fake_labels):
        with tf.GradientTape() as tape:
            fakes = self.generator([noise, fake_labels], training=True)
            loss = -self.discriminator([fakes, fake_labels], training=True)[:, 0]
            scaled = self.generator_optimizer.scale_loss(tf.reduce_sum(loss))
        gradients = tape.gradient(scaled, self.generator.trainable_variables)
        self._apply_mean(self.generator_optimizer, self.generator, gradients, noise)
        return {"generator_loss": loss}

    def _values(self, images, labels, noise, fake_labels):
        fakes = self.generator([noise, fake_labels], training=False)
        real = self.discriminator([images, labels], training=False)
        fake = self.discriminator([fakes, fake_labels], training=False)
        return {**_judged(_hinge(real, fake), real, fake), "generator_loss": -fake[:, 0]}


def _hinge(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    return (tf.nn.relu(1 - real) + tf.nn.relu(1 + fake))[:, 0]


def _judged(loss: tf.Tensor, real: tf.Tensor, fake: tf.Tensor) -> dict[str, tf.Tensor]:
    return {
        "discriminator_loss": loss,
        "real_judged_real": real[:, 0] > 0,
        "fake_judged_real": fake[:, 0] > 0,
    }
