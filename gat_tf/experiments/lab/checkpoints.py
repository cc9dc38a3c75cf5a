"""Checkpoints of a training: the progress, and the weights of the last and of the best epoch."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Callable

import keras

from gat_tf.experiments.lab import devices, files
from gat_tf.experiments.lab.units import digest

WEIGHTS = "model.weights.h5"
_KEPT = 2  # the older serves where the newer is damaged


@dataclasses.dataclass
class Progress:
    """The progress of a training; stored beside the weights in every checkpoint.

    Attributes:
        epochs: Epochs done.
        best_epoch: The one with the best validation score, counted from 1; the first of several.
            0 before the first.
        best_score: Its score, the larger the better.
        seconds: Training time of each epoch, without validation.
        history: Metrics of each epoch, name to list.
        failure: Why the training was stopped early by an error, or None.
        environments: Where it ran, the last at the end: several if it was continued elsewhere.
    """

    epochs: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    seconds: list[float] = dataclasses.field(default_factory=list)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failure: str | None = None
    environments: list[dict] = dataclasses.field(default_factory=list)

    @property
    def best_file(self) -> str:
        """Name of the file of the best epoch's weights."""
        return f"best-{self.best_epoch:04d}.weights.h5"

    @property
    def seconds_per_epoch(self) -> float:
        """The median without the first epoch, which includes compilation."""
        return statistics.median(self.seconds[1:] or self.seconds or [0.0])


def save(model: keras.Model, folder: pathlib.Path, about: dict, progress: Progress) -> None:
    """Writes a checkpoint, and removes what is no longer needed.

    Args:
        model: Its weights, and those of its optimizers, are written.
        folder: Of the checkpoints, with the best epoch's weights in it.
        about: What is trained, as JSON can hold it.
        progress: Of the training.
    """
    with files.replacing(folder / f"checkpoint-{progress.epochs:04d}") as checkpoint:
        checkpoint.mkdir()
        files.require_space(folder, size(model))
        model.save_weights(checkpoint / WEIGHTS)
        state = {
            "about": about,
            "progress": dataclasses.asdict(progress),
            "digests": _digests(checkpoint, progress),
        }
        files.write_json(checkpoint / "progress.json", state)
    # Only now can what came before go.
    checkpoints = _all(folder)
    for path in checkpoints[:-_KEPT]:
        files.remove(path)
    kept = [_read(path) for path in checkpoints[-_KEPT:]]
    needed = {k[1].best_file for k in kept if k is not None}
    for path in folder.glob("best-*"):
        if path.name not in needed:
            files.remove(path)


def last(
    folder: pathlib.Path, about: dict, report: Callable[[str], None]
) -> tuple[pathlib.Path, Progress] | None:
    """Returns the last checkpoint that is whole and of this training, and its progress, if any.

    Args:
        folder: Of the checkpoints. Later ones that are damaged or of something else are removed,
            because they would count as newer than those that follow.
        about: What is trained, as JSON can hold it.
        report: Prints a line.
    """
    for checkpoint in reversed(_all(folder)):
        of_what, progress = _read(checkpoint) or (None, None)
        if progress is not None and of_what == json.loads(json.dumps(about)):
            return checkpoint, progress
        fault = "damaged" if progress is None else "of other networks or settings"
        report(f"{checkpoint} is {fault}: continuing from what was before it.")
        if devices.is_chief():
            files.remove(checkpoint)
    return None


def size(model: keras.Model) -> int:
    """Upper bound of the bytes of a model's file, with two moments per weight."""
    return 12 * model.count_params() + 2**20


def _all(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("checkpoint-*"))


def _read(checkpoint: pathlib.Path) -> tuple[dict, Progress] | None:
    """What a checkpoint is of, and its progress; None where a file of it is damaged."""
    try:
        state = files.read_json(checkpoint / "progress.json")
        progress = Progress(**state["progress"])
        whole = _digests(checkpoint, progress) == state["digests"]
        return (state["about"], progress) if whole else None
    except (OSError, files.BrokenFileError, KeyError, TypeError):
        return None


def _digests(checkpoint: pathlib.Path, progress: Progress) -> dict[str, str | None]:
    found = {"model": digest(checkpoint / WEIGHTS)}
    if progress.best_epoch:
        found["best"] = digest(checkpoint.parent / progress.best_file)
    return found
