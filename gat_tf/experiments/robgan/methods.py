"""What can be trained for Rob-GAN's experiments: generators, classifiers, and their attackers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gat_tf import attacks
from gat_tf.experiments.robgan.settings import INF, Config

BOUNDS = (-1.0, 1.0)  # of the pixels, and with them the unit of every ε


class Gan(NamedTuple):
    """A way of training a generator; without a loss of the classes it is SN-GAN."""

    title: str
    class_loss: str | None
    attacked: bool

    @property
    def statistics(self) -> str:
        """What its batch norm uses when images are drawn; see `models.sample`."""
        return "moving" if self.class_loss is None else "batch"


GANS = {
    "robgan": Gan("Rob-GAN: split loss, attack", "split", True),
    "split": Gan("split loss, no attack", "split", False),
    "acgan_attack": Gan("AC-GAN loss, attack", "acgan", True),
    "acgan": Gan("AC-GAN loss, no attack", "acgan", False),
    "sngan": Gan("SN-GAN", None, False),
    "split_equal": Gan("split loss at equal weight, attack", "split_equal", True),
}


class Classifier(NamedTuple):
    """A way of training a classifier on attacked images.

    Attributes:
        title: Of its line.
        fine_tuned: Whether it begins with the class head of Rob-GAN's discriminator.
        fakes: Rob-GAN's images in its training: "new" ones in every step, a "fixed" set, or None.
    """

    title: str
    fine_tuned: bool = False
    fakes: str | None = None


CLASSIFIERS = {
    "adversarial_training": Classifier("Adv. training"),
    "robgan": Classifier("Rob-GAN, no fine-tuning"),
    "fine_tuned": Classifier("Rob-GAN, fine-tuned", fine_tuned=True, fakes="new"),
    # Controls (ours): fine-tuning with λ = 0, and eq. 6 from scratch on a fixed set of images.
    "fine_tuned_real": Classifier("Rob-GAN, fine-tuned on real images", fine_tuned=True),
    "fixed_fakes": Classifier("Adv. training with fixed fakes", fakes="fixed"),
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
        """The network that its training needs: Rob-GAN's discriminator or generator."""
        if self.kind == "gan" or self.name == "robgan":
            return None
        if CLASSIFIERS[self.name].fine_tuned:
            return self._replace(name="robgan")
        return self._replace(kind="gan", name="robgan") if CLASSIFIERS[self.name].fakes else None


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
