"""Fig. 8 of the Rob-GAN paper: do attack and split loss make the generator better, and sooner?

    python -m gat_tf.experiments.robgan_fig8 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan_fig8 --dataset=imagenet143 --data_dir=...   # the paper's

The paper's claims: the inception score rises faster and higher with the attack than without it,
and higher with the split loss than with AC-GAN's; Rob-GAN, which has both, ends above SN-GAN. The
paper's data sets are ImageNet-143 at 64 and 128 pixels (--image_size).

Inception scores and Fréchet distances depend on the network that looks at the images: by default
Inception v3 of Keras, whose weights have to be downloaded; with --score_network=baseline, Table 2's
baseline classifier of the data set (see --table2_dir); or a Keras classifier of images in [0, 1]
with probabilities in a .keras file. Scores of different networks cannot be compared.

A unit of work is one data set, way of training and seed: its scores at every snapshot.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time

import keras
import numpy as np

from gat_tf import augmentation, data, evaluation, models
from gat_tf.experiments import classifiers, robgan_networks, table2, units
from gat_tf.experiments import config as configs
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.reports import robgan_images as report
from gat_tf.experiments.robgan_networks import GANS, INF, Networks


@dataclasses.dataclass(frozen=True)
class Config(robgan_networks.Config):
    """Settings of Rob-GAN's Fig. 8."""

    gans: tuple[str, ...] = option(tuple(GANS), "Ways of training (paper).", shard=True)
    score_network: str = option(
        "inception", "inception (paper), baseline, or a .keras file; see above."
    )
    score_images: int = option(50_000, "Generated images scored at each snapshot (paper).")
    score_splits: int = option(10, "Parts of the inception score (paper).")
    table2_dir: str = option(
        "runs/table2", "Folder of Table 2, for --score_network=baseline.", shard=True
    )
    table2_preset: str = option(
        "paper", "Table 2's preset, for a folder that is empty.", shard=True
    )

    def __post_init__(self):
        super().__post_init__()
        configs.require_known("gan", self.gans, GANS)
        configs.require_known("table2_preset", [self.table2_preset], table2.PRESETS)
        configs.require_range(self, ("score_images", 2, INF), ("score_splits", 1, INF))
        if self.score_images < self.score_splits:
            raise ConfigError(
                "Expected at least as many score_images as score_splits. "
                f"Received: {self.score_images} and {self.score_splits}"
            )


PRESETS = robgan_networks.presets(
    Config,
    reduced={
        "score_network": "baseline",
        "score_images": 2_000,
        "table2_dir": "runs/table2-reduced",
        "table2_preset": "reduced",
    },
    quick={
        "score_network": "baseline",
        "score_images": 500,
        "table2_dir": "runs/table2-quick",
        "table2_preset": "quick",
    },
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 8; arguments, result and errors: `robgan_table1.run`."""
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    networks = Networks(config)
    configs.claim_folder("robgan_fig8", config, output_dir)
    for dataset in config.datasets:
        scorer = _Scorer(config, networks, dataset)
        for seed in config.seeds:
            for name in config.gans:
                unit = output_dir / "units" / f"{dataset}-{name}-seed{seed}.json"
                if not unit.exists():
                    _ = scorer.network  # one that is missing is found before the training
                training = networks.train_gan(dataset, name, seed)
                path = networks.generator_path(dataset, name, seed)
                units.measure(
                    unit,
                    {"dataset": dataset, "gan": name, "seed": seed},
                    {name: units.digest(path), "score": scorer.digest()},
                    lambda n=name, s=seed, t=training, scorer=scorer: scorer.measured(n, s, t),
                )
    return report.write("robgan_fig8", config, output_dir, time.time() - started)


class _Scorer:
    """Scores the snapshots of a data set's generators, in the eyes of one network."""

    def __init__(self, config, networks, dataset):
        self.config = config
        self.networks = networks
        self.dataset = dataset
        self._network = None
        self._reference = None

    def digest(self) -> str | None:
        """Of the score network's file; Inception v3 is Keras's."""
        if self.config.score_network == "inception":
            return None
        path = pathlib.Path(self.config.score_network)
        if self.config.score_network == "baseline":
            folder = pathlib.Path(self.config.table2_dir)
            path = table2.unit_path(folder, self.dataset, "baseline", 0).with_suffix(".keras")
            if not path.exists():
                _ = self.network  # which trains it
        return units.digest(path)

    @property
    def network(self) -> evaluation.ScoreNetwork:
        if self._network is None:  # a run that has nothing to score needs none
            self._network = _score_network(self.config, self.dataset)
        return self._network

    def measured(self, name: str, seed: int, training: dict) -> dict:
        """The scores at every snapshot, and of the real test images for comparison."""
        c = self.config
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(c.score_images) % data.CLASSES[self.dataset])
        scores = []
        for epoch in training["snapshots"]:
            generator = self.networks.load_generator(self.dataset, name, seed, epoch)
            images = models.sample(generator, labels, seed=seed)
            scores.append({"epoch": epoch, **self._scores(images)})
            keras.backend.clear_session()
        return {
            "score_network": self.network.description,
            "score_images": c.score_images,
            "steps_per_epoch": training["steps_per_epoch"],
            "scores": scores,
            "real": self._real(),
            "train_seconds": training["train_seconds"],
            "history": training["history"],
        }

    def _scores(self, images) -> dict:
        probabilities, features = self.network(images)
        mean, std = evaluation.inception_score(probabilities, self.config.score_splits)
        _, reference = self._real_outputs()
        return {
            "inception_score": mean,
            "inception_score_std": std,
            "frechet_distance": evaluation.frechet_distance(features, reference),
        }

    def _real(self) -> dict:
        probabilities, features = self._real_outputs()
        splits = min(self.config.score_splits, len(probabilities))
        mean, _ = evaluation.inception_score(probabilities, splits)
        return {"inception_score": mean, "images": len(features)}

    def _real_outputs(self):
        if self._reference is None:
            _, test = self.networks.images(self.dataset)
            order = np.random.default_rng(0).permutation(len(test.labels))
            images = augmentation.centred(test.images[order].astype(np.float32) / 255)
            self._reference = self.network(images)
        return self._reference


def _score_network(config: Config, dataset: str) -> evaluation.ScoreNetwork:
    if config.score_network == "inception":
        try:
            return evaluation.ScoreNetwork.inception_v3()
        except RuntimeError as error:
            raise ConfigError(f"{error}\nHere: --score_network=baseline or FILE.keras") from error
    if config.score_network == "baseline":
        folder = classifiers.Classifiers(config)
        folder.train_missing(dataset, ("baseline",), (0,))
        name = f"Table 2's baseline, {folder.config.width:.3g} of the width, of {dataset}"
        return evaluation.ScoreNetwork(folder.load(dataset, "baseline", 0), name=name)
    try:
        model = keras.models.load_model(config.score_network)
        return evaluation.ScoreNetwork(model, name=pathlib.Path(config.score_network).name)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            "Expected --score_network to be inception, baseline or a .keras file of a classifier "
            f"with probabilities. Received: {config.score_network} ({error})"
        ) from error


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robgan_fig8")
