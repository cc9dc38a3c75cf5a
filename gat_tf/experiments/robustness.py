"""How robust is a Keras classifier really? Many attacks, the worst case, and known checks.

    python -m gat_tf.experiments.robustness --model=robust.keras --dataset=cifar10 --data_dir=...
    python -m gat_tf.experiments.robustness --model=mine.keras --dataset=images.npz

The model is any Keras classifier in a .keras file, with probabilities or logits, of images of any
size; the images are a data set of this project, any classification data set of TensorFlow Datasets
by name (its test split), or an .npz file with `images` `[N, H, W, C]` and `labels` `[N]`. What is
computed is said in `gat_tf.evaluation.robustness`; each attack is a file in `units/`, so that an
evaluation that was stopped continues.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
import time
import zipfile
import zlib
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from gat_tf import data, evaluation
from gat_tf.evaluation.robustness import Budget
from gat_tf.experiments import config as configs
from gat_tf.experiments import files, units
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.reports import robustness as report

_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)  # what np.load may raise
NORMS = {"Linf": math.inf, "L2": 2}


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """What the attacks may spend; the defaults are AutoAttack's."""

    pgd_steps: int = option(100, "Of the longer PGD.")
    restarts: int = option(5, "Random starts of the longer PGD.")
    apgd_steps: int = option(100, "Of each APGD.")
    targets: int = option(9, "Classes that APGD-T and FAB-T aim at.")
    fab_steps: int = option(100, "Of FAB-T.")
    queries: int = option(5_000, "Of Square.")
    hard_label_steps: int = option(20, "Of HopSkipJump.")
    hard_label_images: int = option(100, "Images that HopSkipJump is tried on.")

    def __post_init__(self):
        names = [f.name for f in dataclasses.fields(Budget)]
        configs.require_range(self, *((name, 1, math.inf) for name in names))

    def budget(self) -> Budget:
        return Budget(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Budget)})


@dataclasses.dataclass(frozen=True)
class Config(BudgetConfig):
    """What is evaluated, and with what budget."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "AutoAttack's budgets, for a GPU",
        "quick": "few images and small budgets, minutes on two cores",
    }

    model: str | None = option(None, "The .keras file of the classifier.")
    source: str | None = option(None, "Another .keras classifier, to transfer attacks from.")
    dataset: str = option(
        "cifar10", "A data set of TensorFlow Datasets, shapes, or an .npz of images and labels."
    )
    data_dir: str | None = option(None, "Folder of TensorFlow Datasets.", shard=True)
    norm: str = option("Linf", "Linf or L2.")
    epsilon: float | None = option(
        None,
        "Radius of the ball, in the model's pixel values; by default 8/255 or, in L2, 0.5 "
        "of the range from low to high.",
    )
    from_logits: bool = option(False, "Whether the models give logits, not probabilities.")
    low: float = option(
        0.0, "The darkest pixel that the model takes: 8-bit images are scaled to it."
    )
    high: float = option(1.0, "The brightest pixel that the model takes.")
    images: int | None = option(None, "Test images, the first of them; none is all.")
    batch_size: int = option(100, "Images attacked at a time.")
    seed: int = option(0, "Of the attacks' random choices.")

    def __post_init__(self):
        super().__post_init__()
        inf = math.inf
        configs.require_known("norm", [self.norm], NORMS)
        configs.require_seeds((self.seed,))
        configs.require_range(self, ("batch_size", 1, inf))
        if self.epsilon is not None:
            configs.require_range(self, ("epsilon", 0, inf))
        if not self.low < self.high:
            raise ConfigError(f"Expected low below high. Received: {self.low} and {self.high}")
        if self.images is not None:
            configs.require_range(self, ("images", 1, inf))

    def radius(self) -> float:
        """ε, or the standard one for pixels from `low` to `high`."""
        if self.epsilon is not None:
            return self.epsilon
        return (8 / 255 if self.norm == "Linf" else 0.5) * (self.high - self.low)


FEW = {  # the budget of the quick presets
    "pgd_steps": 40,
    "restarts": 2,
    "apgd_steps": 20,
    "targets": 3,
    "fab_steps": 20,
    "queries": 300,
    "hard_label_steps": 5,
    "hard_label_images": 20,
}
PRESETS = {"paper": Config(), "quick": Config(images=100, **FEW)}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of the evaluation, and returns and writes its results.

    Args:
        config: Settings.
        output_dir: Folder of the results, of this model and configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The model or the images cannot be read or do not fit each other, or the folder
            holds the results of another configuration or model.
        DatasetNotFoundError: The data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    if config.model is None:
        raise ConfigError("Expected --model, the .keras file of a classifier. Received: none.")
    model = load_model(config.model)
    source = None if config.source is None else load_model(config.source)
    images, labels = load_images(config)
    _require_fitting(model, images, config)
    configs.claim_folder("robustness", config, output_dir)
    digests = {
        "model": units.digest(pathlib.Path(config.model)),
        "images": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
    }
    if config.source is not None:
        digests["source"] = units.digest(pathlib.Path(config.source))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(config.batch_size)
    try:
        result = evaluation.robustness(
            model,
            dataset,
            NORMS[config.norm],
            config.radius(),
            source=source,
            from_logits=config.from_logits,
            bounds=(config.low, config.high),
            budget=config.budget(),
            batch_size=config.batch_size,
            seed=config.seed,
            stage=kept_in(output_dir / "units", digests),
        )
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError | files.BrokenFileError):
            raise
        raise ConfigError(f"{config.model} on {config.dataset}: {error}") from error
    return report.write(config, result, images, labels, output_dir, time.time() - started)


def load_model(path: str) -> keras.Model:
    """Reads a classifier, never running code that is stored in its file.

    Raises:
        ConfigError: It is not there, no Keras model, or wants code to be run.
    """
    if not pathlib.Path(path).exists():
        raise ConfigError(f"Expected a .keras file of a classifier. Received: no file {path}")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises all sorts for a file that it cannot read
        raise ConfigError(
            f"Expected a Keras model in {path} that opens without running code of its own (no "
            f"Lambda layers, no classes that are not registered). Received: {error}"
        ) from error


def load_images(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The test images scaled to [low, high], `[N, H, W, C]` float32, and their labels `[N]`.

    Raises:
        ConfigError: An .npz that is not what is wanted, or a data set that is no classification.
        DatasetNotFoundError: The data set is not there.
    """
    if config.dataset.endswith(".npz"):
        images, labels = _from_npz(pathlib.Path(config.dataset))
    elif config.dataset in data.IMAGE_SIZES:
        images, labels = data.load(config.dataset, config.data_dir).test
    else:
        images, labels = _from_tfds(config.dataset, config.data_dir)
    if config.images is not None:
        images, labels = images[: config.images], labels[: config.images]
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
        images = config.low + (config.high - config.low) * images
        images = np.clip(images, np.float32(config.low), np.float32(config.high))  # of rounding
    return images.astype(np.float32), labels.astype(np.int64)


def _require_fitting(model: keras.Model, images: np.ndarray, config: Config) -> None:
    """Raises ConfigError for images of another size or range than the model takes."""
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, tuple) and len(expected) == 4:
        for ours, theirs in zip(expected[1:], images.shape[1:], strict=True):
            if ours not in (None, theirs):
                raise ConfigError(
                    f"Expected images of shape {expected[1:]}, which {config.model} takes. "
                    f"Received: {images.shape[1:]} in {config.dataset}"
                )
    if images.size and not (images.min() >= config.low and images.max() <= config.high):
        raise ConfigError(
            f"Expected pixels from --low={config.low:g} to --high={config.high:g} in "
            f"{config.dataset}. Received: {images.dtype} from {images.min():g} to "
            f"{images.max():g}. Save 8-bit images as uint8, which are scaled, or give --low and "
            "--high as the model takes them."
        )


def _from_npz(path) -> data.Split:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (*_UNREADABLE, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Expected `images` and `labels` in {path}. Received: a file that cannot be read as "
            f"that ({error})."
        ) from error
    if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"Expected images [N, H, W, C], uint8 or floats as the model takes them, and integer "
            f"labels [N] in {path}. Received: {images.dtype} {images.shape} and {labels.dtype} "
            f"{labels.shape}" + (" (one-hot? Save their argmax)" if labels.ndim == 2 else "")
        )
    return data.Split(images, labels)


def _from_tfds(name: str, data_dir: str | None) -> data.Split:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        examples = tfds.as_numpy(builder.as_dataset(split="test", batch_size=-1))
        return data.Split(examples["image"], examples["label"])
    except Exception as error:  # TFDS and its downloader raise all sorts
        raise data.DatasetNotFoundError(
            f"Expected --dataset to be shapes, an .npz file, or a data set of TensorFlow Datasets "
            f"with a test split of images and labels of one size. Received: {name} "
            f"({type(error).__name__}: {error})"
        ) from error


def kept_in(folder: pathlib.Path, digests: dict[str, str]):
    """The `stage` of `evaluation.robustness` that keeps each part as a file of a folder.

    Args:
        folder: Of the parts.
        digests: Of the networks and images; parts of others are refused.
    """

    def stage(name, compute):
        file_name = "".join(c if c.isalnum() else "-" for c in name.lower())
        path = folder / f"{file_name}.json"
        units.measure(path, {"stage": name}, digests, lambda: {"result": compute()})
        return files.read_json(path)["result"]

    return stage


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robustness")
