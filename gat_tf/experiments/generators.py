"""Generators of GAT, trained against fixed networks (eq. 9)."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import measuring
from gat_tf.experiments.lab import devices, files, fitting, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.tables import of_first_seed
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.networks import Network
from gat_tf.gradients import input_gradient
from gat_tf.training.base import ADAM_EPSILON

INF = math.inf


class Runner(measuring.Runner):
    """Trains generators against finished networks, and compares them with other attacks."""

    config: Any  # of fig2, which has the settings of the generators too

    def train(self, dataset: str) -> None:
        """Trains the generators of one data set."""
        c = self.config
        victims = {seed: Network(dataset, c.method, seed) for seed in c.seeds}
        self.networks.train(victims.values())
        grid = {_name(dataset, c_g, seed): (c_g, seed) for seed in c.seeds for c_g in c.c_g}
        rate = c.generator_learning_rate
        if c.search and any(self.units.read(name) is None for name in grid):
            rate = self._best_learning_rate(dataset)  # the search comes before the trainings
        self._complete(
            self.units,
            {
                name: (victims[seed], c_g, seed, rate, c.epochs)
                for name, (c_g, seed) in grid.items()
            },
        )

    def _best_learning_rate(self, dataset: str) -> float:
        """The learning rate with the lowest validation loss at `search_c_g`.

        Trials train a generator of another seed against the network of seed 0.
        """
        c = self.config
        trials, victim = Units(self.output_dir / "search"), Network(dataset, c.method, 0)
        self.networks.train([victim])
        rates = {
            f"{dataset}-generator_learning_rate={rate!r}": rate
            for rate in c.generator_learning_rate_grid
        }
        found = self._complete(
            trials,
            {
                name: (victim, c.search_c_g, c.search_seed, rate, c.search_epochs)
                for name, rate in rates.items()
            },
        )
        losses = {
            rates[name]: trial["validation_loss"]
            for name, trial in found.items()
            if trial["status"] == "done"
        }
        if not losses:
            raise ConfigError(f"Every trial on {dataset} diverged; see {trials.folder}.")
        return min(losses, key=losses.__getitem__)

    def _complete(self, folder: Units, trainings: dict[str, tuple]) -> dict[str, dict]:
        """Completes the units of a folder, each a generator's training by its arguments."""
        tasks = {
            name: functools.partial(self._training, folder, name, *given)
            for name, given in trainings.items()
        }
        digests = {
            name: {victim.method: self.networks.digest(victim)}
            for name, (victim, *_) in trainings.items()
        }
        return folder.complete(tasks, units.same_networks(folder.folder, digests))

    def _training(
        self,
        folder: Units,
        name: str,
        victim: Network,
        c_g: float,
        seed: int,
        rate: float,
        epochs: int,
    ) -> dict:
        """Trains a generator; for a unit, but not for a trial, also compares it with other
        attacks."""
        c = self.config
        splits = self.splits(victim.dataset)
        shape = splits.image_shape

        def prepare():
            with self.networks.strategy.scope():
                classifier = self.networks.load(victim)
                generator = models.perturbation_generator(shape, c.width)
                scheme = training.GeneratorTraining(classifier, generator, c_g)
                scheme.compile(keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON))
            validation = data.batches(splits.validation, 500)
            fitted = fitting.Training(
                scheme,
                generator,
                lambda epoch: fitting.training_data(
                    splits.train, c.batch_size, seed=seed, first_epoch=epoch
                ),
                lambda: _validate(scheme, validation),
                steps_per_epoch=data.steps_per_epoch(splits.train, c.batch_size),
                epochs=epochs,
                patience=c.patience,
            )
            return fitted, functools.partial(finish, classifier, generator)

        def finish(classifier, generator, progress):
            if progress.failure is not None:
                return {"validation_loss": None}, {}
            result = {"validation_loss": -progress.best_score}
            if folder is not self.units:
                return result, {}
            if c.precision != "float32":  # it is kept and tested in float32
                weights = generator.get_weights()
                generator = models.perturbation_generator(shape, c.width)
                generator.set_weights(weights)
            test = data.batches(splits.test, 500)
            result |= compare(classifier, generator, test, c.pgd_steps)
            return result, {folder.path(name, ".keras"): generator}

        about = {
            "dataset": victim.dataset,
            "c_g": c_g,
            "seed": seed,
            "generator_learning_rate": rate,
            "classifiers": {c.method: self.networks.digest(victim)},
        }
        return fitting.trained(folder, name, about, prepare, seed=seed, precision=c.precision)

    def draw_images(self, dataset: str, generators: list[dict]) -> None:
        """Draws, of each of six classes, the first test image that the classifier gets right.

        By the first seed and the middle c_g, unless the picture is there.

        Args:
            dataset: Of the images.
            generators: Units of the generators to choose from.
        """
        from gat_tf import plotting

        path = self.output_dir / f"fig2_images_{dataset}.png"
        found = [u for u in generators if u["dataset"] == dataset]
        if not found or path.exists() or not devices.is_chief():
            return
        seed = min(u["seed"] for u in found)
        c_gs = sorted(u["c_g"] for u in found if u["seed"] == seed)
        name = _name(dataset, c_gs[(len(c_gs) - 1) // 2], seed)
        if not self.units.path(name, ".keras").exists():
            return
        generator = keras.models.load_model(self.units.path(name, ".keras"))
        classifier = self.networks.load(Network(dataset, self.config.method, seed))
        test = self.splits(dataset).test
        images, labels = next(iter(data.batches(test, 1000)))
        right = np.flatnonzero(np.argmax(classifier(images), axis=-1) == labels)
        _, firsts = np.unique(labels.numpy()[right], return_index=True)
        if not len(right):
            return
        chosen = right[firsts[:6]]
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
            class_names=data.class_names(self.networks.sources[dataset], self.config.data_dir),
        )
        with files.replacing(path) as temporary:
            plotting.save(figure, temporary)


def _name(dataset: str, c_g: float, seed: int) -> str:
    return f"{dataset}-c_g={c_g:.12g}-seed{seed}"


def _validate(scheme, validation):
    metrics = scheme.evaluate(validation, verbose=0, return_dict=True)
    chosen = ("loss", "adversarial_accuracy", "power")
    return -metrics["loss"], {f"validation_{name}": metrics[name] for name in chosen}


def compare(
    classifier: keras.Model, generator: keras.Model, dataset: tf.data.Dataset, pgd_steps: int
) -> dict:
    """Compares a generator with attacks of the same power.

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


def trainings(units):
    """Draws the first seed's metrics of every epoch, for each c_g."""
    from gat_tf import plotting

    shown = sorted(of_first_seed(units), key=lambda u: u["c_g"])
    histories = {f"c_g {u['c_g']:g}": u["history"] for u in shown}
    metrics = {
        "validation_loss": "validation loss (eq. 9)",
        "validation_adversarial_accuracy": "validation accuracy of x + G(Δ)",
        "validation_power": "power ‖G(Δ)‖₂²",
    }
    return plotting.training(histories, metrics, log=("validation_power",))
