"""Images from a class-conditional generator, with the statistics of their batch or fixed ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import all_layers
from gat_tf._types import Array

STATISTICS = ("batch", "moving")
_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def sample(
    generator: keras.Model,
    labels: Array,
    *,
    noise: Array | None = None,
    seed: int = 0,
    batch_size: int = 100,
    statistics: str = "batch",
) -> np.ndarray:
    """Returns images of the classes asked for.

    By default batch norm uses the statistics of the batch, as the authors of Rob-GAN always do. An
    image then depends on the others of its batch, so every batch mixes all classes in random order,
    and images are added, and thrown away, until all classes are equally frequent and the last batch
    is full.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        generator: Keras model from `[noise, labels]` to images, such as `image_generator`'s. It is
            not changed.
        labels: `[N]` integers, the class of each image.
        noise: `[N, latent size]`; standard normal, drawn from the seed, by default.
        seed: Seed of the noise and of the batches.
        batch_size: Images at a time.
        statistics: `"batch"` as above. `"moving"` uses the generator's moving statistics, as SN-GAN
            does: an image does not depend on the others. For a generator of Rob-GAN pass the
            one that `with_fixed_statistics` returns.

    Returns:
        `[N, H, W, C]` float32 in [-1, 1].

    Raises:
        ValueError: The noise is not of the generator's size, the labels are not integers `[N]` of
            its classes, the model is not such a generator, or `statistics` is not one of these.

    Examples:
        >>> made = models.sample(image_generator, labels=[0, 1, 2, 3], batch_size=8)
        >>> made.shape
        (4, 32, 32, 3)
    """
    labels = np.asarray(labels)
    images: Any = None  # until the first batch shows their shape
    for places, batch in sample_batches(
        generator, labels, noise=noise, seed=seed, batch_size=batch_size, statistics=statistics
    ):
        if images is None:
            images = np.empty((len(labels), *batch.shape[1:]), np.float32)
        images[places] = batch
    return images


def sample_batches(
    generator: keras.Model,
    labels: Array,
    *,
    noise: Array | None = None,
    seed: int = 0,
    batch_size: int = 100,
    statistics: str = "batch",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of `sample`, a batch at a time, for more of them than memory holds.

    Arguments and errors are those of `sample`.

    Yields:
        Places in `labels`, `[B]`, and their images, `[B, H, W, C]` float32 in [-1, 1]. Each place
        occurs once, in random order, or in the given order with `statistics="moving"`.

    Examples:
        >>> batches = models.sample_batches(image_generator, np.arange(16) % 4, batch_size=8)
        >>> places, made = next(batches)
        >>> made.shape
        (8, 32, 32, 3)
    """
    size = latent_size(generator)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(
            "Expected integer labels [images], at least one. "
            f"Received: {labels.dtype} labels of shape {labels.shape}"
        )
    checks.count("batch_size", batch_size)
    checks.one_of("statistics", statistics, STATISTICS)
    classes = num_classes(generator)
    if not 0 <= labels.min() <= labels.max() < (classes or np.inf):
        raise ValueError(
            f"Expected labels from 0 to {(classes or 0) - 1}, the generator's classes. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    rng = np.random.default_rng(seed)
    if noise is None:
        noise = rng.standard_normal((len(labels), size), np.float32)
    noise = np.asarray(noise, np.float32)
    if noise.shape != (len(labels), size):
        raise ValueError(
            f"Expected noise of shape {(len(labels), size)}, a vector of the generator's size for "
            f"each label. Received: {noise.shape}"
        )
    count, order = len(labels), np.arange(len(labels))
    if statistics == "batch":
        added = _missing(labels, classes or labels.max() + 1, batch_size, rng)
        labels = np.concatenate([labels, added])
        noise = np.concatenate([noise, rng.standard_normal((len(added), size), np.float32)])
        order = rng.permutation(len(labels))
    return _batches(generator, noise, labels.astype(np.int32), order, count, batch_size, statistics)


def with_fixed_statistics(
    generator: keras.Model, *, batches: int = 100, batch_size: int = 100, seed: int = 0
) -> keras.Model:
    """Returns a copy of the generator whose moving statistics are means over many batches.

    In inference mode the copy makes an image that depends on its noise and class alone, so that
    single images can be drawn: the images that the authors' batches would give on average.

    Args:
        generator: Keras model from `[noise, labels]` to images. It is not changed.
        batches: Number of batches whose means and variances are averaged.
        batch_size: Images of each, of all classes in equal numbers.
        seed: Seed of noise and order.

    Raises:
        ValueError: The model is not such a generator, or a number is not at least 1.

    Examples:
        >>> fixed = models.with_fixed_statistics(image_generator, batches=2, batch_size=8)
        >>> noise = np.random.default_rng(0).normal(size=(1, 128))
        >>> fixed([noise, np.array([3])]).shape  # one image, whatever else is drawn
        TensorShape([1, 32, 32, 3])
    """
    checks.count("batches", batches)
    checks.count("batch_size", batch_size)
    copy = keras.models.clone_model(generator)
    copy.set_weights(generator.get_weights())
    norms = _layers(copy, keras.layers.BatchNormalization)
    momentum = [norm.momentum for norm in norms]
    statistics = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    sums = [np.zeros(variable.shape) for variable in statistics]
    ordered = np.arange(batches * batch_size) % (num_classes(generator) or 1)
    for norm in norms:
        norm.momentum = 0.0  # the moving statistics are those of the last batch
    rng = np.random.default_rng(seed)
    labels = rng.permutation(ordered).astype(np.int32).reshape(batches, batch_size)
    for batch in labels:
        noise = rng.standard_normal((batch_size, latent_size(generator)), np.float32)
        copy([noise, batch], training=True)
        for variable, total in zip(statistics, sums, strict=True):
            total += variable.numpy()
    for variable, total in zip(statistics, sums, strict=True):
        variable.assign(total / batches)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    return copy


def images_of(
    generator: keras.Model, noise: Array, labels: Array, statistics: str = "batch"
) -> tf.Tensor:
    """The generator's images, `[B, H, W, C]`, as a tensor; no weight or statistic is changed.

    Args:
        generator: Keras model from `[noise, labels]` to images.
        noise: `[B, latent size]`.
        labels: `[B]` integers.
        statistics: `"batch"` for those of this batch, `"moving"` for the generator's.
    """
    if statistics == "moving":
        return generator([noise, labels], training=False)
    state = generator.trainable_variables, generator.non_trainable_variables
    images, _ = generator.stateless_call(*state, [noise, labels], training=True)
    return images


def latent_size(generator: keras.Model) -> int:
    """The length of the generator's noise vectors.

    Raises:
        ValueError: It does not take `[noise, labels]`.
    """
    shapes = getattr(generator, "input_shape", None)
    if not (isinstance(shapes, list) and len(shapes) == 2 and len(shapes[0]) == 2):
        raise ValueError(
            "Expected a generator of images from [noise [B, Z], labels [B]]. "
            f"Received: a model with inputs of shape {shapes}"
        )
    return shapes[0][1]


def num_classes(generator: keras.Model) -> int | None:
    """The number of classes that the generator has embedded, or None where it embeds none."""
    embeddings = _layers(generator, keras.layers.Embedding)
    return min((layer.input_dim for layer in embeddings), default=None)


def _missing(
    labels: tf.Tensor, classes: int, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Labels that make all classes equally frequent, and others that fill the last batch."""
    counts = np.bincount(labels, minlength=classes)
    balancing = np.repeat(np.arange(classes), counts.max() - counts)
    left = -(len(labels) + len(balancing)) % batch_size
    return np.concatenate([balancing, rng.permutation(np.arange(left) % classes)])


def _batches(generator, noise, labels, order, count, batch_size, statistics):
    compiled = _compiled(generator, statistics)
    for i in range(0, len(order), batch_size):
        batch = order[i : i + batch_size]
        asked_for = batch < count
        if asked_for.any():
            images = compiled(tf.constant(noise[batch]), tf.constant(labels[batch])).numpy()
            yield batch[asked_for], images[asked_for]


def _compiled(generator: keras.Model, statistics: str) -> Callable:
    """(noise, labels) -> images, traced once for each generator and kind of statistics."""
    functions = _COMPILED.setdefault(generator, {})
    if statistics not in functions:
        itself = weakref.ref(generator)  # else what is kept here would keep the generator
        noise = tf.TensorSpec([None, latent_size(generator)], tf.float32)
        labels = tf.TensorSpec([None], tf.int32)

        @tf.function(input_signature=[noise, labels], autograph=False)
        def images(noise, labels):
            return tf.cast(images_of(itself(), noise, labels, statistics), tf.float32)

        functions[statistics] = images
    return functions[statistics]


def _layers(model: keras.Model, kind: type) -> list[keras.Layer]:
    return [layer for layer in all_layers(model) if isinstance(layer, kind)]
