"""Networks of other ranges of pixels: 0 to 255, a normalised one, preprocessing inside."""

import math

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, evaluation, training

LAYERS = keras.layers
IMAGES, LABELS = schemes.arrays(16)
BYTES = np.round(IMAGES * 255)


def of_bytes(network):
    """The network of [0, 1] as one that takes 0 to 255."""
    return keras.Sequential([keras.Input(schemes.SHAPE), LAYERS.Rescaling(1 / 255), network])


def generator_of_bytes():
    gradients = keras.Input(schemes.SHAPE)
    perturbation = schemes.generator()(LAYERS.Rescaling(255)(gradients))
    return keras.Model(gradients, LAYERS.Rescaling(255)(perturbation))


def build(kind, scale):
    """A scheme on [0, scale], whose networks compute the same whatever the scale is."""
    network = schemes.classifier()
    generator = schemes.generator()
    if scale == 255:
        network, generator = of_bytes(network), generator_of_bytes()
    bounds = (0, scale)
    if kind == "adversarial":
        attack = attacks.FastGradient(0.1 * scale, clip=bounds)
        scheme = training.AdversarialTraining(network, attack)
    elif kind == "unclipped":
        attack = attacks.FastGradient(0.1 * scale, clip=None)
        scheme = training.AdversarialTraining(network, attack, bounds=bounds)
    else:
        c_g = 0.1 / scale**2
        if kind == "generator":
            scheme = training.GeneratorTraining(network, generator, c_g, bounds=bounds)
        else:
            scheme = training.GAT(network, generator, c_g, minibatches=kind, bounds=bounds)
    optimizers = [schemes.sgd() for _ in range(1 + isinstance(scheme, training.GAT))]
    scheme.compile(*optimizers, run_eagerly=True)  # a few steps are faster than their trace
    return scheme


KINDS = ("adversarial", "unclipped", "generator", "separate", "shared")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_on_0_to_255_is_training_on_0_to_1(kind):
    found = []
    for scale in (1, 255):
        keras.utils.set_random_seed(3)
        scheme = build(kind, scale)
        images = BYTES * np.float32(scale / 255)
        scheme.fit(images, LABELS, batch_size=8, shuffle=False, epochs=2, verbose=0)
        found.append(schemes.weights(scheme))
    np.testing.assert_allclose(found[1], found[0], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_saved_with_the_scheme(kind):
    scheme = build(kind, 255)
    config = keras.saving.serialize_keras_object(scheme)
    assert tuple(keras.saving.deserialize_keras_object(config).bounds) == (0, 255)


@pytest.mark.parametrize("kind", KINDS)
def test_images_outside_the_range_are_told_both_ways_out(kind):
    scheme = build(kind, 1)
    with pytest.raises(ValueError, match=r"images within \[0(.0)?, 1(.0)?\].*to 25[0-9]") as error:
        scheme.fit(BYTES, LABELS, verbose=0)
    assert "divide by 255" in str(error.value)
    assert "clip=(low, high) of the attack, or bounds=(low, high)" in str(error.value)
    with pytest.raises(
        ValueError, match=r"uint8 images; divide them by 255 first, or.*bounds=\(0,"
    ):
        scheme.fit(BYTES.astype(np.uint8), LABELS, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [attacks.PGD(0.1, steps=1), attacks.APGD(0.1, steps=2)])
def test_attacks_on_images_outside_the_range_tell_both_ways_out(attack):
    """Called directly, in `evaluation.accuracy`, and in training with PGD."""
    model = schemes.classifier()
    scheme = training.AdversarialTraining(model, attack)
    scheme.compile(schemes.sgd())
    for call in (
        lambda: attack(model, BYTES, LABELS),
        lambda: evaluation.accuracy(model, BYTES, LABELS, attack),
        lambda: scheme.fit(BYTES, LABELS, verbose=0),
    ):
        with pytest.raises(ValueError, match=r"images within \[0(.0)?, 1(.0)?\]") as error:
            call()
        assert "divide by 255" in str(error.value)
        assert "clip=(low, high) of the attack, or bounds=(low, high)" in str(error.value)


@pytest.mark.slow
def test_draws_of_the_user_are_held_to_the_bounds():
    scheme = build("separate", 255)
    batch = tf.data.Dataset.from_tensors((BYTES, LABELS))
    scheme.fit(tf.data.Dataset.zip(batch, (batch,)), verbose=0)
    outside = tf.data.Dataset.from_tensors((BYTES * 2, LABELS))
    with pytest.raises(ValueError, match=r"images within \[0, 255\]"):
        scheme.fit(tf.data.Dataset.zip(batch, (outside,)), verbose=0)


def test_bounds_that_are_not_the_clip_are_named():
    with pytest.raises(ValueError, match=r"bounds=\(0, 255\) and clip=\(0.0, 1.0\).*Pass clip="):
        training.AdversarialTraining(schemes.classifier(), attacks.FastGradient(8), bounds=(0, 255))
    with pytest.raises(ValueError, match=r"`bounds` as \(low, high\).*bounds=\(1, 0\)"):
        training.GAT(schemes.classifier(), schemes.generator(), 0.1, bounds=(1, 0))


def test_a_generator_that_ends_in_tanh_is_too_weak_for_0_to_255():
    classifier = of_bytes(schemes.classifier())
    made = schemes.generator()
    nested = keras.Sequential([keras.Input(made.input_shape[1:]), made])
    for make in (
        lambda **bounds: training.GAT(classifier, schemes.generator(), 0.1, **bounds),
        lambda **bounds: training.GAT(classifier, nested, 0.1, **bounds),
        lambda **bounds: training.GeneratorTraining(classifier, schemes.generator(), 0.1, **bounds),
    ):
        with pytest.warns(UserWarning, match=r"less than 1, in a range from 0 to 255.*Rescaling"):
            make(bounds=(0, 255))
        make(bounds=(-1, 1))  # no warning, which would be an error


def test_bytes_are_images_of_a_model_that_takes_0_to_255():
    model, attack = of_bytes(schemes.classifier()), attacks.FastGradient(8, clip=(0, 255))
    eta = attack.perturbation(model, BYTES.astype(np.uint8), LABELS)
    np.testing.assert_array_equal(eta, attack.perturbation(model, BYTES, LABELS))
    of_unit = attacks.FastGradient(8 / 255).perturbation(schemes.classifier(), BYTES / 255, LABELS)
    np.testing.assert_allclose(eta, 255 * of_unit, atol=1e-4)


# Recipes.


def x_of(images):
    return keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32))


@pytest.mark.slow
def test_recipe_of_keras_applications():
    """MobileNetV2 with its preprocessing inside takes 0 to 255."""
    inputs = keras.Input((32, 32, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    network = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=4
    )
    model = keras.Model(inputs, network(x))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 1, 1, 3)) * rng.uniform(0, 1, (6, 32, 32, 3))
    images = images.astype(np.uint8)
    # Untrained, it hardly tells images apart.
    kernel, bias = network.layers[-1].get_weights()
    mean = keras.Model(network.input, network.layers[-2].output).predict(x_of(images), verbose=0)
    kernel /= np.std(mean @ kernel, axis=0)
    network.layers[-1].set_weights([kernel, bias - mean.mean(axis=0) @ kernel])
    labels = np.argmax(model.predict(images, verbose=0), axis=1)
    attack = attacks.FastGradient(8, math.inf, clip=(0, 255))
    attacked = attack(model, images, labels).numpy()
    assert np.abs(attacked - images).max() == pytest.approx(8, rel=1e-5)
    assert attacked.min() >= 0
    assert attacked.max() <= 255
    assert (np.abs(attacked - images) > 0).mean() > 0.9  # the gradient is there
    expected = np.mean(np.argmax(model.predict(attacked, verbose=0), axis=1) == labels)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
    assert evaluation.accuracy(model, batches, bounds=(0, 255)) == 1
    assert evaluation.accuracy(model, batches, attack) == pytest.approx(expected)


@pytest.mark.slow
def test_recipe_of_a_normalization_layer():
    """A functional model that normalises images by itself, trained and evaluated on 0 to 255."""
    normalization = LAYERS.Normalization(mean=[120.0, 110, 100], variance=[3600.0, 3000, 4000])
    inputs = keras.Input(schemes.SHAPE)
    x = LAYERS.Flatten()(normalization(inputs))
    model = keras.Model(inputs, LAYERS.Dense(3, "softmax")(x))
    attack = attacks.PGD(8, math.inf, 3, clip=(0, 255))
    scheme = training.AdversarialTraining(model, attack)
    scheme.compile(schemes.sgd())
    history = scheme.fit(BYTES, LABELS, epochs=20, verbose=0).history
    assert history["adversarial_loss"][-1] < history["adversarial_loss"][0] - 0.1
    batches = tf.data.Dataset.from_tensor_slices((BYTES, LABELS)).batch(8)
    clean = evaluation.accuracy(model, batches, bounds=(0, 255))
    assert clean == np.mean(np.argmax(model.predict(BYTES, verbose=0), axis=1) == LABELS)
    assert evaluation.accuracy(model, batches, attack) <= clean


@pytest.mark.slow
def test_recipe_of_a_normalised_range():
    """A model that takes images with mean 0.5 and standard deviation 0.25 taken off already."""
    low, high = -2.0, 2.0
    images = (IMAGES - 0.5) / 0.25
    scheme = training.GAT(schemes.classifier(), schemes.generator(), 0.1, bounds=(low, high))
    scheme.compile(schemes.sgd(), schemes.sgd())
    assert np.isfinite(scheme.fit(images, LABELS, verbose=0).history["loss"]).all()
    attack = attacks.GeneratorAttack(scheme.generator, clip=None)
    batches = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(8)
    power = evaluation.power(scheme.classifier, batches, attack, bounds=(low, high))
    eta = attacks.GeneratorAttack(scheme.generator, clip=(low, high)).perturbation(
        scheme.classifier, images, LABELS
    )
    np.testing.assert_allclose(power, np.sum(np.square(eta), (1, 2, 3)), rtol=1e-5)
