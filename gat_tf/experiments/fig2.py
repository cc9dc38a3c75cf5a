"""Fig. 2 of the GAT paper: is a learned perturbation stronger than the fast gradient's?

    python -m gat_tf.experiments.fig2 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig2 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: against a baseline (77 % on CIFAR-10, 44 % on CIFAR-100), a generator trained by
eq. 9 fools more images than the fast gradient of equal power does, when the power is low. The
power is the mean of ‖η‖₂² over the test images; c_g sets it.

With `--method=gat` the generators are trained against GAT's finished classifiers, or those of any
other method of Table 2: the adaptive attack that a defence with a learned adversary has to stand.

A unit of work is one data set, c_g and seed: a generator trained against Table 2's classifier of
that seed, and what it and its rivals make of the test images.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import classifiers, devices, files, fitting, units
from gat_tf.experiments import config as configs
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.reports import common as reports
from gat_tf.experiments.reports import fig2 as report
from gat_tf.gradients import input_gradient
from gat_tf.training.scheme import ADAM_EPSILON

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config(classifiers.Config):
    """Settings of Fig. 2; the defaults are the paper's, or ours where the paper has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks and data",
        "reduced": "Table 2's reduced baselines and generators as narrow, an hour on two cores",
        "quick": "built-in images and small networks, minutes on two cores",
    }

    c_g: tuple[float, ...] = option(
        (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30), "Weights of the power in eq. 9 (ours).", shard=True
    )
    method: str = option("baseline", "Method of Table 2 whose classifiers are attacked (paper).")
    width: float = option(1.0, "Factor on the filters of the generator; 1 is Table 1 (paper).")
    batch_size: int = option(128, "Images a step, over all devices (ours).")
    epochs: int = option(200, "Epochs at most (ours).")
    patience: int = option(20, "Epochs without a lower validation loss to stop after (ours).")
    generator_learning_rate: float = option(1e-6, "Of the generator's Adam (paper).")
    search: bool = option(False, "Pick the learning rate by the validation loss, at search_c_g.")
    search_epochs: int = option(200, "Epochs of a trial at most (ours).")
    search_seed: int = option(1000, "Seed of a trial's generator (ours).")
    search_c_g: float = option(1.0, "c_g of the trials (ours).")
    generator_learning_rate_grid: tuple[float, ...] = option(
        (1e-6, 1e-5, 1e-4, 1e-3, 1e-2), "Learning rates tried (ours)."
    )
    pgd_steps: int = option(20, "Steps of PGD, a rival beyond the paper (ours).")

    def __post_init__(self):
        super().__post_init__()
        configs.require_known("method", [self.method], METHODS)
        configs.require_seeds((self.search_seed,))
        configs.require_values(self, "c_g")
        if self.search:
            configs.require_values(self, "generator_learning_rate_grid")
        configs.require_range(
            self,
            ("c_g", 0, INF),
            ("search_c_g", 0, INF),
            ("width", 1e-9, INF),
            ("batch_size", 1, INF),
            ("epochs", 1, 9999),
            ("search_epochs", 1, 9999),
            ("patience", 1, INF),
            ("generator_learning_rate", 0, INF),
            ("generator_learning_rate_grid", 0, INF),
            ("pgd_steps", 1, INF),
        )


PRESETS = {
    "paper": Config(),
    "reduced": Config(
        **classifiers.REDUCED,
        c_g=(0.1, 0.3, 1, 3, 10, 30),
        width=1 / 3,
        batch_size=32,
        epochs=25,
        patience=5,
        search=True,
        search_epochs=10,
    ),
    "quick": Config(
        **classifiers.QUICK,
        c_g=(0.1, 0.3, 1, 3, 10),
        width=1 / 3,
        batch_size=25,
        epochs=10,
        patience=3,
        generator_learning_rate=1e-3,
        search_epochs=10,
    ),
}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 2, and returns and writes its results.

    Args:
        config: Settings. Its data sets, c_g and seeds choose the units to compute; the results
            are those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written, or a
            classifier is missing.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    runner = _Runner(config, output_dir)
    for dataset in config.datasets:
        runner.run(dataset)
    return report.write(runner, time.time() - started)


class _Runner:
    def __init__(self, config: Config, output_dir: pathlib.Path):
        self.config = config
        self.output_dir = output_dir
        self.strategy = devices.strategy(config.strategy)
        self.classifiers = classifiers.Classifiers(config)
        configs.claim_folder("fig2", config, output_dir, table2=self.classifiers.config)

    def run(self, dataset: str) -> None:
        """Computes the units of one data set."""
        c = self.config
        self.classifiers.train_missing(dataset, (c.method,), c.seeds)
        grid = [(c_g, seed) for seed in c.seeds for c_g in c.c_g]
        for i, (c_g, seed) in enumerate(grid, start=1):
            path = self._unit_path(dataset, c_g, seed)
            digests = {c.method: self.classifiers.digest(dataset, c.method, seed)}
            if path.exists():
                units.require_same_networks(path, digests)
                continue
            rate = self.learning_rate(dataset)
            self._unit(path, dataset, c_g, seed, seed, rate, c.epochs, f"unit {i} of {len(grid)}")
        self.draw_images(dataset)

    def learning_rate(self, dataset: str) -> float:
        """The configuration's, or the one with the lowest validation loss at `search_c_g`.

        Trials train a generator of another seed against the classifier of seed 0.
        """
        c = self.config
        if not c.search:
            return c.generator_learning_rate
        self.classifiers.train_missing(dataset, (c.method,), (0,))
        losses = {}
        for i, rate in enumerate(c.generator_learning_rate_grid, start=1):
            name = f"{dataset}-generator_learning_rate={rate!r}.json"
            path = self.output_dir / "search" / name
            if path.exists():
                digests = {c.method: self.classifiers.digest(dataset, c.method, 0)}
                units.require_same_networks(path, digests)
                trial = files.read_json(path)
            else:
                position = f"trial {i} of {len(c.generator_learning_rate_grid)}, {rate:g}"
                trial = self._unit(
                    path, dataset, c.search_c_g, 0, c.search_seed, rate, c.search_epochs, position
                )
            if trial["status"] == "done":
                losses[rate] = trial["validation_loss"]
        if not losses:
            raise ConfigError(f"Every trial on {dataset} diverged; see search/.")
        return min(losses, key=losses.get)

    def _unit(self, path, dataset, c_g, classifier_seed, seed, rate, epochs, position) -> dict:
        """Trains a generator; for a unit, not for a trial, also sets it beside its rivals."""

        def say(line):
            if devices.is_chief():
                print(f"{dataset} c_g {c_g:g} seed {seed} ({position}): {line}", flush=True)

        c = self.config
        splits = self.classifiers.splits(dataset, c.test_size)
        keras.utils.set_random_seed(seed)
        with self.strategy.scope():
            classifier = self.classifiers.load(dataset, c.method, classifier_seed)
            generator = models.perturbation_generator(splits.train.images.shape[1:], c.width)
            scheme = training.GeneratorTraining(classifier, generator, c_g)
            scheme.compile(keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON))
        validation = data.batches(splits.validation, 500)
        checkpoints = path.with_suffix(".checkpoints")
        progress = fitting.fit_to_best(
            scheme,
            generator,
            lambda epoch: fitting.training_data(
                splits.train, c.batch_size, seed=seed, first_epoch=epoch
            ),
            lambda: _validate(scheme, validation),
            steps_per_epoch=data.steps_per_epoch(splits.train, c.batch_size),
            epochs=epochs,
            patience=c.patience,
            seed=seed,
            folder=checkpoints,
            report=say,
        )
        failed = progress.failure is not None
        result = {
            "dataset": dataset,
            "c_g": c_g,
            "seed": seed,
            "generator_learning_rate": rate,
            "classifiers": {c.method: self.classifiers.digest(dataset, c.method, classifier_seed)},
            "validation_loss": None if failed else -progress.best_score,
            **fitting.outcome(progress),
        }
        networks = {}
        if path.parent.name == "units" and not failed:
            test = data.batches(splits.test, 500)
            result |= compare(classifier, generator, test, c.pgd_steps)
            networks = {path.with_suffix(".keras"): generator}
        fitting.keep(path, result, networks)
        return result

    def draw_images(self, dataset: str) -> None:
        """Draws, of each of six classes, the first test image that the classifier gets right.

        By the folder's first seed and the middle one of its c_g, unless the picture is there.
        """
        from gat_tf import plotting

        name = f"fig2_images_{dataset}"
        found = reports.read_all(self.output_dir / "units")
        done = [u for u in found if u["dataset"] == dataset and u["status"] == "done"]
        if not done or (self.output_dir / f"{name}.png").exists() or not devices.is_chief():
            return
        seed = min(u["seed"] for u in done)
        c_gs = sorted(u["c_g"] for u in done if u["seed"] == seed)
        path = self._unit_path(dataset, c_gs[(len(c_gs) - 1) // 2], seed).with_suffix(".keras")
        if not path.exists():
            return
        generator = keras.models.load_model(path)
        classifier = self.classifiers.load(dataset, self.config.method, seed)
        test = self.classifiers.splits(dataset, self.config.test_size).test
        images, labels = next(iter(data.batches(test, 1000)))
        right = np.argmax(classifier(images), axis=-1) == labels.numpy()
        firsts = {int(labels[i]): i for i in np.flatnonzero(right)[::-1]}
        chosen = [firsts[k] for k in sorted(firsts)[:6]]
        if not chosen:
            return
        images, labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        gradients = input_gradient(classifier, images, labels)
        perturbations = generator(gradients)
        figure = plotting.perturbed_images(
            images.numpy(),
            perturbations.numpy(),
            labels.numpy(),
            classifier(images).numpy(),
            classifier(images + perturbations).numpy(),
            gradients=gradients.numpy(),
            class_names=data.class_names(dataset, self.config.data_dir),
        )
        reports.save_figure(figure, self.output_dir, name)

    def _unit_path(self, dataset, c_g, seed) -> pathlib.Path:
        return self.output_dir / "units" / f"{dataset}-c_g={c_g:.12g}-seed{seed}.json"


def _validate(scheme, validation):
    metrics = scheme.evaluate(validation, verbose=0, return_dict=True)
    chosen = ("loss", "adversarial_accuracy", "power")
    return -metrics["loss"], {f"validation_{name}": metrics[name] for name in chosen}


def compare(
    classifier: keras.Model, generator: keras.Model, dataset: tf.data.Dataset, pgd_steps: int
) -> dict:
    """Sets a generator beside attacks of the same power.

    Args:
        classifier: Keras classifier from images `[B, H, W, C]` in [0, 1] to probabilities.
        generator: G, from gradients to perturbations.
        dataset: (images, labels) batches.
        pgd_steps: Steps of PGD.

    Returns:
        test_images; clean_accuracy; power, mean of ‖G(Δ)‖₂², its quantiles, and its mean by attack
        after clipping; accuracy and clipped_accuracy by attack, each in [0, 1]:

        * gat: x + G(Δ), with power P on average
        * fg_l2, fg_linf: fast gradient, ε = √P and √(P / values of an image), the same for all
        * fg_l2_own, fg_linf_own: the same with each image's own power
        * pgd_l2: PGD in the ball of radius √P
    """
    size = math.prod(classifier.input_shape[1:])
    powers = evaluation.power(classifier, dataset, attacks.GeneratorAttack(generator, clip=None))
    radius, radii = float(np.sqrt(powers.mean())), np.sqrt(powers)

    def rivals(clip):
        return {
            "gat": attacks.GeneratorAttack(generator, clip=clip),
            "fg_l2": attacks.FastGradient(radius, 2, clip=clip),
            "fg_linf": attacks.FastGradient(radius / size**0.5, INF, clip=clip),
            "fg_l2_own": attacks.FastGradient(radii, 2, clip=clip),
            "fg_linf_own": attacks.FastGradient(radii / size**0.5, INF, clip=clip),
            "pgd_l2": attacks.PGD(radius, 2, pgd_steps, random_start=False, clip=clip),
        }

    def accuracies(clip):
        return {
            name: evaluation.accuracy(classifier, dataset, attack)
            for name, attack in rivals(clip).items()
        }

    quantiles = np.quantile(powers, (0.1, 0.5, 0.9))
    one_epsilon = ("gat", "fg_l2", "fg_linf")
    return {
        "test_images": len(powers),
        "clean_accuracy": evaluation.accuracy(classifier, dataset),
        "power": float(powers.mean()),
        "power_quantiles": dict(zip(("p10", "p50", "p90"), quantiles.tolist(), strict=True)),
        "power_after_clipping": {
            name: float(evaluation.power(classifier, dataset, attack, clipped=True).mean())
            for name, attack in rivals((0.0, 1.0)).items()
            if name in one_epsilon
        },
        "accuracy": accuracies(None),
        "clipped_accuracy": accuracies((0.0, 1.0)),
    }


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "fig2")
