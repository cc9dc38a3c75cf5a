"""Images and labels as they come: an `.npz` file, a folder of images, a data set of TFDS.

Each of the three is a class with the same members: the splits that are there, the names of the
classes, and a function that reads a split.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

# What folders of splits are called.
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_COLOURS = {1: "grayscale", 3: "rgb", 4: "rgba"}
_BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error)  # what np.load may raise


class Split(NamedTuple):
    """Images `[N, H, W, C]`, uint8 or float32, and labels `[N]` int64.

    Examples:
        >>> split = data.Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10))
        >>> split.images.shape
        (10, 32, 32, 3)
    """

    images: np.ndarray
    labels: np.ndarray


class DatasetNotFoundError(RuntimeError):
    """A data set is not on this machine and cannot be downloaded.

    Examples:
        >>> try:
        ...     splits = data.load("shapes")  # "cifar10" needs its files, or a network
        ... except data.DatasetNotFoundError:
        ...     print("Download it on a machine with a network, and pass its data_dir.")
    """


class Source(Protocol):
    """Images and labels in files.

    Attributes:
        splits: Those of `"train"`, `"validation"` and `"test"` that are there, or `"all"` alone for
            images that are not divided.
        class_names: In the order of the labels, or None where the files do not name them.
    """

    splits: tuple[str, ...]
    class_names: tuple[str, ...] | None

    def read(self, split: str) -> Split:
        """The images and labels of a split."""
        ...


def opened(
    source: str | os.PathLike,
    data_dir: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int = 3,
) -> Source:
    """Returns the source of a file, of a folder, or of a data set's name.

    Args:
        source: An `.npz` file with `images` and `labels`, or with `x_test` and `y_test` (and
            `x_train`, `y_train`), as Keras's data sets have them; a folder with a subfolder of
            images for each class, or with such a folder for each of train, validation and test; or
            the name of a classification data set of TensorFlow Datasets.
        data_dir: Folder of TensorFlow Datasets.
        image_size: Height and width to which the images of a folder, or of a data set with images
            of many sizes, are resized as by `keras.utils.image_dataset_from_directory`, and rounded
            to whole pixel values. By default all must be of one size.
        channels: Of the images of a folder: 1 for grey, 3 for RGB, 4 for RGBA.

    Raises:
        ValueError: There is no such source, or it does not hold images and labels.
        DatasetNotFoundError: The files of TFDS are not there and cannot be downloaded.
    """
    name = os.fspath(source)
    path = pathlib.Path(name).expanduser()
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if path.suffix == ".npz":
        return Npz(path)
    if path.is_dir():
        return Folder(path, size, channels)
    if path.is_file():
        raise ValueError(
            f"Expected an .npz file of images and labels, or a folder of images. Received: {path}"
        )
    return Tfds(name, data_dir, size)


def read_for_testing(source: Source) -> Split:
    """The images to test on: the test split, without one the validation split, or all images."""
    for split in ("test", "validation", "all"):
        if split in source.splits:
            return source.read(split)
    raise ValueError(
        "Expected a test split, or images that are not divided. "
        f"Received: {' and '.join(source.splits)} images alone."
    )


class Npz:
    """An `.npz` file.

    Args:
        path: Of the file.

    Raises:
        ValueError: It is not there, or does not hold images and labels.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(self, path: pathlib.Path):
        if not path.exists():
            raise ValueError(
                f"Expected an .npz file of images and labels. Received: no file {path}"
            )
        self.path = path
        names = set(self._arrays(lambda arrays: arrays.files))
        pairs = {
            "all": [("images", "labels"), ("x", "y")],
            "train": [("x_train", "y_train")],
            "validation": [("x_val", "y_val")],
            "test": [("x_test", "y_test")],
        }
        self._names = {
            split: pair for split, known in pairs.items() for pair in known if names >= set(pair)
        }
        if not self._names:
            raise ValueError(
                f"Expected `images` and `labels` in {path}, or `x_test` and `y_test` (and "
                f"`x_train`, `y_train`). Received: {', '.join(sorted(names)) or 'no arrays'}."
            )
        self.splits = ("all",) if "all" in self._names else tuple(self._names)

    def read(self, split: str) -> Split:
        pair = self._names[split]
        images, labels = self._arrays(lambda arrays: [arrays[name] for name in pair])
        received = f"{images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
        if images.ndim == 3:
            images = images[..., None]  # grey, as in keras.datasets.mnist
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]  # as in keras.datasets.cifar10
        whole = labels.dtype.kind in "iu" or (
            labels.dtype.kind == "f" and bool((labels == np.round(labels)).all())
        )
        known = images.dtype == np.uint8 or images.dtype.kind == "f"
        if images.ndim != 4 or not known or labels.shape != images.shape[:1] or not whole:
            raise ValueError(
                f"Expected images [N, H, W, C], uint8 or floats as the model takes them, and "
                f"integer labels [N] in {self.path}. Received: {received}"
                + (" (one-hot? Save their argmax)" if labels.ndim == 2 else "")
            )
        if not len(labels):
            raise ValueError(f"Expected images in {self.path}. Received: none in {pair[0]}")
        if labels.min() < 0:
            raise ValueError(f"Expected labels from 0 in {self.path}. Received: {labels.min()}")
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
        return Split(images, labels.astype(np.int64))

    def _arrays(self, read: Callable[[Any], Any]) -> Any:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return read(arrays)
        except (*_BROKEN, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected arrays of images and labels in {self.path}. Received: a file that "
                f"cannot be read as that ({error})."
            ) from error


class Folder:
    """A folder with a subfolder of images for each class, or one such folder for each split.

    Classes are numbered in the alphabetical order of their folders, as by
    `keras.utils.image_dataset_from_directory`. An empty folder is a class without images.

    Args:
        path: Of the folder.
        image_size: `(height, width)` of the images, or None where all have one size.
        channels: 1, 3 or 4.

    Raises:
        ValueError: There are fewer than two classes, no images, or splits of other classes.
    """

    def __init__(self, path: pathlib.Path, image_size: tuple[int, int] | None, channels: int):
        if channels not in _COLOURS:
            raise ValueError(f"`channels` must be 1, 3 or 4. Received: channels={channels!r}")
        self.image_size = image_size
        self.channels = channels
        self._folders = {"all": path}
        inside = _subfolders(path)
        if inside and {name.lower() for name in inside} <= set(_SPLITS):
            self._folders = {_SPLITS[name.lower()]: path / name for name in inside}
            if len(self._folders) < len(inside):
                raise ValueError(
                    f"Expected one folder for each split in {path}. Received: {', '.join(inside)}."
                )
        self.splits = tuple(self._folders)
        names = {folder: tuple(_subfolders(folder)) for folder in self._folders.values()}
        for folder, classes in names.items():
            if len(classes) < 2:
                raise ValueError(
                    f"Expected a subfolder of images for each class in {folder}, two or more. "
                    f"Received: {', '.join(classes) or 'no subfolder'}. (For a data set of "
                    "TensorFlow Datasets of that name, start where no folder has it.)"
                )
        first, ours = next(iter(names.items()))
        self.class_names: tuple[str, ...] | None = ours
        for folder, classes in names.items():
            if classes != ours:
                different = ", ".join(sorted(set(classes) ^ set(ours)))
                raise ValueError(
                    f"Expected the same classes in {first} and {folder}. "
                    f"Received: {different} in one of them alone."
                )

    def read(self, split: str) -> Split:
        folder = self._folders[split]
        size = self.image_size
        try:
            found = self._dataset(folder, size or (1, 1))
        except ValueError as error:  # Keras, of a folder without images
            raise ValueError(
                f"Expected images in the subfolders of {folder}: .png, .jpg, .jpeg, .bmp or .gif. "
                "Received: none."
            ) from error
        if size is None:
            found = self._dataset(folder, _common_size(found.file_paths))
        try:
            images, labels = zip(
                *((np.round(x).astype(np.uint8), y) for x, y in found.as_numpy_iterator()),
                strict=True,
            )
        except tf.errors.InvalidArgumentError as error:
            raise _damaged(next(filter(_is_broken, found.file_paths), folder)) from error
        return Split(np.concatenate(images), np.concatenate(labels).astype(np.int64))

    def _dataset(self, folder: pathlib.Path, size: tuple[int, int]) -> Any:
        return keras.utils.image_dataset_from_directory(
            folder,
            image_size=size,
            color_mode=_COLOURS[self.channels],
            shuffle=False,
            batch_size=256,
            verbose=False,
        )


class Tfds:
    """A classification data set of TensorFlow Datasets.

    Args:
        name: Such as `"mnist"`.
        data_dir: Folder of TensorFlow Datasets.
        image_size: `(height, width)` of the images, or None where all have one size.

    Raises:
        ValueError: TFDS has no data set of images and labels with this name.
        DatasetNotFoundError: Its files are not there and cannot be downloaded.
    """

    def __init__(self, name: str, data_dir: str | None, image_size: tuple[int, int] | None):
        self.name = name
        self.image_size = image_size
        self._builder = prepared(name, data_dir)
        info = self._builder.info
        keys = info.supervised_keys or ("image", "label")
        image, label = (dict(info.features.items()).get(key) for key in keys)
        self._keys = keys
        names = getattr(label, "names", None)
        if len(getattr(image, "shape", None) or ()) != 3 or names is None:
            raise ValueError(
                f"Expected a data set of TensorFlow Datasets with an image and a class each. "
                f"Received: {name!r} with {', '.join(info.features)}"
            )
        self.class_names: tuple[str, ...] | None = tuple(names)
        self.splits = tuple(s for s in ("train", "validation", "test") if s in info.splits)
        if not self.splits:
            raise ValueError(
                f"Expected a train, validation or test split of {name!r}. "
                f"Received: {', '.join(info.splits)}"
            )
        if self.splits == ("train",):
            self.splits = ("all",)

    def read(self, split: str) -> Split:
        import tensorflow_datasets as tfds

        split = "train" if split == "all" else split
        images, labels, sizes = [], [], set()
        for example in tfds.as_numpy(self._builder.as_dataset(split=split)):
            image, label = (example[key] for key in self._keys)
            if self.image_size not in (None, image.shape[:2]):
                image = np.asarray(tf.image.resize(image, self.image_size))
                image = np.round(image).astype(np.uint8)
            sizes.add(image.shape[:2])
            images.append(image)
            labels.append(label)
            _require_one_size(sizes, self.name)
        return Split(np.stack(images), np.asarray(labels, np.int64))


def prepared(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder of a data set whose files are there, or are now.

    Raises:
        ValueError: TFDS does not know the name.
        DatasetNotFoundError: The files are not there and cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            f"Expected shapes, a data set of TensorFlow Datasets, an .npz file of images and "
            f"labels, or a folder with a subfolder of images for each class. Received: {name!r}, "
            "which is no file or folder here, and no name that TensorFlow Datasets knows."
        ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS and its downloader raise all sorts
        by_hand = (
            "first register at https://image-net.org, download ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar into FOLDER/downloads/manual, and then "
        )
        raise DatasetNotFoundError(
            f"The data set {name!r} is not in {builder.data_dir!r} and could not be downloaded "
            f"({type(error).__name__}). On a machine with network, "
            f"{by_hand if name == 'imagenet2012' else ''}run\n"
            f"    python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
            f"data_dir='FOLDER')\"\n"
            "then copy FOLDER here and pass --data_dir=FOLDER. Without any data set, "
            "--preset=quick runs everything on built-in images."
        ) from error
    return builder


def _subfolders(path: pathlib.Path) -> list[str]:
    """Names, in the order in which Keras numbers them; hidden ones are none of its classes."""
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _common_size(paths: list[str]) -> tuple[int, int]:
    """`(height, width)` of all images, from their headers."""
    from PIL import Image, UnidentifiedImageError

    sizes: set[tuple[int, int]] = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add((image.height, image.width))
        except (OSError, UnidentifiedImageError) as error:
            raise _damaged(path) from error
        _require_one_size(sizes, path)
    return sizes.pop()


def _require_one_size(sizes: set[tuple[int, int]], where: str) -> None:
    if len(sizes) > 1:
        received = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise ValueError(
            f"Expected images of one size, or an `image_size` (--image_size of an experiment, a "
            f"model with a fixed one elsewhere) to resize them to. Received: {received} (height x "
            f"width) in {where}"
        )


def _damaged(path: str | pathlib.Path) -> ValueError:
    return ValueError(
        f"Expected images that can be decoded. Received: {path}, which is damaged or no image. "
        "Remove it."
    )


def _is_broken(path: str) -> bool:
    try:
        tf.io.decode_image(tf.io.read_file(path), expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return True
    return False
