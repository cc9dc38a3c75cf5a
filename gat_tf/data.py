"""Data sets as arrays in memory, and as batches of floats.

CIFAR-10, CIFAR-100 and ImageNet-143 come through TensorFlow Datasets, as any other data set of it;
others from an `.npz` file or a folder of images. `shapes` is generated from a seed, for experiments
without a download.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gat_tf import checks, imagenet143, reading
from gat_tf.reading import DatasetNotFoundError, Split
from gat_tf.reading import prepared as _prepared

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
SHAPES = (
    "disk", "ring", "square", "frame", "triangle", "plus", "cross", "stripes", "bars", "checkers",
)  # fmt: skip
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
    splits: Sequence[Split]
    if name == "shapes":
        sizes = [d if s is None else s for s, d in zip(sizes, (1_000, 500, 500), strict=True)]
        splits = [draw_shapes(size, seed) for seed, size in enumerate(sizes)]
    else:
        if name == "imagenet143":
            splits = _load_imagenet143(data_dir, image_size, sizes)
        else:
            train, test = _load_tfds(name, data_dir)
            splits = (*_hold_out(train, _VALIDATION), test)
        splits = _of_sizes(splits, sizes)
    train, validation, test = splits
    return Splits(train, validation, test, CLASSES[name])


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


def _load_tfds(name: str, data_dir: str | None) -> tuple[Split, Split]:
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir)
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
    builder = _prepared("imagenet2012", data_dir)
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
    train = _take(train, np.random.default_rng(_SPLIT_SEED).permutation(len(train.labels)))
    splits = (train, found["validation"], found["test"])
    train, validation, test = _of_sizes(splits, sizes)
    return Splits(train, validation, test, classes)


def _hold_out_a_tenth(split: Split, classes: int) -> tuple[Split, Split]:
    """Divides a split in two, with a tenth of each class in the second, the same way every time."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(split.labels))
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


def _of_sizes(splits: Sequence[Split], sizes: Sequence[int | None]) -> list[Split]:
    return [
        split if size in (None, len(split.labels)) else _first_of_each_class(split, size)
        for split, size in zip(splits, sizes, strict=True)
    ]


def _hold_out(split: Split, held_out: int) -> tuple[Split, Split]:
    """Divides a split in two, stratified, the same way every time."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(split.labels))
    shuffled = Split(split.images[order], split.labels[order])
    chosen = _indices_of_each_class(shuffled.labels, held_out)
    rest = np.setdiff1d(np.arange(len(order)), chosen)
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


def draw_shapes(size: int, seed: int) -> Split:
    """Draws the built-in data set: 32x32 colour images of ten kinds of shape.

    Position, size, angle and colours vary, the background is shaded, and noise lies over all of
    it: learnable in a few epochs, and not by a linear model.

    Args:
        size: Number of images, at least 1; the classes take turns.
        seed: Seed of everything random.

    Returns:
        Images `[size, 32, 32, 3]` uint8 and labels `[size]`, in random order.

    Examples:
        >>> split = data.draw_shapes(size=20, seed=0)
        >>> np.bincount(split.labels).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1. Received: size={size}")
    rng = np.random.default_rng([size, seed])
    labels = rng.permutation(np.arange(size) % len(SHAPES))

    def uniform(low, high, *shape):
        return rng.uniform(low, high, (size, *shape)).astype(np.float32)

    # Each image's own coordinates: shifted, turned by up to 20 degrees, in units of its radius.
    ys, xs = np.mgrid[0:32, 0:32].astype(np.float32)
    x = xs - uniform(12, 20, 1, 1)
    y = ys - uniform(12, 20, 1, 1)
    angle, radius = uniform(-0.35, 0.35, 1, 1), uniform(6, 11, 1, 1)
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius
    v = (y * np.cos(angle) - x * np.sin(angle)) / radius
    distance, box = np.hypot(u, v), np.maximum(abs(u), abs(v))
    near_axis = np.minimum(abs(u), abs(v))
    near_diagonal = np.minimum(abs(u - v), abs(u + v)) / np.sqrt(2)
    wave = 1.5 * np.pi
    masks = {
        "disk": distance < 1,
        "ring": abs(distance - 0.8) < 0.22,
        "square": box < 0.85,
        "frame": abs(box - 0.75) < 0.18,
        "triangle": (v < 0.75) & (2 * abs(u) < v + 1.1),
        "plus": (near_axis < 0.25) & (box < 1),
        "cross": (near_diagonal < 0.25) & (distance < 1.1),
        "stripes": (np.sin(wave * v) > 0) & (distance < 1.2),
        "bars": (np.sin(wave * u) > 0) & (distance < 1.2),
        "checkers": (np.sin(wave * u) * np.sin(wave * v) > 0) & (distance < 1.2),
    }
    mask = np.select([(labels == i)[:, None, None] for i in range(10)], [masks[s] for s in SHAPES])

    # A bright shape on a dark ground: its colour says nothing, and none is invisible.
    colour, background = uniform(0.5, 1, 1, 1, 3), uniform(0, 0.5, 1, 1, 3)
    shade = (
        uniform(-0.15, 0.15, 1, 1, 1) * u[..., None] + uniform(-0.15, 0.15, 1, 1, 1) * v[..., None]
    )
    images = np.where(mask[..., None], colour, background + shade)
    images = images + rng.standard_normal(images.shape, dtype=np.float32) * 0.06
    return Split((np.clip(images, 0, 1) * 255).round().astype(np.uint8), labels.astype(np.int64))
