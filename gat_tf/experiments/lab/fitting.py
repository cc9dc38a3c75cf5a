"""Training to the best validation epoch, which can be killed and resumed at any time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, data, evaluation
from gat_tf._keras import all_layers
from gat_tf.evaluation.accuracy import of_each_image
from gat_tf.experiments.lab import checkpoints, devices, files, monitoring
from gat_tf.experiments.lab.checkpoints import Progress
from gat_tf.experiments.lab.monitoring import duration
from gat_tf.experiments.lab.units import Units, say
from gat_tf.logits import Logits

_REPORT_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Training:
    """A network's training: model, data, validation and stopping.

    Attributes:
        model: Compiled model with built optimisers, around the network.
        network: The trained network inside it, which ends with the weights of the best epoch.
        batches: First epoch -> endless batches for `model.fit`.
        validate: () -> the score of the epoch just done, the larger the better, and validation
            metrics for the history.
        steps_per_epoch: Batches in an epoch.
        epochs: Largest number of epochs.
        patience: Epochs without a better score after which to stop.
        min_epochs: Epochs to train at least, whatever the patience.
        callbacks: Of the training, such as a learning rate's schedule: functions of the epoch.
    """

    model: keras.Model
    network: keras.Model
    batches: Callable[[int], tf.data.Dataset]
    validate: Callable[[], tuple[float, dict[str, float]]]
    steps_per_epoch: int
    epochs: int
    patience: int
    min_epochs: int = 1
    callbacks: Sequence[keras.callbacks.Callback] = ()


Finish: TypeAlias = Callable[[Progress], tuple[dict, dict[pathlib.Path, keras.Model]]]


def trained(
    units: Units,
    name: str,
    about: dict,
    prepare: Callable[[], tuple[Training, Finish]],
    *,
    seed: int,
    precision: str = "float32",
) -> dict:
    """Trains and saves a network, and returns the unit.

    Args:
        units: Where the unit belongs.
        name: Of the unit.
        about: What it is: data set, method, digests of the networks that it depends on and so on.
        prepare: () -> the training, and a function to call after it: progress -> further results,
            and the networks to save by file. The first is called under the seed and the precision,
            the second in float32, whatever the precision.
        seed: Of weights and dropout.
        precision: Keras dtype policy of the training.
    """
    keras.utils.set_random_seed(seed)
    title = " ".join(str(value) for value in about.values() if not isinstance(value, dict))
    folder = units.path(name, ".checkpoints")
    events = units.folder.parent / "tensorboard" / units.folder.name / name
    with dtype_policy(precision):
        training, finish = prepare()
        report = lambda line: say(f"{title}: {line}")  # noqa: E731
        progress = fit_to_best(training, about, seed, folder, report, events)
    with dtype_policy("float32"):
        more, networks = finish(progress)
    for path, network in networks.items() if devices.is_chief() else ():
        with files.replacing(path) as temporary:
            files.require_space(path.parent, checkpoints.size(network))
            network.save(temporary)
    keras.backend.clear_session()
    return {
        **about,
        "precision": precision,
        **more,
        "status": "done" if progress.failure is None else "failed",
        "reason": progress.failure,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epochs,
        "seconds_per_epoch": progress.seconds_per_epoch,
        "train_seconds": round(sum(progress.seconds), 1),
        "history": {  # as JSON can hold it
            name: [v if math.isfinite(v) else None for v in values]
            for name, values in progress.history.items()
        },
        "environment": progress.environments[-1],
        "earlier_environments": progress.environments[:-1],
    }


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Within it, networks are built with this Keras dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fit_to_best(
    training: Training,
    about: dict,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[str], None],
    events: pathlib.Path | None = None,
) -> Progress:
    """Trains, and leaves the weights of the best validation epoch in the network.

    All random state is a function of (seed, epoch), and a checkpoint is written after every epoch.
    So a run that is killed and resumed ends with the same weights as an uninterrupted one.

    Args:
        training: The training to run.
        about: What is trained, as JSON can hold it. A checkpoint of anything else is removed.
        seed: Of dropout.
        folder: Folder of the checkpoints, which the caller removes afterwards.
        report: Prints a line.
        events: Folder of the events for TensorBoard, if they are wanted.
    """
    # Every worker has to take part in saving. What the others write is theirs alone, because the
    # chief removes the shared folder when it has done with it.
    own = contextlib.nullcontext(folder) if devices.is_chief() else tempfile.TemporaryDirectory()
    with own as own_folder:
        watch = _Watch(training, about, seed, pathlib.Path(own_folder), folder, report)
        watch.set_model(training.model)
        watch.restore()
        progress = watch.progress
        if not watch.finished:
            epochs_left = training.epochs - progress.epochs
            shown = monitoring.callbacks(events, epochs_left * training.steps_per_epoch)
            training.model.fit(
                training.batches(progress.epochs),
                epochs=training.epochs,
                initial_epoch=progress.epochs,
                steps_per_epoch=training.steps_per_epoch,
                callbacks=[watch, *training.callbacks, *shown],
                shuffle=False,  # the data set does
                verbose=0,
            )
        if progress.best_epoch:
            training.network.load_weights(watch.best_path)
    return progress


def validation_accuracy(
    classifier: keras.Model, dataset: tf.data.Dataset, attack: attacks.Attack | None = None
) -> Callable[[], tuple[float, dict[str, float]]]:
    """The validation of `fit_to_best` by accuracy, clean or under attack; compiled once."""
    correct = evaluation.correct_function(
        Logits(classifier), attack, dataset.element_spec, finite=False
    )

    def validate():
        accuracy = float(np.mean(of_each_image(correct, dataset, attack)))
        return accuracy, {"validation_accuracy": accuracy}

    return validate


def training_data(
    split: data.Split,
    batch_size: int,
    *,
    seed: int,
    first_epoch: int,
    draws: int = 0,
    augment: Callable | None = None,
) -> tf.data.Dataset:
    """Endless shuffled minibatches for `fit_to_best`, from `first_epoch` on.

    Args:
        split: Images and labels.
        batch_size: Number of images per step, over all devices.
        seed: Of the orders.
        first_epoch: Epoch to begin with.
        draws: Number of minibatches that GAT's generator needs for itself in each step.
        augment: Of `data.shuffled_batches`.
    """

    def batches(stream):
        order = {"seed": seed + stream * 2**20, "first_epoch": first_epoch}
        return data.shuffled_batches(split, batch_size, **order, augment=augment)

    dataset = batches(0)
    if draws:
        # Passes over the data in orders of their own: independent of the classifier's.
        others = tuple(batches(stream) for stream in range(1, draws + 1))
        dataset = tf.data.Dataset.zip(dataset, others)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


class _Watch(keras.callbacks.Callback):
    def __init__(
        self,
        training: Training,
        about: dict,
        seed: int,
        folder: pathlib.Path,
        shared_folder: pathlib.Path,
        report: Callable[[str], None],
    ):
        super().__init__()
        self.training = training
        self.about = about
        self.seed = seed
        self.folder = folder
        self.shared_folder = shared_folder
        self.report = report
        self.progress = Progress()
        self._last_report = -math.inf

    @property
    def best_path(self) -> pathlib.Path:
        return self.folder / self.progress.best_file

    @property
    def finished(self) -> bool:
        p, t = self.progress, self.training
        waited = p.epochs - p.best_epoch if p.best_epoch else 0
        impatient = waited >= t.patience and p.epochs >= t.min_epochs
        return p.failure is not None or p.epochs >= t.epochs or impatient

    def restore(self) -> None:
        """Continues from the last checkpoint that is intact and of this, or from the beginning."""
        found = checkpoints.last(self.shared_folder, self.about, self.report)
        if found is not None:
            checkpoint, self.progress = found
            self.model.load_weights(checkpoint / checkpoints.WEIGHTS)
            if self.folder != self.shared_folder and self.progress.best_epoch:
                shutil.copy(self.shared_folder / self.best_path.name, self.best_path)
        environment = devices.environment()
        if self.progress.environments[-1:] != [environment]:
            self.progress.environments.append(environment)

    def on_epoch_begin(self, epoch, logs=None):
        _reseed(self.training.network, self.seed, epoch)
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        p = self.progress
        p.seconds.append(round(time.perf_counter() - self._started, 4))
        p.epochs = epoch + 1
        score, metrics = self.training.validate()
        for name, value in {**logs, **metrics}.items():
            p.history.setdefault(name, []).append(float(f"{float(value):.6g}"))
        if not math.isfinite(float(logs["loss"])):
            p.failure = f"The loss became {float(logs['loss'])} in epoch {p.epochs}."
        elif not math.isfinite(score):
            p.failure = f"The validation score became {score} in epoch {p.epochs}."
        elif score > p.best_score:
            p.best_score, p.best_epoch = score, p.epochs
            with files.replacing(self.best_path) as path:
                files.require_space(self.folder, checkpoints.size(self.training.network))
                self.training.network.save_weights(path)
        checkpoints.save(self.model, self.folder, self.about, p)
        self.model.stop_training = self.finished
        logs.update(metrics)  # for TensorBoard and the bar, which come after
        self._report(metrics)

    def _report(self, metrics):
        now = time.monotonic()
        often = now - self._last_report < _REPORT_SECONDS or monitoring.in_terminal()
        if often and not self.finished:  # in a terminal there is a bar instead
            return
        self._last_report = now
        p = self.progress
        epochs = self.training.epochs
        left = (epochs - p.epochs) * p.seconds_per_epoch
        first_stop = max(p.best_epoch + self.training.patience, self.training.min_epochs)
        until_patience = (first_stop - p.epochs) * p.seconds_per_epoch
        soonest, latest = duration(min(left, until_patience)), duration(left)
        time_left = f"{latest} left" if soonest == latest else f"{soonest} to {latest} left"
        outcome = p.failure or ("done" if self.finished else time_left)
        described = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.items())
        self.report(
            f"epoch {p.epochs}/{epochs}, {described} (best epoch {p.best_epoch}), "
            f"{p.seconds_per_epoch:.1f} s/epoch, {outcome}"
        )


def _reseed(network: keras.Model, seed: int, epoch: int) -> None:
    """Gives every dropout layer a state that depends only on (seed, epoch, layer)."""
    for i, layer in enumerate(all_layers(network)):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, i]).generate_state(2)
            generator.state.assign(state)
