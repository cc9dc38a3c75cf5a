"""Data sets as arrays in memory, and as batches of floats.

CIFAR-10, CIFAR-100 and ImageNet-143 come through TensorFlow Datasets, as any other data set of it;
others from an `.npz` file or a folder of images. `shapes` is generated from a seed, for experiments
without a download.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gat_tf import checks, imagenet143, reading
from gat_tf.batching import batches, shuffled_batches, steps_per_epoch
from gat_tf.reading import DatasetNotFoundError, Split
from gat_tf.shapes import SHAPES, draw_shapes

__all__ = [
    "DatasetNotFoundError",
    "Split",
    "Splits",
    "batches",
    "class_names",
    "draw_shapes",
    "load",
    "load_test",
    "shuffled_batches",
    "steps_per_epoch",
]

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet143": 143, "shapes": 10}
IMAGE_SIZES = {"cifar10": 32, "cifar100": 32, "shapes": 32}  # of those that come in one size
_SPLIT_SEED = 20170503  # of the fixed split; any number, but always this one
_VALIDATION = 5_000  # of CIFAR's 50,000 training images, as in the GAT paper


class Splits(NamedTuple):
    """A data set: training, validation and test split, and the number of classes.

    Examples:
        >>> splits = data.load("shapes")
        >>> len(splits.train.labels), len(splits.validation.labels), len(splits.test.labels)
        (1000, 500, 500)
        >>> splits.image_shape
        (32, 32, 3)
    """

    train: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the test images."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels


def load(
    name: str | os.PathLike,
    data_dir: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int = 3,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
) -> Splits:
    """Returns a data set in memory.

    CIFAR's 50,000 training images are split by a fixed seed into 45,000 for training and 5,000 for
    validation, with the same number of every class, as in the GAT paper. Of ImageNet-143's about
    180,000 training images, 50 of every class (7,150) are for validation; those for training are
    1.25 times as large as `image_size`, so that `augmentation.scale_crop_flip` has pixels to crop
    (ours), and fill 3.3 GB where it is 64. Smaller sizes take the first images per class of these
    splits.

    Of any other data set, the splits that its files name are taken. Without a test split, the
    validation split is it; without that, a tenth of the images of each class is held out for it,
    always the same; and so is a tenth of the training images for validation. The training images
    are then put in a random order, always the same, because files are often sorted by class. The
    others stay in the order of the files.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"imagenet143"` or `"shapes"`; or another classification
            data set of TensorFlow Datasets; or an `.npz` file with `images` and `labels`, or with
            `x_train`, `y_train`, `x_test` and `y_test`, as Keras's data sets have them; or a folder
            with a subfolder of images for each class, or with such a folder for each of `train`,
            `validation` and `test`. Classes are in the alphabetical order of their folders.
        data_dir: Folder of TensorFlow Datasets; by default TFDS's own, `~/tensorflow_datasets`.
        image_size: Height and width of the images: of ImageNet-143 any (64 and 128 in the Rob-GAN
            paper), of CIFAR and `shapes` 32, which is their default. The images of a folder or of
            another data set of TFDS are resized to it; without it, all must be of one size.
        channels: Of the images of a folder: 1 for grey, 3 for RGB, 4 for RGBA.
        train_size: Number of training images; by default all, or 1,000 of `shapes`.
        validation_size: Number of validation images; by default all, or 500 of `shapes`.
        test_size: Number of test images; by default all (10,000 of CIFAR, 7,150 of ImageNet-143),
            or 500 of `shapes`.

    Raises:
        ValueError: An unknown data set; a file or folder without images and labels; an image size
            that it does not have; or a number of images that it does not have or that does not
            divide evenly among the classes.
        DatasetNotFoundError: The files are not there and cannot be downloaded.

    Examples:
        >>> splits = data.load("shapes", train_size=100)
        >>> splits.train.images.shape, splits.train.images.dtype
        ((100, 32, 32, 3), dtype('uint8'))
        >>> splits.num_classes
        10
    """
    if name not in CLASSES:
        source = reading.opened(name, data_dir, image_size=image_size, channels=channels)
        return _load_source(source, (train_size, validation_size, test_size))
    name = str(name)
    if name not in IMAGE_SIZES:
        checks.count("image_size", image_size)
    elif image_size not in (None, IMAGE_SIZES[name]):
        raise ValueError(
            f"Expected images of {name!r} to have image_size={IMAGE_SIZES[name]}. "
            f"Received: image_size={image_size}"
        )
    sizes: Sequence[Any] = (train_size, validation_size, test_size)
    if name == "shapes":
        sizes = [d if s is None else s for s, d in zip(sizes, (1_000, 500, 500), strict=True)]
        splits = [draw_shapes(size, seed) for seed, size in enumerate(sizes)]
    elif name == "imagenet143":
        splits = _load_imagenet143(data_dir, image_size, sizes)
    else:
        train, test = _load_tfds(name, data_dir)
        splits = [*_hold_out(train, _VALIDATION), test]
    return _of_sizes(splits, sizes, CLASSES[name])


def load_test(
    name: str | os.PathLike,
    data_dir: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int = 3,
) -> Split:
    """Returns the images of a data set to test on: its test split, without one its validation
    split, or all images where they are not divided into splits.

    Arguments and errors are those of `load`. Unlike there, nothing is held out: an `.npz` file with
    `images` and `labels`, a folder of classes and a data set of TFDS with a training split alone
    are taken as a whole, with the images that `load` gives for training. To test on what `load`
    holds out, take its `test`, or divide the files.

    Examples:
        >>> test = data.load_test("shapes")
        >>> test.images.shape
        (500, 32, 32, 3)
    """
    if name in CLASSES:
        size = image_size[0] if isinstance(image_size, tuple) else image_size
        return load(name, data_dir, image_size=None if name in IMAGE_SIZES else size).test
    source = reading.opened(name, data_dir, image_size=image_size, channels=channels)
    return reading.read_for_testing(source)


def class_names(name: str | os.PathLike, data_dir: str | None = None) -> tuple[str, ...] | None:
    """Returns the names of a data set's classes, in the order of its labels.

    Args:
        name: Of the data set, or its file or folder, as for `load`. The names of
            `"imagenet143"` are synsets such as `"n02085620"`.
        data_dir: Folder of TensorFlow Datasets.

    Returns:
        The names; None for an `.npz` file, which does not hold them.

    Raises:
        ValueError: An unknown data set.

    Examples:
        >>> len(data.class_names("shapes"))
        10
    """
    if name not in CLASSES:
        return reading.opened(name, data_dir).class_names
    name = str(name)
    if name == "shapes":
        return SHAPES
    import tensorflow_datasets as tfds

    files = "imagenet2012" if name == "imagenet143" else name
    names = tfds.builder(files, data_dir=data_dir).info.features["label"].names
    return tuple(names[i] for i in imagenet143.LABELS) if name == "imagenet143" else tuple(names)


def _load_tfds(name: str, data_dir: str | None) -> tuple[Split, Split]:
    import tensorflow_datasets as tfds

    builder = reading.prepared(name, data_dir)
    splits = []
    for split in ("train", "test"):
        examples = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        splits.append(Split(examples["image"], examples["label"].astype(np.int64)))
    return splits[0], splits[1]


def _load_imagenet143(data_dir: str | None, image_size: Any, sizes: Any) -> list[Split]:
    # A wrong size is found now, not when gigabytes have been read. No class has more than 1,300.
    at_most = (1_300 - imagenet143.HELD_OUT, imagenet143.HELD_OUT, 50)
    each = [
        None if size is None else _size_of_each_class(size, CLASSES["imagenet143"], most)
        for size, most in zip(sizes, at_most, strict=True)
    ]
    builder = reading.prepared("imagenet2012", data_dir)
    return [Split(*arrays) for arrays in imagenet143.load(builder, image_size, *each)]


def _load_source(source: reading.Source, sizes: Sequence[int | None]) -> Splits:
    if not {"train", "all"} & set(source.splits):
        raise ValueError(
            f"Expected images to train on. Received: {' and '.join(source.splits)} images alone."
        )
    found = {name: source.read(name) for name in source.splits}
    train = found["all"] if "all" in found else found["train"]
    names = source.class_names
    classes = len(names) if names else 1 + max(int(split.labels.max()) for split in found.values())
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    for name in ("test", "validation"):
        if name not in found:
            train, found[name] = _hold_out_a_tenth(train, classes)
    # Files may be sorted by class, and nothing trains on one class after the other.
    splits = (_take(train, _order(train)), found["validation"], found["test"])
    return _of_sizes(splits, sizes, classes)


def _hold_out_a_tenth(split: Split, classes: int) -> tuple[Split, Split]:
    """Divides a split in two, with a tenth of each class in the second, the same way every time."""
    order = _order(split)
    chosen = []
    for label in range(classes):
        of_class = order[split.labels[order] == label]
        if len(of_class) < 2:
            raise ValueError(
                "Expected enough images of each class to hold some out for validation and testing. "
                f"Received: {len(of_class)} of class {label} where some are left to hold out."
            )
        chosen.append(of_class[: max(1, round(len(of_class) / 10))])
    held_out = np.sort(np.concatenate(chosen))
    return _take(split, np.setdiff1d(order, held_out)), _take(split, held_out)


def _order(split: Split) -> np.ndarray:
    """A random order of the split's images, always the same."""
    return np.random.default_rng(_SPLIT_SEED).permutation(len(split.labels))


def _of_sizes(splits: Sequence[Split], sizes: Sequence[int | None], classes: int) -> Splits:
    train, validation, test = (
        split if size in (None, len(split.labels)) else _first_of_each_class(split, size)
        for split, size in zip(splits, sizes, strict=True)
    )
    return Splits(train, validation, test, classes)


def _hold_out(split: Split, held_out: int) -> tuple[Split, Split]:
    """Divides a split in two, stratified, the same way every time."""
    shuffled = _take(split, _order(split))
    chosen = _indices_of_each_class(shuffled.labels, held_out)
    rest = np.setdiff1d(np.arange(len(shuffled.labels)), chosen)
    return _take(shuffled, rest), _take(shuffled, chosen)


def _first_of_each_class(split: Split, size: int) -> Split:
    return _take(split, _indices_of_each_class(split.labels, size))


def _indices_of_each_class(labels: np.ndarray, size: int) -> np.ndarray:
    classes, counts = np.unique(labels, return_counts=True)
    each = _size_of_each_class(size, len(classes), counts.min())
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in classes]))


def _size_of_each_class(size: int, classes: int, most: int) -> int:
    each, rest = divmod(size, classes)
    if rest or not 1 <= each <= most:
        raise ValueError(
            f"Expected a size that gives each of the {classes} classes the same number of images, "
            f"at most {most} each. Received: {size}"
        )
    return each


def _take(split: Split, indices: np.ndarray) -> Split:
    return Split(split.images[indices], split.labels[indices])
