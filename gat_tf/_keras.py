"""Everything that gat_tf needs of Keras and that Keras's public API does not give.

These are the only lines that use Keras's private names, so that a new version of Keras breaks this
file alone.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layer and every layer inside it, at any depth, each once.

    `model.layers` has only the outermost ones, and a layer that is not a model has no such list.
    """
    return list(layer._flatten_layers())


def children(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers directly inside a layer, for models and for other layers alike."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def takes_training(layer: keras.Layer) -> bool:
    """Whether the layer's `call` has a `training` argument.

    Keras passes `training` on from an outer layer to an inner one by this. Asking the signature of
    `call` again would miss what Keras adds to it.
    """
    return layer._call_has_training_arg


def operation_and_inputs(tensor: keras.KerasTensor) -> tuple[Any, list[keras.KerasTensor]]:
    """Returns the operation that makes a symbolic tensor, and the tensors that it makes it from.

    A functional model lists its layers, but not its operations (`keras.ops`), nor which call of a
    layer that is used twice a tensor is from.
    """
    operation, node_index, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node_index].input_tensors


def logits_behind(outputs: tf.Tensor) -> tf.Tensor | None:
    """Returns the logits that a softmax or sigmoid of Keras made `outputs` from, if they are known.

    Keras leaves them on the tensor for its own cross-entropies; without them the logits have to be
    recovered from rounded probabilities.
    """
    return getattr(outputs, "_keras_logits", None)


def reset_moments(optimizer: keras.optimizers.Optimizer) -> None:
    """Sets an optimiser's moments and step count to zero, and keeps its learning rate.

    The learning rate is one of `optimizer.variables`, where nothing marks it as such. Of float16's
    `LossScaleOptimizer` the optimiser inside is reset: the loss scale stays.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in optimizer.variables:
        if variable is not optimizer._learning_rate:
            variable.assign(keras.ops.zeros_like(variable))


def build_metrics(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> None:
    """Builds a compiled model's optimiser and metrics from the shapes of a batch.

    `fit` does so at its first batch. Weights that are restored before it need the variables now.
    """
    model._symbolic_build(data_batch=(images, labels))


def is_validation_in_fit(evaluate_arguments: dict[str, Any]) -> bool:
    """Whether `evaluate` is called by `fit`, which has prepared the validation data already.

    `fit` says so by an argument that is not documented.
    """
    return bool(evaluate_arguments.get("_use_cached_eval_dataset"))


class NothingToBuild:
    """For a `keras.Model` whose metrics and optimisers are built: `fit` does not build them again.

    Keras builds them by a symbolic call of the model. Keras 3.15 fails at that under
    `MultiWorkerMirroredStrategy`, and has no public way to leave it out.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        pass
