"""Data sets as a command is asked for them: built-in ones, names of TFDS, files and folders."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from gat_tf import data
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError

HELP = (
    "names of TensorFlow Datasets, .npz files with images and labels, folders with a subfolder of "
    "images for each class, or the built-in shapes"
)


def name(source: str) -> str:
    """The name of a data set in units, files and tables.

    That is its own name, or that of its file or folder. A file's ends in `.npz` and a folder's in
    `.folder`, so that a folder called `cifar10` is not taken for CIFAR-10. Characters that some
    file systems refuse become underscores.

    Args:
        source: What `data.load` takes.
    """
    if source in data.CLASSES:
        return source
    if _is_path(source):
        path = os.path.abspath(_path(source))
        source = os.path.basename(path) + ("" if path.endswith(".npz") else ".folder")
    return re.sub(r"[^\w.+-]+", "_", source)


def named(sources: Iterable[str]) -> dict[str, str]:
    """The data sets by their names.

    Raises:
        ConfigError: Two have the same name.
    """
    found: dict[str, str] = {}
    for source in sources:
        other = found.setdefault(name(source), source)
        if other != source:
            raise ConfigError(
                f"Expected data sets of different names, by which results are kept. Received: "
                f"{other} and {source}, both {name(source)}"
            )
    return found


def load(source: str, data_dir: str | None, **options: Any) -> data.Splits:
    """Returns the images of a data set, for networks that take pixels in [0, 1].

    Args:
        source: What `data.load` takes.
        data_dir: Folder of TensorFlow Datasets.
        **options: Those of `data.load`.

    Raises:
        ConfigError: There is no such data set; it has fewer images than asked for, images of
            several shapes, other pixels, or a single class.
        DatasetNotFoundError: Its files are not there.
    """
    try:
        splits = data.load(source, data_dir, **options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if source in data.CLASSES:
        return splits
    parts = splits[:3]
    shapes = {part.images.shape[1:] for part in parts}
    if len(shapes) > 1:
        received = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
        raise ConfigError(
            f"Expected training, validation and test images of one shape in {source}. "
            f"Received: {received}"
        )
    floats = [p.images for p in parts if p.images.dtype != np.uint8]
    low, high = (pick([pick(x) for x in floats] or [0]) for pick in (np.min, np.max))
    if not (low >= 0 and high <= 1):
        raise ConfigError(
            f"Expected uint8 images, or floats in [0, 1], in {source}. "
            f"Received: floats from {low:g} to {high:g}"
        )
    if splits.num_classes < 2:
        raise ConfigError(f"Expected at least two classes in {source}. Received: 1")
    return splits


def bind(folder: pathlib.Path, source: str, splits: data.Splits) -> None:
    """Binds a folder to the images of a file or of a folder, which may be replaced by others.

    The digest of the first images is written into it; a data set of TFDS does not change.

    Raises:
        ConfigError: What is in the folder was made from other images.
    """
    if not _is_path(source):
        return
    path = folder / "datasets" / f"{name(source)}.json"
    ours = {"sha256": _digest(splits)}
    if not files.create_json(path, ours) and files.read_json(path) != ours:
        raise ConfigError(
            f"Expected the images from which {folder} was made in {source}. Received: others. Put "
            "them back, or choose another --output_dir (of Table 2) or --networks_dir."
        )


def _path(source: str) -> pathlib.Path:
    return pathlib.Path(source).expanduser()


def _is_path(source: str) -> bool:
    is_name = source in data.CLASSES
    return not is_name and (_path(source).suffix == ".npz" or _path(source).is_dir())


def _digest(splits: data.Splits) -> str:
    sha = hashlib.sha256()
    for array in (array for split in splits[:3] for array in split):
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
