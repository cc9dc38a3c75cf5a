"""What Rob-GAN's experiments share: how its networks are measured."""

from __future__ import annotations

import dataclasses
import pathlib

from gat_tf.experiments import measuring
from gat_tf.experiments.robgan.networks import Networks
from gat_tf.experiments.robgan.settings import RECIPE, Config


class Runner(measuring.Runner):
    """Measures Rob-GAN's networks; arguments and errors are those of its base."""

    def __init__(self, name: str, config: Config, output_dir: str | pathlib.Path):
        networks = Networks(config)
        config = dataclasses.replace(config, precision=networks.config.precision)
        super().__init__(name, config, output_dir, networks, recipe=RECIPE)
