"""A folder of trained networks, bound to how they are trained and to the images they are of."""

from __future__ import annotations

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from gat_tf import data
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import datasets, devices, units
from gat_tf.experiments.lab.config import Config
from gat_tf.experiments.lab.units import Units


class Folder(abc.ABC):
    """The base of what trains networks in a folder; a subclass knows their images and files.

    Attributes:
        folder: Of the networks.
        config: How they are trained.
        strategy: The distribution strategy under which they are trained.
        units: The results of their trainings.
        sources: Name of a data set to what `data.load` takes.
        splits: Name of a data set to its images, read once; errors are those of `datasets.load`.

    Args:
        name: Of this kind of networks, to which the folder is bound.
        config_class: The settings that say how they are trained.
        config: A configuration that has these settings, and may have others.
        folder: Of the networks, of this configuration alone.
        **also: Of `config.bind_folder`.

    Raises:
        ConfigError: The folder holds the networks of another configuration, or cannot be written.
    """

    def __init__(
        self,
        name: str,
        config_class: type[Config],
        config: Any,
        folder: str | pathlib.Path,
        **also: Config,
    ):
        self.folder = pathlib.Path(folder)
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config_class)}
        values["precision"] = configs.settled_precision(config.precision, self.folder)
        self.config: Any = config_class(**values)
        # Who computes and writes depends on it, so it comes before the units.
        self.strategy = devices.use(config.strategy)
        configs.bind_folder(name, self.config, self.folder, flag="networks_dir", **also)
        self.units = Units(self.folder / "units")
        self.sources: dict[str, str] = {}
        self.splits = functools.cache(self._load_splits)

    def require(self, sources: Iterable[str]) -> list[str]:
        """Makes data sets known, and returns the names that their networks and results have.

        Those that are not built in are loaded at once, so that a wrong one ends a run before the
        first training.

        Args:
            sources: What `data.load` takes.

        Raises:
            ConfigError: There is no such data set, or the folder's networks are of other images.
            DatasetNotFoundError: A data set is not there.
        """
        named = datasets.named(sources)
        self.sources |= named
        for name, source in named.items():
            if source not in data.CLASSES:
                datasets.bind(self.folder, source, self.splits(name))
        return list(named)

    def train(self, networks: Iterable[Any]) -> None:
        """Trains those that are missing."""
        units.shared(self.steps(networks))

    def steps(self, networks: Iterable[Any]) -> list[Callable[[], Any]]:
        """What `train` does, as steps for `units.shared`."""
        return [functools.partial(self.take, network) for network in networks]

    @abc.abstractmethod
    def take(self, network: Any) -> None:
        """Trains a network if it is missing and nobody has begun; else it raises NotYet."""

    def digest(self, network: Any) -> str | None:
        """The SHA-256 of a trained network's file; None where it is missing."""
        return units.digest(self.path(network))

    @abc.abstractmethod
    def path(self, network: Any) -> pathlib.Path:
        """The file of a trained network."""

    @abc.abstractmethod
    def _load_splits(self, dataset: str) -> data.Splits:
        """The images of a data set, for `splits`."""
