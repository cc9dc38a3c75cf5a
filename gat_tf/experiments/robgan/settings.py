"""How Rob-GAN's networks are trained: the settings, and the presets of all experiments on them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import datasets, devices
from gat_tf.experiments.lab.config import ConfigError, option, run_option

INF = math.inf
IMAGE_SIZES = (32, 64, 128)  # for which there are networks


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """How the networks are trained; the defaults are the paper's or its authors' code's."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks and data",
        "large": "all of CIFAR-10, a quarter of the width and a fifth of the epochs, hours per "
        "network on two cores that compute in bfloat16",
        "reduced": "real CIFAR-10, networks of an eighth of the width, hours on two cores",
        "quick": "built-in images and narrow networks, minutes on two cores",
    }

    datasets: tuple[str, ...] = run_option(
        ("cifar10", "imagenet143"), f"Data sets (paper); others are {datasets.HELP}."
    )
    seeds: tuple[int, ...] = run_option(
        (0,), "Seeds of the networks, as in 0,1,2 (ours).", **configs.SEED
    )
    data_dir: str | None = run_option(None, "Folder of TensorFlow Datasets.")
    strategy: str = run_option(
        "mirrored", "tf.distribute strategy of what is trained.", choices=devices.ONE_MACHINE
    )
    networks_dir: str = run_option(
        "runs/robgan-networks",
        "Folder of the networks, which all experiments of Rob-GAN share; they are trained there "
        "where missing.",
    )
    image_size: int = option(
        64,
        "Height and width of ImageNet-143's images (paper), and to which the images of a folder or "
        "of another data set of TensorFlow Datasets are resized; CIFAR's have 32.",
        choices=IMAGE_SIZES,
    )
    train_size: int | None = option(None, "Number of training images; none is all (paper).")
    test_size: int | None = option(None, "Number of test images; none is all (paper).")
    width: float = option(
        1.0, "Factor on the filters of every network; 1 is the paper's.", low=1e-9
    )
    batch_size: int = option(
        64, "Number of images in a minibatch of joint training, over all devices (paper)."
    )
    epochs: int = option(
        100, "Number of epochs of joint training (paper; at most 200 in its code).", high=9999
    )
    learning_rate: float = option(
        2e-4, "Learning rate of both Adam optimizers of joint training, with β (0, 0.9) (paper)."
    )
    halving_epochs: int = option(
        50, "Number of epochs after which the learning rates of joint training halve (paper)."
    )
    discriminator_steps: int | None = option(
        None,
        "Discriminator steps for each generator step, n_dis; none is 1 for images of 32 pixels and "
        "5 for larger ones (paper), and 5 for SN-GAN.",
    )
    attack_epsilon: float | None = option(
        None,
        "δmax of joint training, of pixels in [-1, 1]; none is 0.07 for images of 32 pixels and "
        "1/32 for larger ones (paper).",
        high=2,
    )
    attack_steps: int = option(
        5, "Number of PGD steps of joint training and of the classifiers' training (paper)."
    )
    attack_step_size: float = option(
        0.0078, "Size of a PGD step of joint training, of pixels in [-1, 1] (paper)."
    )
    precision: str = option(
        "float32",
        "Keras dtype policy of the training; auto is mixed_bfloat16 on a CPU that computes in "
        "bfloat16 and float32 elsewhere (ours). Networks are kept and measured in float32.",
        check=configs.require_precision,
        before="float32",
    )
    steps_per_execution: int = run_option(
        1,
        "Number of training steps in one call of the compiled function, at most: the largest "
        "number that divides an epoch. More save time on a GPU (ours).",
    )
    snapshots: int = option(20, "Number of generators kept during joint training (ours).")
    classifier_epochs: tuple[int, ...] = option(
        (20, 20, 10, 10),
        "Number of epochs of each stage of fine-tuning (paper). The first stage of the rival, "
        "adversarial training, is longer by the epochs of joint training, so that both see the "
        "images as often (ours).",
        low=0,
        high=9999,
    )
    classifier_learning_rate: float = option(
        1e-3,
        "Learning rate of the classifiers' Adam optimizer in the first stage; each further stage "
        "divides it by 10 (paper).",
    )
    classifier_batch_size: int = option(
        128, "Number of images in a step of the classifiers' training, over all devices (paper)."
    )
    classifier_epsilon: float = option(
        1 / 32,
        "δmax of the classifiers' training, of pixels in [-1, 1], in PGD steps of a fifth (paper).",
        high=2,
    )
    fake_weight: float = option(0.3, "Weight of the generated images in eq. 10, λ (paper).")
    fake_images: int = option(
        50_000,
        "Number of different generated images of the control that trains on a fixed set of them "
        "(ours).",
        before=50_000,
    )
    lipschitz_images: int = option(
        1000,
        "Number of images on which the local Lipschitz value is measured after every epoch: of "
        "training and of test images for a classifier, of test images for a discriminator (ours).",
    )

    def __post_init__(self):
        super().__post_init__()
        if not sum(self.classifier_epochs):
            raise ConfigError("Expected classifier_epochs of at least 1 in all. Received: 0")


@dataclasses.dataclass(frozen=True)
class Recipe(configs.Config):
    """How networks are trained beyond the settings: what no flag chooses, and changed once.

    It is stored with the settings, so that a folder from before a change is not continued with
    networks that are made in another way.
    """

    networks: str = option(
        "the authors' initial weights, images with the statistics of their batch", "Networks.",
        before="Xavier's initial weights, images with moving statistics",
    )  # fmt: skip
    fine_tuning: str = option(
        "without noise, a new Adam at each stage", "The classifiers' training.",
        before="with noise, one Adam",
    )  # fmt: skip
    sngan: str = option(
        "as many generator updates as Rob-GAN, linear decay over the last fifth", "SN-GAN's.",
        before="as many images as Rob-GAN, halving",
    )  # fmt: skip


RECIPE = Recipe()

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # 15,620 updates of the generator. All that is shorter, is so by the same factor.
    "large": {
        "datasets": ("cifar10",),
        "networks_dir": "runs/robgan-networks-large",
        "width": 1 / 4,
        "epochs": 20,
        "halving_epochs": 10,
        "precision": "mixed_bfloat16",
        "classifier_epochs": (4, 4, 2, 2),
    },
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
        "fake_images": 10_000,
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
        "fake_images": 1_000,
        "snapshots": 3,
        "classifier_epochs": (3, 1),
        "classifier_learning_rate": 2e-3,
        "classifier_batch_size": 25,
        "lipschitz_images": 200,
    },
}
