"""AWP against its weights, loss and gradient in NumPy, on a linear softmax model."""

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, training
from gat_tf.logits import Logits
from gat_tf.training.awp import awp_step, worst_weights

SHAPE, D, K = (2, 2, 1), 4, 3
rng = np.random.default_rng(0)
W, B = rng.normal(size=(D, K)), rng.normal(size=K)
X = rng.uniform(0.2, 0.8, (5, D))
Y = np.array([0, 1, 2, 1, 0])
GAMMA = 0.3


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradient_of_kernel(w):
    """Of the summed cross-entropy, and the part of the logits in it."""
    of_logits = softmax(X @ w + B) - np.eye(K)[Y]
    return X.T @ of_logits, of_logits


def network(dense_classifier):
    return dense_classifier(W.astype("float32"), B.astype("float32"), SHAPE)


def test_step_is_the_loss_and_gradient_at_the_worst_weights_in_numpy(dense_classifier):
    model = network(dense_classifier)
    images, labels = tf.constant(X.reshape(5, *SHAPE), tf.float32), tf.constant(Y)
    step = awp_step(Logits(model), images, labels, GAMMA, loss_scale=4.0)
    uphill, _ = gradient_of_kernel(W)
    worst = W + GAMMA * np.linalg.norm(W) * uphill / np.linalg.norm(uphill)  # not the bias
    expected, of_logits = gradient_of_kernel(worst)
    assert np.abs(expected - uphill).max() > 0.1
    kernel, bias = step.gradients
    np.testing.assert_allclose(kernel, 4 * expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias, 4 * of_logits.sum(axis=0), rtol=1e-4, atol=1e-5)
    right = np.arange(5), Y
    np.testing.assert_allclose(step.loss, -np.log(softmax(X @ worst + B)[right]), rtol=1e-4)
    np.testing.assert_allclose(step.at_weights.loss, -np.log(softmax(X @ W + B)[right]), rtol=1e-4)
    for variable, value in zip(model.trainable_variables, (W, B), strict=True):
        np.testing.assert_array_equal(variable, value.astype("float32"))  # nothing is moved


def test_kernels_with_an_overflowed_gradient_stay_where_they_are():
    """As under a loss scale that is too large: the optimizer leaves out the update."""
    kernels = [keras.Variable([[3.0, 4.0]]), keras.Variable([[3.0, 4.0]])]
    gradients = [tf.constant([[np.inf, 1.0]]), tf.constant([[0.0, 2.0]])]
    stays, moves = worst_weights(kernels, gradients, 0.1)
    np.testing.assert_array_equal(stays, [[3.0, 4.0]])
    np.testing.assert_allclose(moves, [[3.0, 4.5]])


@pytest.mark.slow
def test_training_takes_the_gradient_at_the_attacked_images(dense_classifier):
    model = network(dense_classifier)
    attack = attacks.FastGradient(0.1, np.inf)
    images = X.reshape(5, *SHAPE).astype("float32")
    perturbed = attack(model, images, Y)
    step = awp_step(Logits(model), perturbed, tf.constant(Y), GAMMA)
    expected = W - 0.5 * step.gradients[0].numpy() / 5
    scheme = training.AWP(model, attack, GAMMA)
    scheme.compile(keras.optimizers.SGD(0.5))
    history = scheme.fit(images, Y, batch_size=5, verbose=0).history
    np.testing.assert_allclose(model.trainable_variables[0], expected, atol=1e-5)
    assert history["loss"] == pytest.approx([np.mean(step.loss)], rel=1e-4)
    assert history["adversarial_loss"] == pytest.approx([np.mean(step.at_weights.loss)], rel=1e-4)
    assert history["loss"] > history["adversarial_loss"] > history["clean_loss"]


@pytest.mark.slow
def test_gamma_0_is_adversarial_training_on_attacked_images():
    found = []
    for build in (
        lambda f, attack: training.AWP(f, attack, 0.0),
        lambda f, attack: training.AdversarialTraining(f, attack, alpha=0),
    ):
        scheme = build(schemes.classifier(), attacks.FastGradient(0.5))
        scheme.compile(schemes.sgd())
        scheme.fit(schemes.dataset(), verbose=0)
        found.append(schemes.weights(scheme))
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.slow
def test_the_first_steps_are_adversarial_training(dense_classifier):
    images = X.reshape(5, *SHAPE).astype("float32")
    found = []
    for epochs, steps in ((2, 0), (2, 1), (2, 2)):
        model = network(dense_classifier)
        attack = attacks.FastGradient(0.1, np.inf)
        scheme = training.AWP(model, attack, GAMMA, warmup_steps=steps)
        scheme.compile(keras.optimizers.SGD(0.5))
        history = scheme.fit(images, Y, batch_size=5, epochs=epochs, verbose=0).history
        found.append(np.array(history["loss"]) > np.array(history["adversarial_loss"]) + 1e-3)
    assert [worse.tolist() for worse in found] == [[True, True], [False, True], [False, False]]


@pytest.mark.slow
def test_batch_norm_remembers_the_images_once_and_its_scales_stay():
    images = keras.Input(SHAPE)
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Flatten()(images))
    model = keras.Model(images, keras.layers.Dense(K, "softmax")(x))
    batch = X.reshape(5, *SHAPE).astype("float32")
    scheme = training.AWP(model, attacks.FastGradient(0.0), 5.0)
    scheme.compile(keras.optimizers.SGD(0.0))
    before = [w.numpy() for w in model.trainable_variables]
    scheme.fit(batch, Y, batch_size=5, verbose=0)
    np.testing.assert_allclose(model.layers[2].moving_mean, 0.5 * X.mean(axis=0), rtol=1e-5)
    for after, w in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(after, w)


def test_a_gradient_of_zero_moves_nothing(dense_classifier):
    """Probabilities that are right beyond float32's reach."""
    model = dense_classifier(
        np.array([[-900, 900]], np.float32), np.zeros(2, np.float32), (1, 1, 1)
    )
    step = awp_step(Logits(model), tf.ones([2, 1, 1, 1]), tf.constant([1, 1]), 0.1)
    assert np.isfinite(step.gradients[0]).all()
    np.testing.assert_array_equal(step.loss, [0, 0])


def test_config_holds_every_setting():
    scheme = training.AWP(schemes.classifier(), attacks.PGD(0.1), 0.25, warmup_steps=3)
    again = training.AWP.from_config(scheme.get_config())
    assert (again.gamma, again.warmup_steps, again.alpha) == (0.25, 3, 0)


def test_accumulated_gradients_are_taken():
    scheme = training.AWP(schemes.classifier(), attacks.FastGradient(0.1))
    scheme.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    before = schemes.weights(scheme)
    history = scheme.fit(schemes.dataset(), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.abs(schemes.weights(scheme) - before).max() > 1e-4


def test_gamma_is_checked():
    with pytest.raises(ValueError, match=r"`gamma`.*-1"):
        training.AWP(schemes.classifier(), attacks.PGD(0.1), -1)
