"""Training to the best validation epoch, in a way that can be killed and resumed at any moment."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from gat_tf import evaluation
from gat_tf.experiments import devices, files
from gat_tf.logits import Logits

_REPORT_SECONDS = 10


@dataclasses.dataclass
class Progress:
    """What a training has come to; kept beside the weights in every checkpoint.

    Attributes:
        epochs: Epochs done.
        best_epoch: The one with the highest validation accuracy, counted from 1; the first of
            several. 0 before the first.
        best_accuracy: Its clean validation accuracy.
        seconds: Training time of each epoch, without validation.
        history: Metrics of each epoch, name to list.
        failure: Why the training was ended before its time, or None.
    """

    epochs: int = 0
    best_epoch: int = 0
    best_accuracy: float = -math.inf
    seconds: list[float] = dataclasses.field(default_factory=list)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failure: str | None = None

    @property
    def seconds_per_epoch(self) -> float:
        """The median, without the first epoch, which also compiles."""
        return statistics.median(self.seconds[1:] or self.seconds or [0.0])


def fit_to_best(
    model: keras.Model,
    classifier: keras.Model,
    dataset: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset,
    *,
    steps_per_epoch: int,
    epochs: int,
    patience: int,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[str], None],
) -> Progress:
    """Trains, and leaves the weights of the best validation epoch in the classifier.

    The state of everything random is a function of (seed, epoch), and a checkpoint is written
    after every epoch, so that a run that was killed ends with the weights it would have had.

    Args:
        model: Compiled model with built optimisers, around the classifier.
        classifier: The classifier that is trained in it.
        dataset: First epoch -> endless batches for `model.fit`.
        validation: (images, labels) batches.
        steps_per_epoch: Batches in an epoch.
        epochs: How many at most.
        patience: Epochs without a better validation accuracy after which to stop.
        seed: Of dropout.
        folder: Where the checkpoints are; removed by the caller when it has what it needs.
        report: Prints a line.
    """
    watch = _Watch(classifier, validation, epochs, patience, seed, folder, report)
    watch.set_model(model)
    watch.restore()
    progress = watch.progress
    if not watch.finished:
        model.fit(
            dataset(progress.epochs),
            epochs=epochs,
            initial_epoch=progress.epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=[watch],
            shuffle=False,  # the data set does
            verbose=0,
        )
    if progress.best_epoch:
        classifier.load_weights(watch.best_path)
    return progress


class _Watch(keras.callbacks.Callback):
    def __init__(self, classifier, validation, epochs, patience, seed, folder, report):
        super().__init__()
        self.classifier = classifier
        self.validation = validation
        self.epochs = epochs
        self.patience = patience
        self.seed = seed
        # Every worker has to take part in saving; what the others write is theirs alone, because
        # the chief removes the folder when it has done with it.
        self.shared_folder = folder
        self.folder = folder if devices.is_chief() else pathlib.Path(tempfile.mkdtemp())
        self.report = report
        self.progress = Progress()
        self._correct = evaluation.correct_function(
            Logits(classifier), None, validation.element_spec
        )
        self._last_report = -math.inf

    @property
    def best_path(self) -> pathlib.Path:
        return self.folder / f"best-{self.progress.best_epoch:04d}.weights.h5"

    @property
    def finished(self) -> bool:
        p = self.progress
        waited = p.epochs - p.best_epoch if p.best_epoch else 0
        return p.failure is not None or p.epochs >= self.epochs or waited >= self.patience

    def restore(self) -> None:
        checkpoints = sorted(self.shared_folder.glob("checkpoint-*"))
        if checkpoints:
            state = files.read_json(checkpoints[-1] / "progress.json")
            self.progress = Progress(**state)
            self.model.load_weights(checkpoints[-1] / "model.weights.h5")
            if self.folder != self.shared_folder and self.progress.best_epoch:
                shutil.copy(self.shared_folder / self.best_path.name, self.best_path)

    def on_epoch_begin(self, epoch, logs=None):
        _reseed(self.classifier, self.seed, epoch)
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        p = self.progress
        p.seconds.append(round(time.perf_counter() - self._started, 4))
        p.epochs = epoch + 1
        accuracy = self._validation_accuracy()
        for name, value in {**logs, "validation_accuracy": accuracy}.items():
            p.history.setdefault(name, []).append(float(f"{float(value):.6g}"))
        if not math.isfinite(float(logs["loss"])):
            p.failure = f"The loss became {float(logs['loss'])} in epoch {p.epochs}."
        elif accuracy > p.best_accuracy:
            p.best_accuracy, p.best_epoch = accuracy, p.epochs
            with files.replacing(self.folder / f"best-{p.epochs:04d}.weights.h5") as path:
                self.classifier.save_weights(path)
        self._save()
        self.model.stop_training = self.finished
        self._report()

    def _validation_accuracy(self) -> float:
        seed = tf.constant([0, 0])  # nothing is random without an attack
        flags = [self._correct(x, y, seed).numpy() for x, y in self.validation]
        return float(np.mean(np.concatenate(flags)))

    def _save(self):
        p = self.progress
        with files.replacing(self.folder / f"checkpoint-{p.epochs:04d}") as folder:
            folder.mkdir()
            self.model.save_weights(folder / "model.weights.h5")
            files.write_json(folder / "progress.json", dataclasses.asdict(p))
        # Only now can what came before go.
        for path in self.folder.glob("checkpoint-*"):
            if path.name != f"checkpoint-{p.epochs:04d}":
                files.remove(path)
        for path in self.folder.glob("best-*"):
            if path.name != f"best-{p.best_epoch:04d}.weights.h5":
                files.remove(path)

    def _report(self):
        now = time.monotonic()
        if now - self._last_report < _REPORT_SECONDS and not self.finished:
            return
        self._last_report = now
        p = self.progress
        left = (self.epochs - p.epochs) * p.seconds_per_epoch
        until_patience = (self.patience - (p.epochs - p.best_epoch)) * p.seconds_per_epoch
        time_left = (
            "done" if self.finished else f"{_time(min(left, until_patience))} to {_time(left)} left"
        )
        self.report(
            f"epoch {p.epochs}/{self.epochs}, validation accuracy "
            f"{p.history['validation_accuracy'][-1]:.2%} (best {p.best_accuracy:.2%} at "
            f"{p.best_epoch}), {p.seconds_per_epoch:.1f} s/epoch, {p.failure or time_left}"
        )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _reseed(classifier: keras.Model, seed: int, epoch: int) -> None:
    """Gives every dropout layer a state that depends on (seed, epoch, layer) alone."""
    for i, layer in enumerate(classifier._flatten_layers()):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, i]).generate_state(2)
            generator.state.assign(state)
