"""Images from generators, against calling them and against statistics by hand."""

import gc
import weakref

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import models
from gat_tf.models.sampling import images_of

LATENT = 5
NARROW = 1 / 32


def generator(normalised=True):
    return schemes.image_generator((-1, 1), normalised)


def noise_of(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, LATENT)).astype("float32")


def live(g, noise, labels):
    """The images with the statistics of this batch, by a copy that may be changed."""
    copy = keras.models.clone_model(g)
    copy.set_weights(g.get_weights())
    return copy([noise, labels], training=True).numpy()


def spied(monkeypatch, g):
    """The (noise, labels) of every batch that is made, eagerly."""
    seen = []
    call = type(g).stateless_call

    def stateless_call(self, *args, **kwargs):
        seen.append([t.numpy() for t in args[2]])
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(g), "stateless_call", stateless_call)
    tf.config.run_functions_eagerly(True)
    return seen


@pytest.fixture
def batches(monkeypatch):
    yield lambda g: spied(monkeypatch, g)
    tf.config.run_functions_eagerly(False)


def test_images_have_the_statistics_of_their_batch_and_the_generator_stays():
    g, noise, labels = generator(), noise_of(12), np.arange(12) % 3
    before = schemes.vector(g)
    got = models.sample(g, labels, noise=noise, batch_size=12)
    np.testing.assert_allclose(got, live(g, noise, labels), atol=1e-6)
    assert np.abs(got - g([noise, labels], training=False)).max() > 0.05
    assert got.dtype == np.float32
    np.testing.assert_array_equal(schemes.vector(g), before)


def test_a_frozen_generator_does_not_depend_on_the_last_batch():
    """What the moving statistics forget or keep is of no matter."""
    g, labels = generator(), np.arange(12) % 3
    first = models.sample(g, labels)
    g([3 * noise_of(8), np.arange(8) % 3], training=True)
    np.testing.assert_array_equal(models.sample(g, labels), first)


@pytest.mark.parametrize("labels", [[2], [1] * 20, [0, 0, 0, 0, 1, 2], np.repeat(range(3), 40)])
def test_every_batch_mixes_all_classes_and_is_full(labels, batches):
    g = generator()
    seen = batches(g)
    noise = noise_of(len(labels))
    images = models.sample(g, labels, noise=noise, batch_size=30)
    assert images.shape == (len(labels), *schemes.SHAPE)
    assert np.isfinite(images).all()
    for _, of_batch in seen:
        assert len(of_batch) == 30
        assert np.bincount(of_batch, minlength=3).min() >= 4
    # Each image comes from its own noise and class, wherever its batch had it.
    made = [live(g, *batch) for batch in seen]
    for image, z, label in zip(images, noise, labels, strict=True):
        ((b, i),) = [
            (b, i)
            for b, (noises, _) in enumerate(seen)
            for i in np.flatnonzero((noises == z).all(1))
        ]
        assert seen[b][1][i] == label
        np.testing.assert_allclose(image, made[b][i], atol=1e-6)


def test_batches_are_those_of_sample_and_no_more():
    g, labels = generator(), np.arange(31) % 3
    places, parts = zip(*models.sample_batches(g, labels, seed=4, batch_size=10), strict=True)
    assert max(map(len, parts)) <= 10
    order = np.concatenate(places)
    assert sorted(order) == list(range(31))
    assert sorted(order) != list(order)
    expected = models.sample(g, labels, seed=4, batch_size=10)
    np.testing.assert_array_equal(np.concatenate(parts), expected[order])


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_the_seed_fixes_the_images(statistics):
    g = generator()
    first, again, other = (
        models.sample(g, np.arange(7) % 3, seed=seed, statistics=statistics) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_moving_statistics_are_the_generators_image_by_image():
    g, noise, labels = generator(), noise_of(7), np.array([0, 0, 0, 1, 0, 2, 0])
    got = models.sample(g, labels, noise=noise, batch_size=3, statistics="moving")
    np.testing.assert_allclose(got, g([noise, labels], training=False), atol=1e-6)
    one = models.sample(g, labels[3:4], noise=noise[3:4], statistics="moving")
    np.testing.assert_allclose(one[0], got[3], atol=1e-6)


def test_fixed_statistics_are_the_means_over_the_batches():
    g = generator()
    before = schemes.vector(g)
    fixed = models.with_fixed_statistics(g, batches=3, batch_size=50, seed=2)
    np.testing.assert_array_equal(schemes.vector(g), before)
    of_g, of_fixed = (
        next(x for x in m.layers if isinstance(x, keras.layers.BatchNormalization))
        for m in (g, fixed)
    )
    entering = keras.Model(g.inputs, of_g.input)
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.arange(150) % 3).reshape(3, 50)
    h = np.stack([entering([rng.standard_normal((50, 5), np.float32), c]) for c in labels])
    np.testing.assert_allclose(of_fixed.moving_mean, h.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_fixed.moving_variance, h.var(1).mean(0), rtol=1e-4)
    assert of_fixed.momentum == of_g.momentum == 0.5


@pytest.mark.slow
def test_fixed_statistics_give_nearly_the_images_of_a_large_batch():
    g = models.image_generator(4, width=NARROW)
    fixed = models.with_fixed_statistics(g, batches=40, batch_size=100)
    rng = np.random.default_rng(0)
    noise, labels = rng.standard_normal((400, 128), np.float32), np.arange(400) % 4
    expected = models.sample(g, labels, noise=noise, batch_size=400)
    got = models.sample(fixed, labels, noise=noise, statistics="moving")
    stale = models.sample(g, labels, noise=noise, statistics="moving")
    spread = np.std(expected)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * spread
    assert np.sqrt(np.mean((stale - expected) ** 2)) > 0.2 * spread


@pytest.mark.slow
def test_a_generator_is_compiled_once_and_not_kept_for_it(monkeypatch):
    traces = []

    def spy(*args):
        traces.append(args)
        return images_of(*args)

    monkeypatch.setattr("gat_tf.models.sampling.images_of", spy)
    g = generator()
    for count in (3, 7, 30):
        models.sample(g, np.arange(count) % 3, batch_size=9)
    assert len(traces) == 1
    traces.clear()
    reference = weakref.ref(g)
    del g
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([0, 1], {"noise": np.zeros((2, 4))}, r"noise of shape \(2, 5\).*Received: \(2, 4\)"),
        ([0, 1], {"noise": np.zeros((3, 5))}, r"noise of shape \(2, 5\).*Received: \(3, 5\)"),
        ([0.0, 1.0], {}, "integer labels.*Received: float64 labels"),
        ([[0, 1]], {}, r"integer labels.*Received: int64 labels of shape \(1, 2\)"),
        ([], {}, r"at least one.*shape \(0,\)"),
        ([0, 3], {}, r"labels from 0 to 2, the generator's classes. Received: labels from 0 to 3"),
        ([-1, 2], {}, r"labels from 0 to 2.*Received: labels from -1 to 2"),
        ([0, 1], {"batch_size": 0}, "`batch_size`.*at least 1.*0"),
        ([0, 1], {"statistics": "live"}, r"`statistics` must be one of.*moving.*'live'"),
    ],
)
def test_bad_arguments_are_named(labels, arguments, message):
    for function in (models.sample, models.sample_batches):
        with pytest.raises(ValueError, match=message):
            function(generator(), labels, **arguments)


@pytest.mark.parametrize("function", [models.sample, models.sample_batches])
def test_what_is_no_generator_is_named(function):
    with pytest.raises(ValueError, match=r"generator of images from \[noise"):
        function(schemes.generator(), [0])
