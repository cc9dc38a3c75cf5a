"""Direct calls of attacks, compiled: one trace for an attack, a model and a kind of batch.

Run eagerly, a small batch spends most of its time between operations. So the first call outside a
`tf.function` compiles the attack for batches of any size, and later calls reuse the result. Epsilon
is an input of the compiled function, so another epsilon needs no other trace.
"""

from __future__ import annotations

import collections
import dataclasses
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import all_layers
from gat_tf.attacks import norms
from gat_tf.logits import Logits

if TYPE_CHECKING:
    from gat_tf.attacks.base import Attack

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
    inputs = [images, labels]
    if epsilon is not None:
        inputs.append(tf.convert_to_tensor(epsilon, tf.float32))
        norms.require_as_many(inputs[-1], images)
    signature = tuple(
        tf.TensorSpec([None, *t.shape[1:]] if t.shape.rank else [], t.dtype) for t in inputs
    )
    kept = _COMPILED.setdefault(logits.model, collections.OrderedDict())
    key = _hyperparameters(attack), logits.from_logits, signature
    function, state = kept.pop(key, (None, None))
    if function is None or state != _state(attack, logits.model):
        function = _traced(attack, logits, signature)
        state = _state(attack, logits.model)  # afterwards, because tracing may build a layer
    kept[key] = function, state  # as the last one used
    while len(kept) > _KEPT:
        kept.popitem(last=False)
    with checks.readable_errors():
        return function(seed, *inputs)


def _traced(attack: Attack, logits: Logits, signature: Any) -> Callable:
    @tf.autograph.experimental.do_not_convert  # which would bury an error in a traceback
    def called(seed, images, labels, *epsilon):
        ours = dataclasses.replace(attack, epsilon=epsilon[0]) if epsilon else attack
        return ours.checked_and_attacked(logits, images, labels, seed)

    seed = tf.TensorSpec([2], tf.int32)
    # Of the function only what was traced is kept: it holds neither the model nor the attack.
    return tf.function(called, input_signature=[seed, *signature]).get_concrete_function()


def _hyperparameters(attack):
    """What distinguishes attacks, except epsilon; one that holds a model equals only itself."""
    values = {name: value for name, value in vars(attack).items() if name != "epsilon"}
    clip = values.pop("clip")
    if not all(isinstance(value, (*_PLAIN, np.number)) for value in values.values()):
        return weakref.ref(attack)
    clip = clip if clip is None else tuple(map(float, clip))
    return type(attack), clip, tuple(sorted(values.items()))


def _state(attack: Attack, model: keras.Model) -> list:
    """What a trace treats as constant: layers and their settings, but not their weights."""
    models = [model, *(v for v in vars(attack).values() if isinstance(v, keras.Layer))]
    return [
        (weakref.ref(layer), layer.trainable, *_settings(layer))
        for model in models
        for layer in all_layers(model)
    ]


def _settings(layer):
    """The values of a layer's public attributes that are numbers, words or functions."""
    for name, value in vars(layer).items():
        if name[0] == "_" or name in _OF_TRAINING:
            continue
        if isinstance(value, _PLAIN):
            yield value
        elif isinstance(value, types.FunctionType):
            yield weakref.ref(value)  # some hold the layer
