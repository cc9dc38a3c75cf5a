"""Names of the types that many signatures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, Union

import numpy as np
import tensorflow as tf

# Union, because `|` of a TensorFlow type fails when the module is run.
Array: TypeAlias = Union[tf.Tensor, np.ndarray]  # noqa: UP007
Seed: TypeAlias = Union[tf.Tensor, Sequence[int], None]  # noqa: UP007  # `[2]` integers
Data: TypeAlias = Union[tf.data.Dataset, tuple[Array, Array]]  # noqa: UP007  # (images, labels)
BatchSpec: TypeAlias = tuple[tf.TensorSpec, tf.TensorSpec]  # of (images, labels) batches
Gradients: TypeAlias = list[Union[tf.Tensor, None]]  # noqa: UP007  # one for each variable
Numbers: TypeAlias = Union[Sequence[float], np.ndarray]  # noqa: UP007
Bounds: TypeAlias = tuple[float, float]  # (low, high) of the pixels
