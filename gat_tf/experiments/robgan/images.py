"""The images of Rob-GAN's networks, in [-1, 1]: what they are trained, attacked and tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gat_tf import augmentation, data
from gat_tf.experiments.lab import datasets
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.robgan.settings import IMAGE_SIZES, Config


def load(config: Config, dataset: str) -> data.Splits:
    """Returns a data set for Rob-GAN's networks; nothing is chosen by validation images.

    Args:
        config: How many images, and how large.
        dataset: What `data.load` takes.

    Raises:
        ConfigError: There is no such data set; there are not so many images; a class has none to
            train on; or there are no networks for images of this shape.
        DatasetNotFoundError: The data set is not there.
    """
    splits = datasets.load(
        dataset,
        config.data_dir,
        image_size=None if dataset in data.IMAGE_SIZES else config.image_size,
        train_size=config.train_size,
        test_size=config.test_size,
    )
    if splits.image_shape not in [(size, size, 3) for size in IMAGE_SIZES]:
        raise ConfigError(
            "Expected colour images of 32x32, 64x64 or 128x128 pixels, which Rob-GAN's networks "
            f"take. Received: {'x'.join(map(str, splits.image_shape))} in {dataset}. Images of a "
            "folder, and those of TensorFlow Datasets, are resized to --image_size; the arrays of "
            "an .npz file have to be saved so"
        )
    train, validation, test = map(_in_bytes, splits[:3])
    if config.train_size is None and train.images.shape[1:] == validation.images.shape[1:]:
        # CIFAR's 50,000, as in the paper.
        train = data.Split(*map(np.concatenate, zip(train, validation, strict=True)))
    missing = np.setdiff1d(np.arange(splits.num_classes), train.labels)
    if missing.size:
        raise ConfigError(
            f"Expected training images of each of the {splits.num_classes} classes of "
            f"{dataset}. Received: none of {', '.join(map(str, missing))}."
        )
    return data.Splits(train, test, test, splits.num_classes)  # none is kept for validation


def _in_bytes(split: data.Split) -> data.Split:
    """With pixels of 8 bits, to which the authors' noise belongs."""
    if split.images.dtype == np.uint8:
        return split
    return data.Split(np.round(255 * split.images).astype(np.uint8), split.labels)


def first(split: data.Split, count: int, image_size: int) -> data.Split:
    """The first images of a split, which ImageNet-143 holds larger for training, at their size."""
    images, labels = split.images[:count], split.labels[:count]
    if images.shape[1] != image_size:
        resized = tf.image.resize(images, (image_size, image_size), antialias=True)
        images = np.clip(np.round(resized), 0, 255).astype(np.uint8)
    return data.Split(images, labels)


def batches(split: data.Split, batch_size: int = 200) -> tf.data.Dataset:
    """One pass over the split: (images in [-1, 1], labels) batches."""
    plain = data.batches(split, batch_size)
    return plain.map(lambda images, labels: (augmentation.centred(images), labels))


def augment(
    dataset: str, image_size: int, *, noise: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """(images in [0, 1], seed) -> images in [-1, 1]; the built-in ones are not cropped or mirrored.

    Args:
        dataset: Data set.
        image_size: Height and width of the result.
        noise: Whether to add the authors' noise, as joint training does and fine-tuning does not.
    """

    def augmented(images: Any, seed: Any) -> Any:
        where, greys = tf.unstack(tf.random.split(seed, 2))
        if dataset == "imagenet143":
            images = augmentation.scale_crop_flip(images, image_size, where)
        elif dataset != "shapes":
            images = augmentation.pad_crop_flip(images, where)
        return augmentation.dequantised(images, greys) if noise else augmentation.centred(images)

    return augmented
