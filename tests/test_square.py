"""Square: the optimum of small problems, the published schedule, and what it may not do."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gat_tf import losses
from gat_tf.attacks import RandomPerturbation, Square, norms, square
from gat_tf.logits import Logits

rng = np.random.default_rng(3)
both_norms = pytest.mark.parametrize("norm", [2, math.inf])


def _size(eta, norm):
    return np.linalg.norm(np.reshape(eta, (len(eta), -1)), ord=norm, axis=1)


def _margins(model, images, labels):
    return losses.logit_margin(Logits(model)(tf.constant(images)), labels).numpy()


def _linear(dense_classifier, shape, bias):
    """A two-class model of which every image is of class 0, the less the lower its pixels."""
    kernel = rng.normal(size=(math.prod(shape), 2)).astype(np.float32)
    return dense_classifier(kernel, np.array([bias, 0], np.float32), shape), kernel


def _compiled(attack, model, images, labels, seed=(1, 2)):
    return attack.perturbation(model, images, labels, seed=seed).numpy()


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:60], shapes[1][:60]


# The optimum, where it can be known.


@pytest.mark.parametrize("shape", [(3, 3, 1), (2, 2, 2), (1, 1, 1)])
def test_linf_reaches_the_best_of_all_corners(dense_classifier, shape):
    model, _ = _linear(dense_classifier, shape, bias=50.0)  # nothing fools it and ends the search
    images = rng.uniform(0, 1, size=(4, *shape)).astype(np.float32)
    labels = np.zeros(4, int)
    signs = np.array(list(itertools.product([-1, 1], repeat=math.prod(shape))), np.float32)
    corners = np.clip(images[:, None] + 0.3 * signs.reshape(1, -1, *shape), 0, 1)
    best = [_margins(model, corners[i], np.zeros(len(signs), int)).max() for i in range(4)]
    eta = _compiled(Square(0.3, math.inf, 250), model, images, labels)
    np.testing.assert_allclose(_margins(model, images + eta, labels), best, atol=1e-4)


@pytest.mark.slow
def test_l2_follows_a_linear_model_much_further_than_chance(dense_classifier):
    shape = (6, 6, 2)
    model, kernel = _linear(dense_classifier, shape, bias=50.0)
    images = np.full((4, *shape), 0.5, np.float32)
    labels = np.zeros(4, int)
    eta = _compiled(Square(0.5, 2, 1500, clip=None), model, images, labels)
    risen = _margins(model, images + eta, labels) - _margins(model, images, labels)
    best = 0.5 * np.linalg.norm(kernel[:, 1] - kernel[:, 0])
    # Of 1500 random directions in 72 dimensions the best goes 0.4 of the way.
    assert (risen > 0.55 * best).all()
    assert (risen <= best + 1e-4).all()
    np.testing.assert_allclose(_size(eta, 2), 0.5, rtol=1e-4)  # all of the budget is spent


# The published pieces.


def test_share_of_the_pixels_is_the_published_schedule():
    share = 0.8
    published = {}
    for first, last in itertools.pairwise(
        [1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 10001]
    ):
        published.update(dict.fromkeys(range(first, last), share))
        share /= 2
    asked = [1, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000]
    asked += [6001, 8000, 8001, 9999]
    for query in asked:
        assert float(square.fraction(query, 10_000)) == pytest.approx(published[query])
        half = query // 2
        if half:
            assert float(square.fraction(half, 5_000)) == pytest.approx(published[2 * half])
        assert float(square.fraction(10 * query, 100_000)) == pytest.approx(published[query])


def test_bumps_are_the_published_ones():
    # Side 5: 2 rows above of one sign, 3 below of the other; n = 2, j = d + 1 to 3.
    one, two, three = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    above = [[three, two, two, two, three], [three, two, one, two, three]]
    below = [[three, two, two, two, three], [three, two, one, two, three]]
    below.append([three, two, two, two, three])
    bumps = square._bumps(tf.range(5)[:, None], tf.range(5), tf.constant(5))
    np.testing.assert_allclose(bumps, np.concatenate([above, np.negative(below)]), rtol=1e-5)


def _after_starts(dense_classifier, norm, count=200):
    """What one query tries: the start."""
    shape = (10, 10, 3)
    model, _ = _linear(dense_classifier, shape, bias=1e5)
    images = np.full((count, *shape), 0.5, np.float32)
    # The start is kept where it is worse than no perturbation: half of the images.
    eta = Square(0.1, norm, 1).perturbation(model, images, np.zeros(count, int), seed=[1, 2])
    eta = eta.numpy()
    kept = _size(eta, norm) > 0
    assert 0.3 < kept.mean() < 0.7
    return eta[kept]


def test_linf_starts_at_vertical_stripes(dense_classifier):
    eta = _after_starts(dense_classifier, math.inf)
    np.testing.assert_allclose(np.abs(eta), 0.1, rtol=1e-5)
    np.testing.assert_allclose(eta, np.broadcast_to(eta[:, :1], eta.shape), atol=1e-6)
    assert len(np.unique(np.sign(eta[:, 0]), axis=0)) == len(eta)


def test_l2_starts_at_a_tiling_of_bumps(dense_classifier):
    eta = _after_starts(dense_classifier, 2)
    np.testing.assert_allclose(_size(eta, 2), 0.1, rtol=1e-4)
    # 2 x 2 pixels a tile: one half is the other's negative, above or beside it.
    tiles = eta.reshape(-1, 5, 2, 5, 2, 3).transpose(0, 1, 3, 5, 2, 4)
    np.testing.assert_allclose(np.abs(tiles.sum(axis=(-1, -2))), 0, atol=1e-5)
    upright = np.sign(tiles[..., 0, 0]) == np.sign(tiles[..., 0, 1])
    assert 0.4 < upright.mean() < 0.6


def _window(draws, side):
    top, left = int(draws[0] * (12 - side + 1)), int(draws[1] * (9 - side + 1))
    return slice(top, top + side), slice(left, left + side)


def _redrawn_in_numpy(eta, epsilon, side, draws, norm):
    """The paper's Algorithms 2 and 3 for one image."""
    eta = eta.astype(np.float64)
    first, second = _window(draws[:2], side), _window(draws[2:4], side)
    signs = np.where(draws[5:] < 0.5, -1, 1)
    if norm == math.inf:
        eta[first] = np.clip(eta[first] + 2 * epsilon * signs, -epsilon, epsilon)
        return eta
    bumps = square._bumps(tf.range(side)[:, None], tf.range(side), tf.constant(side)).numpy()
    bumps = bumps.T if draws[4] < 0.5 else bumps
    unused = epsilon**2 - (eta**2).sum()
    for c in range(3):
        channel = eta[..., c]
        either = np.zeros_like(channel, bool)
        either[first] = either[second] = True
        available = np.sqrt((channel[either] ** 2).sum() + unused / 3)
        shape = signs[c] * bumps / np.linalg.norm(bumps)
        shape = shape + channel[first] / np.linalg.norm(channel[first])
        channel[second] = 0
        channel[first] = shape / np.linalg.norm(shape) * available
    return eta


@both_norms
def test_query_is_the_published_one(norm):
    epsilon, side = tf.fill([40, 1, 1, 1], 0.2), 5
    shape = tf.constant([40, 12, 9, 3])
    eta = 0.9 * norms.random_in_ball(shape, epsilon, norm, [1, 2])
    draws = tf.random.stateless_uniform([40, 8], [3, 4]).numpy()
    redrawn = Square(0.2, norm)._redrawn(eta, epsilon, tf.constant(5.3), draws).numpy()
    each = zip(eta.numpy(), draws, strict=True)
    expected = [_redrawn_in_numpy(e, 0.2, side, d, norm) for e, d in each]
    np.testing.assert_allclose(redrawn, expected, atol=1e-6)
    assert (_size(redrawn, norm) <= 0.2 + 1e-6).all()


# What holds on a trained network.


@pytest.mark.slow
@both_norms
def test_more_queries_never_lose_and_keep_to_ball_and_clip(trained, some, norm):
    images, labels = some
    epsilon = 0.4 if norm == 2 else 0.02
    clean = _margins(trained, images, labels)
    fooled = []
    for queries in (1, 15, 80):
        eta = _compiled(Square(epsilon, norm, queries), trained, images, labels)
        assert _size(eta, norm).max() <= epsilon + 1e-6
        assert (images + eta).min() >= 0
        assert (images + eta).max() <= 1
        margins = _margins(trained, images + eta, labels)
        assert (margins >= clean - 1e-5).all()
        np.testing.assert_array_equal(eta[clean > 0], 0)
        fooled.append((margins > 0).mean())
    assert fooled[0] < fooled[1] < fooled[2]
    noise = RandomPerturbation(epsilon, norm)(trained, images, labels, seed=[1, 2])
    assert fooled[2] > (_margins(trained, noise, labels) > 0).mean() + 0.1
    assert fooled[2] > (clean > 0).mean() + 0.1


@pytest.mark.slow
@both_norms
def test_restarts_go_on_with_what_stands(trained, some, norm):
    images, labels = some
    one = Square(0.3 if norm == 2 else 0.015, norm, 30)
    three = dataclasses.replace(one, restarts=3)
    first, kept = (_compiled(attack, trained, images, labels) for attack in (one, three))
    before, after = (_margins(trained, images + eta, labels) for eta in (first, kept))
    np.testing.assert_array_equal(kept[before > 0], first[before > 0])
    assert (after >= before - 1e-5).all()
    assert (after > 0).mean() > (before > 0).mean()


@pytest.mark.slow
@both_norms
def test_an_image_does_not_depend_on_the_others(trained, some, norm):
    images, labels = some[0][:12], some[1][:12]
    attack = Square(0.3 if norm == 2 else 0.015, norm, 40)
    eta = _compiled(attack, trained, images, labels)
    others = images.copy()
    others[::2] = rng.uniform(size=others[::2].shape)
    again = _compiled(attack, trained, others, labels)
    np.testing.assert_allclose(again[1::2], eta[1::2], atol=1e-6)
    alone = _compiled(attack, trained, images[:1], labels[:1])
    np.testing.assert_allclose(alone, eta[:1], atol=1e-6)


def test_other_seeds_give_other_perturbations(trained, some):
    attack = Square(0.02, math.inf, 20)
    first, second = (_compiled(attack, trained, *some, seed=(1, s)) for s in (2, 3))
    stands = _margins(trained, *some) <= 0
    assert (np.abs(first - second)[stands].max(axis=(1, 2, 3)) > 1e-3).mean() > 0.9


class Rounded(layers.Layer):
    """Passes no gradient on."""

    def call(self, x):
        return tf.stop_gradient(tf.round(x * 4) / 4)


@pytest.mark.slow
@both_norms
def test_a_model_without_gradients_is_attacked_all_the_same(trained_logits, some, norm):
    inputs = keras.Input((16, 16, 3))
    outputs = layers.Softmax()(Rounded()(trained_logits(inputs)))
    model = keras.Model(inputs, outputs)
    attack = Square(0.5 if norm == 2 else 0.03, norm, 80)
    eta = _compiled(attack, model, *some)
    clean, attacked = (
        np.mean(_margins(model, images, some[1]) > 0) for images in (some[0], some[0] + eta)
    )
    assert attacked > clean + 0.04


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -1}, "finite and not negative.*Received: epsilon=-1"),
        ({"norm": 1}, "`norm` must be 2 or math.inf.*norm=1"),
        ({"queries": 0}, "`queries` must be an integer of at least 1.*queries=0"),
        ({"queries": 1.5}, "`queries` must be an integer of at least 1.*queries=1.5"),
        ({"restarts": 0}, "`restarts` must be an integer of at least 1.*restarts=0"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Square(**{"epsilon": 0.1, **arguments})
