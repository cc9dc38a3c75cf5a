"""The base of experiments on trained networks: their settings, and how units are measured."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gat_tf import data
from gat_tf._types import Numbers
from gat_tf.experiments import settings
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, results, units
from gat_tf.experiments.lab.config import option
from gat_tf.experiments.lab.significance import image_error
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.lab.verdicts import Claim
from gat_tf.experiments.networks import Networks

# The built-in ones are drawn without end.
_TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet143": 7_150}


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """Settings of every experiment on trained networks; each experiment adds its own."""

    datasets: tuple[str, ...] = settings.datasets_option()
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Seeds of the networks, as in 0,1,2 (ours).", affects_results=False,
        **configs.SEED,
    )  # fmt: skip
    data_dir: str | None = option(None, "Folder of TensorFlow Datasets.", affects_results=False)
    strategy: str = option(
        "mirrored",
        "tf.distribute strategy of what is trained.",
        choices=devices.ONE_MACHINE,
        affects_results=False,
    )
    networks_dir: str = option(
        "runs/table2",
        "Folder of Table 2, whose networks are measured; they are trained there where missing.",
        affects_results=False,
    )
    networks_preset: str = option(
        "paper",
        "How networks are trained in a folder that is empty.",
        choices=settings.PRESETS,
        affects_results=False,
    )
    test_size: int | None = option(
        None, "Number of test images; none means all that the networks are tested on (paper)."
    )


# What the presets of these experiments have in common.
FULL: dict[str, Any] = {
    "datasets": ("cifar10",),
    "networks_dir": "runs/table2-full",
    "networks_preset": "full",
}
REDUCED: dict[str, Any] = {
    "datasets": ("cifar10",),
    "networks_dir": "runs/table2-reduced",
    "networks_preset": "reduced",
}
QUICK: dict[str, Any] = {
    "datasets": ("shapes",),
    "seeds": (0,),
    "networks_dir": "runs/table2-quick",
    "networks_preset": "quick",
}


class Measurement(NamedTuple):
    """A unit of work that measures trained networks.

    Attributes:
        name: Of the unit.
        about: Data set, seed and so on.
        networks: Role to network.
        compute: () -> what is measured.
    """

    name: str
    about: dict
    networks: dict[str, Any]
    compute: Callable[[], dict]


class Runner:
    """Measures networks and writes the results.

    Attributes:
        networks: The networks that are measured.
        units: The finished measurements.
        datasets: Names of the data sets, which the units have.

    Args:
        name: Of the experiment's module.
        config: Its settings.
        output_dir: Folder of the results.

    Raises:
        ConfigError: A folder holds another configuration's results, or cannot be written; or there
            is no such data set, or the networks are of other images.
        DatasetNotFoundError: A data set is not there.
    """

    def __init__(self, name: str, config: Config, output_dir: str | pathlib.Path):
        self.name = name
        self.config: Any = config
        self.output_dir = pathlib.Path(output_dir)
        self.started = time.time()
        self.networks: Any = Networks.open(
            config.networks_dir, config.networks_preset, config.data_dir, config.strategy
        )
        configs.bind_folder(name, config, self.output_dir, networks=self.networks.config)
        self.units = Units(self.output_dir / "units")
        self.datasets: list[str] = self.networks.require(config.datasets)

    def splits(self, dataset: str) -> data.Splits:
        """The images, with as many test images as are attacked."""
        return self.networks.splits(dataset, self.config.test_size)

    def measure(self, measurements: Iterable[Measurement]) -> None:
        """Trains the missing networks, and computes the missing measurements."""
        measurements = list(measurements)
        networks = dict.fromkeys(n for m in measurements for n in m.networks.values())
        steps = self.networks.steps(networks)
        units.shared([*steps, *(functools.partial(self._take, m) for m in measurements)])

    def _take(self, measurement: Measurement) -> None:
        """Computes a measurement if it is missing and nobody has begun.

        Raises:
            NotYet: Others are computing it, or are training a network that it needs.
        """
        name, about, networks, compute = measurement
        for network in networks.values():
            self.networks.take(network)
        digests = {role: self.networks.digest(network) for role, network in networks.items()}
        self.units.take(
            {name: units.measured(about, digests, compute)},
            units.same_networks(self.units.folder, {name: digests}),
        )

    def write(self, **more: Any) -> dict:
        """Merges all units of the folder into the results, table and figures."""
        seconds = time.time() - self.started
        return results.write(
            self.name, self.config, self.output_dir, self.units.read_all(), seconds,
            networks_config=configs.fingerprint(self.networks.config), **more,
        )  # fmt: skip


def above(
    text: str,
    units: list[dict],
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    origin: str = "paper",
) -> Claim:
    """The claim that an accuracy is above another, of the seeds that have both.

    Args:
        text: The claim.
        units: Of one data set, with the number of images tested.
        ours: Seed to accuracy in %.
        theirs: Seed to the other accuracy.
        origin: "paper" or "beyond".
    """
    seeds = sorted(ours.keys() & theirs.keys())
    pair = [[of[seed] for seed in seeds] for of in (ours, theirs)]
    error = sampling_error(units[0]["dataset"], units[0]["test_images"], *pair) if seeds else 0.0
    differences = [a - b for a, b in zip(*pair, strict=True)]
    return Claim(text, differences, origin, image_error=error)


def sampling_error(dataset: str, images: int, *accuracies: Numbers) -> float:
    """The standard error, in points, of a difference of accuracies that the sample of images adds.

    Args:
        dataset: The data set whose test images are sampled.
        images: Number of images tested.
        *accuracies: In %, one for each seed.
    """
    population = _TEST_IMAGES.get(dataset, math.inf)
    return image_error(*accuracies, images=images, population=max(images, population))
