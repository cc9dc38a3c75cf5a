"""Fig. 7 of the Rob-GAN paper: does the split loss keep the generator from collapsing?

    python -m gat_tf.experiments.robgan_fig7 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan_fig7 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claim: trained by AC-GAN's loss (eq. 8) the generator ignores the noise and makes a
fixed image of each class; by the split loss (eq. 9) it does not. Beyond the pictures stands a
number, the diversity of each class: the root mean square distance of a pixel between two images.

A unit of work is one data set and seed: the generators of both losses, trained with the attack and
without it, and their images.
"""

from __future__ import annotations

import base64
import dataclasses
import pathlib
import time

import numpy as np
import tensorflow as tf

from gat_tf import augmentation, data, evaluation, models
from gat_tf.experiments import config as configs
from gat_tf.experiments import robgan_networks, units
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.reports import robgan_images as report
from gat_tf.experiments.robgan_networks import INF, Networks

NAMES = ("robgan", "acgan_attack", "split", "acgan")


@dataclasses.dataclass(frozen=True)
class Config(robgan_networks.Config):
    """Settings of Rob-GAN's Fig. 7."""

    shown_classes: int = option(10, "Classes in the picture, a row each (ours).")
    shown_images: int = option(10, "Images of each class in the picture (ours).")
    diversity_images: int = option(100, "Images of each class whose distances are taken (ours).")

    def __post_init__(self):
        super().__post_init__()
        configs.require_range(
            self, ("shown_classes", 1, INF), ("shown_images", 1, INF), ("diversity_images", 2, INF)
        )


PRESETS = robgan_networks.presets(Config, quick={"diversity_images": 20})


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 7; arguments, result and errors: `robgan_table1.run`."""
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    networks = Networks(config)
    configs.claim_folder("robgan_fig7", config, output_dir)
    for dataset in config.datasets:
        _require_pairs(networks, dataset)
        for seed in config.seeds:
            trainings = {name: networks.train_gan(dataset, name, seed) for name in NAMES}
            units.measure(
                output_dir / "units" / f"{dataset}-seed{seed}.json",
                {"dataset": dataset, "seed": seed},
                {n: units.digest(networks.generator_path(dataset, n, seed)) for n in NAMES},
                lambda d=dataset, s=seed, t=trainings: _measured(config, networks, d, s, t),
            )
    return report.write("robgan_fig7", config, output_dir, time.time() - started)


def _require_pairs(networks, dataset) -> None:
    """Raises ConfigError unless every class has two test images to take a distance between."""
    _, test = networks.images(dataset)
    fewest = np.bincount(test.labels, minlength=data.CLASSES[dataset]).min()
    if fewest < 2:
        raise ConfigError(
            f"Expected at least two test images of every class of {dataset}, for the diversity of "
            f"real images. Received: {fewest}; choose a larger --test_size."
        )


def _measured(config, networks, dataset, seed, trainings) -> dict:
    _, test = networks.images(dataset)
    classes = data.CLASSES[dataset]
    real = _of_each_class(test, classes, config.diversity_images)
    labels = np.repeat(np.arange(classes), config.diversity_images)
    shown = [
        k * config.diversity_images + i
        for k in range(min(classes, config.shown_classes))
        for i in range(min(config.shown_images, config.diversity_images))
    ]
    diversity, pictures = {}, {}
    for name in ("real", *NAMES):
        if name == "real":
            images, of_image = real
        else:
            generator = networks.load_generator(dataset, name, seed)
            images, of_image = models.sample(generator, labels, seed=seed), labels
        diversity[name] = evaluation.class_diversity(images, of_image, classes).tolist()
        if name != "real":
            pictures[name] = _picture(images[shown], min(classes, config.shown_classes))
    return {
        "images_of_each_class": config.diversity_images,
        "diversity": diversity,
        "pictures": pictures,
        "trainings": {
            name: {key: unit[key] for key in ("train_images", "epochs", "train_seconds", "history")}
            for name, unit in trainings.items()
        },
    }


def _of_each_class(split: data.Split, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first real images of each class, in [-1, 1], as many as there are up to `count`."""
    chosen = np.concatenate([np.flatnonzero(split.labels == k)[:count] for k in range(classes)])
    images = split.images[chosen].astype(np.float32) / 255
    return augmentation.centred(images), split.labels[chosen]


def _picture(images: np.ndarray, rows: int) -> str:
    """A grid of images in [-1, 1], a class a row, as a PNG in base64."""
    _, height, width, channels = images.shape
    columns = len(images) // rows
    grid = images.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * height, columns * width, channels)
    pixels = np.clip(np.round(127.5 * (grid + 1)), 0, 255).astype(np.uint8)
    return base64.b64encode(tf.io.encode_png(pixels).numpy()).decode()


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robgan_fig7")
