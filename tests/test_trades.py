"""TRADES against its loss, its attack and its gradient in NumPy, on a linear softmax model."""

import math

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, training
from gat_tf.logits import Logits
from gat_tf.training.trades import divergent, trades_step

SHAPE, D, K = (2, 2, 1), 4, 3
rng = np.random.default_rng(0)
W, B = rng.normal(size=(D, K)), rng.normal(size=K)
X = rng.uniform(0.2, 0.8, (5, D))
Y = np.array([0, 1, 2, 1, 0])
BETA, EPSILON, STEP, SEED = 3.0, 0.1, 0.04, [1, 2]


def log_softmax(x):
    z = x @ W + B
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def numpy_attack(start, norm, steps):
    """Step along the gradient (q - p) Wᵀ of KL(p || q), project, clip."""
    p, eta = np.exp(log_softmax(X)), start
    for _ in range(steps):
        gradient = (np.exp(log_softmax(X + eta)) - p) @ W.T
        if norm == 2:
            eta = eta + STEP * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
            length = np.linalg.norm(eta, axis=1, keepdims=True)
            eta = eta * np.minimum(1, EPSILON / length)
        else:
            eta = np.clip(eta + STEP * np.sign(gradient), -EPSILON, EPSILON)
        eta = np.clip(X + eta, 0, 1) - X
    return eta


def network(dense_classifier):
    return dense_classifier(W.astype("float32"), B.astype("float32"), SHAPE)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_step_is_the_loss_and_gradient_in_numpy(dense_classifier, norm):
    logits = Logits(network(dense_classifier))
    images, labels = tf.constant(X.reshape(5, *SHAPE), tf.float32), tf.constant(Y)
    starts, steps = (attacks.PGD(EPSILON, norm, n, step_size=s) for n, s in ((1, 0), (6, STEP)))
    start = starts.ascend(tf.zeros_like, images, tf.constant(SEED)).numpy().reshape(5, D)
    eta = numpy_attack(start, norm, 6)
    assert np.abs(eta - start).max() > 0.02
    step = trades_step(logits, steps, images, labels, BETA, seed=tf.constant(SEED), loss_scale=4.0)
    np.testing.assert_allclose(np.reshape(step.perturbation, (5, D)), eta, atol=1e-5)

    log_p, log_q = log_softmax(X), log_softmax(X + eta)
    p, q = np.exp(log_p), np.exp(log_q)
    divergence = np.sum(p * (log_p - log_q), axis=1)
    loss = -log_p[np.arange(5), Y] + BETA * divergence
    np.testing.assert_allclose(step.divergence, divergence, rtol=1e-3)
    np.testing.assert_allclose(step.loss, loss, rtol=1e-5)

    of_clean = p - np.eye(K)[Y] + BETA * p * (log_p - log_q - divergence[:, None])
    of_adversarial = BETA * (q - p)
    kernel, bias = step.gradients
    expected = X.T @ of_clean + (X + eta).T @ of_adversarial
    np.testing.assert_allclose(kernel, 4 * expected, atol=2e-5)
    np.testing.assert_allclose(bias, 4 * (of_clean + of_adversarial).sum(axis=0), atol=2e-5)


def test_attack_sees_the_network_without_its_dropout(dense_classifier):
    linear = network(dense_classifier)
    images = keras.Input(SHAPE)
    dropped = keras.Model(images, linear(keras.layers.Dropout(0.9)(images)))
    attack = attacks.PGD(EPSILON, 2, 6, step_size=STEP)
    x, seed = tf.constant(X.reshape(5, *SHAPE), tf.float32), tf.constant(SEED)
    found, expected = (divergent(Logits(f), attack, x, seed) for f in (dropped, linear))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_step_starts_at_another_point(dense_classifier):
    """Steps of length 0, of the attack and of the optimiser, leave the start alone."""
    attack = attacks.PGD(EPSILON, math.inf, 1, step_size=0.0)
    scheme = training.TRADES(network(dense_classifier), attack, BETA)
    scheme.compile(keras.optimizers.SGD(0.0))
    first, second = scheme.fit(
        X.reshape(5, *SHAPE).astype("float32"), Y, batch_size=5, epochs=2, verbose=0
    ).history["power"]
    assert abs(first - second) > 1e-3 * first
    # That of a uniform number in [-ε, ε] is ε²/3, for each of the 4 pixels of 5 images.
    assert [first, second] == pytest.approx([4 * EPSILON**2 / 3] * 2, rel=0.5)


def test_accuracies_are_those_of_the_clean_and_the_attacked_images(dense_classifier):
    """Of classes that the network predicts, so that the clean images are all right."""
    labels = log_softmax(X).argmax(axis=1)
    images = X.reshape(5, *SHAPE).astype("float32")
    attack = attacks.PGD(0.4, math.inf, 1, step_size=0.0)
    scheme = training.TRADES(network(dense_classifier), attack, BETA, seed=1)
    scheme.compile(keras.optimizers.SGD(0.0))
    results = scheme.evaluate(images, labels, batch_size=5, verbose=0, return_dict=True)
    start = attack.ascend(tf.zeros_like, tf.constant(images), (1, 0)).numpy().reshape(5, D)
    right = np.mean(log_softmax(X + start).argmax(axis=1) == labels)
    assert 0 < right < 1
    assert results["clean_accuracy"] == 1
    assert results["adversarial_accuracy"] == pytest.approx(right)


@pytest.mark.slow
def test_beta_0_is_training_on_clean_images():
    found = []
    for build in (
        lambda f: training.TRADES(f, attacks.PGD(0.5, steps=2), 0.0),
        lambda f: training.AdversarialTraining(f, attacks.RandomPerturbation(0.1), alpha=1.0),
    ):
        scheme = build(schemes.classifier())
        scheme.compile(schemes.sgd())
        scheme.fit(schemes.dataset(), verbose=0)
        found.append(schemes.weights(scheme))
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.slow
def test_a_large_beta_keeps_outputs_together_under_attack():
    divergence = []
    for beta in (0.0, 30.0):
        keras.utils.set_random_seed(0)
        scheme = training.TRADES(schemes.classifier(), attacks.PGD(0.5, steps=3), beta)
        scheme.compile(keras.optimizers.Adam(1e-2))
        scheme.fit(schemes.dataset(), epochs=20, verbose=0)
        results = scheme.evaluate(schemes.dataset(), verbose=0, return_dict=True)
        divergence.append(results["divergence"])
        expected = results["clean_loss"] + beta * results["divergence"]
        np.testing.assert_allclose(results["loss"], expected, rtol=1e-5)
    assert divergence[1] < divergence[0] / 3


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (attacks.FastGradient(0.1), TypeError, r"Expected attacks\.PGD"),
        (attacks.PGD(0.1, random_start=False), ValueError, "random_start=True"),
        (attacks.PGD(0.1, restarts=2), ValueError, "without restarts"),
        (attacks.PGD(0.1, early_stop=True), ValueError, "early_stop"),
        (attacks.PGD(0.1, targeted=True), ValueError, "untargeted"),
        (attacks.PGD(0.1, samples=2), ValueError, "samples"),
    ],
)
def test_attacks_that_do_not_climb_the_divergence_are_named(attack, error, message):
    with pytest.raises(error, match=message):
        training.TRADES(schemes.classifier(), attack)


def test_beta_is_checked():
    with pytest.raises(ValueError, match=r"`beta`.*-1"):
        training.TRADES(schemes.classifier(), attacks.PGD(0.1), -1)
