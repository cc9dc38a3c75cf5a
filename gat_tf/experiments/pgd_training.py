"""PGD adversarial training (Madry et al. 2018), with which every defence is compared."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import keras

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import config as configs
from gat_tf.experiments import devices, fitting, table2
from gat_tf.experiments.classifiers import Classifiers
from gat_tf.experiments.config import option
from gat_tf.experiments.methods import PGD_TITLE
from gat_tf.training.scheme import ADAM_EPSILON


@dataclasses.dataclass(frozen=True)
class Config:
    """The attack that the classifier is to stand, in L∞."""

    epsilon: float = option(8 / 255, "ε of PGD.")
    steps: int = option(7, "Steps of PGD.")


def train_missing(
    folder: pathlib.Path,
    config: Config,
    classifiers: Classifiers,
    dataset: str,
    seeds: tuple[int, ...],
) -> None:
    """Trains Table 2's network on attacked images alone, for those seeds that are not there.

    Network, optimiser, minibatches and length are those of Table 2's classifiers; the epoch that is
    kept is the one with the best validation accuracy under the attack.

    Args:
        folder: Of these trainings, as one of Table 2's.
        config: The attack.
        classifiers: Those of Table 2 that these are compared with.
        dataset: Name of the data set.
        seeds: Of the weights, the minibatches' order and the attack's random starts.

    Raises:
        ConfigError: The folder holds the trainings of another attack or of another Table 2.
    """
    configs.claim_folder("pgd_training", config, folder, table2=classifiers.config)
    for seed in seeds:
        path = table2.unit_path(folder, dataset, "pgd", seed)
        if not path.exists():
            _train(path, config, classifiers.config, classifiers.splits(dataset), dataset, seed)


def _train(path, config, like, splits: data.Splits, dataset: str, seed: int) -> None:
    def say(line):
        if devices.is_chief():
            print(f"{dataset} {PGD_TITLE} seed {seed}: {line}", flush=True)

    attack = attacks.PGD(config.epsilon, math.inf, config.steps)
    keras.utils.set_random_seed(seed)
    with devices.strategy(like.strategy).scope():
        classifier = models.classifier(splits.num_classes, width=like.width)
        scheme = training.AdversarialTraining(classifier, attack, alpha=0, seed=seed)
        scheme.compile(keras.optimizers.Adam(like.learning_rate, epsilon=ADAM_EPSILON))
    progress = fitting.fit_to_best(
        scheme,
        classifier,
        lambda epoch: fitting.training_data(
            splits.train, like.batch_size, seed=seed, first_epoch=epoch
        ),
        fitting.validation_accuracy(classifier, data.batches(splits.validation, 500), attack),
        steps_per_epoch=data.steps_per_epoch(splits.train, like.batch_size),
        epochs=like.epochs,
        patience=like.patience,
        seed=seed,
        folder=path.with_suffix(".checkpoints"),
        report=say,
    )
    result = {
        "dataset": dataset,
        "method": "pgd",
        "seed": seed,
        "attack": dataclasses.asdict(config),
        **fitting.outcome(progress),
    }
    networks = {}
    if progress.failure is None:
        result["validation_accuracy"] = progress.best_score
        result["test_accuracy"] = evaluation.accuracy(classifier, data.batches(splits.test, 500))
        networks = {path.with_suffix(".keras"): classifier}
    fitting.keep(path, result, networks)
