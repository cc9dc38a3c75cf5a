"""What stands in GAT's generator's place: multiples of Δ by hand."""

import numpy as np
import pytest
import tensorflow as tf

from gat_tf.experiments import surrogates

# Of powers 1 and 7, that is 4 in the mean.
GRADIENTS = np.array([[1, 0, 0, 0], [2, -1, 1, 1]], np.float32).reshape(2, 2, 2, 1)


def test_scaled_gradient_goes_down_by_the_scale():
    attack = surrogates.ScaledGradient(1.5, clip=None)
    assert attack.gradient_of == "probability"
    np.testing.assert_array_equal(attack.from_gradient(tf.constant(GRADIENTS)), -1.5 * GRADIENTS)


def test_shared_power_is_that_of_the_mean_image():
    attack = surrogates.SharedPower(9.0, clip=None)
    assert attack.gradient_of == "probability"
    perturbation = attack.from_gradient(tf.constant(GRADIENTS)).numpy()
    np.testing.assert_allclose(perturbation, -1.5 * GRADIENTS, rtol=1e-6)
    assert np.square(perturbation).sum() / 2 == pytest.approx(9)
    nothing = tf.zeros_like(GRADIENTS)
    np.testing.assert_array_equal(attack.from_gradient(nothing), nothing)


def test_scheduled_fast_gradient_follows_its_variable_up_the_loss():
    epsilon = tf.Variable(2.0, trainable=False)
    attack = surrogates.ScheduledFastGradient(epsilon, clip=None)
    assert attack.gradient_of == "margin"
    epsilon.assign(3.0)
    perturbation = attack.from_gradient(tf.constant(GRADIENTS)).numpy()
    lengths = np.sqrt(np.square(GRADIENTS).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(perturbation, 3 * GRADIENTS / lengths, rtol=1e-6)
