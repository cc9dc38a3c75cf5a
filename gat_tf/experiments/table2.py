"""Table 2 of the GAT paper: does adversarial training with GAT regularise best?

    python -m gat_tf.experiments.table2 --preset=quick              # built-in images, minutes
    python -m gat_tf.experiments.table2 --dataset=cifar10 --data_dir=...      # the paper's

The paper's claim: over 50 initialisations, GAT raises the test accuracy of a small network from
77.48 to 80.33 % on CIFAR-10 and from 44.32 to 50.44 % on CIFAR-100, more than dropout, random
perturbation and fast-gradient adversarial training do.

A unit of work is one data set, method and seed: a file in `units/`, with the trained classifier
beside it. Runs that share a folder share the work; a run that was stopped continues.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, data, evaluation, models, training
from gat_tf.experiments import config as configs
from gat_tf.experiments import devices, files, fitting
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.reports import common as reports
from gat_tf.experiments.reports import table2 as report
from gat_tf.training.scheme import ADAM_EPSILON, MultiWorker, xla_by_default

INF = float("inf")


_LINF_GRID = tuple(n / 255 for n in (0.5, 1, 2, 4, 8, 16))
_L2_GRID = tuple(e * 3072**0.5 for e in _LINF_GRID)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of Table 2; the defaults are the paper's, or ours where the paper has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks, data and length",
        "full": "the paper's networks and data, three seeds; days on two cores with bfloat16",
        "reduced": "5,000 training images and networks of a third of the width, hours on two cores",
        "quick": "built-in images and small networks, minutes on two cores",
    }

    datasets: tuple[str, ...] = option(("cifar10", "cifar100"), "Data sets (paper).", shard=True)
    methods: tuple[str, ...] = option(tuple(METHODS), "Rows of the table (paper).", shard=True)
    seeds: tuple[int, ...] = option(
        tuple(range(50)), "Seeds, as in 0,1,2 or 0:50. 50 in the paper.", shard=True
    )
    data_dir: str | None = option(None, "Folder of TensorFlow Datasets.", shard=True)
    strategy: str = option(
        "mirrored", f"tf.distribute strategy, one of {devices.STRATEGIES}.", shard=True
    )
    train_size: int | None = option(None, "Training images; none is all 45,000 (paper).")
    validation_size: int | None = option(None, "Validation images; none is all 5,000 (paper).")
    test_size: int | None = option(None, "Test images; none is all 10,000 (paper).")
    width: float = option(1.0, "Factor on the filters of both networks; 1 is Table 1 (paper).")
    batch_size: int = option(128, "Images a step, over all devices (ours).")
    epochs: int = option(200, "Epochs at most (ours).")
    patience: int = option(20, "Epochs without a better validation accuracy to stop after (ours).")
    min_epochs: int = option(1, "Epochs to train at least, whatever the patience (ours).", before=1)
    learning_rate: float = option(1e-3, "Of the classifier's Adam (paper).")
    generator_learning_rate: float = option(1e-6, "Of the generator's Adam (paper).")
    alpha: float = option(0.5, "Weight of the clean loss in eqs. 2, 4 and 10 (paper).")
    generator_steps: int = option(1, "k of Algorithm 1 (paper).")
    minibatches: str = option(
        "separate", f"How GAT takes minibatches, one of {training.gat.MINIBATCHES} (paper)."
    )
    precision: str = option(
        "float32",
        "Keras dtype policy of the training; auto is mixed_bfloat16 on a CPU that computes in "
        "bfloat16 and float32 elsewhere (ours).",
    )
    jit_compile: bool | None = option(None, "XLA; none decides by the device (ours).", shard=True)
    # The reduced record's search has found these.
    dropout: float = option(0.1, "Dropout's rate after each stride-2 convolution (ours).")
    random_epsilon: float = option(1 / 255, "ε of random perturbation's ±ε noise (ours).")
    fg_linf_epsilon: float = option(1 / 255, "ε of FG training, L∞ (ours).")
    fg_l2_epsilon: float = option(1 / 255 * 3072**0.5, "ε of FG training, L2 (ours).")
    c_g: float = option(0.3, "Weight of the power in eq. 9 (ours).")
    dropout_gat_dropout: float = option(0.1, "Rate of Dropout + GAT (ours).")
    dropout_gat_c_g: float | None = option(
        None, "c_g of Dropout + GAT; none is GAT's (ours).", before=None
    )
    search: bool = option(False, "Pick each method's hyperparameters on the validation set.")
    search_epochs: int = option(200, "Epochs of a trial at most (ours).")
    search_seed: int = option(1000, "Seed of the trials (ours).")
    search_train_size: int | None = option(
        None, "Training images of a trial; none is all (ours).", before=None
    )
    search_window: int = option(
        5,
        "A trial's score is its best mean validation accuracy over this many successive epochs "
        "(ours).",
        before=1,
    )
    search_extensions: int = option(
        2, "Further values tried beyond a grid whose best value is its last (ours).", before=0
    )
    dropout_grid: tuple[float, ...] = option((0.1, 0.2, 0.3, 0.4, 0.5), "Rates tried (ours).")
    dropout_gat_dropout_grid: tuple[float, ...] | None = option(
        None, "Rates of Dropout + GAT tried; none is dropout's (ours).", before=None
    )
    random_epsilon_grid: tuple[float, ...] | None = option(
        tuple(n / 255 for n in (2, 4, 8, 16, 32, 64)),
        "ε of random perturbation tried; none is the L∞ grid (ours).",
        before=None,
    )
    linf_epsilon_grid: tuple[float, ...] = option(_LINF_GRID, "L∞ ε tried (ours).")
    l2_epsilon_grid: tuple[float, ...] = option(_L2_GRID, "L2 ε tried (ours).")
    c_g_grid: tuple[float, ...] = option((0.01, 0.03, 0.1, 0.3, 1, 3, 10), "c_g tried (ours).")
    generator_learning_rate_grid: tuple[float, ...] = option(
        (1e-6, 1e-5, 1e-4, 1e-3), "Of the generator's Adam, tried at the best c_g (ours)."
    )
    dropout_gat_c_g_grid: tuple[float, ...] = option(
        (), "c_g of Dropout + GAT, tried at the best rate (ours).", before=()
    )

    def __post_init__(self):
        configs.require_known("data set", self.datasets, data.IMAGE_SIZES)
        configs.require_known("method", self.methods, METHODS)
        configs.require_known("strategy", [self.strategy], devices.STRATEGIES)
        configs.require_known("minibatches", [self.minibatches], training.gat.MINIBATCHES)
        configs.require_seeds(self.seeds)
        configs.require_seeds((self.search_seed,))
        if self.search:
            for method in self.methods:
                if METHODS[method].searched:
                    first = next(iter(METHODS[method].searched))
                    if not self.grid(method, first):
                        raise ConfigError(
                            f"Expected at least one value in {METHODS[method].searched[first]}. "
                            "Received: none"
                        )
        try:
            keras.dtype_policies.get(devices.precision(self.precision))
        except ValueError as error:
            raise ConfigError(
                f"Expected precision to be a Keras dtype policy, such as mixed_bfloat16. "
                f"Received: {self.precision}"
            ) from error
        configs.require_range(
            self,
            ("alpha", 0, 1),
            ("dropout", 0, 0.99),
            ("dropout_gat_dropout", 0, 0.99),
            ("dropout_grid", 0, 0.99),
            ("random_epsilon", 0, INF),
            ("fg_linf_epsilon", 0, INF),
            ("fg_l2_epsilon", 0, INF),
            ("linf_epsilon_grid", 0, INF),
            ("l2_epsilon_grid", 0, INF),
            ("c_g", 0, INF),
            ("c_g_grid", 0, INF),
            ("generator_learning_rate_grid", 0, INF),
            ("width", 1e-9, INF),
            ("learning_rate", 0, INF),
            ("generator_learning_rate", 0, INF),
            ("batch_size", 1, INF),
            ("epochs", 1, 9999),
            ("search_epochs", 1, 9999),
            ("search_window", 1, INF),
            ("search_extensions", 0, INF),
            ("patience", 1, INF),
            ("min_epochs", 1, INF),
            ("generator_steps", 1, INF),
        )
        for name, high in (
            ("dropout_gat_c_g", INF),
            ("dropout_gat_c_g_grid", INF),
            ("dropout_gat_dropout_grid", 0.99),
            ("random_epsilon_grid", INF),
        ):
            if getattr(self, name) is not None:
                configs.require_range(self, (name, 0, high))

    def grid(self, method: str, hyperparameter: str) -> tuple[float, ...]:
        """The values of a method's hyperparameter that its search tries first."""
        alternatives = {
            "dropout_gat_dropout_grid": self.dropout_grid,
            "random_epsilon_grid": self.linf_epsilon_grid,
        }
        name = METHODS[method].searched[hyperparameter]
        values = getattr(self, name)
        return alternatives[name] if values is None else values


PRESETS = {
    "paper": Config(),
    "full": Config(
        seeds=(0, 1, 2),
        epochs=150,
        patience=10,
        min_epochs=20,
        # At the paper's 1e-6 as many epochs are too few for the generator to learn.
        generator_learning_rate=1e-4,
        minibatches="shared",
        precision="auto",
        search=True,
        search_epochs=150,
        # The full-size networks overfit them much, at a fifth of the time.
        search_train_size=10_000,
        # Six trials for every method.
        dropout_grid=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
        c_g_grid=(0.3, 1, 3),
        dropout_gat_dropout_grid=(0.05, 0.1, 0.2, 0.3),
        dropout_gat_c_g_grid=(0.3, 1, 3),
    ),
    "reduced": Config(
        datasets=("cifar10",),
        seeds=(0, 1, 2),
        train_size=5_000,
        validation_size=2_000,
        width=1 / 3,
        batch_size=32,
        epochs=120,
        patience=15,
        # At the paper's 1e-6 the generator hardly moves within so few steps.
        generator_learning_rate=1e-4,
        minibatches="shared",
        # Where no search has been yet.
        dropout=0.2,
        random_epsilon=4 / 255,
        fg_l2_epsilon=2 / 255 * 3072**0.5,
        c_g=0.1,
        dropout_gat_dropout=0.2,
        search=True,
        search_epochs=40,
        dropout_grid=(0.1, 0.3),
        linf_epsilon_grid=(1 / 255, 4 / 255, 16 / 255),
        l2_epsilon_grid=tuple(n / 255 * 3072**0.5 for n in (1, 2, 4)),
        c_g_grid=(0.03, 0.1, 0.3),
        generator_learning_rate_grid=(1e-4,),
    ),
    "quick": Config(
        datasets=("shapes",),
        seeds=(0,),
        width=1 / 3,
        batch_size=25,
        epochs=20,
        patience=20,
        learning_rate=2e-3,
        generator_learning_rate=1e-4,
        minibatches="shared",
        c_g=0.1,
        # More of it keeps so small a network from starting to learn within these epochs.
        dropout=0.05,
        dropout_gat_dropout=0.05,
        search_epochs=20,
    ),
}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of the table, and returns and writes its results.

    Args:
        config: Settings. Its methods, data sets and seeds choose the units to compute; the
            results are those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    config = dataclasses.replace(config, precision=_precision(config, output_dir))
    configs.claim_folder("table2", config, output_dir)
    strategy = devices.strategy(config.strategy)
    policy = keras.config.dtype_policy()
    try:
        for dataset in config.datasets:
            _run_dataset(_Runner(config, output_dir, strategy, dataset))
    finally:
        keras.config.set_dtype_policy(policy)
    return write_results(config, output_dir, time.time() - started)


def _precision(config: Config, output_dir: pathlib.Path) -> str:
    """The precision that `auto` comes to: the folder's, or what suits this machine."""
    if config.precision != "auto":
        return config.precision
    path = output_dir / "config.json"
    found = path.exists() and files.read_json(path).get("precision")
    precision = found or devices.precision("auto")
    print(f"Precision: {precision}{' as the folder has it' if found else ''}.", flush=True)
    return precision


def _run_dataset(runner: _Runner) -> None:
    config = runner.config
    for method in config.methods:
        if config.search:
            runner.search(method)
    units = [(seed, method) for seed in config.seeds for method in config.methods]
    for i, (seed, method) in enumerate(units, start=1):
        if runner.unit(method, seed, f"unit {i} of {len(units)}"):
            print(
                report.markdown(reports.read_all(runner.output_dir / "units")),
                flush=True,
            )


def load_splits(config: Config, dataset: str) -> data.Splits:
    """The images of one data set, as many as the configuration wants.

    Raises:
        ConfigError: It does not have so many.
        DatasetNotFoundError: It is not there.
    """
    try:
        return data.load(
            dataset,
            config.data_dir,
            train_size=config.train_size,
            validation_size=config.validation_size,
            test_size=config.test_size,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def unit_path(output_dir: pathlib.Path, dataset: str, method: str, seed: int) -> pathlib.Path:
    """The results of one unit; the classifier is beside them, as `.keras`."""
    return output_dir / "units" / f"{dataset}-{method}-seed{seed}.json"


class _Runner:
    """Computes the units of one data set."""

    def __init__(self, config, output_dir, strategy, dataset):
        self.config = config
        self.output_dir = output_dir
        self.strategy = strategy
        self.dataset = dataset
        self._splits = None

    @property
    def splits(self) -> data.Splits:
        if self._splits is None:  # a run that has nothing to compute needs no data
            self._splits = load_splits(self.config, self.dataset)
        return self._splits

    @functools.cached_property
    def search_splits(self) -> data.Splits:
        """The images of the trials."""
        if self.config.search_train_size is None:
            return self.splits
        config = dataclasses.replace(self.config, train_size=self.config.search_train_size)
        return load_splits(config, self.dataset)

    def unit(self, method: str, seed: int, position: str) -> bool:
        """Computes one unit, unless it is there; returns whether it was computed."""
        path = unit_path(self.output_dir, self.dataset, method, seed)
        if path.exists():
            files.read_json(path)  # a broken one is found now, not when all is done
            return False
        hyperparameters = self.hyperparameters(method)
        self._train(path, method, seed, hyperparameters, self.config.epochs, position, test=True)
        return True

    def hyperparameters(self, method: str) -> dict[str, float]:
        """What the method needs of the configuration, or what its search has found."""
        if self.config.search:
            return {name: value for m in _lineage(method) for name, value in self.search(m).items()}
        values = {name: getattr(self.config, name) for name in _needed(method)}
        return {name: value for name, value in values.items() if value is not None}

    def search(self, method: str) -> dict[str, float]:
        """Returns the values of the method's hyperparameters with the best validation score.

        One hyperparameter after the other, each at the best of those before it. Every trial is a
        unit of its own in `search/`, and is not computed twice.
        """
        best, best_score = {}, -1.0
        for name in METHODS[method].searched:
            before = best
            own = self._own_value(method, name)
            values = list(self.config.grid(method, name))
            # The configuration's own value is what the trials before were made with.
            tried = {own: best_score} if before else {}
            remaining = [value for value in values if value not in tried]
            extensions = 0
            while remaining:
                value = remaining.pop(0)
                point = {**before, name: value}
                score = self._trial(method, point, f"{len(remaining)} more of this grid")
                tried[value] = -1.0 if score is None else score
                if tried[value] > best_score:
                    best, best_score = point, tried[value]
                if not remaining and best and extensions < self.config.search_extensions:
                    beyond = _beyond(sorted(tried), best.get(name, own))
                    remaining += [] if beyond is None else [beyond]
                    extensions += 1
            if not best:
                raise ConfigError(
                    f"Every trial of {method} on {self.dataset} diverged; see search/."
                )
        return {name: self._own_value(method, name) for name in METHODS[method].searched} | best

    def _own_value(self, method: str, name: str) -> float:
        """A hyperparameter's value before its own search."""
        value = getattr(self.config, name)
        if value is None:  # dropout_gat_c_g: that of GAT
            value = self.search("gat")["c_g"]
        return value

    def _trial(self, method: str, point: dict[str, float], position: str) -> float | None:
        """The validation accuracy at one point of the grid; None where training diverges."""
        settings = "-".join(f"{name}={value!r}" for name, value in point.items())
        path = self.output_dir / "search" / f"{self.dataset}-{method}-{settings}.json"
        if path.exists():
            return _score(files.read_json(path), self.config.search_window)
        after = METHODS[method].after
        given = {**(self.search(after) if after else {}), **point}
        epochs, seed = self.config.search_epochs, self.config.search_seed
        trial = self._train(
            path, method, seed, given, epochs, f"{position}, {settings}", test=False
        )
        return _score(trial, self.config.search_window)

    def _train(self, path, method, seed, hyperparameters, epochs, position, *, test) -> dict:
        def say(line):
            if devices.is_chief():
                print(f"{self.dataset} {method} seed {seed} ({position}): {line}", flush=True)

        config = dataclasses.replace(self.config, **hyperparameters)
        splits = self.splits if test else self.search_splits
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(config.precision)  # clear_session below forgets it
        with self.strategy.scope():
            model, classifier, draws = build(config, method, splits.num_classes, seed)
        checkpoints = path.with_suffix(".checkpoints")
        progress = fitting.fit_to_best(
            model,
            classifier,
            lambda epoch: fitting.training_data(
                splits.train, config.batch_size, seed=seed, first_epoch=epoch, draws=draws
            ),
            fitting.validation_accuracy(classifier, data.batches(splits.validation, 500)),
            steps_per_epoch=data.steps_per_epoch(splits.train, config.batch_size),
            epochs=epochs,
            patience=config.patience,
            min_epochs=config.min_epochs,
            seed=seed,
            folder=checkpoints,
            report=say,
        )
        failed = progress.failure is not None
        result = {
            "dataset": self.dataset,
            "method": method,
            "seed": seed,
            "hyperparameters": hyperparameters,
            "precision": config.precision,
            "validation_accuracy": None if failed else progress.best_score,
            **fitting.outcome(progress),
        }
        networks = {}
        if test and not failed:
            classifier = self._float32(classifier, config, method)
            test_data = data.batches(splits.test, 500)
            result["test_accuracy"] = evaluation.accuracy(classifier, test_data)
            networks = {path.with_suffix(".keras"): classifier}
        fitting.keep(path, result, networks)
        return result

    def _float32(self, classifier, config, method) -> keras.Model:
        """The classifier as it is kept and tested: in float32, whatever it was trained in."""
        if config.precision == "float32":
            return classifier
        keras.config.set_dtype_policy("float32")
        with self.strategy.scope():
            _, kept, _ = build(config, method, self.splits.num_classes, seed=0)
        kept.set_weights(classifier.get_weights())
        return kept


def _score(trial: dict, window: int) -> float | None:
    """The best mean validation accuracy of successive epochs; None where training diverged."""
    if trial["validation_accuracy"] is None:
        return None
    accuracies = np.array(trial["history"]["validation_accuracy"])
    window = min(window, len(accuracies))
    return float(np.convolve(accuracies, np.ones(window) / window, mode="valid").max())


def _beyond(values: list[float], best: float) -> float | None:
    """The next value by the same factor beyond the end of a grid; None where the best is inside."""
    if len(values) < 2 or best not in (values[0], values[-1]):
        return None
    neighbour = values[1] if best == values[0] else values[-2]
    value = best * best / neighbour
    return float(f"{value:.6g}")


class CleanTraining(MultiWorker, keras.Model):
    """Keras's own training, on the logits."""


def build(
    config: Config, method: str, num_classes: int, seed: int
) -> tuple[keras.Model, keras.Model, int]:
    """Returns a method's model, compiled and built, ready for `fit`.

    Args:
        config: Settings, with the method's hyperparameters.
        method: A key of `METHODS`.
        num_classes: Of the data set.
        seed: Of the attack's random choices.

    Returns:
        The model to fit, the classifier inside it, and how many minibatches of its own the
        generator needs each step.
    """
    rates = {"dropout": config.dropout, "dropout_gat": config.dropout_gat_dropout}
    classifier = models.classifier(num_classes, dropout=rates.get(method, 0.0), width=config.width)
    optimizer = keras.optimizers.Adam(config.learning_rate, epsilon=ADAM_EPSILON)
    if method in ("baseline", "dropout"):
        logits = CleanTraining(classifier.input, classifier.get_layer("logits").output)
        logits.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="clean_accuracy")],
            jit_compile=config.jit_compile if config.jit_compile is not None else xla_by_default(),
        )
        shape = classifier.input_shape[1:]
        logits._symbolic_build(data_batch=(tf.zeros([1, *shape]), tf.zeros([1], tf.int64)))
        return logits, classifier, 0
    jit_compile = "auto" if config.jit_compile is None else config.jit_compile
    if method in ("gat", "dropout_gat"):
        generator = models.perturbation_generator(width=config.width)
        own_c_g = config.dropout_gat_c_g if method == "dropout_gat" else None
        c_g = config.c_g if own_c_g is None else own_c_g
        gat = training.GAT(
            classifier,
            generator,
            c_g,
            config.alpha,
            config.generator_steps,
            config.minibatches,
            seed=seed,
        )
        gat.compile(
            optimizer,
            keras.optimizers.Adam(config.generator_learning_rate, epsilon=ADAM_EPSILON),
            jit_compile=jit_compile,
        )
        return gat, classifier, config.generator_steps if config.minibatches == "separate" else 0
    # The paper's equations do not clip.
    attack = {
        "random": lambda: attacks.RandomPerturbation(config.random_epsilon, INF, clip=None),
        "fg_linf": lambda: attacks.FastGradient(config.fg_linf_epsilon, INF, clip=None),
        "fg_l2": lambda: attacks.FastGradient(config.fg_l2_epsilon, 2, clip=None),
    }[method]()
    scheme = training.AdversarialTraining(classifier, attack, config.alpha, seed=seed)
    scheme.compile(optimizer, jit_compile=jit_compile)
    return scheme, classifier, 0


def _lineage(method: str) -> list[str]:
    after = METHODS[method].after
    return [*(_lineage(after) if after else []), method]


def _needed(method: str) -> list[str]:
    return [name for m in _lineage(method) for name in METHODS[m].searched]


def write_results(config: Config, output_dir: pathlib.Path, wall_seconds: float) -> dict:
    """Merges the units of a folder into `results.json`, `table2.md` and the figures."""
    units = reports.read_all(output_dir / "units")
    results = {
        "experiment": "table2",
        "config": configs.identity(config),
        "wall_seconds": wall_seconds,
        "summary": report.summarise(units),
        "units": units,
        "trials": reports.read_all(output_dir / "search"),
    }
    drawn = report.figures() if any(u["status"] == "done" for u in units) else {}
    return reports.write(results, output_dir, report.markdown(units), drawn)


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "table2")
