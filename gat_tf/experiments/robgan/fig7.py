"""Fig. 7 of the Rob-GAN paper: does the split loss keep the generator from collapsing?

    python -m gat_tf.experiments.robgan.fig7 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan.fig7 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claim: trained by AC-GAN's loss (eq. 8) the generator ignores the noise and makes a
fixed image of each class; by the split loss (eq. 9) it does not. A number goes with the pictures,
the diversity of each class: the root mean square distance of a pixel between two images. On CIFAR
it does not fall to 0 where a generator has collapsed: the border of the cropped training images,
which it learns too, still moves from image to image.

In the authors' code the split loss also weighs the judgement of fakes twice as much as AC-GAN's
does. A control (ours) has AC-GAN's weight, so that the class head is all that differs.

A unit of work is one data set and seed: the generators of both losses, trained with the attack and
without it, and of the control, and their images.
"""

from __future__ import annotations

import base64
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from gat_tf import augmentation, data, evaluation, models
from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.config import ConfigError, option
from gat_tf.experiments.lab.tables import by_dataset, mean_and_std, plus_minus
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import Measurement
from gat_tf.experiments.robgan import settings
from gat_tf.experiments.robgan.measuring import Runner
from gat_tf.experiments.robgan.methods import GANS, Network

NAME = "gat_tf.experiments.robgan.fig7"
NAMES = ("robgan", "acgan_attack", "split", "acgan", "split_equal")
# Better, worse, and how both are trained.
PAIRS = (("robgan", "acgan_attack", "with the attack"), ("split", "acgan", "without the attack"))
BEYOND = (("split_equal", "acgan_attack", "with the attack and at equal weight"),)


@dataclasses.dataclass(frozen=True)
class Config(settings.Config):
    """Settings of Rob-GAN's Fig. 7."""

    shown_classes: int = option(10, "Number of classes in the picture, a row each (ours).")
    shown_images: int = option(10, "Number of images of each class in the picture (ours).")
    diversity_images: int = option(
        100, "Number of images of each class from which its diversity is measured (ours).", low=2
    )


PRESETS = Config.presets(settings.PRESETS, quick={"diversity_images": 20})


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 7, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.robgan.table1.run`.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        _require_pairs(runner.networks, dataset)
        runner.measure(_measurement(runner, dataset, seed) for seed in config.seeds)
    return runner.write()


def _require_pairs(networks: Any, dataset: str) -> None:
    """Raises ConfigError unless every class has two test images to take a distance between."""
    test = networks.splits(dataset).test
    fewest = np.bincount(test.labels, minlength=networks.classes(dataset)).min()
    if fewest < 2:
        raise ConfigError(
            f"Expected at least two test images of every class of {dataset}, for the diversity of "
            f"real images. Received: {fewest}; choose a larger --test_size."
        )


def _measurement(runner: Runner, dataset: str, seed: int) -> Measurement:
    networks = {name: Network(dataset, "gan", name, seed) for name in NAMES}
    folder, c = runner.networks, runner.config
    classes = folder.classes(dataset)

    def measured():
        labels = np.repeat(np.arange(classes), c.diversity_images)
        real, real_labels = _of_each_class(folder.splits(dataset).test, classes, c.diversity_images)
        diversity = {"real": evaluation.class_diversity(real, real_labels, classes).tolist()}
        pictures = {}
        for name, network in networks.items():
            fakes = models.sample(
                folder.load(network), labels, seed=seed, statistics=GANS[name].statistics
            )
            diversity[name] = evaluation.class_diversity(fakes, labels, classes).tolist()
            by_class = fakes.reshape(classes, c.diversity_images, *fakes.shape[1:])
            pictures[name] = _encoded(by_class[: c.shown_classes, : c.shown_images])
        return {
            "images_of_each_class": c.diversity_images,
            "diversity": diversity,
            "pictures": pictures,
            "trainings": {name: folder.training(n) for name, n in networks.items()},
        }

    about = {"dataset": dataset, "seed": seed}
    return Measurement(f"{dataset}-seed{seed}", about, networks, measured)


def _of_each_class(split: data.Split, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first real images of each class, in [-1, 1], as many as there are up to `count`."""
    chosen = np.concatenate([np.flatnonzero(split.labels == k)[:count] for k in range(classes)])
    images = split.images[chosen].astype(np.float32) / 255
    return augmentation.centred(images), split.labels[chosen]


def _encoded(images: np.ndarray) -> str:
    """A grid of images `[rows, columns, H, W, C]` in [-1, 1], as a PNG in base64."""
    rows, columns, height, width, channels = images.shape
    grid = images.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    pixels = np.clip(np.round(127.5 * (grid + 1)), 0, 255).astype(np.uint8)
    return base64.b64encode(tf.io.encode_png(pixels).numpy()).decode()


def _decoded(picture: str) -> np.ndarray:
    """The grid of `_encoded` as one image `[1, 1, H, W, C]` in [0, 1]."""
    return tf.io.decode_png(base64.b64decode(picture)).numpy()[None, None] / 255


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> name of a generator, or "real" -> "mean" over the classes and "least" class,
        each a [mean, std].
    """
    return {
        dataset: {
            name: {
                "mean": mean_and_std([float(np.mean(u["diversity"][name])) for u in ours]),
                "least": mean_and_std([float(np.min(u["diversity"][name])) for u in ours]),
            }
            for name in ours[0]["diversity"]
        }
        for dataset, ours in by_dataset(units).items()
    }


def _share(unit: dict, name: str) -> float:
    """The diversity of a generator's images, in % of that of real images."""
    return 100 * float(np.mean(unit["diversity"][name]) / np.mean(unit["diversity"]["real"]))


def verdicts(units: list[dict]) -> dict:
    """Whether the split loss makes images of a class more diverse, by data set."""
    return {
        dataset: decide(
            [
                Claim(
                    "Diversity within a class, in % of real images': split loss above AC-GAN's, "
                    f"{how}",
                    [_share(u, better) - _share(u, worse) for u in ours],
                    origin,
                    negligible=None,
                    unit="%",
                )
                for origin, pairs in (("paper", PAIRS), ("beyond", BEYOND))
                for better, worse, how in pairs
                if better in ours[0]["diversity"]
            ]
        )
        for dataset, ours in by_dataset(units).items()
    }


def table(results: dict) -> str:
    """The diversities and the verdicts as Markdown, by data set."""
    lines = []
    for dataset, ours in by_dataset(results["units"]).items():
        diversities = {
            "real test images" if name == "real" else GANS[name].title: [
                u["diversity"][name] for u in ours
            ]
            for name in ours[0]["diversity"]
        }
        lines += [
            f"**{dataset}**, root mean square distance of a pixel (in [-1, 1]) between two images "
            f"of a class, {ours[0]['images_of_each_class']} images per class, over {len(ours)} "
            "seed(s); 0 is one fixed image per class",
            "",
            *markdown(
                ["images", "mean over classes", "least class"],
                [
                    [
                        title,
                        *(plus_minus([float(of(d)) for d in found], 3) for of in (np.mean, np.min)),
                    ]
                    for title, found in diversities.items()
                ],
            ),
            "",
            verdicts_markdown(results["verdicts"][dataset]),
        ]
    return "\n".join(lines)


def figures(results: dict) -> dict:
    """Returns the images of the first seed of each data set, name to matplotlib figure."""
    from gat_tf import plotting

    grids = []
    for dataset, ours in by_dataset(results["units"]).items():
        unit = min(ours, key=lambda u: u["seed"])
        for name, picture in unit["pictures"].items():
            caption = (
                f"diversity {np.mean(unit['diversity'][name]):.2f}, "
                f"{_share(unit, name):.0f} % of real images'"
            )
            grids.append((f"{dataset}: {GANS[name].title}", caption, _decoded(picture)))
    return {"fig7": plotting.grids(grids, ylabel="a class per row")}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-fig7")
