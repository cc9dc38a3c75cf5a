"""Rob-GAN's networks, trained once for all of its experiments, in a folder that they share.

The generative ones are the four settings of Fig. 8 and SN-GAN; the classifiers are Rob-GAN's after
fine-tuning (eq. 10) and the rival of Table 1, adversarial training of the same network.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, augmentation, data, evaluation, models, training
from gat_tf.experiments import config as configs
from gat_tf.experiments import devices, files, fitting, units
from gat_tf.experiments.config import ConfigError, option
from gat_tf.training.gan import adam as gan_adam
from gat_tf.training.scheme import ADAM_EPSILON

INF = float("inf")
BOUNDS = (-1.0, 1.0)  # of the pixels, and with them the unit of every ε


class Setting(NamedTuple):
    """One way of training a generator."""

    title: str
    class_loss: str | None
    attacked: bool


GANS = {
    "robgan": Setting("Rob-GAN: split loss, attack", "split", True),
    "split": Setting("split loss, no attack", "split", False),
    "acgan_attack": Setting("AC-GAN loss, attack", "acgan", True),
    "acgan": Setting("AC-GAN loss, no attack", "acgan", False),
    "sngan": Setting("SN-GAN", None, False),
}
CLASSIFIERS = {
    "adversarial_training": "Adv. training",
    "robgan": "Rob-GAN, no fine-tuning",
    "fine_tuned": "Rob-GAN, fine-tuned",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """How the networks are trained; the defaults are the paper's or its authors' code's."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks and data",
        "reduced": "real CIFAR-10, networks of an eighth of the width, hours on two cores",
        "quick": "built-in images and narrow networks, minutes on two cores",
    }

    datasets: tuple[str, ...] = option(("cifar10", "imagenet143"), "Data sets (paper).", shard=True)
    seeds: tuple[int, ...] = option((0,), "Seeds, as in 0,1,2 (ours).", shard=True)
    data_dir: str | None = option(None, "Folder of TensorFlow Datasets.", shard=True)
    strategy: str = option(
        "mirrored",
        f"tf.distribute strategy of what is trained, one of {devices.ONE_MACHINE}.",
        shard=True,
    )
    networks_dir: str = option(
        "runs/robgan-networks",
        "Folder of the trained networks, shared by Rob-GAN's experiments; trained where missing.",
        shard=True,
    )
    image_size: int = option(64, "Pixels of ImageNet-143, 64 or 128 (paper); CIFAR has 32.")
    train_size: int | None = option(None, "Training images; none is all (paper).")
    test_size: int | None = option(None, "Test images; none is all (paper).")
    width: float = option(1.0, "Factor on the filters of every network; 1 is the paper's.")
    batch_size: int = option(64, "Images a step, over all devices (paper).")
    epochs: int = option(100, "Epochs of the joint training (paper; its code: 200 at most).")
    learning_rate: float = option(2e-4, "Of both Adams, β (0, 0.9) (paper).")
    halving_epochs: int = option(50, "Epochs after which the learning rate halves (paper).")
    discriminator_steps: int | None = option(
        None, "n_dis; none is 1 for 32 pixels and 5 for more (paper), and 5 for SN-GAN."
    )
    attack_epsilon: float | None = option(
        None,
        "δmax in [-1, 1] of joint training; none is 0.07 for 32 pixels, 1/32 for more (paper).",
    )
    attack_steps: int = option(5, "PGD steps of joint training and fine-tuning (paper).")
    attack_step_size: float = option(0.0078, "PGD step of joint training (paper).")
    snapshots: int = option(20, "Generators kept on the way, for Fig. 8 (ours).")
    classifier_epochs: tuple[int, ...] = option(
        (20, 20, 10, 10),
        "Epochs of fine-tuning, a stage (paper). The rival's first stage is longer by those of the "
        "joint training, so that both see the images as often (ours).",
    )
    classifier_learning_rate: float = option(
        1e-3, "Of their Adam in the first stage, ÷ 10 in each other (paper)."
    )
    classifier_batch_size: int = option(128, "Their images a step, over all devices (paper).")
    classifier_epsilon: float = option(
        1 / 32, "Their δmax in [-1, 1], in steps of a fifth (paper)."
    )
    fake_weight: float = option(0.3, "λ of eq. 10 (paper).")
    lipschitz_images: int = option(
        1000, "Images on which the local Lipschitz value is taken after every epoch (ours)."
    )

    def __post_init__(self):
        configs.require_known("data set", self.datasets, data.CLASSES)
        configs.require_known("strategy", [self.strategy], devices.ONE_MACHINE)
        configs.require_known("image_size", [self.image_size], (64, 128))
        configs.require_seeds(self.seeds)
        configs.require_values(self, "classifier_epochs")
        configs.require_range(
            self,
            ("width", 1e-9, INF),
            ("batch_size", 1, INF),
            ("epochs", 1, 9999),
            ("learning_rate", 0, INF),
            ("halving_epochs", 1, INF),
            ("attack_steps", 1, INF),
            ("attack_step_size", 0, INF),
            ("snapshots", 1, INF),
            ("classifier_epochs", 0, 9999),
            ("classifier_learning_rate", 0, INF),
            ("classifier_batch_size", 1, INF),
            ("classifier_epsilon", 0, 2),
            ("fake_weight", 0, INF),
            ("lipschitz_images", 1, INF),
        )
        if not sum(self.classifier_epochs):
            raise ConfigError("Expected classifier_epochs of at least 1 in all. Received: 0")
        for name, low, high in (("discriminator_steps", 1, INF), ("attack_epsilon", 0, 2)):
            if getattr(self, name) is not None:
                configs.require_range(self, (name, low, high))


PRESETS = {
    "paper": {},
    # Real images, narrow networks and few steps: to see that everything works, not how well.
    "reduced": {
        "datasets": ("cifar10",),
        "networks_dir": "runs/robgan-networks-reduced",
        "train_size": 10_000,
        "test_size": 2_000,
        "width": 1 / 8,
        "epochs": 10,
        "learning_rate": 5e-4,
        "discriminator_steps": 1,
        "snapshots": 5,
        "classifier_epochs": (4, 2, 1),
    },
    "quick": {
        "datasets": ("shapes",),
        "networks_dir": "runs/robgan-networks-quick",
        "train_size": 1_000,
        "test_size": 200,
        "width": 1 / 16,
        "batch_size": 25,
        "epochs": 6,
        "learning_rate": 2e-3,
        "discriminator_steps": 1,
        "snapshots": 3,
        "classifier_epochs": (3, 1),
        "classifier_learning_rate": 2e-3,
        "classifier_batch_size": 25,
        "lipschitz_images": 200,
    },
}


def presets(config_class, **own: dict) -> dict:
    """The presets of an experiment: these, with settings of its own by preset's name."""
    return {name: config_class(**ours, **own.get(name, {})) for name, ours in PRESETS.items()}


class Networks:
    """The networks of a folder, trained there where they are missing.

    Args:
        config: An experiment's, of which the fields of `Config` count.

    Raises:
        ConfigError: The folder holds networks of another configuration, or cannot be written.
    """

    def __init__(self, config: Config):
        names = [field.name for field in dataclasses.fields(Config)]
        self.config = Config(**{name: getattr(config, name) for name in names})
        self.folder = pathlib.Path(config.networks_dir)
        configs.claim_folder("robgan_networks", self.config, self.folder, flag="networks_dir")
        self.strategy = devices.strategy(config.strategy)
        self._images = {}

    def images(self, dataset: str) -> tuple[data.Split, data.Split]:
        """The images that the networks are trained on, and those that they are tested on.

        Raises:
            ConfigError: There are not so many, or a class has none to train on.
            DatasetNotFoundError: The data set is not there.
        """
        if dataset not in self._images:
            c = self.config
            size = None if dataset in data.IMAGE_SIZES else c.image_size
            try:
                splits = data.load(
                    dataset,
                    c.data_dir,
                    image_size=size,
                    train_size=c.train_size,
                    test_size=c.test_size,
                )
            except ValueError as error:
                raise ConfigError(str(error)) from error
            train = splits.train
            if (
                c.train_size is None
                and train.images.shape[1:] == splits.validation.images.shape[1:]
            ):
                # Nothing is chosen by a validation set: CIFAR's 50,000, as in the paper.
                train = data.Split(*map(np.concatenate, zip(train, splits.validation, strict=True)))
            missing = sorted(set(range(splits.num_classes)) - set(np.unique(train.labels).tolist()))
            if missing:
                raise ConfigError(
                    f"Expected training images of each of the {splits.num_classes} classes of "
                    f"{dataset}. Received: none of {', '.join(map(str, missing))}."
                )
            self._images[dataset] = train, splits.test
        return self._images[dataset]

    def unit(self, dataset: str, kind: str, name: str, seed: int) -> pathlib.Path:
        """The results of a training; kind is "gan" or "classifier"."""
        return self.folder / "units" / f"{dataset}-{kind}-{name}-seed{seed}.json"

    def generator_path(self, dataset, name, seed, epoch: int | None = None) -> pathlib.Path:
        """The file of a generator, after all epochs or on the way."""
        stem = self.unit(dataset, "gan", name, seed).stem
        if epoch is not None:
            return self.folder / "snapshots" / f"{stem}-epoch{epoch:04d}.keras"
        return self.folder / "units" / f"{stem}-generator.keras"

    def classifier_path(self, dataset, name, seed) -> pathlib.Path:
        """The file of a classifier; Rob-GAN's without fine-tuning is its discriminator."""
        if name == "robgan":
            stem = self.unit(dataset, "gan", name, seed).stem
            return self.folder / "units" / f"{stem}-discriminator.keras"
        return self.unit(dataset, "classifier", name, seed).with_suffix(".keras")

    def load_generator(self, dataset, name, seed, epoch: int | None = None) -> keras.Model:
        """Returns a trained generator; errors are those of `units.load_network`."""
        unit = self.unit(dataset, "gan", name, seed)
        return units.load_network(unit, self.generator_path(dataset, name, seed, epoch))

    def load_classifier(self, dataset, name, seed) -> keras.Model:
        """Returns a trained classifier of images in [-1, 1] with logits; errors as above."""
        path = self.classifier_path(dataset, name, seed)
        if name == "robgan":
            unit = self.unit(dataset, "gan", name, seed)
            return models.class_head(units.load_network(unit, path))
        return units.load_network(self.unit(dataset, "classifier", name, seed), path)

    def train_gan(self, dataset: str, name: str, seed: int) -> dict:
        """Returns the results of a generative training, which is done first if it is missing."""
        path = self.unit(dataset, "gan", name, seed)
        if path.exists():
            return files.read_json(path)
        c, setting = self.config, GANS[name]
        train, _ = self.images(dataset)
        size, classes = _size(c, dataset), data.CLASSES[dataset]
        keras.utils.set_random_seed(seed)
        with self.strategy.scope():
            generator = models.image_generator(classes, size, width=c.width)
            steps = c.discriminator_steps or (1 if size == 32 and name != "sngan" else 5)
            settings = {"discriminator_steps": steps, "seed": seed}
            if setting.class_loss is None:
                discriminator = models.projection_discriminator(classes, size, width=c.width)
                scheme = training.SNGAN(discriminator, generator, classes, **settings)
            else:
                discriminator = models.discriminator(classes, size, width=c.width)
                attack = self.joint_attack(size) if setting.attacked else None
                scheme = training.RobGAN(
                    discriminator, generator, attack, setting.class_loss, **settings
                )
            scheme.compile(gan_adam(c.learning_rate), gan_adam(c.learning_rate))
        images_a_step = steps * c.batch_size
        steps_per_epoch = len(train.labels) // images_a_step
        if not steps_per_epoch:
            raise ConfigError(
                f"Expected at least {images_a_step} training images, {steps} minibatches. "
                f"Received: {len(train.labels)}"
            )
        # Whole groups of whole minibatches alone: every epoch begins with a group, and none ends
        # with a few images, whose statistics would be most of what batch norm then remembers.
        kept = steps_per_epoch * images_a_step
        train = data.Split(train.images[:kept], train.labels[:kept])
        kept_epochs = {max(1, round(e)) for e in np.linspace(0, c.epochs, c.snapshots + 1)[1:]}

        def after_epoch():
            """The last epoch is the one that is kept: its number is its score."""
            epoch = int(scheme.steps.numpy()) // steps_per_epoch
            labels = np.repeat(np.arange(classes), 20 if classes <= 10 else 4)
            fakes = models.sample(generator, labels, seed=seed)
            if not np.isfinite(fakes).all():
                return math.nan, {}
            if epoch in kept_epochs and devices.is_chief():
                with files.replacing(self.generator_path(dataset, name, seed, epoch)) as temporary:
                    generator.save(temporary)
            diversity = evaluation.class_diversity(fakes, labels, classes)
            return epoch, {"diversity": diversity.mean(), "least_diversity": diversity.min()}

        progress = self._fit(
            scheme,
            path,
            f"{dataset} {name} seed {seed}",
            train,
            c.batch_size,
            _augmentation(dataset, size),
            after_epoch,
            steps_per_epoch,
            c.epochs,
            seed,
            training.LearningRateHalving(c.halving_epochs, c.learning_rate),
        )
        result = {
            "dataset": dataset,
            "gan": name,
            "seed": seed,
            "image_size": size,
            "train_images": len(train.labels),
            "discriminator_steps": steps,
            "steps_per_epoch": steps_per_epoch,
            "snapshots": sorted(kept_epochs),
            **fitting.outcome(progress),
        }
        networks = {
            self.generator_path(dataset, name, seed): generator,
            self.classifier_path(dataset, "robgan", seed): discriminator
            if name == "robgan"
            else None,
        }
        return self._keep(path, result, progress, networks)

    def train_classifier(self, dataset: str, name: str, seed: int) -> dict:
        """Returns the results of training a classifier, which is done first if it is missing.

        The one without fine-tuning comes with its GAN.
        """
        if name == "robgan":
            return self.train_gan(dataset, "robgan", seed)
        path = self.unit(dataset, "classifier", name, seed)
        parents = {}
        if name == "fine_tuned":
            self.train_gan(dataset, "robgan", seed)
            parents["robgan"] = units.digest(self.classifier_path(dataset, "robgan", seed))
        if path.exists():
            units.require_same_networks(path, parents)
            return files.read_json(path)
        c = self.config
        train, test = self.images(dataset)
        size, classes = _size(c, dataset), data.CLASSES[dataset]
        keras.utils.set_random_seed(seed)
        with self.strategy.scope():
            if name == "fine_tuned":
                classifier = self.load_classifier(dataset, "robgan", seed)
                generator = self.load_generator(dataset, "robgan", seed)
                weight = c.fake_weight
            else:
                discriminator = models.discriminator(classes, size, width=c.width)
                classifier, generator, weight = models.class_head(discriminator), None, 0.0
            scheme = training.FineTuning(
                classifier, generator, self.classifier_attack(), weight, seed=seed
            )
            rate = c.classifier_learning_rate
            scheme.compile(keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON))
        steps_per_epoch = data.steps_per_epoch(train, c.classifier_batch_size)
        watched = {
            kind: centred(first_images(split, c.lipschitz_images, size), 200)
            for kind, split in (("train", train), ("test", test))
        }
        first, *rest = c.classifier_epochs
        bounds = np.cumsum([first + (0 if name == "fine_tuned" else c.epochs), *rest])

        def after_epoch():
            """The last epoch is the one that is kept: its number is its score."""
            metrics = {}
            for kind, images in watched.items():
                lipschitz = evaluation.local_lipschitz_value(
                    classifier, images, from_logits=True, bounds=BOUNDS
                )
                metrics[f"{kind}_lipschitz"] = lipschitz.mean()
                metrics[f"{kind}_accuracy"] = evaluation.accuracy(
                    classifier, images, from_logits=True, bounds=BOUNDS
                )
            return int(scheme.optimizer.iterations.numpy()) // steps_per_epoch, metrics

        progress = self._fit(
            scheme,
            path,
            f"{dataset} {name} seed {seed}",
            train,
            c.classifier_batch_size,
            _augmentation(dataset, size),
            after_epoch,
            steps_per_epoch,
            int(bounds[-1]),
            seed,
            keras.callbacks.LearningRateScheduler(
                lambda epoch: rate * 0.1 ** int(np.searchsorted(bounds, epoch, side="right"))
            ),
        )
        result = {
            "dataset": dataset,
            "classifier": name,
            "seed": seed,
            "classifiers": parents,
            "image_size": size,
            "train_images": len(train.labels),
            **fitting.outcome(progress),
        }
        path_of_network = self.classifier_path(dataset, name, seed)
        return self._keep(path, result, progress, {path_of_network: classifier})

    def joint_attack(self, image_size: int) -> attacks.PGD:
        """The attacker of joint training: five steps of 0.0078 never reach an ε of 0.07."""
        c = self.config
        epsilon = c.attack_epsilon
        if epsilon is None:
            epsilon = 0.07 if image_size == 32 else 1 / 32
        return attacks.PGD(
            epsilon, INF, c.attack_steps, c.attack_step_size, random_start=False, clip=BOUNDS
        )

    def classifier_attack(self) -> attacks.PGD:
        """The attacker of fine-tuning and of adversarial training."""
        c = self.config
        epsilon = c.classifier_epsilon
        return attacks.PGD(
            epsilon, INF, c.attack_steps, epsilon / 5, random_start=False, clip=BOUNDS
        )

    def _fit(
        self, scheme, path, title, split, batch_size, augment, after_epoch, steps_per_epoch, epochs,
        seed, schedule,
    ) -> fitting.Progress:  # fmt: skip
        def say(line):
            if devices.is_chief():
                print(f"{title}: {line}", flush=True)

        return fitting.fit_to_best(
            scheme,
            scheme,
            lambda epoch: fitting.training_data(
                split, batch_size, seed=seed, first_epoch=epoch, augment=augment
            ),
            after_epoch,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            patience=epochs,
            seed=seed,
            folder=path.with_suffix(".checkpoints"),
            report=say,
            callbacks=[schedule],
        )

    def _keep(self, path, result, progress, networks) -> dict:
        """Writes results and networks; of a diverged training, those of its last good epoch."""
        kept = {file: network for file, network in networks.items() if network is not None}
        fitting.keep(path, result, kept if progress.best_epoch else {})
        return result


def centred(split: data.Split, batch_size: int) -> tf.data.Dataset:
    """One pass over the split: (images in [-1, 1], labels) batches."""
    batches = data.batches(split, batch_size)
    return batches.map(lambda images, labels: (augmentation.centred(images), labels))


def first_images(split: data.Split, count: int, image_size: int) -> data.Split:
    """The first images of a split, which ImageNet-143 holds larger for training, at their size."""
    images, labels = split.images[:count], split.labels[:count]
    if images.shape[1] != image_size:
        resized = tf.image.resize(images, (image_size, image_size), antialias=True)
        images = np.clip(np.round(resized), 0, 255).astype(np.uint8)
    return data.Split(images, labels)


def _size(config: Config, dataset: str) -> int:
    return data.IMAGE_SIZES.get(dataset, config.image_size)


def _augmentation(dataset: str, size: int):
    """(images in [0, 1], seed) -> images in [-1, 1]; the built-in ones get noise alone."""

    def augment(images, seed):
        where, noise = tf.unstack(tf.random.split(seed, 2))
        if dataset == "imagenet143":
            images = augmentation.scale_crop_flip(images, size, where)
        elif dataset != "shapes":
            images = augmentation.pad_crop_flip(images, where)
        return augmentation.dequantised(images, noise)

    return augment
