"""The base of experiments on trained networks: their settings, and how units are measured."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gat_tf import data
from gat_tf._types import Numbers
from gat_tf.experiments import settings
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, results, units
from gat_tf.experiments.lab.config import option, run_option
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
    seeds: tuple[int, ...] = run_option(
        (0, 1, 2), "Seeds of the networks, as in 0,1,2 (ours).", **configs.SEED
    )
    data_dir: str | None = run_option(None, "Folder of TensorFlow Datasets.")
    strategy: str = run_option(
        "mirrored", "tf.distribute strategy of what is trained.", choices=devices.ONE_MACHINE
    )
    networks_dir: str = run_option(
        "runs/table2",
        "Folder of Table 2, whose networks are measured; they are trained there where missing.",
    )
    networks_preset: str = run_option(
        "paper", "How networks are trained in a folder that is empty.", choices=settings.PRESETS
    )
    test_size: int | None = option(
        None, "Number of test images; none means all that the networks are tested on (paper)."
    )


PRESETS: dict[str, dict[str, Any]] = {  # what those of these experiments have in common
    "paper": {},
    "full": {
        "datasets": ("cifar10",),
        "networks_dir": "runs/table2-full",
        "networks_preset": "full",
    },
    "reduced": {
        "datasets": ("cifar10",),
        "networks_dir": "runs/table2-reduced",
        "networks_preset": "reduced",
    },
    "quick": {
        "datasets": ("shapes",),
        "seeds": (0,),
        "networks_dir": "runs/table2-quick",
        "networks_preset": "quick",
    },
}


class Measurement(NamedTuple):
    """A unit of work that measures trained networks.

    Attributes:
        name: Of the unit.
        about: Data set, seed and so on.
        networks: Role to network.
        compute: () -> what is measured.
        others: Role to the digest of a network that is not one of the folder's.
    """

    name: str
    about: dict
    networks: dict[str, Any]
    compute: Callable[[], dict]
    others: Mapping[str, str | None] = MappingProxyType({})


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
        networks: The networks that are measured; by default those of Table 2.
        **also: Other configurations that the results depend on, by name.

    Raises:
        ConfigError: A folder holds another configuration's results, or cannot be written; or there
            is no such data set, or the networks are of other images.
        DatasetNotFoundError: A data set is not there.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        output_dir: str | pathlib.Path,
        networks: Any = None,
        **also: Any,
    ):
        self.name = name
        self.config = config
        self.output_dir = pathlib.Path(output_dir)
        self.started = time.time()
        self._more = {}
        if networks is None:
            networks = Networks.open(
                config.networks_dir, config.networks_preset, config.data_dir, config.strategy
            )
            also = {"networks": networks.config}
            self._more = {"networks_config": configs.fingerprint(networks.config)}
        configs.bind_folder(name, config, self.output_dir, **also)
        self.networks = networks
        self.units = Units(self.output_dir / "units")
        self.datasets: list[str] = networks.require(config.datasets)

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
        name, about, networks, compute, others = measurement
        for network in networks.values():
            self.networks.take(network)
        digests = {role: self.networks.digest(network) for role, network in networks.items()}
        digests |= others
        self.units.take(
            {name: units.measured(about, digests, compute)},
            units.same_networks(self.units.folder, {name: digests}),
        )

    def write(self) -> dict:
        """Merges all units of the folder into the results, table and figures."""
        found, seconds = self.units.read_all(), time.time() - self.started
        return results.write(self.name, self.config, self.output_dir, found, seconds, **self._more)


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
