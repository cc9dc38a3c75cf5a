"""Accuracy, clean and under attack, against counts in NumPy."""

import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import PGD, FastGradient, RandomPerturbation
from gat_tf.evaluation import accuracy, correct_function
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


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_logits_and_probabilities_are_equally_accurate(trained, trained_logits, batches, attack):
    of_logits = accuracy(trained_logits, batches, attack, from_logits=True)
    assert of_logits == accuracy(trained, batches, attack)


def test_attacks_cost_accuracy(trained, batches):
    clean = accuracy(trained, batches)
    assert accuracy(trained, batches, FastGradient(0.3, 2)) < clean - 0.1
    assert accuracy(trained, batches, FastGradient(0.0, 2)) == clean


def test_model_is_measured_in_inference_mode(trained_with_state, some, batches):
    count = _count(trained_with_state, *some, None)
    assert accuracy(trained_with_state, batches) == count / 50


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
