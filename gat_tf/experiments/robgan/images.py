"""The images of Rob-GAN's networks, in [-1, 1]: what they are trained, attacked and tested on."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gat_tf import augmentation, data
from gat_tf.experiments.lab import datasets
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.robgan.settings import IMAGE_SIZES, Config


class Loaded(NamedTuple):
    """The images that networks are trained on and tested on, and the number of classes."""

    train: data.Split
    test: data.Split
    num_classes: int


class Images:
    """The images of a folder's networks, by the name of the data set.

    Attributes:
        sources: Name of a data set to what `data.load` takes, of those that are not built in.

    Args:
        config: How many, and how large.
    """

    def __init__(self, config: Config):
        self.config = config
        self.sources: dict[str, str] = {}
        self._loaded = functools.cache(self._load)

    def require(self, sources: Iterable[str], folder: pathlib.Path) -> list[str]:
        """Makes data sets known, and returns the names that their networks and results have.

        Args:
            sources: What `data.load` takes; all that is not built in is loaded at once.
            folder: Of the networks, which is bound to the images; see `datasets.bind`.

        Raises:
            ConfigError: See `load` and `datasets.bind`.
            DatasetNotFoundError: A data set is not there.
        """
        named = datasets.named(sources)
        self.sources |= named
        for name, source in named.items():
            if source not in data.CLASSES:
                train, test, classes = self._loaded(name)
                datasets.bind(folder, source, data.Splits(train, test, test, classes))
        return list(named)

    def _load(self, dataset: str) -> Loaded:
        return load(self.config, self.sources.get(dataset, dataset))

    def __call__(self, dataset: str) -> tuple[data.Split, data.Split]:
        """What the networks are trained on, and what they are tested on; errors are `load`'s."""
        return self._loaded(dataset)[:2]

    def classes(self, dataset: str) -> int:
        """The number of classes; those of built-in data sets are known without their files."""
        return data.CLASSES.get(dataset) or self._loaded(dataset).num_classes

    def size(self, dataset: str) -> int:
        """Height and width of the networks' images."""
        if dataset in data.CLASSES:
            return data.IMAGE_SIZES.get(dataset, self.config.image_size)
        return self._loaded(dataset).test.images.shape[1]


def load(config: Config, dataset: str) -> Loaded:
    """Returns a data set for Rob-GAN's networks.

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
        # Nothing is chosen by a validation set: CIFAR's 50,000, as in the paper.
        train = data.Split(*map(np.concatenate, zip(train, validation, strict=True)))
    missing = sorted(set(range(splits.num_classes)) - set(np.unique(train.labels).tolist()))
    if missing:
        raise ConfigError(
            f"Expected training images of each of the {splits.num_classes} classes of "
            f"{dataset}. Received: none of {', '.join(map(str, missing))}."
        )
    return Loaded(train, test, splits.num_classes)


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
