"""Accuracy against counts in NumPy, and the local Lipschitz value against its closed form."""

import dataclasses
import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import PGD, FastGradient, RandomPerturbation
from gat_tf.evaluation import (
    accuracy,
    correct_function,
    lipschitz_function,
    local_lipschitz_value,
    of_each_image,
)
from gat_tf.gradients import input_gradient
from gat_tf.logits import Logits

ATTACKS = {
    "clean": None,
    "fast gradient": FastGradient(0.3, 2),
    "pgd": PGD(0.02, math.inf, steps=3, random_start=False),
}


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:50], shapes[1][:50]


@pytest.fixture
def batches(some):
    """50 images in batches of 16: the last one has 2."""
    return tf.data.Dataset.from_tensor_slices(some).batch(16)


def _count(model, images, labels, attack):
    if attack is not None:
        images = attack(model, images, labels)
    return (model(images).numpy().argmax(axis=1) == labels).sum()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_accuracy_is_the_share_that_numpy_counts(trained, some, batches, attack):
    count = _count(trained, *some, attack)
    assert 0 < count < 50
    assert accuracy(trained, batches, attack) == count / 50


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_logits_and_probabilities_are_equally_accurate(trained, trained_logits, batches, attack):
    of_logits = accuracy(trained_logits, batches, attack, from_logits=True)
    assert of_logits == accuracy(trained, batches, attack)


@pytest.mark.slow
def test_attacks_cost_accuracy(trained, batches):
    clean = accuracy(trained, batches)
    assert accuracy(trained, batches, FastGradient(0.3, 2)) < clean - 0.1
    assert accuracy(trained, batches, FastGradient(0.0, 2)) == clean


@pytest.mark.slow
def test_the_worst_point_on_the_way_counts():
    """A model that is wrong from 0.53 to 0.67 alone, where PGD passes and comes back."""
    pixel = keras.Input((1, 1, 1))
    x = keras.layers.Flatten()(pixel)
    wrong = 0.5 - 100 * keras.ops.square(x - 0.6)
    model = keras.Model(pixel, keras.ops.concatenate([keras.ops.zeros_like(x), wrong], axis=-1))
    attack = PGD(0.3, math.inf, steps=2, step_size=0.2, random_start=False)
    images, labels = np.full((1, 1, 1, 1), 0.45, np.float32), np.array([0])
    way = [attack, dataclasses.replace(attack, steps=1)]
    ends = [float(a(model, images, labels, from_logits=True)[0, 0, 0, 0]) for a in way]
    np.testing.assert_allclose(ends, [0.45, 0.65], rtol=1e-6)
    assert accuracy(model, images, labels, from_logits=True) == 1
    assert accuracy(model, images, labels, attack, from_logits=True) == 0


@pytest.mark.slow
def test_model_is_measured_in_inference_mode(trained_with_state, some, batches):
    count = _count(trained_with_state, *some, None)
    assert accuracy(trained_with_state, batches) == count / 50


@pytest.mark.slow
def test_seed_fixes_the_accuracy_under_a_random_attack(trained, batches):
    attack = RandomPerturbation(3.0, 2)
    by_seed = [accuracy(trained, batches, attack, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert by_seed[0] == by_seed[1]
    assert len(set(by_seed)) > 1


def test_batches_of_an_epoch_are_perturbed_differently(trained, some):
    same = tuple(np.repeat(part[:1], 8, axis=0) for part in some)
    seen = []

    class Spy(RandomPerturbation):
        def perturb(self, logits, images, labels, seed=None):
            eta = super().perturb(logits, images, labels, seed)
            tf.py_function(lambda e: seen.append(e.numpy()), [eta], [])
            return eta

    accuracy(trained, tf.data.Dataset.from_tensor_slices(same).batch(4), Spy(1.0, 2))
    first, second = seen
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_all_batches_are_one_trace(trained, batches, attack, monkeypatch):
    module, made = sys.modules["gat_tf.evaluation.accuracy"], []

    def spy(*args):
        made.append(correct_function(*args))
        return made[-1]

    monkeypatch.setattr(module, "correct_function", spy)
    accuracy(trained, batches, attack)
    (compiled,) = made
    assert isinstance(compiled, tf.types.experimental.ConcreteFunction)  # of one trace


def test_one_trace_even_where_batches_have_a_fixed_size(trained, some):
    fixed = tf.data.Dataset.from_tensor_slices(some).batch(16, drop_remainder=True)
    compiled = correct_function(Logits(trained), None, fixed.element_spec)
    for size in (16, 2, 7):
        images, labels = (tf.constant(array[:size]) for array in some)
        flags = compiled(images, labels, tf.constant([0, 0]))
        expected = trained(some[0][:size]).numpy().argmax(axis=1) == some[1][:size]
        np.testing.assert_array_equal(flags, expected)


def test_images_within_the_clip_of_the_attack_are_good(trained, some):
    shifted = tf.data.Dataset.from_tensors((some[0] * 2 - 1, some[1]))
    attack = FastGradient(0.1, 2, clip=(-1, 1))
    count = _count(trained, some[0] * 2 - 1, some[1], attack)
    assert accuracy(trained, shifted, attack) == count / 50
    with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\]"):
        accuracy(trained, shifted)


@pytest.mark.slow
def test_images_within_bounds_are_good_where_no_attack_has_a_clip(trained, some):
    images = some[0] * 2 - 1
    shifted = tf.data.Dataset.from_tensors((images, some[1]))
    for attack in (None, FastGradient(0.0, 2, clip=None)):
        count = _count(trained, images, some[1], None)
        assert accuracy(trained, shifted, attack, bounds=(-1, 1)) == count / 50
        with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\]"):
            accuracy(trained, shifted, attack)
        with pytest.raises(ValueError, match=r"images within \[-1, 0.5\]"):
            accuracy(trained, shifted, attack, bounds=(-1, 0.5))


def test_clip_of_the_attack_goes_before_bounds(trained, some):
    shifted = tf.data.Dataset.from_tensors((some[0] * 2 - 1, some[1]))
    with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\]"):
        accuracy(trained, shifted, FastGradient(0.1, 2), bounds=(-1, 1))


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, 1, 2), 1.0, None])
@pytest.mark.parametrize("measure", [accuracy, local_lipschitz_value])
def test_bounds_are_low_and_high(trained, batches, measure, bounds):
    with pytest.raises(ValueError, match=r"`bounds` as \(low, high\).*Received: bounds="):
        measure(trained, batches, bounds=bounds)


def test_empty_dataset_is_named(trained, batches):
    with pytest.raises(ValueError, match=r"Expected a dataset .*Received: no images"):
        accuracy(trained, batches.take(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), r"images within \[0.0, 1.0\].*Received: values from 0"),
        (lambda x, y: (x / 0 * 0, y), r"images within \[0.0, 1.0\].*nan"),
        (lambda x, y: (tf.cast(x, tf.uint8), y), r"floating-point images.*uint8"),
        (lambda x, y: (x[0], y), r"Expected images \[batch, height, width, channels\]"),
        (lambda x, y: (x, y + 5), r"labels from 0 to 9.*10 classes.*to 14"),
        (lambda x, y: (x, tf.one_hot(y, 10)), r"integer labels.*float32.*pass their argmax"),
        (lambda x, y: (x, y[1:]), r"one (class number|label).* image.*Received"),
        (lambda x, y: x, r"dataset of \(images, labels\) batches. Received: TensorSpec"),
        (lambda x, y: {"image": x, "label": y}, r"dataset of \(images, labels\) batches.*image"),
        (lambda x, y: (x, y, y), r"dataset of \(images, labels\) batches. Received"),
    ],
    ids=[
        "255", "nan", "uint8", "one image", "labels", "one-hot", "a label missing", "images alone",
        "dictionary", "weights",
    ],
)  # fmt: skip
def test_bad_batch_is_a_value_error(trained, batches, change, message):
    with pytest.raises(ValueError, match=message):
        accuracy(trained, batches.map(change), FastGradient(0.1))


def test_bad_batch_is_found_wherever_it_comes(trained, some, batches):
    bad = tf.data.Dataset.from_tensors((some[0] + 1, some[1]))
    with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\].*to [12]"):
        accuracy(trained, batches.concatenate(bad))


def test_logits_taken_for_probabilities_are_found(trained, trained_logits, batches):
    with pytest.raises(ValueError, match=r"Expected probabilities.*Pass from_logits=True"):
        accuracy(trained_logits, batches)
    with pytest.raises(ValueError, match=r"Expected logits.*Pass from_logits=False"):
        accuracy(trained, batches, from_logits=True)


def _linear(dense_classifier, low, activation):
    """A linear classifier with images in [low, 1]: (model, batches, W, p - one-hot)."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(48, 5)), rng.normal(size=5)
    images = rng.uniform(low, 1, (13, 4, 4, 3)).astype("float32")
    labels = rng.integers(0, 5, 13)
    z = images.reshape(13, 48) @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    model = dense_classifier(kernel, bias, (4, 4, 3), activation)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)
    return model, batches, kernel, p - np.eye(5)[labels]


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("low", [0, -1])
def test_lipschitz_value_of_a_linear_model(dense_classifier, low, activation):
    model, batches, kernel, error = _linear(dense_classifier, low, activation)
    values = local_lipschitz_value(
        model, batches, from_logits=activation is None, bounds=(low, 1.0)
    )
    assert values.shape == (13,)
    np.testing.assert_allclose(values, np.linalg.norm(error @ kernel.T, axis=1), rtol=1e-4)


def test_lipschitz_value_is_the_norm_of_the_gradient_in_inference(
    trained_with_state, some, batches
):
    gradient = input_gradient(trained_with_state, *some, of="cross_entropy").numpy()
    expected = np.linalg.norm(gradient.reshape(50, -1), axis=1)
    values = local_lipschitz_value(trained_with_state, batches)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_lipschitz_value_after_every_epoch_is_traced_once(dense_classifier):
    """The compiled function sees the weights as they become."""
    kernel = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    model = dense_classifier(kernel, np.zeros(3, "float32"), (2, 2, 3), None)
    images = np.random.default_rng(1).uniform(size=(10, 2, 2, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(10) % 3)).batch(4)
    compiled = lipschitz_function(Logits(model, from_logits=True), batches.element_spec)
    for scale in (1, 3):
        model.set_weights([scale * kernel, np.zeros(3, "float32")])
        expected = local_lipschitz_value(model, batches, from_logits=True)
        np.testing.assert_allclose(of_each_image(compiled, batches), expected, rtol=1e-5)


def test_lipschitz_value_wants_images_within_bounds(dense_classifier):
    model, batches, *_ = _linear(dense_classifier, -1, "softmax")
    with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\].*from -"):
        local_lipschitz_value(model, batches)
    with pytest.raises(ValueError, match="Received: no images"):
        local_lipschitz_value(model, batches.take(0), bounds=(-1, 1))


# Arrays and progress.


@pytest.mark.slow
def test_arrays_are_measured_as_their_batches(trained, some, batches):
    attack = ATTACKS["fast gradient"]
    images, labels = some
    clean, attacked = accuracy(trained, batches), accuracy(trained, batches, attack)
    assert accuracy(trained, images, labels) == clean
    assert accuracy(trained, images, labels[:, None].astype(np.uint8)) == clean
    assert accuracy(trained, (images, labels)) == clean
    for found in (
        accuracy(trained, images, labels, attack),
        accuracy(trained, images, labels, attack=attack, batch_size=7),
        accuracy(trained, (images, labels), attack),
        accuracy(trained, batches, attack=attack),
    ):
        assert found == attacked


def test_what_is_neither_batches_nor_arrays_is_named(trained, some, batches):
    for data in (some[0], [1], None, "cifar10"):
        with pytest.raises(TypeError, match=r"or arrays \(images, labels\).*Received: "):
            accuracy(trained, data)
    with pytest.raises(ValueError, match="brings its labels and batches"):
        accuracy(trained, batches, some[1])
    with pytest.raises(ValueError, match="brings its labels and batches"):
        accuracy(trained, batches, batch_size=3)


def test_one_sigmoid_is_measured_as_two_classes(dense_classifier, some):
    kernel, bias = np.random.default_rng(0).normal(size=(768, 1)), np.array([0.1])
    model = dense_classifier(kernel, bias, (16, 16, 3), "sigmoid")
    images, labels = some[0], some[1] % 2
    z = images.reshape(50, -1) @ kernel[:, 0] + 0.1
    assert accuracy(model, images, labels) == np.mean((z > 0) == labels)
    # ε times the sum of |w| is how far L-infinity moves the logit of a linear model.
    attack = FastGradient(0.002, math.inf, clip=None)
    moved = z + 0.002 * np.abs(kernel).sum() * np.where(labels == 1, -1, 1)
    expected = np.mean((moved > 0) == labels)
    assert accuracy(model, images, labels, attack) == expected
    assert 0 < expected < accuracy(model, images, labels)


@pytest.mark.slow
def test_progress_is_keras_own_bar(trained, some, batches, capsys):
    value = accuracy(trained, batches)
    assert not capsys.readouterr().out
    assert accuracy(trained, batches, verbose=1) == value
    printed = capsys.readouterr().out
    assert "4/4" in printed
    assert f"accuracy: {value:.4f}" in printed
    accuracy(trained, batches, verbose=2)
    assert capsys.readouterr().out.count("4/4") == 1
    unknown = batches.filter(lambda x, y: True)
    accuracy(trained, unknown, verbose=1)
    assert "4/Unknown" in capsys.readouterr().out
    with pytest.raises(ValueError, match="`verbose` must be 0, 1 or 2"):
        accuracy(trained, batches, verbose="yes")
