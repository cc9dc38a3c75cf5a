"""What a person sees of a training: a progress bar in a terminal, and TensorBoard."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import keras

from gat_tf.experiments.lab import devices
from gat_tf.experiments.lab.config import ConfigError

_to_tensorboard = False


def to_tensorboard() -> bool:
    """Whether trainings are written for TensorBoard."""
    return _to_tensorboard


def in_terminal() -> bool:
    """Whether a person watches: then there are bars, in a log lines."""
    return devices.is_chief() and sys.stdout.isatty()


@contextlib.contextmanager
def tensorboard(wanted: bool) -> Iterator[None]:
    """Within it, every training is written for TensorBoard, if wanted.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    global _to_tensorboard
    if wanted:
        try:
            import tensorboard  # noqa: F401  # TensorFlow's summaries need it
        except ImportError as error:
            raise ConfigError(
                "Expected TensorBoard, which --tensorboard needs. Received: an installation "
                "without it. `pip install tensorboard` adds it."
            ) from error
    before, _to_tensorboard = _to_tensorboard, wanted
    try:
        yield
    finally:
        _to_tensorboard = before


def duration(seconds: float) -> str:
    """A time such as 40 s, 3 min or 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def callbacks(events: pathlib.Path | None, steps: int) -> list[keras.callbacks.Callback]:
    """The callbacks that show a training.

    Args:
        events: Where TensorBoard's events go, if they are wanted.
        steps: Number of steps that are left until the last epoch.
    """
    found: list[keras.callbacks.Callback] = []
    if in_terminal():
        found.append(Bar(steps))
    if _to_tensorboard and events is not None and devices.is_chief():
        found.append(keras.callbacks.TensorBoard(events, write_graph=False))
    return found


class Bar(keras.callbacks.Callback):
    """Keras's progress bar over all epochs of a training, with the time left at most.

    Args:
        steps: Number of steps until the last epoch.
    """

    def __init__(self, steps: int):
        super().__init__()
        self._bar = keras.utils.Progbar(steps, unit_name="step")
        self._done = self._before = 0
        self._values: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._values["epoch"] = epoch + 1
        self._before = self._done

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._done = self._before + batch + 1  # of several steps in a call, the last
        self._values["loss"] = float((logs or {}).get("loss", 0.0))
        self._show(finalize=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, value in (logs or {}).items():
            if name.startswith("validation"):
                self._values[name] = float(value)

    def on_train_end(self, logs: Any = None) -> None:
        self._show(finalize=True)

    def _show(self, finalize: bool) -> None:
        if self._done:
            self._bar.stateful_metrics.update(self._values)  # those given last, not means
            self._bar.update(self._done, list(self._values.items()), finalize=finalize)
