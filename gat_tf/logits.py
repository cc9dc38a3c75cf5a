"""From any Keras classifier to its logits.

Gradients are taken of the logits' losses, never of a softmax output: on an overconfident network
the latter vanish in float32. A classifier that ends in a softmax is therefore cut before it.
"""

from __future__ import annotations

import weakref

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks

_SOFTMAX = (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax)
_CUT = weakref.WeakKeyDictionary()  # a model is cut once, not once a call


class Logits:
    """A classifier seen from its logits: `logits(images, training=False)` -> `[B, K]` float32.

    Attributes:
        model: The Keras model behind it.
        num_classes: K.
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
        ends_in_softmax = _ends_in_softmax(model)
        if ends_in_softmax and from_logits:
            raise ValueError(
                f"Expected logits, because from_logits=True, but the model {model.name!r} ends in "
                "a softmax and gives probabilities. Pass from_logits=False."
            )
        if ends_in_softmax is False and not from_logits:
            raise ValueError(
                "Expected probabilities, because from_logits=False, but the model "
                f"{model.name!r} ends without a softmax and gives logits. Pass from_logits=True."
            )
        self._cut = ends_in_softmax
        # A model whose end cannot be seen is asked at run time whether it keeps its promise.
        self._verify = ends_in_softmax is None
        self.same_in_training = _same_in_training(model)
        shape = getattr(model, "output_shape", None)
        self.num_classes = shape[-1] if isinstance(shape, tuple) else None
        if self.num_classes is not None and self.num_classes < 2:
            raise ValueError(
                "Expected a classifier with at least two outputs, one a class. "
                f"Received: {model.name!r} with outputs of shape {shape}"
            )

    @property
    def trainable_variables(self):
        return self.model.trainable_variables

    def checked(self, images, labels, bounds=(0.0, 1.0)):
        """Returns a batch as `gat_tf.checks.batch` does, for this classifier's classes."""
        images, labels = checks.batch(images, labels, self.num_classes, bounds)
        if self.num_classes is None:  # it is in the shape of the outputs at the latest
            self.num_classes = self(images[:1]).shape[-1]
            images, labels = checks.batch(images, labels, self.num_classes, bounds)
        return images, labels

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        if self._cut:
            return tf.cast(_call_before_softmax(self.model, images, training), tf.float32)
        outputs = _call(self.model, images, training)
        is_tensor = tf.is_tensor(outputs)
        if not is_tensor or outputs.shape.rank != 2:
            received = f"shape {outputs.shape}" if is_tensor else f"type {type(outputs).__name__}"
            raise ValueError(
                "Expected a classifier with outputs [batch, classes]. "
                f"Received: {self.model.name!r} with outputs of {received}"
            )
        # Keras leaves the logits on the output of its own softmax, and of its sigmoid.
        logits = None if self.from_logits else getattr(outputs, "_keras_logits", None)
        outputs = tf.cast(outputs, tf.float32)
        if self._verify:
            outputs = checks.logits_or_probabilities(outputs, self.from_logits, self.model.name)
        if logits is not None:
            return tf.cast(logits, tf.float32)
        if self.from_logits:
            return outputs
        return tf.math.log(tf.maximum(outputs, np.finfo(np.float32).tiny))


def logits_of(model, from_logits: bool = False) -> Logits:
    """Returns the `Logits` of a Keras model; one that is given is returned as it is."""
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
    operation, node_index, _ = model.outputs[0]._keras_history
    return operation, operation._inbound_nodes[node_index].input_tensors


def _ends_in_softmax(model) -> bool | None:
    """True, False, or None where it cannot be seen from outside."""
    last = _last_operation(model)
    if last is None:
        return None
    operation, _ = last
    if isinstance(operation, keras.Model):
        return _ends_in_softmax(operation)
    if type(operation).__name__ == "Softmax":  # the layer or keras.ops.softmax
        return True
    if isinstance(operation, keras.Layer) and hasattr(operation, "activation"):
        if operation.activation in _SOFTMAX:
            return True
        if operation.activation in (None, keras.activations.linear):
            # An Activation("linear") may only cast the probabilities made before it.
            return None if isinstance(operation, keras.layers.Activation) else False
    return None


def _call_before_softmax(model, images, training):
    head, (tensor,) = _last_operation(model)
    # A Sequential may have been given other layers since.
    if model not in _CUT or _CUT[model][1] is not tensor:
        _CUT[model] = keras.Model(model.inputs, tensor), tensor
    body, _ = _CUT[model]
    x = _call(body, images, training)
    if isinstance(head, keras.Model):
        return _call_before_softmax(head, x, training)
    if type(head).__name__ == "Softmax":
        return x
    softmax, head.activation = head.activation, keras.activations.linear
    try:
        return head(x)
    finally:
        head.activation = softmax


def _call(model, images, training):
    return model(images, training=training) if model._call_has_training_arg else model(images)


def _same_in_training(layer) -> bool:
    children = list(layer._flatten_layers(include_self=False, recursive=False))
    if isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and getattr(layer, "inputs", None) and children
    ):
        return all(map(_same_in_training, children))
    if isinstance(layer, keras.layers.Dropout):
        return layer.rate == 0
    if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense):
        return layer.quantization_mode is None  # their `training` is for float8 alone
    return not layer._call_has_training_arg and all(map(_same_in_training, children))
