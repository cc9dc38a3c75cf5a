"""The classifiers of Table 2, for the experiments that attack them."""

from __future__ import annotations

import copy
import dataclasses
import pathlib

import keras

from gat_tf import data
from gat_tf.experiments import config as configs
from gat_tf.experiments import devices, table2, units
from gat_tf.experiments.config import ConfigError, option


@dataclasses.dataclass(frozen=True)
class Config:
    """What every experiment on Table 2's classifiers is told; its own settings come on top."""

    datasets: tuple[str, ...] = option(("cifar10", "cifar100"), "Data sets (paper).", shard=True)
    seeds: tuple[int, ...] = option((0, 1, 2), "Seeds, as in 0,1,2 (ours).", shard=True)
    data_dir: str | None = option(None, "Folder of TensorFlow Datasets.", shard=True)
    strategy: str = option(
        "mirrored",
        f"tf.distribute strategy of what is trained, one of {devices.ONE_MACHINE}.",
        shard=True,
    )
    table2_dir: str = option(
        "runs/table2",
        "Folder of Table 2, whose classifiers are attacked; trained there where missing.",
        shard=True,
    )
    table2_preset: str = option(
        "paper", "Table 2's preset, for a folder that is empty.", shard=True
    )
    test_size: int | None = option(None, "Test images; none is all that Table 2 takes (paper).")

    def __post_init__(self):
        configs.require_known("data set", self.datasets, data.IMAGE_SIZES)
        configs.require_known("strategy", [self.strategy], devices.ONE_MACHINE)
        configs.require_known("table2_preset", [self.table2_preset], table2.PRESETS)
        configs.require_seeds(self.seeds)


# What the presets of these experiments have in common.
REDUCED = {
    "datasets": ("cifar10",),
    "table2_dir": "runs/table2-reduced",
    "table2_preset": "reduced",
}
QUICK = {
    "datasets": ("shapes",),
    "seeds": (0,),
    "table2_dir": "runs/table2-quick",
    "table2_preset": "quick",
}


class Classifiers:
    """Classifiers in a folder of Table 2, trained there where they are missing.

    Attributes:
        folder: Of Table 2.
        config: Table 2's configuration: the folder's, or a preset's if there is none yet.

    Args:
        config: Where they are, and how those that are missing are trained.
    """

    def __init__(self, config: Config):
        folder = self.folder = pathlib.Path(config.table2_dir)
        path = folder / "config.json"
        if path.exists():
            ours = configs.from_file(table2.Config, path, "table2")
        elif any(folder.glob("units/*.json")):
            raise ConfigError(
                f"Expected the configuration of the classifiers in {folder}. Received: units, but "
                "no config.json, which Table 2's runner writes first. Put it back."
            )
        else:
            ours = table2.PRESETS[config.table2_preset]
        self.config = dataclasses.replace(ours, data_dir=config.data_dir, strategy=config.strategy)
        self._splits = {}

    def beside(self, folder: pathlib.Path) -> Classifiers:
        """Classifiers of the same configuration in another folder."""
        other = copy.copy(self)
        other.folder = folder
        return other

    def splits(self, dataset: str, test_size: int | None = None) -> data.Splits:
        """The images that the classifiers were trained, validated and are tested on."""
        key = (dataset, test_size)
        if key not in self._splits:
            c = self.config
            if test_size is not None:
                c = dataclasses.replace(c, test_size=test_size)
            self._splits[key] = table2.load_splits(c, dataset)
        return self._splits[key]

    def train_missing(self, dataset: str, methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Trains those that are not there, with Table 2's runner."""
        missing = [(m, s) for s in seeds for m in methods if not self._unit(dataset, m, s).exists()]
        if missing:
            config = dataclasses.replace(
                self.config,
                datasets=(dataset,),
                methods=tuple(dict.fromkeys(m for m, _ in missing)),
                seeds=tuple(dict.fromkeys(s for _, s in missing)),
            )
            table2.run(config, self.folder)

    def load(self, dataset: str, method: str, seed: int) -> keras.Model:
        """Returns a trained classifier.

        Raises:
            ConfigError: It diverged, or its file is missing.
        """
        path = self._unit(dataset, method, seed)
        return units.load_network(path, path.with_suffix(".keras"))

    def digest(self, dataset: str, method: str, seed: int) -> str | None:
        """The SHA-256 of a trained classifier's file; None where it is missing."""
        return units.digest(self._unit(dataset, method, seed).with_suffix(".keras"))

    def _unit(self, dataset, method, seed) -> pathlib.Path:
        return table2.unit_path(self.folder, dataset, method, seed)
