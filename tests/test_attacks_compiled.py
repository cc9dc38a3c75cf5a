"""Direct calls of attacks: one trace, of the model as it is now, and none that keeps it alive."""

import gc
import math
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import PGD, FastGradient, GeneratorAttack, compiled
from gat_tf.logits import Logits

SHAPE = (4, 4, 3)
rng = np.random.default_rng(0)
X = rng.uniform(0.2, 0.8, (8, *SHAPE)).astype(np.float32)
Y = np.arange(8) % 3


class Counted(keras.Model):
    """A linear classifier whose Python code counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3)
        self.scale = 1.0
        self.calls = []
        self(X)
        self.calls.clear()

    def call(self, images):
        self.calls.append(1)
        return self.scale * self.head(tf.reshape(images, [-1, 48]))


def functional():
    images = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, activation="relu")(images)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(images, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(x)))


def eager(attack, model, from_logits=False):
    """Operation by operation."""
    seed = tf.constant([1, 2])
    return attack.perturb(Logits(model, from_logits), tf.constant(X), tf.constant(Y), seed)


def assert_as_eager(attack, model):
    eta = attack.perturbation(model, X, Y, seed=[1, 2])
    np.testing.assert_allclose(eta, eager(attack, model), atol=1e-6)
    return eta.numpy()


@pytest.mark.parametrize("attack", [FastGradient, PGD])
def test_a_trace_serves_batches_of_every_size_every_epsilon_and_all_weights(attack):
    model = Counted()

    def call(size=8, **epsilon):
        attack(**{"epsilon": 0.1, **epsilon})(model, X[:size], Y[:size], from_logits=True)

    call()
    traced = len(model.calls)
    assert traced > 0
    for use in (
        call,
        lambda: call(3),
        lambda: call(1, epsilon=0.2),
        lambda: (model.head.kernel.assign(model.head.kernel * 2), call()),
    ):
        model.calls.clear()
        use()
        assert not model.calls
    model.calls.clear()
    call(epsilon=np.full(8, 0.1))  # one for each image is another kind of batch
    assert len(model.calls) == traced


def test_another_step_is_another_attack():
    model = functional()
    few, many = (PGD(0.5, 2, steps, step_size=0.1, random_start=False) for steps in (1, 3))
    sizes = [np.linalg.norm(assert_as_eager(a, model).reshape(8, -1), axis=1) for a in (few, many)]
    np.testing.assert_allclose(sizes[0], 0.1, rtol=1e-5)
    assert (sizes[1] > 0.2).all()


def test_another_clip_is_another_attack():
    model = functional()
    for clip in ((0.0, 1.0), (0.2, 0.8)):  # a step of 2 moves every pixel to one of its ends
        pixels = FastGradient(2.0, math.inf, clip=clip)(model, X, Y)
        np.testing.assert_allclose(np.unique(pixels), clip)


def test_logits_taken_for_probabilities_are_named_after_a_right_call_too():
    model, attack = Counted(), FastGradient(0.1)
    attack(model, X, Y, from_logits=True)
    with pytest.raises(ValueError, match="Expected probabilities"):
        attack(model, X, Y)


@pytest.mark.slow
def test_attacks_that_were_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(compiled, "_KEPT", 2)
    model = Counted()
    first, second, third = (FastGradient(0.1, clip=(0.0, high)) for high in (1, 2, 3))

    def traced(attack):
        model.calls.clear()
        attack(model, X, Y, from_logits=True)
        return bool(model.calls)

    used = (first, second, first, third, first, second)
    assert [traced(attack) for attack in used] == [True, True, False, True, False, True]


def test_other_weights_are_followed():
    model, attack = functional(), FastGradient(0.3)
    before = assert_as_eager(attack, model)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])
    assert np.abs(assert_as_eager(attack, model) - before).max() > 1e-3


@pytest.mark.slow
def test_settings_of_layers_are_noticed():
    model, attack = functional(), FastGradient(0.3)
    before = assert_as_eager(attack, model)
    model.layers[1].activation = keras.activations.tanh
    assert np.abs(assert_as_eager(attack, model) - before).max() > 1e-3
    counted = Counted()
    counted.head.trainable = False
    attack(counted, X, Y, from_logits=True)
    for change in (
        lambda: setattr(counted, "scale", -1.0),
        lambda: setattr(counted.head, "trainable", True),
    ):
        counted.calls.clear()
        change()
        eta = attack.perturbation(counted, X, Y, from_logits=True)
        assert counted.calls
        np.testing.assert_allclose(eta, eager(attack, counted, True), atol=1e-6)


def test_training_in_between_costs_no_trace():
    model, attack = Counted(), FastGradient(0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    attack(model, X, Y, from_logits=True)
    model.compile("sgd", loss)
    for _ in range(2):
        model.fit(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.calls.clear()
        attack(model, X, Y, from_logits=True)
        assert not model.calls


def test_layers_added_later_are_noticed():
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    attack = FastGradient(0.3)
    assert_as_eager(attack, model)
    model.pop()
    model.add(keras.layers.Dense(3, "softmax"))
    assert_as_eager(attack, model)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [FastGradient(0.1), PGD(0.1, math.inf, 2)])
@pytest.mark.parametrize("build", [functional, Counted])
def test_models_are_not_kept_alive(attack, build):
    model = build()
    attack(model, X, Y, from_logits=build is Counted)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_a_generator_is_followed_and_not_kept_alive():
    model = functional()
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 1)])
    attack = GeneratorAttack(generator)
    before = assert_as_eager(attack, model)
    generator.set_weights([w + 1 for w in generator.get_weights()])
    assert np.abs(assert_as_eager(attack, model) - before).max() > 0.1
    generator.layers[0].activation = keras.activations.tanh
    assert np.abs(assert_as_eager(attack, model)).max() < 1
    gone = weakref.ref(generator)
    del generator, attack
    gc.collect()
    assert gone() is None


def test_functions_that_run_eagerly_do():
    model = Counted()
    tf.config.run_functions_eagerly(True)
    try:
        for _ in range(2):
            model.calls.clear()
            PGD(0.1, 2, steps=5)(model, X, Y, from_logits=True)
            assert len(model.calls) >= 5
    finally:
        tf.config.run_functions_eagerly(False)
