"""Rob-GAN's networks: (data set, kind, name, seed) to network, trained where it is missing.

The generative ones are the four settings of Fig. 8, a control and SN-GAN; the classifiers are
Rob-GAN's before and after fine-tuning (eq. 10), the rival of Table 1, adversarial training of the
same network, and two controls. All experiments share a folder of them, and any number of processes
share the work.

SN-GAN updates its generator as often as Rob-GAN does, in 5 times as many steps of its discriminator
where Rob-GAN's n_dis is 1. An epoch is the same number of the generator's updates for all.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gat_tf import data, evaluation, models, training
from gat_tf.experiments.lab import devices, files, fitting, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.folder import Folder
from gat_tf.experiments.robgan import images
from gat_tf.experiments.robgan.methods import (
    CLASSIFIERS,
    GANS,
    Network,
    classifier_attack,
    joint_attack,
    snapshot_epochs,
)
from gat_tf.experiments.robgan.settings import RECIPE, Config
from gat_tf.logits import Logits
from gat_tf.training.base import ADAM_EPSILON
from gat_tf.training.gan import adam as gan_adam


class Networks(Folder):
    """The networks of a folder, trained there where they are missing.

    The argument is an experiment's configuration; errors and attributes are those of the base.
    """

    config: Config

    def __init__(self, config: Config):
        super().__init__("robgan.networks", Config, config, config.networks_dir, recipe=RECIPE)

    # Their images.

    def _load_splits(self, dataset: str) -> data.Splits:
        return images.load(self.config, self.sources.get(dataset, dataset))

    def classes(self, dataset: str) -> int:
        """The number of classes; those of built-in data sets are known without their files."""
        return data.CLASSES.get(dataset) or self.splits(dataset).num_classes

    def size(self, dataset: str) -> int:
        """Height and width of the networks' images."""
        if dataset in data.CLASSES:
            return data.IMAGE_SIZES.get(dataset, self.config.image_size)
        return self.splits(dataset).test.images.shape[1]

    # What is there.

    def path(self, network: Network, epoch: int | None = None) -> pathlib.Path:
        """The file of a network; of a generator also as it was after an epoch on the way."""
        if epoch is not None:
            return self.folder / "snapshots" / f"{network.unit}-epoch{epoch:04d}.keras"
        if network != network.trained_as:
            return self.units.path(network.unit, "-discriminator.keras")
        suffix = "-generator.keras" if network.kind == "gan" else ".keras"
        return self.units.path(network.unit, suffix)

    def load(self, network: Network, epoch: int | None = None) -> keras.Model:
        """Returns a generator, or a classifier from images in [-1, 1] to logits.

        Errors are those of `units.load_network`.
        """
        found = units.load_network(self.units.read(network.unit), self.path(network, epoch))
        return found if network == network.trained_as else models.class_head(found)

    def training(self, network: Network) -> dict:
        """What a measurement tells of a network's training."""
        unit = self.units.read(network.unit) or {}
        return {k: unit[k] for k in ("train_images", "epochs", "train_seconds", "history")}

    # Training.

    def take(self, network: Network) -> None:
        """Trains a network if it is missing and nobody has begun.

        Raises:
            NotYet: Others are training it or the network that it goes on from.
            ConfigError: There are too few images, or a classifier is of another Rob-GAN.
        """
        if network.parent:
            self.take(network.parent)
        check = units.same_networks(self.units.folder, {network.unit: self._parents(network)})
        self.units.take({network.unit: functools.partial(self._train, network)}, check)

    def _parents(self, network: Network) -> dict[str, str | None]:
        return {network.parent.name: self.digest(network.parent)} if network.parent else {}

    def _train(self, network: Network) -> dict:
        trained = network.trained_as
        return self._gan(trained) if trained.kind == "gan" else self._classifier(trained)

    def _gan(self, network: Network) -> dict:
        c, (dataset, _, name, seed) = self.config, network
        train, _, test, classes = self.splits(dataset)
        size = self.size(dataset)
        of_robgan = c.discriminator_steps or (1 if size == 32 else 5)
        steps = of_robgan if GANS[name].class_loss else c.discriminator_steps or 5
        # SN-GAN updates its generator as often as Rob-GAN, so an epoch of it may be several passes.
        passes = steps // of_robgan
        steps_per_epoch = len(train.labels) // (of_robgan * c.batch_size)
        if not steps_per_epoch:
            raise ConfigError(
                f"Expected at least {of_robgan * c.batch_size} training images, {of_robgan} "
                f"minibatches. Received: {len(train.labels)}"
            )
        # Whole groups of whole minibatches alone: every epoch begins with a group, and none ends
        # with a few images, whose statistics would be most of what batch norm then remembers.
        kept = steps_per_epoch * of_robgan * c.batch_size
        train = data.Split(train.images[:kept], train.labels[:kept])
        found = {
            "image_size": size,
            "train_images": len(train.labels),
            "discriminator_steps": steps,
            "passes_per_epoch": passes,
            "steps_per_epoch": steps_per_epoch,
            "snapshots": snapshot_epochs(c.epochs, c.snapshots),
        }
        watched = images.batches(images.first(test, c.lipschitz_images, size))

        def watch(scheme):
            labels = np.repeat(np.arange(classes), 20 if classes <= 10 else 4)
            lipschitz = None
            class_loss = GANS[name].class_loss
            if class_loss:
                head = Logits(models.class_head(scheme.discriminator), from_logits=True)
                lipschitz = evaluation.lipschitz_function(head, watched.element_spec)

            def measure(epoch):
                statistics = GANS[name].statistics
                fakes = models.sample(scheme.generator, labels, seed=seed, statistics=statistics)
                if not np.isfinite(fakes).all():
                    return None
                if epoch in found["snapshots"] and devices.is_chief():
                    with files.replacing(self.path(network, epoch)) as temporary:
                        scheme.generator.save(temporary)
                diversity = evaluation.class_diversity(fakes, labels, classes)
                metrics = {"diversity": diversity.mean(), "least_diversity": diversity.min()}
                if lipschitz:
                    metrics["lipschitz"] = evaluation.of_each_image(lipschitz, watched).mean()
                return metrics

            return measure

        def keep(scheme):
            kept = {self.path(network): scheme.generator}
            if name == "robgan":
                kept[self.path(network._replace(kind="classifier"))] = scheme.discriminator
            return kept

        halving = training.LearningRateHalving(c.halving_epochs, c.learning_rate)
        return self._trained(
            network, {"dataset": dataset, "gan": name, "seed": seed}, found,
            lambda: self._gan_scheme(network, steps, steps_per_epoch), watch, keep,
            lambda first: fitting.training_data(
                train, c.batch_size, seed=seed, first_epoch=first * passes,
                augment=images.augment(dataset, size, noise=True),
            ),
            steps_per_epoch, c.epochs, [halving] if GANS[name].class_loss else [],
        )  # fmt: skip

    def _gan_scheme(self, network: Network, steps: int, steps_per_epoch: int) -> Any:
        """The compiled scheme of a generative network.

        SN-GAN's learning rates fall in a straight line over the last fifth of the training, as over
        the last 50,000 of its paper's 250,000 iterations.
        """
        c, (dataset, _, name, seed) = self.config, network
        classes, size = self.classes(dataset), self.size(dataset)
        with self.strategy.scope():
            generator = models.image_generator(classes, size, width=c.width)
            class_loss = GANS[name].class_loss
            if class_loss:
                discriminator = models.discriminator(classes, size, width=c.width)
                attack = joint_attack(c, size) if GANS[name].attacked else None
                scheme = training.RobGAN(
                    discriminator, generator, attack, class_loss,
                    discriminator_steps=steps, seed=seed,
                )  # fmt: skip
                scheme.compile(gan_adam(c.learning_rate), gan_adam(c.learning_rate))
                return scheme
            discriminator = models.projection_discriminator(classes, size, width=c.width)
            scheme = training.SNGAN(
                discriminator, generator, classes, discriminator_steps=steps, seed=seed
            )
            iterations = c.epochs * steps_per_epoch
            falling = [
                training.LinearDecay(
                    c.learning_rate, iterations, max(1, iterations // 5), updates=updates
                )
                for updates in (steps, 1)
            ]
            scheme.compile(*map(gan_adam, falling))
            return scheme

    def _classifier(self, network: Network) -> dict:
        c, (dataset, _, name, seed) = self.config, network
        train, _, test, _ = self.splits(dataset)
        size = self.size(dataset)
        first, *rest = c.classifier_epochs
        stages = (first + (0 if CLASSIFIERS[name].fine_tuned else c.epochs), *rest)
        watched = {
            split: images.batches(images.first(found, c.lipschitz_images, size))
            for split, found in (("train", train), ("test", test))
        }
        initial = functools.cache(lambda: self._initial_weights(network))

        def watch(scheme):
            logits = Logits(scheme.classifier, from_logits=True)
            spec = watched["test"].element_spec
            measurements = {
                "lipschitz": evaluation.lipschitz_function(logits, spec),
                "accuracy": evaluation.correct_function(logits, None, spec, finite=False),
            }

            def measure(epoch):
                return {
                    f"{split}_{metric}": evaluation.of_each_image(function, batches).mean()
                    for split, batches in watched.items()
                    for metric, function in measurements.items()
                }

            return measure

        about = {"dataset": dataset, "classifier": name, "seed": seed}
        return self._trained(
            network, {**about, "classifiers": self._parents(network)},
            {"image_size": size, "train_images": len(train.labels)},
            lambda: self._classifier_scheme(network, *initial()), watch,
            lambda scheme: {self.path(network): scheme.classifier},
            lambda first: fitting.training_data(
                train, c.classifier_batch_size, seed=seed, first_epoch=first,
                augment=images.augment(dataset, size, noise=False),
            ),
            data.steps_per_epoch(train, c.classifier_batch_size), sum(stages),
            [training.LearningRateStages(stages, c.classifier_learning_rate)],
        )  # fmt: skip

    def _initial_weights(self, network: Network) -> tuple[list | None, list | None]:
        """What a classifier's training begins with: weights of the classifier, of the generator."""
        how, robgan = CLASSIFIERS[network.name], network._replace(name="robgan")
        classifier = self.load(robgan).get_weights() if how.fine_tuned else None
        if not how.fakes:
            return classifier, None
        generator = self.load(robgan.trained_as)
        if how.fakes == "fixed":
            generator = models.with_fixed_statistics(generator)
        return classifier, generator.get_weights()

    def _classifier_scheme(
        self, network: Network, classifier_weights: Any, generator_weights: Any
    ) -> Any:
        """The compiled scheme of a classifier: eq. 10, or one of the three like it."""
        c, (dataset, _, name, seed) = self.config, network
        classes, size = self.classes(dataset), self.size(dataset)
        with self.strategy.scope():
            classifier = models.class_head(models.discriminator(classes, size, width=c.width))
            if classifier_weights:
                classifier.set_weights(classifier_weights)
            generator = None
            if generator_weights:
                generator = models.image_generator(classes, size, width=c.width)
                generator.set_weights(generator_weights)
            fixed = CLASSIFIERS[name].fakes == "fixed"
            scheme = training.FineTuning(
                classifier, generator, classifier_attack(c), c.fake_weight if generator else 0.0,
                statistics="moving" if fixed else "batch",
                fake_images=c.fake_images if fixed else None, seed=seed,
            )  # fmt: skip
            scheme.compile(keras.optimizers.Adam(c.classifier_learning_rate, epsilon=ADAM_EPSILON))
        return scheme

    def _trained(
        self,
        network: Network,
        about: dict,
        found: dict,
        build: Callable,
        watch: Callable,
        keep: Callable,
        batches: Callable,
        steps_per_epoch: int,
        epochs: int,
        callbacks: Any,
    ) -> dict:
        """Trains a scheme for all epochs, and returns the unit.

        Args:
            network: Which network is trained.
            about: What the unit is.
            found: What else there is to say of it.
            build: () -> the compiled scheme.
            watch: scheme -> epoch -> metrics after it; None if it has diverged.
            keep: scheme -> file to network, of the last epoch that has not diverged.
            batches: First epoch -> endless batches.
            steps_per_epoch: Steps of the scheme.
            epochs: How many.
            callbacks: Of the training: the schedule of the learning rates.
        """

        def prepare():
            scheme = build()
            # Else Keras would take more steps in an epoch than there are.
            most = min(self.config.steps_per_execution, steps_per_epoch)
            scheme.steps_per_execution = max(
                n for n in range(1, most + 1) if steps_per_epoch % n == 0
            )
            exact = scheme
            if self.config.precision != "float32":  # in which networks are measured and kept
                with fitting.dtype_policy("float32"):
                    exact = build()
            measure = watch(exact)

            def synchronise():
                if exact is not scheme:
                    exact.set_weights(scheme.get_weights())

            def validate():
                synchronise()
                epoch = int(exact.steps.numpy()) // steps_per_epoch
                metrics = measure(epoch)
                # The last epoch is the one that is kept: its number is its score.
                return (math.nan, {}) if metrics is None else (epoch, metrics)

            def finish(progress):
                synchronise()
                return found, keep(exact) if progress.best_epoch else {}

            fitted = fitting.Training(
                scheme,
                scheme,
                batches,
                validate,
                steps_per_epoch=steps_per_epoch,
                epochs=epochs,
                patience=epochs,
                callbacks=callbacks,
            )
            return fitted, finish

        return fitting.trained(
            self.units, network.unit, about, prepare, seed=network.seed,
            precision=self.config.precision,
        )  # fmt: skip
