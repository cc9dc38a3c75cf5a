"""How networks are trained: the settings, and the presets of all experiments on them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from gat_tf import training
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import datasets, devices
from gat_tf.experiments.lab.config import ConfigError, option, run_option
from gat_tf.experiments.methods import METHODS, qualified


def datasets_option() -> Any:
    """The data sets of an experiment."""
    return run_option(
        ("cifar10", "cifar100"),
        f"Data sets (paper); others are {datasets.HELP}.",
        check=_require_one_size,
    )


def _require_one_size(dataset: str) -> None:
    if dataset == "imagenet143":
        raise ConfigError(
            "Expected a data set with training and test images of one size. Received: imagenet143, "
            "which only the experiments of Rob-GAN take"
        )


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """How networks are trained; the defaults are the paper's, or ours where it has none."""

    data_dir: str | None = run_option(None, "Folder of TensorFlow Datasets.")
    strategy: str = run_option("mirrored", "tf.distribute strategy.", choices=devices.STRATEGIES)
    image_size: int | None = option(
        None,
        "Height and width to which the images of a folder, or of a data set of TensorFlow Datasets "
        "other than CIFAR, are resized; none takes them as they are (ours).",
        before=None,
    )
    train_size: int | None = option(
        None, "Number of training images; none means all 45,000 (paper)."
    )
    validation_size: int | None = option(
        None, "Number of validation images; none means all 5,000 (paper)."
    )
    test_size: int | None = option(None, "Number of test images; none means all 10,000 (paper).")
    width: float = option(
        1.0, "Factor on the filters of both networks; 1 is Table 1 (paper).", low=1e-9
    )
    batch_size: int = option(128, "Number of images in a step, over all devices (ours).")
    epochs: int = option(200, "Largest number of epochs (ours).", high=9999)
    patience: int = option(
        20, "Number of epochs without a better validation score after which training stops (ours)."
    )
    min_epochs: int = option(
        1, "Smallest number of epochs, whatever the patience (ours).", high=9999, before=1
    )
    learning_rate: float = option(1e-3, "Learning rate of the classifier's Adam optimizer (paper).")
    alpha: float = option(0.5, "Weight of the clean loss in eqs. 2, 4 and 10 (paper).", high=1)
    generator_steps: int = option(1, "Generator steps for each classifier step, k (paper).")
    minibatches: str = option(
        "separate",
        "Whether GAT's two updates take separate minibatches (paper) or a shared one.",
        choices=training.gat.MINIBATCHES,
    )
    precision: str = option(
        "float32",
        "Keras dtype policy of the training; auto means mixed_bfloat16 on a CPU that computes in "
        "bfloat16 and float32 elsewhere (ours).",
        check=configs.require_precision,
    )
    jit_compile: bool | None = run_option(
        None, "Whether steps are compiled with XLA; none means on a single GPU only (ours)."
    )
    hyperparameters: dict[str, float] = option(
        {}, "Hyperparameters of the methods, such as gat.c_g=0.3. Those not given are ours."
    )
    search: bool = option(
        False, "Whether each method's hyperparameters are searched on the validation set (paper)."
    )
    grids: dict[str, tuple[float, ...]] = option(
        {}, "Values that the search tries, such as gat.c_g=0.1:0.3:1. Grids not given are ours."
    )
    search_epochs: int = option(200, "Largest number of epochs of a trial (ours).", high=9999)
    search_seed: int = option(1000, "Seed of the trials (ours).", **configs.SEED)
    search_train_size: int | None = option(
        None, "Number of training images of a trial; none means all (ours).", before=None
    )
    search_window: int = option(
        5,
        "Number of successive epochs over which a trial's validation score is averaged; the best "
        "average counts (ours).",
        before=1,
    )
    search_extensions: int = option(
        2,
        "Number of values tried beyond a grid if its last one is the best (ours).",
        low=0,
        before=0,
    )

    def __post_init__(self):
        super().__post_init__()
        known = sorted(name for method in METHODS for name in qualified(method))
        single = {name: (value,) for name, value in self.hyperparameters.items()}
        for name, values in [*single.items(), *self.grids.items()]:
            configs.require_known("hyperparameter", name, known)
            for value in values:
                configs.require_number(name, value, 0, 0.99 if name.endswith(".rate") else math.inf)


REDUCED: dict[str, Any] = {
    "train_size": 5_000,
    "validation_size": 2_000,
    "width": 1 / 3,
    "batch_size": 32,
    "epochs": 120,
    "patience": 15,
    "minibatches": "shared",
    "hyperparameters": {
        "dropout.rate": 0.2,
        "random.epsilon": 4 / 255,
        "fg_l2.epsilon": 2 / 255 * 3072**0.5,
        "gat.c_g": 0.1,
        # At the paper's 1e-6 the generator hardly moves within so few steps.
        "gat.generator_learning_rate": 1e-4,
        "dropout_gat.rate": 0.2,
        "pgd.epsilon": 2 / 255,  # of the standard ball hardly anything is left of such networks
    },
    "search": True,
    "search_epochs": 40,
    "search_window": 1,
    "search_extensions": 0,
    "grids": {
        "dropout.rate": (0.1, 0.3),
        "random.epsilon": (1 / 255, 4 / 255, 16 / 255),
        "fg_linf.epsilon": (1 / 255, 4 / 255, 16 / 255),
        "fg_l2.epsilon": tuple(n / 255 * 3072**0.5 for n in (1, 2, 4)),
        "gat.c_g": (0.03, 0.1, 0.3),
        "gat.generator_learning_rate": (1e-4,),
        "dropout_gat.rate": (0.1, 0.3),
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "full": {
        "epochs": 150,
        "patience": 10,
        "min_epochs": 20,
        "minibatches": "shared",
        "precision": "auto",
        # At the paper's 1e-6 as many epochs are too few for the generator to learn.
        "hyperparameters": {"gat.generator_learning_rate": 1e-4},
        "search": True,
        "search_epochs": 150,
        # The full-size networks overfit them much, at a fifth of the time.
        "search_train_size": 10_000,
        # Six trials for every method.
        "grids": {
            "dropout.rate": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
            "gat.c_g": (0.3, 1, 3),
            "dropout_gat.rate": (0.05, 0.1, 0.2, 0.3),
            "dropout_gat.c_g": (0.3, 1, 3),
        },
    },
    "reduced": REDUCED,
    "quick": {
        "width": 1 / 3,
        "batch_size": 25,
        "epochs": 20,
        "patience": 20,
        "learning_rate": 2e-3,
        "minibatches": "shared",
        "hyperparameters": {
            "gat.generator_learning_rate": 1e-4,
            "gat.c_g": 0.1,
            # With more, so small a network does not begin to learn within these epochs.
            "dropout.rate": 0.05,
            "dropout_gat.rate": 0.05,
            "pgd.epsilon": 1 / 255,
        },
        "search_epochs": 20,
    },
}
