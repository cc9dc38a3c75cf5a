"""Readable errors: what was expected and what was received.

Types and shapes are checked when a step is traced. Values are checked immediately on eager tensors.
Inside a graph an assertion checks them, and `readable_errors` turns its message into the same
ValueError.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from gat_tf._types import Array, Bounds

F = TypeVar("F", bound=Callable)

_MARK = "gat_tf"
_OTHER_RANGE = (
    "(pixels from 0 to 255: divide by 255; nan: mend those images). If they are what the model "
    "takes, set clip=(low, high) of the attack, or bounds=(low, high) where there is none."
)
MULTI_LABEL = "Multi-label classification, one sigmoid for each of several classes, is unsupported."


def _require(condition: tf.Tensor, *parts: Any) -> list[tf.Operation]:
    """Raises, now or when the graph runs, unless `condition`; returns control dependencies.

    `parts` are the message: strings and scalar tensors in turn. They stay apart until the error is
    read, because XLA knows assertions (and leaves them out) but no string formatting.
    """
    if tf.executing_eagerly():
        if not bool(condition):
            raise ValueError(" ".join(str(p.numpy() if tf.is_tensor(p) else p) for p in parts))
        return []
    return [tf.debugging.Assert(condition, [_MARK, *parts])]


def _require_within(
    bounds: Bounds, values: tf.Tensor, expected: str, *hint: str
) -> list[tf.Operation]:
    """Requires values within `bounds`; the range received stands between `expected` and `hint`."""
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    # Written so that NaN fails and a replica's empty share of a batch does not.
    inside = (low >= bounds[0]) & (high <= bounds[1]) | tf.equal(tf.size(values), 0)
    return _require(inside, f"{expected} from", low, "to", high, *hint)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns a failed assertion of this module inside a graph into its ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _, mark, message = str(error).partition(f"[{_MARK}] [")
        if not mark:
            raise
        message = message.partition("\n")[0].rpartition("]")[0].replace("] [", " ")
        message = message.replace("\\'", "'")  # as TensorFlow prints strings
        raise ValueError(message) from None


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns `value` as a finite float in [low, high], or raises ValueError."""
    is_number = isinstance(value, numbers.Real) and math.isfinite(value)
    if not (is_number and low <= float(value) <= high):
        raise ValueError(
            f"`{name}` must be a finite number in [{low}, {high}]. Received: {name}={value!r}"
        )
    return float(value)


def count(name: str, value: Any, low: int = 1) -> int:
    """Returns `value` as an integer of at least `low`, or raises ValueError."""
    if not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(
            f"`{name}` must be an integer of at least {low}. Received: {name}={value!r}"
        )
    return int(value)


def one_of(name: str, value: object, known: Iterable) -> None:
    """Raises ValueError unless `value` is one of those known."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}")


def norm(value: object) -> None:
    """Raises ValueError unless `value` is 2 or `math.inf`."""
    if value not in (2, math.inf):
        raise ValueError(f"`norm` must be 2 or math.inf. Received: norm={value!r}")


def epsilon(value: Any) -> None:
    """Raises ValueError unless `value` is a finite number >= 0, or a vector of them."""
    if tf.is_tensor(value) and not hasattr(value, "numpy"):
        if value.shape.rank not in (0, 1):
            raise ValueError(f"`epsilon` must be one number or one per image. Received: {value}")
        return
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"`epsilon` must be one number or one per image. Received: {value!r}")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"`epsilon` must be finite and not negative. Received: epsilon={value!r}")


def clip(value: Any) -> None:
    """Raises ValueError unless `value` is None or `(low, high)` with low < high."""
    if value is not None and not _is_range(value):
        raise ValueError(f"`clip` must be None or (low, high). Received: clip={value!r}")


def batch(
    images: Array, labels: Array, num_classes: int | None, bounds: Bounds = (0.0, 1.0)
) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks a batch of images and integer labels.

    Args:
        images: `[B, H, W, C]` within `bounds`: floats, or also integers if those are (0, 255).
        labels: `[B]` or `[B, 1]` integers in [0, num_classes).
        num_classes: The classifier's, or None where it is not known.
        bounds: `(low, high)` of the pixels.

    Returns:
        The images as float32 and the labels as int32 or int64.

    Raises:
        ValueError: With what was expected and what was received.
    """
    images, labels = typed(images, labels, bounds)
    number, received = tf.shape(images)[0], tf.shape(labels)[0]
    required = _require(
        tf.equal(number, received), "Expected one label per image:", number, "Received:", received
    )
    expected = f"Expected images within [{bounds[0]}, {bounds[1]}]. Received: values"
    required += _require_within(bounds, images, expected, _OTHER_RANGE)
    if num_classes is not None:
        expected = (
            f"Expected labels from 0 to {num_classes - 1}, for a classifier with {num_classes} "
            "classes. Received: labels"
        )
        required += _require_within((0, num_classes - 1), labels, expected)
    with tf.control_dependencies(required):
        return tf.identity(images), tf.identity(labels)


def typed(images: Array, labels: Array, bounds: Bounds = (0.0, 1.0)) -> tuple[tf.Tensor, tf.Tensor]:
    """The part of `batch` that needs no computation: types and shapes, but not values."""
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if images.shape.rank != 4:
        raise ValueError(
            "Expected images [batch, height, width, channels]. "
            f"Received: a tensor of shape {images.shape}"
        )
    if labels.dtype.is_integer and labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # as keras.datasets has them
    if not labels.dtype.is_integer or labels.shape.rank != 1:
        raise ValueError(
            "Expected integer labels [batch], one class number per image. "
            f"Received: {labels.dtype.name} labels of shape {labels.shape}.{_label_hint(labels)}"
        )
    if labels.dtype not in (tf.int32, tf.int64):
        labels = tf.cast(labels, tf.int32)
    # Whole numbers from 0 to 255 are a range of their own; elsewhere they are a scale forgotten.
    if images.dtype.is_integer and tuple(bounds) != (0, 255):
        scale = "divide them by 255" if tuple(bounds) == (0, 1) else "scale them"
        raise ValueError(
            f"Expected floating-point images in [{bounds[0]}, {bounds[1]}]. "
            f"Received: {images.dtype.name} images; {scale} first, or, for a model that takes 0 to "
            "255, set clip=(0, 255) of the attack, or bounds=(0, 255) where there is none."
        )
    return tf.cast(images, tf.float32), labels


def _label_hint(labels: tf.Tensor) -> str:
    integers = ' keras.utils.image_dataset_from_directory gives them with label_mode="int".'
    if labels.shape.rank != 2 or labels.shape[1] == 1:
        return integers if labels.dtype.is_floating else ""
    one_hot = f" One-hot labels: pass their argmax.{integers}"
    if not hasattr(labels, "numpy"):  # in a graph their values are not known
        return f"{one_hot} {MULTI_LABEL}"
    array = labels.numpy()
    return one_hot if ((array != 0).sum(axis=1) == 1).all() else f" {MULTI_LABEL}"


def logits_or_probabilities(
    outputs: tf.Tensor, from_logits: bool, name: str, made_by_keras: bool = False
) -> tf.Tensor:
    """Checks the outputs `[B, K]` of a model whose last layer cannot be seen.

    Args:
        outputs: `[B, K]`, or `[B, 1]` of a model of two classes with one output.
        from_logits: Whether the outputs must be logits.
        name: Name of the model.
        made_by_keras: Whether the outputs are known to come from a Keras softmax or sigmoid.
    """
    kinds = ("probabilities", "logits")
    looks = (
        f"Expected {kinds[from_logits]}, because from_logits={from_logits}, but the outputs of the "
        f"model {name!r} look like {kinds[not from_logits]}:"
    )
    instead = f"Pass from_logits={not from_logits}."
    required = []
    if outputs.shape[-1] == 1:
        if from_logits and made_by_keras:
            raise ValueError(f"{looks} a sigmoid made them. {instead}")
        if not from_logits:
            required += _require_within((0, 1), outputs, looks, instead)
    else:
        nothing = tf.equal(tf.size(outputs), 0)
        sums = tf.reduce_sum(outputs, axis=-1)
        low, high = tf.reduce_min(sums), tf.reduce_max(sums)
        positive = tf.reduce_all(outputs >= 0)
        are_probabilities = positive & tf.reduce_all(tf.abs(sums - 1) < 1e-2)
        unclear = False
        if made_by_keras or not from_logits:
            # Numbers from 0 to 1 with other sums may be a sigmoid's: no reason to say "logits".
            unclear = positive & tf.reduce_all(outputs <= 1) & ~are_probabilities
            or_logits = "" if made_by_keras else " If they are logits, pass from_logits=True."
            required += _require(
                ~unclear | nothing,
                f"Expected {kinds[from_logits]}, because from_logits={from_logits}. Received: "
                f"outputs of the model {name!r} from 0 to 1 whose rows sum from",
                low,
                "to",
                high,
                MULTI_LABEL + or_logits,
            )
        required += _require(
            tf.not_equal(are_probabilities, from_logits) | unclear | nothing,
            f"{looks} rows sum from",
            low,
            "to",
            high,
            instead,
        )
    with tf.control_dependencies(required):
        return tf.identity(outputs)


def finite(logits: tf.Tensor, images: tf.Tensor, name: str) -> tf.Tensor:
    """Checks the logits `[B, K]` that a model gives for images, clean or attacked.

    NaN is not a class: an image with NaN logits would count as misclassified.
    """
    all_finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (logits, images)]
    required = _require(
        tf.reduce_all(all_finite),
        f"Expected finite logits of the model {name!r}. Received: NaN or infinity, for the images "
        "as they are or under an attack: a layer that is not finite, or whose gradient is not, at "
        "some pixels, such as a square root or a logarithm at 0. Add a small constant there.",
    )
    with tf.control_dependencies(required):
        return tf.identity(logits)


def bounds(value: Any) -> tuple[float, float]:
    """Returns `value`, the pixels' `(low, high)` with low < high, or raises ValueError."""
    if not _is_range(value):
        raise ValueError(
            f"Expected `bounds` as (low, high) with low < high. Received: bounds={value!r}"
        )
    return tuple(value)


def _is_range(value: object) -> bool:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == (2,) and bool(array[0] < array[1])


def as_dataset(
    x: Any, y: Any = None, batch_size: int | None = None, shuffle: bool = False
) -> tf.data.Dataset:
    """Returns (images, labels) batches from a dataset, or from arrays and a batch size (32)."""
    if isinstance(x, tf.data.Dataset):
        if y is not None or batch_size is not None:
            raise ValueError("A tf.data.Dataset brings its labels and batches: pass it alone.")
        return x
    if x is None or y is None or not hasattr(x, "shape"):
        raise ValueError(
            "Expected a tf.data.Dataset of (images, labels) batches, or arrays of images and "
            f"labels. Received: {type(x).__name__} and {type(y).__name__}"
        )
    if len(x) != len(y):
        raise ValueError(f"Expected one label per image: {len(x)} Received: {len(y)}")
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    if shuffle:
        dataset = dataset.shuffle(len(x))
    return dataset.batch(batch_size or 32)


def in_a_pair(measure: F) -> F:
    """Decorates a function that takes arrays as a pair (images, labels).

    Two arrays side by side would be a TypeError about the number of arguments, or an array taken
    for an attack.
    """

    @functools.wraps(measure)
    def checked(*args: Any, **kwargs: Any) -> Any:
        are_arrays = [len(getattr(argument, "shape", ())) > 0 for argument in args]
        if (True, True) in itertools.pairwise(are_arrays):
            raise TypeError(
                f"Expected arrays as a pair: {measure.__name__}(model, (images, labels), ...). "
                "Received: images and labels as two arguments."
            )
        return measure(*args, **kwargs)

    return checked  # type: ignore[return-value]  # the same function otherwise


def checked(
    dataset: tf.data.Dataset, num_classes: int | None, bounds: Bounds = (0.0, 1.0)
) -> tf.data.Dataset:
    """Returns the dataset of (images, labels) batches with a check of every batch.

    The check runs in the input pipeline, so that it does not slow down a compiled step.

    Raises:
        ValueError: The elements are not (images, labels).
    """
    spec = dataset.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not (is_pair and all(isinstance(part, tf.TensorSpec) for part in spec)):
        raise ValueError(f"Expected a dataset of (images, labels) batches. Received: {spec}")

    @tf.autograph.experimental.do_not_convert  # which would bury an error in a traceback
    def check(images, labels):
        return batch(images, labels, num_classes, bounds)

    return dataset.map(check)
