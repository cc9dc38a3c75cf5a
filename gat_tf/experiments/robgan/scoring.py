"""Scores of generators on the way, by one network that looks at their images."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import keras
import numpy as np

from gat_tf import data, evaluation, models
from gat_tf.experiments import networks as table2
from gat_tf.experiments.lab import units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.robgan import images
from gat_tf.experiments.robgan.measuring import Runner
from gat_tf.experiments.robgan.methods import GANS, Network


class Scorer:
    """Scores the snapshots of a data set's generators, in the eyes of one network."""

    def __init__(self, runner: Runner, dataset: str):
        self.config = runner.config
        self.networks = runner.networks
        self.dataset = dataset

    @functools.cached_property
    def baseline(self) -> tuple[table2.Networks, table2.Network]:
        """Table 2's folder, and the baseline in it, which is trained if it is missing."""
        c, network = self.config, table2.Network(self.dataset, "baseline", 0)
        folder = table2.Networks.open(c.table2_dir, c.table2_preset, c.data_dir, c.strategy)
        folder.require([self.networks.sources[self.dataset]])
        folder.train([network])
        return folder, network

    @functools.cached_property
    def digest(self) -> str | None:
        """Of the score network's file; Inception v3 is Keras's."""
        if self.config.score_network == "inception":
            return None
        if self.config.score_network == "baseline":
            folder, network = self.baseline
            return folder.digest(network)
        return units.digest(pathlib.Path(self.config.score_network))

    @functools.cached_property
    def network(self) -> evaluation.ScoreNetwork:
        """The score network; a run that has nothing to score needs none."""
        name = self.config.score_network
        if name == "inception":
            try:
                return evaluation.ScoreNetwork.inception_v3()
            except RuntimeError as error:
                advice = "Here: --score_network=baseline or FILE.keras"
                raise ConfigError(f"{error}\n{advice}") from error
        if name == "baseline":
            folder, network = self.baseline
            width = f"{folder.config.width:.3g} of the width"
            title = f"Table 2's baseline, {width}, of {self.dataset}"
            return evaluation.ScoreNetwork(folder.load(network), name=title)
        try:
            model = keras.models.load_model(name)
            return evaluation.ScoreNetwork(model, name=pathlib.Path(name).name)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                "Expected --score_network to be inception, baseline or a .keras file of a "
                f"classifier with probabilities. Received: {name} ({error})"
            ) from error

    def measured(self, network: Network) -> dict:
        """The scores at every snapshot, and of the real test images for comparison."""
        count, training = self.config.score_images, self.networks.units.read(network.unit)
        rng = np.random.default_rng(network.seed)
        labels = rng.permutation(np.arange(count) % self.networks.classes(self.dataset))
        scores = []
        for epoch in training["snapshots"]:
            generator = self.networks.load(network, epoch)
            batches = models.sample_batches(
                generator, labels, seed=network.seed, statistics=GANS[network.name].statistics
            )
            scores.append({"epoch": epoch, **self._scores(fakes for _, fakes in batches)})
            keras.backend.clear_session()
        return {
            "score_network": self.network.description,
            "score_images": count,
            "steps_per_epoch": training["steps_per_epoch"],
            "scores": scores,
            "real": self._real_score(),
            "train_seconds": training["train_seconds"],
            "history": training["history"],
        }

    def _scores(self, images: Any) -> dict:
        probabilities, features = self.network(images)
        mean, std = evaluation.inception_score(probabilities, self.config.score_splits)
        _, reference = self._real
        return {
            "inception_score": mean,
            "inception_score_std": std,
            "frechet_distance": evaluation.frechet_distance(features, reference),
        }

    def _real_score(self) -> dict:
        probabilities, _ = self._real
        splits = min(self.config.score_splits, len(probabilities))
        mean, _ = evaluation.inception_score(probabilities, splits)
        return {"inception_score": mean, "images": len(probabilities)}

    @functools.cached_property
    def _real(self) -> tuple[np.ndarray, np.ndarray]:
        """The network's probabilities and features of the test images, in random order."""
        test = self.networks.splits(self.dataset).test
        order = np.random.default_rng(0).permutation(len(test.labels))
        mixed = data.Split(test.images[order], test.labels[order])
        return self.network(batch.numpy() for batch, _ in images.batches(mixed))
