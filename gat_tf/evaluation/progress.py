"""Keras's progress bar over the batches of a measurement."""

from __future__ import annotations

import keras
import tensorflow as tf


class Progress:
    """A bar with a mean over the images seen so far.

    Args:
        batches: Dataset of batches, or how many there are.
        verbose: 0 for silence, 1 for the bar, 2 for a line at the end.

    Raises:
        ValueError: `verbose` is another value.
    """

    def __init__(self, batches: tf.data.Dataset | int, verbose: int):
        if verbose not in (0, 1, 2):
            raise ValueError(f"`verbose` must be 0, 1 or 2. Received: verbose={verbose!r}")
        count = batches if isinstance(batches, int) else int(batches.cardinality())
        self._bar = keras.utils.Progbar(
            count if count >= 0 else None, verbose=verbose, unit_name="batch"
        )
        self._done = self._images = 0
        self._sums: dict[str, float] = {}

    def show(self, name: str, total: float, images: int) -> None:
        """Counts a batch of `images` images, over which the value called `name` sums to `total`."""
        self._done += 1
        self._images += images
        self._sums[name] = self._sums.get(name, 0.0) + float(total)
        self._bar.stateful_metrics.add(name)
        if self._done != self._bar.target:  # the last is for `end`
            self._bar.update(self._done, self._means(), finalize=False)

    def end(self) -> None:
        self._bar.update(self._done, self._means(), finalize=True)

    def _means(self) -> list:
        return [(name, total / max(self._images, 1)) for name, total in self._sums.items()]
