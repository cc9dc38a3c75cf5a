"""From any Keras classifier to its logits.

Gradients are taken of losses on logits, never of a softmax output, which vanish in float32 on an
overconfident network. A classifier that ends in a softmax is therefore cut before the softmax.

A classifier with one output z has two classes: its logits are [0, z], of which the softmax is
[1 - sigmoid(z), sigmoid(z)].
"""

from __future__ import annotations

import weakref

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import children, logits_behind, operation_and_inputs, takes_training
from gat_tf._types import Array, Bounds

_ENDINGS = {
    "softmax": (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax),
    "sigmoid": (keras.activations.sigmoid, keras.ops.sigmoid, tf.nn.sigmoid),
    "linear": (None, keras.activations.linear),
}
# A model is cut once, not once a call.
_CUT: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class Logits:
    """Wraps a classifier to give logits: `logits(images, training=False)` -> `[B, K]` float32.

    Attributes:
        model: The Keras model behind it.
        num_classes: K, or 2 for a model with one output; None if it is not known.
        same_in_training: Whether the model computes the same in training and in inference, i.e.
            has no dropout, batch norm or other layer that looks at `training`.
    """

    def __init__(self, model: keras.Model, from_logits: bool = False):
        if not isinstance(model, keras.Layer):
            raise TypeError(
                "Expected a Keras 3 model that classifies images. "
                f"Received: {model!r} of type {type(model)}"
            )
        self.model = model
        self.from_logits = from_logits
        shape = getattr(model, "output_shape", None)
        outputs = shape[-1] if isinstance(shape, tuple) else None
        ending = _ending(model)
        _require_classifier(model, ending, outputs)
        self._cut = ending in ("softmax", "sigmoid")
        if self._cut and from_logits:
            raise ValueError(
                f"Expected logits, because from_logits=True, but the model {model.name!r} ends in "
                f"a {ending} and gives probabilities. Pass from_logits=False."
            )
        if ending == "linear" and not from_logits:
            raise ValueError(
                "Expected probabilities, because from_logits=False, but the model "
                f"{model.name!r} ends without a softmax or sigmoid and gives logits. "
                "Pass from_logits=True."
            )
        # A model whose end cannot be seen is asked at run time whether it keeps its promise.
        self._verify = ending is None
        self.same_in_training = _same_in_training(model)
        self.num_classes = 2 if outputs == 1 else outputs

    def checked(
        self, images: Array, labels: Array, bounds: Bounds = (0.0, 1.0)
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a batch as `gat_tf.checks.batch` does, for this classifier's classes."""
        images, labels = checks.batch(images, labels, self.num_classes, bounds)
        if self.num_classes is None:  # it is in the shape of the outputs at the latest
            self.num_classes = self(images[:1]).shape[-1]
            images, labels = checks.batch(images, labels, self.num_classes, bounds)
        return images, labels

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        call = _call_before_head if self._cut else _call
        outputs = call(self.model, images, training)
        is_tensor = tf.is_tensor(outputs)
        if not is_tensor or outputs.shape.rank != 2:
            received = f"shape {outputs.shape}" if is_tensor else f"type {type(outputs).__name__}"
            raise ValueError(
                "Expected a classifier with outputs [batch, classes]. "
                f"Received: {self.model.name!r} with outputs of {received}"
            )
        z = tf.cast(outputs if self._cut else self._behind(outputs), tf.float32)
        return tf.concat([tf.zeros_like(z), z], axis=-1) if z.shape[-1] == 1 else z

    def differentiated(self, images: tf.Tensor) -> None:
        """Called with each batch of images that a gradient is taken of; a subclass may count."""

    def _behind(self, outputs: tf.Tensor) -> tf.Tensor:
        """The logits behind the outputs of a model that is called uncut."""
        kept = logits_behind(outputs)
        outputs = tf.cast(outputs, tf.float32)
        if self._verify:
            outputs = checks.logits_or_probabilities(
                outputs, self.from_logits, self.model.name, made_by_keras=kept is not None
            )
        if self.from_logits:
            return outputs
        if kept is not None:
            return kept
        of_class = _log(outputs)
        return of_class - _log(1 - outputs) if outputs.shape[-1] == 1 else of_class


def logits_of(model: keras.Model, from_logits: bool = False) -> Logits:
    """Returns the `Logits` of a Keras model; a `Logits` is returned unchanged."""
    return model if isinstance(model, Logits) else Logits(model, from_logits)


def _last_operation(model):
    """The operation that makes the model's one output and its input, or None if unseen."""
    if not (isinstance(model, keras.Model) and getattr(model, "inputs", None)):
        return None
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Expected a classifier with one input and one output. "
            f"Received: {model.name!r} with {len(model.inputs)} and {len(model.outputs)}"
        )
    return operation_and_inputs(model.outputs[0])


def _ending(model: keras.Model) -> str | None:
    """ "softmax", "sigmoid", "linear", or None where it cannot be seen from outside."""
    last = _last_operation(model)
    if last is None:
        return None
    operation, _ = last
    if isinstance(operation, keras.Model):
        return _ending(operation)
    kind = type(operation).__name__
    if kind in ("Softmax", "Sigmoid"):  # the layer or the operation of keras.ops
        return kind.lower()
    if not (isinstance(operation, keras.Layer) and hasattr(operation, "activation")):
        return None
    for ending, activations in _ENDINGS.items():
        if operation.activation in activations:
            # An Activation("linear") may only cast the probabilities made before it.
            hidden = ending == "linear" and isinstance(operation, keras.layers.Activation)
            return None if hidden else ending
    return None


def _require_classifier(model: keras.Model, ending: str | None, outputs: int | None) -> None:
    """Raises ValueError where the last layer gives no probabilities of exclusive classes."""
    if ending == "softmax" and outputs == 1:
        raise ValueError(
            "Expected a classifier of at least two classes. A softmax over one output is always 1: "
            "end in a sigmoid, or in a softmax over two outputs. "
            f"Received: {model.name!r} with outputs of shape {model.output_shape}"
        )
    if ending == "sigmoid" and outputs != 1:
        raise ValueError(
            f"Expected a classifier whose classes exclude each other. {checks.MULTI_LABEL} "
            f"Received: {model.name!r}, which ends in a sigmoid, with outputs of shape "
            f"{model.output_shape}"
        )


def _call_before_head(model, images, training):
    head, (tensor,) = _last_operation(model)
    # A Sequential may have been given other layers since.
    if model not in _CUT or _CUT[model][1] is not tensor:
        _CUT[model] = keras.Model(model.inputs, tensor), tensor
    body, _ = _CUT[model]
    x = _call(body, images, training)
    if isinstance(head, keras.Model):
        return _call_before_head(head, x, training)
    if type(head).__name__ in ("Softmax", "Sigmoid"):
        return x
    activation, head.activation = head.activation, keras.activations.linear
    try:
        return head(x)
    finally:
        head.activation = activation


def _log(probabilities: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(probabilities, np.finfo(np.float32).tiny))


def _call(model, images, training):
    return model(images, training=training) if takes_training(model) else model(images)


def _same_in_training(layer: keras.Layer) -> bool:
    inside = children(layer)
    if isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and getattr(layer, "inputs", None) and inside
    ):
        return all(map(_same_in_training, inside))
    if isinstance(layer, keras.layers.Dropout):
        return layer.rate == 0
    if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense):
        return layer.quantization_mode is None  # their `training` is for float8 alone
    return not takes_training(layer) and all(map(_same_in_training, inside))
