"""Compiled attacks: one trace for an attack, a model and a kind of batch.

Run eagerly, a small batch spends most of its time between operations. So the first call outside a
`tf.function` compiles the attack for batches of any size, and later calls reuse the result. Epsilon
is an input of the compiled function, so another epsilon needs no other trace. The evaluation of a
classifier keeps its compiled functions here too.
"""

from __future__ import annotations

import collections
import dataclasses
import types
import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import all_layers
from gat_tf.attacks import norms
from gat_tf.logits import Logits

if TYPE_CHECKING:
    from gat_tf.attacks.base import AnyAttack, Attack

_KEPT = 64  # compiled functions for a model: those used last

# By model, and gone with it: a compiled function knows the model's variables, but not the model.
_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

_PLAIN = (bool, int, float, str, type(None))

# Attributes of a model that `compile` and `fit` change, and that no call of it looks at.
_OF_TRAINING = frozenset(
    {
        "compiled",
        "loss",
        "predict_function",
        "steps_per_execution",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "test_function",
        "train_function",
        "unrolled_steps_per_execution",
    }
)


def attacked(
    attack: Attack, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`attack.checked_and_attacked`, compiled.

    Args:
        attack: An attack.
        logits: The classifier.
        images: `[B, H, W, C]`.
        labels: `[B]`.
        seed: `[2]` integers.
    """
    epsilon = getattr(attack, "epsilon", None)
    inputs = [images, tf.cast(labels, tf.int64)]  # one trace for labels of every type
    if epsilon is not None:
        inputs.append(tf.convert_to_tensor(epsilon, tf.float32))
        norms.require_as_many(inputs[-1], images)
    signature = tuple(
        tf.TensorSpec([None, *t.shape[1:]] if t.shape.rank else [], t.dtype) for t in inputs
    )
    function = kept(
        logits.model,
        (hyperparameters(attack), logits.from_logits, signature),
        lambda: state(logits.model, *models_in(attack)),
        lambda: _traced(attack, logits, signature),
    )
    with checks.readable_errors():
        return function(seed, *inputs)


def kept(model: keras.Model, key: Hashable, constants: Callable, trace: Callable) -> Any:
    """What `trace()` makes, once for a model and a key, and again when `constants()` has changed.

    Args:
        model: The model. What is kept goes with it, and must not hold it.
        key: What distinguishes this function of the model from others.
        constants: Returns what a trace treats as constant, such as `state`.
        trace: Makes the compiled function.
    """
    functions = _COMPILED.setdefault(model, collections.OrderedDict())
    function, before = functions.pop(key, (None, None))
    if function is None or before != constants():
        function = trace()
        before = constants()  # afterwards, because tracing may build a layer
    functions[key] = function, before  # as the last one used
    while len(functions) > _KEPT:
        functions.popitem(last=False)
    return function


def _traced(attack: Attack, logits: Logits, signature: Any) -> Callable:
    def called(seed, images, labels, *epsilon):
        ours = with_epsilon(attack, *epsilon)
        return ours.checked_and_attacked(logits, images, labels, seed)

    seed = tf.TensorSpec([2], tf.int32)
    # Of the function only what was traced is kept: it holds neither the model nor the attack.
    compiled = tf.function(called, input_signature=[seed, *signature], autograph=False)
    return compiled.get_concrete_function()


def with_epsilon(attack: AnyAttack, epsilon: tf.Tensor | None = None) -> AnyAttack:
    """The attack with the ε that its compiled function was given, if ε is one of the inputs."""
    if epsilon is None:
        return attack
    changes: dict[str, Any] = {"epsilon": epsilon}  # which not every attack has
    return dataclasses.replace(attack, **changes)


def hyperparameters(attack: Attack) -> Hashable:
    """What distinguishes attacks, except epsilon; one that holds a model equals only itself."""
    values = {name: value for name, value in vars(attack).items() if name != "epsilon"}
    clip = values.pop("clip")
    if not all(isinstance(value, (*_PLAIN, np.number)) for value in values.values()):
        return _Same(attack)
    clip = clip if clip is None else tuple(map(float, clip))
    return type(attack), clip, tuple(sorted(values.items()))


def models_in(attack: Attack) -> list[keras.Layer]:
    """The models that an attack holds, such as a generator."""
    return [value for value in vars(attack).values() if isinstance(value, keras.Layer)]


def state(*models: keras.Layer) -> list:
    """What a trace treats as constant: layers and their settings, but not their weights."""
    return [
        (_Same(layer), layer.trainable, layer.dtype_policy.name, *_settings(layer))
        for model in models
        for layer in all_layers(model)
    ]


def _settings(layer):
    """The values of a layer's public attributes that are numbers, words, functions or tensors."""
    for name, value in vars(layer).items():
        if name[0] == "_" or name in _OF_TRAINING:
            continue
        if isinstance(value, (*_PLAIN, np.generic)):
            yield value
        elif isinstance(value, types.FunctionType) or tf.is_tensor(value):
            yield _Same(value)


class _Same:
    """Equal for the same object alone, which it does not keep alive."""

    def __init__(self, value: Any):
        self._value, self._hash = weakref.ref(value), id(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        value = self._value()
        return isinstance(other, _Same) and value is not None and value is other._value()
