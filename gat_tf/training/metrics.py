"""Metrics of perturbations, which Keras does not provide."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Bins of 1/100 of a decade from 1e-20 to 1e6: a quantile is right to about 1 %.
_LOW, _HIGH, _PER_DECADE = -20, 6, 100
_BINS = (_HIGH - _LOW) * _PER_DECADE


class Quantiles(keras.metrics.Metric):
    """Quantiles of non-negative numbers over an epoch, from a histogram of their logarithms.

    The histogram adds up over batches and replicas, and its size does not depend on the length of
    the epoch. Quantiles are accurate to about 1 %. Values below 1e-20 count as 0.

    Args:
        name: The results are called `{name}_p10` and so on.
        percentiles: The percentiles to report.
    """

    def __init__(self, name: str, percentiles: tuple[int, ...] = (10, 50, 90)):
        super().__init__(name=name, dtype="float32")
        self.percentiles = percentiles
        # The first bin holds the zeros.
        self.histogram = self.add_weight(
            shape=(_BINS + 1,), initializer="zeros", dtype="float32", name="histogram"
        )

    def update_state(self, values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Counts the values `[N]`."""
        del sample_weight
        decade = tf.math.log(tf.maximum(values, 1e-30)) / tf.math.log(10.0)
        bins = tf.clip_by_value((decade - _LOW) * _PER_DECADE + 1, 0, _BINS)
        # A NaN has no place in a histogram; the means beside it show it.
        counted = tf.math.is_finite(values)
        bins = tf.where(counted, tf.cast(bins, tf.int32), 0)
        weights = tf.cast(counted, tf.float32)
        self.histogram.assign_add(tf.math.unsorted_segment_sum(weights, bins, _BINS + 1))

    def result(self) -> dict[str, Any]:
        cumulative = tf.cumsum(tf.convert_to_tensor(self.histogram))
        # Interpolated between order statistics' bins: the nearest rank is enough at 1 %.
        ranks = tf.constant(self.percentiles, tf.float32) / 100 * cumulative[-1]
        bins = tf.searchsorted(cumulative, ranks)
        centre = (tf.cast(bins, tf.float32) - 0.5) / _PER_DECADE + _LOW
        values = tf.where(bins > 0, 10.0**centre, 0.0)
        return {
            f"{self.name}_p{p}": value
            for p, value in zip(self.percentiles, tf.unstack(values), strict=True)
        }
