"""Attacks on models with random numbers in them: gradients averaged over several passes."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import APGD, PGD
from gat_tf.logits import Logits

SHAPE = (3, 2, 2)
D = 12
rng = np.random.default_rng(1)
BASE, NOISE = rng.normal(size=(2, D, 2)).astype(np.float32)
X = rng.uniform(0.3, 0.7, (6, *SHAPE)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1, 0])


class Alternating(keras.Model):
    """Logits x (BASE + 100 NOISE) and x (BASE - 100 NOISE) in turn: the mean is x BASE."""

    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0, trainable=False)

    def call(self, images):
        calls = self.calls.assign_add(1)
        sign = tf.cast(1 - 2 * (calls % 2), tf.float32)
        return tf.reshape(images, [-1, D]) @ (BASE + 100 * sign * NOISE)


def attacked(attack):
    model = Alternating()
    logits = Logits(model, from_logits=True)
    compiled = tf.function(
        lambda x, y: attack.perturb(logits, x, y, tf.constant([1, 2])), autograph=False
    )
    eta = compiled(tf.constant(X), tf.constant(Y)).numpy()
    return eta.reshape(6, D), int(model.calls)


def uphill(norm):
    w = np.where(Y == 0, 1, -1)[:, None] * (BASE[:, 1] - BASE[:, 0])
    return np.sign(w) if norm == math.inf else w / np.linalg.norm(w, axis=1, keepdims=True)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_pgd_follows_the_mean_of_the_gradients(norm):
    expected = 0.1 * uphill(norm)
    found, calls = attacked(PGD(0.1, norm, 3, random_start=False, samples=4))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert calls == 3 * 4
    alone, calls = attacked(PGD(0.1, norm, 3, random_start=False))
    assert calls == 3
    assert np.abs(alone - expected).max() > 0.05


@pytest.mark.slow
def test_apgd_follows_the_mean_of_the_gradients():
    # The cross-entropy's stand-in is linear in the logits of two classes.
    found, calls = attacked(APGD(0.1, math.inf, 5, samples=2))
    np.testing.assert_allclose(found, 0.1 * uphill(math.inf), atol=1e-4)
    assert calls == (5 + 1) * 2
    alone, _ = attacked(APGD(0.1, math.inf, 5))
    assert np.abs(alone - 0.1 * uphill(math.inf)).max() > 0.05


def test_early_stop_asks_the_mean_of_the_logits():
    # The ball is too small to turn the mean model's class; the noise turns it every time.
    attack = PGD(1e-6, 2, 2, random_start=False, early_stop=True, samples=2)
    right = np.argmax(X.reshape(6, D) @ BASE, axis=1) == Y
    assert 0 < right.sum() < 6
    found, _ = attacked(attack)
    np.testing.assert_array_equal(np.linalg.norm(found, axis=1) > 0, right)


def test_restarts_are_judged_by_the_mean_of_the_logits():
    attack = PGD(0.1, 2, 1, step_size=0.0, restarts=2, samples=2)  # the starts alone
    found, _ = attacked(attack)
    alone = dataclasses.replace(attack, restarts=1)
    starts = [
        alone.ascend(tf.zeros_like, tf.constant(X), seed).numpy().reshape(6, D)
        for seed in tf.random.split(tf.constant([1, 2]), 2)
    ]
    of_label = np.where(Y == 0, 1, -1)
    margins = [of_label * ((X.reshape(6, D) + s) @ BASE @ [-1, 1]) for s in starts]
    worst = np.argmax(margins, axis=0)
    assert 0 < worst.sum() < 6
    np.testing.assert_allclose(found, np.array(starts)[worst, np.arange(6)], atol=1e-6)


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_samples_are_counted(attack):
    with pytest.raises(ValueError, match=r"`samples` must be an integer of at least 1.*samples=0"):
        attack(0.1, samples=0)
