"""What Rob-GAN's experiments share: how its networks are measured."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

from gat_tf.experiments import measuring
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import results
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.robgan.networks import Networks
from gat_tf.experiments.robgan.settings import RECIPE, Config


class Runner(measuring.Runner):
    """Measures Rob-GAN's networks; arguments and errors are those of its base."""

    def __init__(self, name: str, config: Config, output_dir: str | pathlib.Path):
        self.name = name
        self.output_dir = pathlib.Path(output_dir)
        self.started = time.time()
        self.networks = Networks(config)
        self.config = dataclasses.replace(config, precision=self.networks.config.precision)
        configs.bind_folder(name, self.config, self.output_dir, recipe=RECIPE)
        self.units = Units(self.output_dir / "units")
        self.datasets = self.networks.images.require(config.datasets, self.networks.folder)

    def write(self, **more: Any) -> dict:
        """Merges all units of the folder into the results, table and figures."""
        seconds, found = time.time() - self.started, self.units.read_all()
        return results.write(self.name, self.config, self.output_dir, found, seconds, **more)
