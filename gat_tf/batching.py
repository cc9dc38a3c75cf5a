"""Batches of floats from a split in memory: one pass in order, or endless ones in random order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from gat_tf.reading import Split


def batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Returns one pass over the split in its order: (images, labels) batches.

    Images of uint8 are scaled to [0, 1]; floats stay as they are.

    Raises:
        ValueError: It is not a `Split` of uint8 or float32 images.

    Examples:
        >>> split = data.draw_shapes(size=30, seed=0)
        >>> batch_images, batch_labels = next(iter(data.batches(split, 10)))
        >>> batch_images.shape, batch_images.dtype  # floats in [0, 1]
        (TensorShape([10, 32, 32, 3]), tf.float32)
    """
    images, labels = _tensors(split)
    indices = tf.data.Dataset.range(len(split.labels)).batch(batch_size)
    return _gathered(indices, images, labels).prefetch(tf.data.AUTOTUNE)


def shuffled_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    first_epoch: int = 0,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Returns endless passes over the split, each in its own random order.

    The order of an epoch depends only on (seed, epoch), and the augmentation of a batch only on
    (seed, epoch, index of the batch). So training resumed at `first_epoch` sees the same data as an
    uninterrupted run. An epoch has `steps_per_epoch(split, batch_size)` batches, the last of which
    may be smaller.

    Args:
        split: The images and labels.
        batch_size: Number of images per batch.
        seed: Seed of the orders and of the augmentation.
        first_epoch: Epoch to begin with.
        augment: A function from images in [0, 1] and a seed, `[2]` integers, to the images of the
            batch, such as `augmentation.pad_crop_flip`.

    Returns:
        A dataset of (images, labels) batches without end, the images as by `batches`.

    Raises:
        ValueError: It is not a `Split` of uint8 or float32 images.

    Examples:
        >>> split = data.draw_shapes(size=30, seed=0)
        >>> train = data.shuffled_batches(split, 10, seed=0, augment=augmentation.pad_crop_flip)
        >>> first = next(iter(train))  # for fit, pass steps_per_epoch too
    """
    images, labels = _tensors(split)
    indices = tf.range(len(split.labels), dtype=tf.int64)

    def shuffled(epoch):
        order = tf.random.experimental.stateless_shuffle(indices, [seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    order = tf.data.Dataset.counter(first_epoch).flat_map(shuffled)
    dataset = _gathered(order, images, labels)
    if augment is None:
        return dataset

    def augmented(number, batch):
        images, labels = batch
        # Not [seed, number] itself, which has drawn the order of the epoch of that number.
        return augment(images, tf.random.fold_in(tf.constant([seed, 0], tf.int64), number)), labels

    # Batches are numbered from the first of epoch 0 on.
    first = first_epoch * steps_per_epoch(split, batch_size)
    return dataset.enumerate(first).map(augmented, tf.data.AUTOTUNE)


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """The number of batches in one pass, the smaller last one included.

    Examples:
        >>> data.steps_per_epoch(data.draw_shapes(size=30, seed=0), batch_size=8)
        4
    """
    return -(-len(split.labels) // batch_size)


def _tensors(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    known = (np.uint8, np.float32)
    if not isinstance(split, Split) or np.asarray(split.images).dtype not in known:
        received = type(split).__name__
        if isinstance(split, Split):
            received = f"one of {np.asarray(split.images).dtype} images"
        raise ValueError(
            "Expected a data.Split of uint8 images, which are scaled to [0, 1], or of float32 "
            f"ones, which stay as they are. Received: {received}. Other arrays need no more than "
            "tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)."
        )
    return tf.constant(split.images), tf.constant(split.labels)


def _gathered(indices: tf.data.Dataset, images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
    def gather(i):
        batch = tf.gather(images, i)
        if batch.dtype == tf.uint8:
            batch = tf.cast(batch, tf.float32) / 255.0
        return batch, tf.gather(labels, i)

    return indices.map(gather)
