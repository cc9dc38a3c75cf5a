"""What has been trained: (data set, method, seed) to a network, trained where it is missing.

A network is trained once, in a folder that all experiments share: Table 2 reports its accuracy, and
the other experiments attack it. A unit of work is one network, or one trial of a search; any number
of processes may share the folder and the work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np

from gat_tf import data, evaluation
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import datasets, fitting, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.folder import Folder
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.methods import METHODS, Values, lineage
from gat_tf.experiments.settings import PRESETS, Config

INF = math.inf
# Added to a network's seed for another baseline, which only serves to attack from.
SOURCE_SEED = 100


class Network(NamedTuple):
    """Identifies a network."""

    dataset: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its unit."""
        return f"{self.dataset}-{self.method}-seed{self.seed}"


class Networks(Folder):
    """The networks of a folder, trained there where they are missing.

    Arguments are a configuration that has the settings, and the folder; errors and attributes are
    those of the base.
    """

    config: Config

    def __init__(self, config: Config, folder: str | pathlib.Path):
        super().__init__("networks", Config, config, folder)
        self.trials = Units(self.folder / "search")
        self.search = functools.cache(self._search)

    @classmethod
    def open(cls, folder: str, preset: str, data_dir: str | None, strategy: str) -> Networks:
        """Opens the networks of a folder, with the folder's configuration or, if it is empty, a
        preset."""
        path = pathlib.Path(folder) / "config.json"
        found = (
            configs.from_file(Config, path, "networks")
            if path.exists()
            else Config(**PRESETS[preset])
        )
        return cls(dataclasses.replace(found, data_dir=data_dir, strategy=strategy), folder)

    def _load_splits(
        self, dataset: str, test_size: int | None = None, train_size: int | None = None
    ) -> data.Splits:
        """The images that the networks are trained, validated and tested on.

        Raises:
            ConfigError: The data set has fewer images than configured, or does not hold images.
            DatasetNotFoundError: The data set is not there.
        """
        c, source = self.config, self.sources.get(dataset, dataset)
        return datasets.load(
            source,
            c.data_dir,
            image_size=None if source in data.IMAGE_SIZES else c.image_size,
            train_size=c.train_size if train_size is None else train_size,
            validation_size=c.validation_size,
            test_size=c.test_size if test_size is None else test_size,
        )

    def steps(
        self, networks: Iterable[Network], on_trained: Callable[[str], None] = lambda name: None
    ) -> list[Callable[[], Any]]:
        """Steps for `units.shared`, the searches before the trainings.

        Args:
            networks: The networks needed.
            on_trained: Called with the name of each network that this process has trained.
        """
        networks = list(networks)
        missing = [n for n in networks if self.units.read(n.name) is None]
        methods = dict.fromkeys((n.dataset, n.method) for n in missing)
        return [
            *(functools.partial(self.hyperparameters, *method) for method in methods),
            *(functools.partial(self.take, n, on_trained) for n in networks),
        ]

    def take(self, network: Network, on_trained: Callable[[str], None] = lambda name: None) -> None:
        """Trains a network if it is missing and nobody has begun.

        Raises:
            NotYet: Others are training it, or are at the trials that it needs.
        """
        if self.units.read(network.name) is None:
            self.hyperparameters(network.dataset, network.method)
        task = {network.name: functools.partial(self._train, network)}
        self.units.take(task, self._same_hyperparameters, on_trained)

    def load(self, network: Network) -> keras.Model:
        """Returns a trained network; errors are those of `units.load_network`."""
        return units.load_network(self.units.read(network.name), self.path(network))

    def path(self, network: Network) -> pathlib.Path:
        """The file of a trained network."""
        return self.units.path(network.name, ".keras")

    # Hyperparameters.

    def hyperparameters(self, dataset: str, method: str) -> dict[str, float]:
        """A method's hyperparameters, configured or found by the search, including inherited ones.

        Raises:
            NotYet: The search is at trials that others have begun.
        """
        values: dict[str, float] = {}
        for name in lineage(method):
            values |= self.search(dataset, name) if self.config.search else self._given(name)
        return values

    def _search(self, dataset: str, method: str) -> dict[str, float]:
        """Returns the values of the method's own hyperparameters with the best validation score.

        Searches one hyperparameter after the other, with the best values of those before it. Every
        trial is a unit. If the best value is at an end of its grid, the grid is extended.
        """
        best: dict[str, float] = {}
        best_score = -INF
        for key in METHODS[method].hyperparameters:
            grid = self._grid(method, key)
            if not grid:
                continue
            # The value that is given is what the trials before were made with.
            scores = {self._before_search(dataset, method)[key]: best_score} if best else {}
            new = [value for value in grid if value not in scores]
            for _ in range(1 + self.config.search_extensions):
                scores |= self._scores(dataset, method, best, key, new)
                beyond = _beyond(scores, key)
                if beyond is None:
                    break
                new = [beyond]
            value = max(scores, key=scores.__getitem__)
            if scores[value] == -INF:
                raise ConfigError(
                    f"Every trial of {method} on {dataset} diverged; see {self.trials.folder}."
                )
            best, best_score = {**best, key: value}, scores[value]
        return {**self._given(method), **best}

    def _grid(self, method: str, key: str) -> tuple[float, ...]:
        """The values of a hyperparameter that a search tries first."""
        own = METHODS[method].hyperparameters[key].grid
        return self.config.grids.get(f"{method}.{key}", own)

    def _given(self, method: str) -> dict[str, float]:
        """A method's own hyperparameters before a search, without those that it inherits."""
        values = {
            key: self.config.hyperparameters.get(f"{method}.{key}", hyperparameter.value)
            for key, hyperparameter in METHODS[method].hyperparameters.items()
        }
        return {key: value for key, value in values.items() if value is not None}

    def _before_search(self, dataset: str, method: str) -> dict[str, float]:
        """The hyperparameters before the method's own search: inherited or given."""
        parent = METHODS[method].inherits
        inherited = self.hyperparameters(dataset, parent) if parent else {}
        return {**inherited, **self._given(method)}

    def _scores(
        self, dataset: str, method: str, fixed: Values, key: str, values: Iterable[float]
    ) -> dict[float, float]:
        """Value to the score of its trial; minus infinity where training diverged."""
        before = self._before_search(dataset, method)
        tasks, names = {}, {}
        for value in values:
            point = {**fixed, key: value}
            settings = "-".join(f"{k}={v!r}" for k, v in point.items())
            names[value] = f"{dataset}-{method}-{settings}"
            tasks[names[value]] = functools.partial(
                self._trial, names[value], dataset, method, {**before, **point}, point
            )
        found = self.trials.take(tasks)
        window = self.config.search_window
        return {value: _score(found[names[value]], window) for value in values}

    def _trial(self, name, dataset, method, values, point):
        c, network = self.config, Network(dataset, method, self.config.search_seed)
        splits = self.splits(dataset, train_size=c.search_train_size)
        about = {**network._asdict(), "hyperparameters": point}
        return self._training(self.trials, name, network, values, about, splits, c.search_epochs)

    def _same_hyperparameters(self, name: str, unit: dict) -> None:
        """Raises ConfigError unless a unit was trained with the current hyperparameters.

        Those that are searched are not compared: their trials are in the same folder.
        """
        wanted: dict[str, float] = {}
        for method in lineage(unit["method"]):
            for key, value in self._given(method).items():
                if not (self.config.search and self._grid(method, key)):
                    wanted[key] = value
        found = unit["hyperparameters"]
        different = [
            f"{key}: {found[key]:g} there, {value:g} here"
            for key, value in wanted.items()
            if key in found and found[key] != value
        ]
        if different:
            raise ConfigError(
                f"{self.units.path(name)} was trained with other hyperparameters "
                f"({'; '.join(different)}). Choose another --networks_dir or --output_dir."
            )

    # Training.

    def _train(self, network: Network) -> dict:
        values = self.hyperparameters(network.dataset, network.method)
        splits, epochs = self.splits(network.dataset), self.config.epochs
        about = {**network._asdict(), "hyperparameters": values}
        return self._training(self.units, network.name, network, values, about, splits, epochs)

    def _training(
        self, folder: Units, name: str, network: Network, values: Values, about: dict,
        splits: data.Splits, epochs: int,
    ) -> dict:  # fmt: skip
        c, method, seed = self.config, METHODS[network.method], network.seed

        def build():
            with self.strategy.scope():
                return method.build(c, values, splits, seed)

        def prepare():
            trainee = build()
            attack = method.validation_attack(values) if method.validation_attack else None
            validation = data.batches(splits.validation, 500)
            fitted = fitting.Training(
                trainee.model,
                trainee.classifier,
                lambda epoch: fitting.training_data(
                    splits.train, c.batch_size, seed=seed, first_epoch=epoch, draws=trainee.draws
                ),
                fitting.validation_accuracy(trainee.classifier, validation, attack),
                steps_per_epoch=data.steps_per_epoch(splits.train, c.batch_size),
                epochs=epochs,
                patience=c.patience,
                min_epochs=c.min_epochs,
                callbacks=trainee.callbacks,
            )
            return fitted, functools.partial(finish, trainee.classifier)

        def finish(classifier, progress):
            failed = progress.failure is not None
            result = {"validation_accuracy": None if failed else progress.best_score}
            if failed or folder is self.trials:
                return result, {}
            if c.precision != "float32":  # it is kept and tested in float32
                weights = classifier.get_weights()
                classifier = build().classifier
                classifier.set_weights(weights)
            test = data.batches(splits.test, 500)
            result["test_accuracy"] = evaluation.accuracy(classifier, test)
            result["test_images"] = len(splits.test.labels)
            return result, {folder.path(name, ".keras"): classifier}

        return fitting.trained(folder, name, about, prepare, seed=seed, precision=c.precision)


def _score(trial: dict, window: int) -> float:
    """The best mean validation accuracy of successive epochs; -inf where training diverged."""
    if trial["validation_accuracy"] is None:
        return -INF
    accuracies = np.array(trial["history"]["validation_accuracy"])
    window = min(window, len(accuracies))
    return float(np.convolve(accuracies, np.ones(window) / window, mode="valid").max())


def _beyond(scores: dict[float, float], key: str) -> float | None:
    """The next value by the same factor beyond the end of a grid; None where the best is inside."""
    values, best = sorted(scores), max(scores, key=scores.__getitem__)
    if len(values) < 2 or best not in (values[0], values[-1]):
        return None
    neighbour = values[1] if best == values[0] else values[-2]
    if not best or not neighbour:  # from zero there is no factor
        return None
    value = float(f"{best**2 / neighbour:.6g}")
    return None if key == "rate" and value > 0.99 else value
