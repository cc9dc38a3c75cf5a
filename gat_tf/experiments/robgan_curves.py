"""What Rob-GAN's Table 1 and Figs. 2 and 6 share: its classifiers under PGD against δmax."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from gat_tf import attacks, data, evaluation
from gat_tf.experiments import config as configs
from gat_tf.experiments import robgan_networks, units
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.robgan_networks import BOUNDS, INF, Networks

PAPER_EPSILONS = {32: (0.0, 0.02, 0.04, 0.08), 64: (0.0, 0.01, 0.02, 0.03)}  # of Table 1
_SWEPT = tuple(n / 100 for n in range(11))


@dataclasses.dataclass(frozen=True)
class Config(robgan_networks.Config):
    """Settings of Rob-GAN's Table 1, Fig. 2 and Fig. 6."""

    epsilons: tuple[float, ...] = option(_SWEPT, "δmax of the figures, in [-1, 1], rising (paper).")
    attacked_images: int | None = option(
        None, "Images attacked of each split; none is all test images, as many of training (ours)."
    )
    evaluation_steps: int = option(20, "PGD steps, each a fifth of δmax (paper).")

    def __post_init__(self):
        super().__post_init__()
        configs.require_values(self, "epsilons")
        configs.require_range(self, ("epsilons", 0, 2), ("evaluation_steps", 1, INF))
        if self.attacked_images is not None:
            configs.require_range(self, ("attacked_images", 1, INF))
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise ConfigError(
                f"Expected epsilons to rise from one to the next. Received: {self.epsilons}"
            )


PRESETS = robgan_networks.presets(
    Config,
    reduced={"attacked_images": 1_000},
    quick={"attacked_images": 200, "evaluation_steps": 10, "epsilons": _SWEPT[::2]},
)


class Runner:
    """Measures classifiers of a folder of networks, a file for each data set and seed.

    Args:
        experiment: Its name.
        config: Settings.
        output_dir: Folder of the results.

    Raises:
        ConfigError: One of the folders holds results of another configuration.
    """

    def __init__(self, experiment: str, config: Config, output_dir: str | pathlib.Path):
        self.experiment = experiment
        self.started = time.time()
        self.config = config
        self.output_dir = pathlib.Path(output_dir)
        self.networks = Networks(config)
        configs.claim_folder(experiment, config, self.output_dir)

    def run(
        self, names: Sequence[str], splits: Sequence[str], epsilons: Sequence[float] | None = None
    ) -> None:
        """Computes the units: the accuracy of each classifier on each split at each ε.

        Args:
            names: Of `robgan_networks.CLASSIFIERS`.
            splits: "train" and "test", or one of them.
            epsilons: Rising; by default Table 1's for the size of the data set's images.
        """
        c = self.config
        for dataset in c.datasets:
            for seed in c.seeds:
                trainings = {n: self.networks.train_classifier(dataset, n, seed) for n in names}
                units.measure(
                    self.output_dir / "units" / f"{dataset}-seed{seed}.json",
                    {"dataset": dataset, "seed": seed},
                    {
                        name: units.digest(self.networks.classifier_path(dataset, name, seed))
                        for name in names
                    },
                    lambda dataset=dataset, seed=seed, trainings=trainings: {
                        **self._curves(dataset, seed, names, splits, epsilons),
                        "trainings": {
                            name: {
                                key: training[key]
                                for key in ("train_images", "epochs", "train_seconds", "history")
                            }
                            for name, training in trainings.items()
                        },
                    },
                )

    def _curves(self, dataset, seed, names, splits, epsilons) -> dict:
        c = self.config
        train, test = self.networks.images(dataset)
        size = test.images.shape[1]
        count = c.attacked_images or len(test.labels)
        chosen = {
            name: robgan_networks.first_images(split, count, size)
            for name, split in (("train", train), ("test", test))
            if name in splits
        }
        epsilons = epsilons or PAPER_EPSILONS.get(size, PAPER_EPSILONS[64])
        curves = {}
        for name in names:
            classifier = self.networks.load_classifier(dataset, name, seed)
            curves[name] = {
                split: {
                    "epsilons": list(epsilons),
                    "accuracy": pgd_accuracies(classifier, images, epsilons, c.evaluation_steps),
                }
                for split, images in chosen.items()
            }
        return {
            "image_size": size,
            "images": {name: len(split.labels) for name, split in chosen.items()},
            "curves": curves,
        }


def pgd_accuracies(
    classifier, split: data.Split, epsilons: Sequence[float], steps: int
) -> list[float]:
    """Accuracies in [0, 1] under PGD as the paper evaluates: sign steps of ε/5, no random start.

    Args:
        classifier: Keras model from images in [-1, 1] to logits.
        split: The images.
        epsilons: δmax in L∞, in units of pixel values in [-1, 1].
        steps: Of PGD.
    """
    images = robgan_networks.centred(split, 200)

    def accuracy(epsilon):
        attack = None
        if epsilon:
            attack = attacks.PGD(epsilon, INF, steps, epsilon / 5, random_start=False, clip=BOUNDS)
        return evaluation.accuracy(classifier, images, attack, from_logits=True, bounds=BOUNDS)

    return [float(np.round(accuracy(epsilon), 6)) for epsilon in epsilons]
