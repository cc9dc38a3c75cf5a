"""PGD adversarial training (Madry et al. 2018), with which every defence is compared."""

from __future__ import annotations

import pathlib
import shutil

import keras

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import devices, files, fitting, table2
from gat_tf.experiments.methods import PGD_TITLE
from gat_tf.training.scheme import ADAM_EPSILON


def train_missing(
    path: pathlib.Path,
    config: table2.Config,
    splits: data.Splits,
    attack: attacks.PGD,
    dataset: str,
    seed: int,
) -> None:
    """Trains Table 2's network on attacked images alone, unless that has been done.

    Network, optimiser, minibatches and length are those of Table 2's classifiers; the epoch that is
    kept is the one with the best validation accuracy under the attack.

    Args:
        path: Of the training's results; the classifier is beside them, as `.keras`.
        config: Table 2's configuration.
        splits: The images.
        attack: The attack, with the ε that the classifier is to stand.
        dataset: Name of the data set.
        seed: Of the weights, the minibatches' order and the attack's random starts.
    """
    if path.exists():
        return

    def say(line):
        if devices.is_chief():
            print(f"{dataset} {PGD_TITLE} seed {seed}: {line}", flush=True)

    keras.utils.set_random_seed(seed)
    with devices.strategy(config.strategy).scope():
        classifier = models.classifier(splits.num_classes, width=config.width)
        scheme = training.AdversarialTraining(classifier, attack, alpha=0, seed=seed)
        scheme.compile(keras.optimizers.Adam(config.learning_rate, epsilon=ADAM_EPSILON))
    checkpoints = path.with_suffix(".checkpoints")
    progress = fitting.fit_to_best(
        scheme,
        classifier,
        lambda epoch: fitting.training_data(
            splits.train, config.batch_size, seed=seed, first_epoch=epoch
        ),
        fitting.validation_accuracy(classifier, data.batches(splits.validation, 500), attack),
        steps_per_epoch=data.steps_per_epoch(splits.train, config.batch_size),
        epochs=config.epochs,
        patience=config.patience,
        seed=seed,
        folder=checkpoints,
        report=say,
    )
    result = {
        "dataset": dataset,
        "method": "pgd",
        "seed": seed,
        "attack": {"epsilon": attack.epsilon, "steps": attack.steps},
        **fitting.outcome(progress),
    }
    if progress.failure is None:
        result["validation_accuracy"] = progress.best_score
        result["test_accuracy"] = evaluation.accuracy(classifier, data.batches(splits.test, 500))
        if devices.is_chief():
            with files.replacing(path.with_suffix(".keras")) as temporary:
                classifier.save(temporary)
    if devices.is_chief():
        files.write_json(path, result)
        shutil.rmtree(checkpoints, ignore_errors=True)
    keras.backend.clear_session()
