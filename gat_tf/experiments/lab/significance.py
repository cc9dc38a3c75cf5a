"""Statistics of the verdicts: Student's t, Holm's correction, and the error of sampled images."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from gat_tf._types import Numbers

_NORMAL = statistics.NormalDist()


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down method (Holm, 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on. None becomes smaller than
    the one before it in this order, or larger than 1.
    """
    p = np.array(p_values, np.float64)
    order, factors = np.argsort(p), np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return corrected.tolist()


def two_way_p_value(
    difference: float, seed_error: float, image_error: float, freedom: float
) -> float:
    """The level at which the interval around the difference reaches zero."""
    if image_error == 0 or difference == 0:
        return t_p_value(difference / seed_error, freedom)

    def half_width(t):
        level = max(t_p_value(t, freedom), 1e-300)
        return math.hypot(t * seed_error, _NORMAL.inv_cdf(level / 2) * image_error)

    size = abs(difference)
    return t_p_value(_root(lambda t: half_width(t) - size, 0.0, size / seed_error), freedom)


def image_error(*accuracies: Numbers, images: int, population: float) -> float:
    """Bounds the error of a mean difference in accuracy that comes from a sample of the images.

    The standard error of a difference of mean accuracies p and q on the same n of N images is

        √((p(1 - p) + q(1 - q)) · (1 - n/N) / n)

    if each seed is right about the same images, and if being right with one method tells nothing
    about the other. It is smaller if seeds differ, and if images that are easy for one method are
    easy for the other. So this is an upper bound as long as the two methods' outcomes are not
    negatively correlated over images. It also bounds means over several ε, in which an image counts
    between 0 and 1. 1 - n/N corrects for a finite population; the whole test set has no error.
    One success and one failure are added to each accuracy (Agresti and Caffo, 2000), so that an
    accuracy of 0 or 100 % on a few images is not taken for certain.

    Errors of independent samples, such as training and test images, add as `math.hypot` does.

    Args:
        *accuracies: Those whose difference is meant, each in %, one value per seed: `[seeds]`.
            With one, the result is the error of that accuracy.
        images: n, the number of images, which all seeds share.
        population: N, the number of images that they were drawn from.

    Returns:
        The error in percentage points.

    Raises:
        ValueError: If `images` is not between 1 and `population`.
    """
    if not 1 <= images <= population:
        raise ValueError(f"Expected 1 to {population} images, the population. Received: {images}.")
    shares = [(images * float(np.mean(a)) / 100 + 1) / (images + 2) for a in accuracies]
    variance = sum(p * (1 - p) for p in shares) / (images + 2)
    return 100 * math.sqrt((1 - images / population) * variance)


@functools.cache
def t_critical(confidence: float, freedom: float) -> float:
    """Returns the value that |t| exceeds with probability `1 - confidence`.

    Args:
        confidence: In (0, 1), two-sided.
        freedom: Degrees of freedom, above 0; `math.inf` gives the normal distribution.

    Raises:
        ValueError: If `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` between 0 and 1. Received: {confidence}.")
    high = 1.0
    while t_p_value(high, freedom) > 1 - confidence:
        high *= 2
    return _root(lambda t: 1 - confidence - t_p_value(t, freedom), 0.0, high)


def t_p_value(t: float, freedom: float) -> float:
    """Returns the probability that Student's t is at least as far from zero, on either side.

    It is the regularised incomplete beta function I_x(ν/2, 1/2) at x = ν/(ν + t²).

    Args:
        t: The mean over its standard error.
        freedom: ν, degrees of freedom, above 0; `math.inf` gives the normal distribution.
    """
    if freedom > 1e6:  # where the two differ in the far tail alone
        return math.erfc(abs(t) / math.sqrt(2))
    half, x = (np.float64(v) for v in (freedom / 2, freedom / (freedom + t * t)))
    return float(tf.math.betainc(half, np.float64(0.5), x))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero, by bisection down to neighbouring floats."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
