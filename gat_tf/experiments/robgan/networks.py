"""Rob-GAN's networks: (data set, kind, name, seed) to network, trained where it is missing.

The generative ones are the four settings of Fig. 8 and SN-GAN; the classifiers are Rob-GAN's before
and after fine-tuning (eq. 10) and the rival of Table 1, adversarial training of the same network.
All experiments share a folder of them, and any number of processes share the work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import measuring
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, files, fitting, results, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.robgan import images
from gat_tf.experiments.robgan.settings import INF, Config
from gat_tf.training.base import ADAM_EPSILON
from gat_tf.training.gan import adam as gan_adam

BOUNDS = (-1.0, 1.0)  # of the pixels, and with them the unit of every ε


class Gan(NamedTuple):
    """A way of training a generator; without a loss of the classes it is SN-GAN."""

    title: str
    class_loss: str | None
    attacked: bool


GANS = {
    "robgan": Gan("Rob-GAN: split loss, attack", "split", True),
    "split": Gan("split loss, no attack", "split", False),
    "acgan_attack": Gan("AC-GAN loss, attack", "acgan", True),
    "acgan": Gan("AC-GAN loss, no attack", "acgan", False),
    "sngan": Gan("SN-GAN", None, False),
}
CLASSIFIERS = {
    "adversarial_training": "Adv. training",
    "robgan": "Rob-GAN, no fine-tuning",
    "fine_tuned": "Rob-GAN, fine-tuned",
}


class Network(NamedTuple):
    """Which network is meant.

    Attributes:
        dataset: Data set.
        kind: "gan", which stands for its generator, or "classifier".
        name: A key of `GANS` or of `CLASSIFIERS`.
        seed: Seed of the training.
    """

    dataset: str
    kind: str
    name: str
    seed: int

    @property
    def unit(self) -> str:
        """The name of the unit that trains it."""
        trained = self.trained_as
        return f"{trained.dataset}-{trained.kind}-{trained.name}-seed{trained.seed}"

    @property
    def trained_as(self) -> Network:
        """The network itself, or for Rob-GAN's discriminator the GAN that it comes with."""
        return self._replace(kind="gan") if self.name == "robgan" else self

    @property
    def parent(self) -> Network | None:
        """The network that its training begins with."""
        return self._replace(name="robgan") if self.name == "fine_tuned" else None


class Networks:
    """The networks of a folder, trained there where they are missing.

    Attributes:
        config: How they are trained.
        folder: Of the networks.
        units: The results of their trainings.
        images: data set -> the images that they are trained and tested on; see `images.load`.

    Args:
        config: An experiment's, of which the fields of `settings.Config` count.

    Raises:
        ConfigError: The folder holds networks of another configuration, or cannot be written.
    """

    def __init__(self, config: Config):
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config)}
        self.config = Config(**values)
        self.folder = pathlib.Path(config.networks_dir)
        configs.bind_folder("robgan.networks", self.config, self.folder, flag="networks_dir")
        self.units = Units(self.folder / "units")
        self.images = functools.cache(functools.partial(images.load, self.config))

    @functools.cached_property
    def strategy(self):
        """The distribution strategy under which networks are trained."""
        return devices.use(self.config.strategy)

    # What is there.

    def path(self, network: Network, epoch: int | None = None) -> pathlib.Path:
        """The file of a network; of a generator also as it was after an epoch on the way."""
        if epoch is not None:
            return self.folder / "snapshots" / f"{network.unit}-epoch{epoch:04d}.keras"
        if network != network.trained_as:
            return self.units.path(network.unit, "-discriminator.keras")
        suffix = "-generator.keras" if network.kind == "gan" else ".keras"
        return self.units.path(network.unit, suffix)

    def digest(self, network: Network) -> str | None:
        """The SHA-256 of a trained network's file; None where it is missing."""
        return units.digest(self.path(network))

    def load(self, network: Network, epoch: int | None = None) -> keras.Model:
        """Returns a generator, or a classifier from images in [-1, 1] to logits.

        Errors are those of `units.load_network`.
        """
        found = units.load_network(self.units.read(network.unit), self.path(network, epoch))
        return found if network == network.trained_as else models.class_head(found)

    def training(self, network: Network) -> dict:
        """What a measurement tells of a network's training."""
        unit = self.units.read(network.unit)
        return {k: unit[k] for k in ("train_images", "epochs", "train_seconds", "history")}

    # Training.

    def train(self, networks: Iterable[Network]) -> dict[Network, dict]:
        """Trains those that are missing, and returns the units of all.

        Raises:
            ConfigError: There are too few images, or a fine-tuned classifier is of another Rob-GAN.
        """
        networks = list(networks)
        tuned = [n for n in networks if n.parent]
        others = [n for n in networks if not n.parent]
        parents = [n.parent for n in tuned]
        self.units.complete({n.unit: lambda n=n: self._task(n)() for n in [*parents, *others]})
        digests = {n.unit: self._parents(n) for n in tuned}
        self.units.complete(
            {n.unit: lambda n=n: self._task(n)() for n in tuned},
            units.same_networks(self.units.folder, digests),
        )
        return {n: self.units.read(n.unit) for n in networks}

    def _parents(self, network: Network) -> dict[str, str | None]:
        return {network.parent.name: self.digest(network.parent)} if network.parent else {}

    def _task(self, network: Network) -> Callable[[], dict]:
        trained = network.trained_as
        return self._gan(trained) if trained.kind == "gan" else self._classifier(trained)

    def _gan(self, network: Network) -> Callable[[], dict]:
        c, (dataset, _, name, seed) = self.config, network
        train, _ = self.images(dataset)
        size, classes = images.size(c, dataset), data.CLASSES[dataset]
        steps = c.discriminator_steps or (1 if size == 32 and name != "sngan" else 5)
        steps_per_epoch = len(train.labels) // (steps * c.batch_size)
        if not steps_per_epoch:
            raise ConfigError(
                f"Expected at least {steps * c.batch_size} training images, {steps} minibatches. "
                f"Received: {len(train.labels)}"
            )
        # Whole groups of whole minibatches alone: every epoch begins with a group, and none ends
        # with a few images, whose statistics would be most of what batch norm then remembers.
        kept = steps_per_epoch * steps * c.batch_size
        train = data.Split(train.images[:kept], train.labels[:kept])
        found = {
            "image_size": size,
            "train_images": len(train.labels),
            "discriminator_steps": steps,
            "steps_per_epoch": steps_per_epoch,
            "snapshots": snapshot_epochs(c.epochs, c.snapshots),
        }

        def measure(scheme, epoch):
            labels = np.repeat(np.arange(classes), 20 if classes <= 10 else 4)
            fakes = models.sample(scheme.generator, labels, seed=seed)
            if not np.isfinite(fakes).all():
                return None
            if epoch in found["snapshots"] and devices.is_chief():
                with files.replacing(self.path(network, epoch)) as temporary:
                    scheme.generator.save(temporary)
            diversity = evaluation.class_diversity(fakes, labels, classes)
            return {"diversity": diversity.mean(), "least_diversity": diversity.min()}

        def keep(scheme):
            kept = {self.path(network): scheme.generator}
            if name == "robgan":
                kept[self.path(network._replace(kind="classifier"))] = scheme.discriminator
            return kept

        return self._trained(
            network, {"dataset": dataset, "gan": name, "seed": seed}, found,
            lambda: self._gan_scheme(network, steps), measure, keep,
            train, c.batch_size, steps_per_epoch, c.epochs,
            training.LearningRateHalving(c.halving_epochs, c.learning_rate),
        )  # fmt: skip

    def _gan_scheme(self, network: Network, steps: int):
        """The compiled scheme of a generative network."""
        c, (dataset, _, name, seed) = self.config, network
        size, classes = images.size(c, dataset), data.CLASSES[dataset]
        generator = models.image_generator(classes, size, width=c.width)
        if GANS[name].class_loss is None:
            discriminator = models.projection_discriminator(classes, size, width=c.width)
            scheme = training.SNGAN(
                discriminator, generator, classes, discriminator_steps=steps, seed=seed
            )
        else:
            discriminator = models.discriminator(classes, size, width=c.width)
            attack = joint_attack(c, size) if GANS[name].attacked else None
            scheme = training.RobGAN(
                discriminator, generator, attack, GANS[name].class_loss,
                discriminator_steps=steps, seed=seed,
            )  # fmt: skip
        scheme.compile(gan_adam(c.learning_rate), gan_adam(c.learning_rate))
        return scheme

    def _classifier(self, network: Network) -> Callable[[], dict]:
        c, (dataset, _, name, seed) = self.config, network
        train, test = self.images(dataset)
        size, rate = images.size(c, dataset), c.classifier_learning_rate
        first, *rest = c.classifier_epochs
        ends = np.cumsum([first + (0 if name == "fine_tuned" else c.epochs), *rest])
        watched = {
            split: images.batches(images.first(found, c.lipschitz_images, size))
            for split, found in (("train", train), ("test", test))
        }

        def measure(scheme, epoch):
            metrics, how = {}, {"from_logits": True, "bounds": BOUNDS}
            for split, batches in watched.items():
                lipschitz = evaluation.local_lipschitz_value(scheme.classifier, batches, **how)
                metrics[f"{split}_lipschitz"] = lipschitz.mean()
                accuracy = evaluation.accuracy(scheme.classifier, batches, **how)
                metrics[f"{split}_accuracy"] = accuracy
            return metrics

        about = {"dataset": dataset, "classifier": name, "seed": seed}
        return self._trained(
            network, {**about, "classifiers": self._parents(network)},
            {"image_size": size, "train_images": len(train.labels)},
            lambda: self._classifier_scheme(network), measure,
            lambda scheme: {self.path(network): scheme.classifier},
            train, c.classifier_batch_size, data.steps_per_epoch(train, c.classifier_batch_size),
            int(ends[-1]),
            keras.callbacks.LearningRateScheduler(
                lambda epoch: rate * 0.1 ** int(np.searchsorted(ends, epoch, side="right"))
            ),
        )  # fmt: skip

    def _classifier_scheme(self, network: Network):
        """The compiled scheme of fine-tuning; with a new network and without fakes, the rival."""
        c, (dataset, _, _, seed) = self.config, network
        if network.parent:
            classifier = self.load(network.parent)
            generator, weight = self.load(network.parent.trained_as), c.fake_weight
        else:
            size, classes = images.size(c, dataset), data.CLASSES[dataset]
            classifier = models.class_head(models.discriminator(classes, size, width=c.width))
            generator, weight = None, 0.0
        scheme = training.FineTuning(classifier, generator, classifier_attack(c), weight, seed=seed)
        scheme.compile(keras.optimizers.Adam(c.classifier_learning_rate, epsilon=ADAM_EPSILON))
        return scheme

    def _trained(
        self, network, about, found, build, measure, keep, train, batch_size, steps_per_epoch,
        epochs, schedule,
    ) -> Callable[[], dict]:  # fmt: skip
        """A unit that trains a scheme for all epochs.

        Args:
            network: Which network is trained.
            about: What the unit is.
            found: What else there is to say of it.
            build: () -> the compiled scheme.
            measure: (scheme, epoch) -> metrics after an epoch; None if it has diverged.
            keep: scheme -> file to network, of the last epoch that has not diverged.
            train: The training images.
            batch_size: Of a minibatch, over all devices.
            steps_per_epoch: Steps of the scheme.
            epochs: How many.
            schedule: The callback that sets the learning rate.
        """
        made, epoch, seed = {}, _Epoch(), network.seed
        augment = images.augment(network.dataset, images.size(self.config, network.dataset))

        def prepare():
            with self.strategy.scope():
                scheme = made["scheme"] = build()
            return fitting.Training(
                scheme,
                scheme,
                lambda first: fitting.training_data(
                    train, batch_size, seed=seed, first_epoch=first, augment=augment
                ),
                validate,
                steps_per_epoch=steps_per_epoch,
                epochs=epochs,
                patience=epochs,
                callbacks=[epoch, schedule],
            )

        def validate():
            metrics = measure(made["scheme"], epoch.number)
            # The last epoch is the one that is kept: its number is its score.
            return (math.nan, {}) if metrics is None else (epoch.number, metrics)

        def finish(progress):
            return found, keep(made["scheme"]) if progress.best_epoch else {}

        return fitting.trained(self.units, network.unit, about, prepare, finish, seed=seed)


class _Epoch(keras.callbacks.Callback):
    """Tells the number of the epoch that runs, counted from 1."""

    number = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.number = epoch + 1


class Runner(measuring.Runner):
    """Measures Rob-GAN's networks; arguments, attributes and errors are those of its base."""

    def __init__(self, name: str, config: Config, output_dir: str | pathlib.Path):
        self.name = name
        self.config = config
        self.output_dir = pathlib.Path(output_dir)
        self.started = time.time()
        self.networks = Networks(config)
        configs.bind_folder(name, config, self.output_dir)
        self.units = Units(self.output_dir / "units")

    def write(self) -> dict:
        """Merges all units of the folder into the results, table and figures."""
        seconds, found = time.time() - self.started, self.units.read_all()
        return results.write(self.name, self.config, self.output_dir, found, seconds)


def snapshot_epochs(epochs: int, count: int) -> list[int]:
    """The epochs after which a generator is kept: evenly spaced, the last among them."""
    return sorted({max(1, round(e)) for e in np.linspace(0, epochs, count + 1)[1:]})


def joint_attack(config: Config, image_size: int) -> attacks.PGD:
    """The attacker of joint training: five steps of 0.0078 never reach an ε of 0.07."""
    epsilon = config.attack_epsilon
    if epsilon is None:
        epsilon = 0.07 if image_size == 32 else 1 / 32
    return attacks.PGD(
        epsilon, INF, config.attack_steps, config.attack_step_size, random_start=False, clip=BOUNDS
    )


def classifier_attack(config: Config) -> attacks.PGD:
    """The attacker of fine-tuning and of adversarial training."""
    epsilon, steps = config.classifier_epsilon, config.attack_steps
    return attacks.PGD(epsilon, INF, steps, epsilon / 5, random_start=False, clip=BOUNDS)
