"""What Rob-GAN and its rival SN-GAN share: two networks, two optimisers, noise and classes."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras.optimizers import Optimizer
from keras.optimizers.schedules import LearningRateSchedule

from gat_tf import checks
from gat_tf._keras import all_layers
from gat_tf._types import Seed
from gat_tf.models import sampling
from gat_tf.training.base import ADAM_EPSILON, Scheme, first_batch_size, require_built


class GAN(Scheme):
    """A scheme of a discriminator and a class-conditional generator of images in [-1, 1].

    A step updates the discriminator `discriminator_steps` times, each time on a minibatch of its
    own, and then the generator once. Called, the scheme is the discriminator.

    Args:
        discriminator: D, a Keras model.
        generator: G, a Keras model from `[noise, labels]` to images `[B, H, W, C]` in [-1, 1].
        num_classes: K.
        discriminator_steps: n_dis, at least 1.
        seed: Seed of noise and classes. Each step's are derived from it and from the count of
            steps, which is saved with the weights, so that a run that is resumed goes on as if
            never stopped.

    Raises:
        ValueError: The networks' images or classes do not fit each other.
    """

    _arguments = ("discriminator", "generator", "discriminator_steps", *Scheme._arguments)
    _optimizers: ClassVar = {
        "discriminator_optimizer": "optimizer",
        "generator_optimizer": "generator_optimizer",
    }

    def __init__(
        self,
        discriminator: keras.Model,
        generator: keras.Model,
        num_classes: int,
        *,
        discriminator_steps: int,
        seed: int,
        name: str | None,
    ):
        require_built(discriminator)
        require_built(generator)
        super().__init__(num_classes, (-1.0, 1.0), seed=seed, name=name)
        self.discriminator = discriminator
        self.generator = generator
        self.latent_size = sampling.latent_size(generator)
        self.image_shape = discriminator.inputs[0].shape[1:]
        check_networks(self.image_shape, generator, num_classes)
        self.discriminator_steps = checks.count("discriminator_steps", discriminator_steps)
        self.steps = step_counter(self)

    @property
    def _learner(self):
        return self.discriminator

    def _default_optimizer(self):
        return adam()

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.discriminator(inputs, training=training)

    def compile(  # type: ignore[override]  # two optimisers for one
        self,
        discriminator_optimizer: Optimizer | str | None = None,
        generator_optimizer: Optimizer | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            discriminator_optimizer: Keras optimiser of D. By default Adam with learning rate 2e-4,
                β (0, 0.9) and epsilon 1e-8, as in the Rob-GAN paper's code.
            generator_optimizer: Keras optimiser of G; the same by default.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`, as for
                `AdversarialTraining`.
        """
        super().compile(discriminator_optimizer, **kwargs)
        self.generator_optimizer = self._prepared(generator_optimizer or adam(), self.generator)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        if self.discriminator_steps == 1:
            minibatches = [(images, labels)]
        else:
            pairs = (tf.unstack(t, self.discriminator_steps, axis=1) for t in (images, labels))
            minibatches = list(zip(*pairs, strict=True))
        for i, (images, labels) in enumerate(minibatches):
            values = self._update_discriminator(images, labels, *self._draw(images, i))
        values |= self._update_generator(*self._draw(images, len(minibatches)))
        self.steps.assign_add(1)
        return self._record_with_loss(values)

    def test_step(self, data: Any) -> dict[str, Any]:
        """The same noise and classes in every batch, with both networks in inference mode."""
        images, labels = self._unpacked(data)
        noise, fake_labels = draw(images, self.latent_size, self.num_classes, [self.seed, -1])
        return self._record_with_loss(self._values(images, labels, noise, fake_labels))

    @abc.abstractmethod
    def _update_discriminator(
        self, images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor, fake_labels: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Updates D, and returns values `[B]` to record."""

    @abc.abstractmethod
    def _update_generator(self, noise: tf.Tensor, fake_labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates G, and returns values `[B]` to record."""

    @abc.abstractmethod
    def _values(
        self, images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor, fake_labels: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The values `[B]` that the updates would record; nothing is updated."""

    def _draw(self, batch: tf.Tensor, stream: int) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([self.seed, tf.convert_to_tensor(self.steps)])
        return draw(batch, self.latent_size, self.num_classes, tf.random.fold_in(seed, stream))

    def _record_with_loss(self, values: dict) -> dict:
        # The sum shows at a glance, and to keras.callbacks.TerminateOnNaN, that either diverges.
        loss = values["discriminator_loss"] + values["generator_loss"]
        return self._record(loss=loss, **values)

    def _require_one_minibatch(self):
        if self.discriminator_steps > 1:
            raise ValueError(
                f"A step of {type(self).__name__} with discriminator_steps="
                f"{self.discriminator_steps} takes as many minibatches: use `fit`, which groups "
                "them, or pass discriminator_steps=1."
            )

    def _training_data(self, x, y, batch_size, shuffle):
        dataset = super()._training_data(x, y, batch_size, shuffle)
        if self.discriminator_steps == 1:
            return dataset
        return dataset.apply(self._grouped).prefetch(tf.data.AUTOTUNE)

    def _checked(self, x, y=None, batch_size=None, shuffle=False):
        dataset = super()._checked(x, y, batch_size, shuffle)
        images = dataset.element_spec[0].shape[1:]
        if not images.is_compatible_with(self.image_shape):
            raise ValueError(
                f"Expected images of the networks' shape {self.image_shape}. Received: {images}"
            )
        return dataset

    def _grouped(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Minibatches n_dis at a time, `[B, n_dis, ...]`; what fills no group is left out.

        The batch comes first, so that every device gets its share of each minibatch. A smaller
        last batch in a group is filled up from the beginning of the data: so the number of groups
        is known, without which Keras counts a step too many in each epoch.
        """
        steps, batches = self.discriminator_steps, int(dataset.cardinality())
        if 0 <= batches < steps:
            raise ValueError(
                f"Expected at least discriminator_steps={steps} batches. Received: {batches}"
            )
        batch_size = first_batch_size(dataset) or 1

        @tf.autograph.experimental.do_not_convert
        def group(*batch):
            return tuple(
                tf.stack(tf.split(tensor, steps), axis=1)  # [B, n_dis, ...]
                for tensor in batch
            )

        if batches < 0:  # endless or not known
            return dataset.rebatch(steps * batch_size, drop_remainder=True).map(group)
        groups = dataset.repeat().rebatch(steps * batch_size, drop_remainder=True).map(group)
        number = batches // steps
        return groups.take(number).apply(tf.data.experimental.assert_cardinality(number))


def adam(learning_rate: float | LearningRateSchedule = 2e-4) -> keras.optimizers.Adam:
    """The optimiser of Rob-GAN and SN-GAN; the learning rate is a number or a Keras schedule."""
    return keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.9, epsilon=ADAM_EPSILON)


def draw(
    batch: tf.Tensor, latent_size: int, num_classes: int, seed: Seed
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns standard normal noise `[B, latent_size]` and uniform classes `[B]`.

    Drawn once for the batch of all devices, of which each takes its part: however many there are,
    they train on the same fakes.

    Args:
        batch: Anything with B as its first dimension: this device's share.
        latent_size: Length of a noise vector.
        num_classes: K.
        seed: `[2]` integers.
    """
    context = tf.distribute.get_replica_context()
    replicas, ours = context.num_replicas_in_sync, tf.shape(batch)[0]
    first, total = 0, ours
    if replicas > 1:
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        shares = tf.one_hot(replica, replicas) * tf.cast(ours, tf.float32)
        shares = tf.cast(context.all_reduce("SUM", shares), tf.int32)
        first, total = tf.reduce_sum(shares[:replica]), tf.reduce_sum(shares)
    noise_seed, label_seed = tf.unstack(tf.random.split(seed, 2))
    noise = tf.random.stateless_normal([total, latent_size], noise_seed)
    labels = tf.random.stateless_uniform([total], label_seed, 0, num_classes, tf.int32)
    return noise[first : first + ours], labels[first : first + ours]


def step_counter(scheme: Scheme) -> keras.Variable:
    """A weight that counts the scheme's steps: an optimiser's count restarts with its moments."""
    return scheme.add_weight(
        name="steps",
        shape=(),
        dtype="int32",
        initializer="zeros",
        trainable=False,
        aggregation="only_first_replica",
    )


def judged_together(discriminator: keras.Model, real: Any, fake: Any) -> tuple:
    """Returns what D, in training mode, makes of real and of fake images.

    In one pass over both, unless batch norm would mix their statistics.

    Args:
        discriminator: D.
        real: What D takes: images `[B, H, W, C]`, or a list of tensors.
        fake: As many more.
    """
    if any(isinstance(x, keras.layers.BatchNormalization) for x in all_layers(discriminator)):
        return discriminator(real, training=True), discriminator(fake, training=True)

    def both(a, b):
        return tf.concat([a, tf.cast(b, a.dtype)], 0)

    count = tf.shape(tf.nest.flatten(real)[0])[0]
    outputs = discriminator(tf.nest.map_structure(both, real, fake), training=True)
    return (
        tf.nest.map_structure(lambda t: t[:count], outputs),
        tf.nest.map_structure(lambda t: t[count:], outputs),
    )


def check_networks(images: tf.Tensor, generator: keras.Model, num_classes: int) -> None:
    """Raises ValueError unless a generator makes such images of so many classes."""
    made = generator.output_shape[1:]
    if tuple(images) != tuple(made):
        raise ValueError(
            f"Expected a generator of images {tuple(images)}, as the other network takes them. "
            f"Received: one of images {tuple(made)}"
        )
    embedded = sampling.num_classes(generator)
    if embedded not in (None, num_classes):
        raise ValueError(
            f"Expected a generator of the discriminator's {num_classes} classes. "
            f"Received: one of {embedded} classes"
        )
