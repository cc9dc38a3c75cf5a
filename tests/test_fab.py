"""FAB: projections and distances against closed forms, on linear models and on a trained one."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gat_tf import losses
from gat_tf.attacks import FAB, PGD, fab
from gat_tf.evaluation import accuracy
from gat_tf.logits import Logits

SHAPE = (3, 2, 2)
D = 12
rng = np.random.default_rng(9)
W5 = rng.normal(size=(D, 5)).astype(np.float32)
B5 = -0.5 * W5.sum(axis=0)  # gray is on every boundary
X = rng.uniform(0.4, 0.6, size=(20, *SHAPE)).astype(np.float32)
both_norms = pytest.mark.parametrize("norm", [2, math.inf])
several_classes = pytest.mark.parametrize("classes", [2, 5])


@pytest.fixture
def linear(dense_classifier):
    return lambda classes: dense_classifier(W5[:, :classes], B5[:classes], SHAPE)


def _size(eta, norm):
    return np.linalg.norm(np.reshape(eta, (len(eta), -1)), ord=norm, axis=1)


def _margins(model, images, labels):
    return losses.logit_margin(Logits(model)(tf.constant(images)), tf.constant(labels)).numpy()


def _distances(classes, labels, norm):
    """Of each image to the nearest plane between its label and another class."""
    w, b = W5[:, :classes].astype(np.float64), B5[:classes]
    z = X.reshape(len(X), D) @ w + b
    result = []
    for row, y in zip(z, labels, strict=True):
        normals = np.delete(w - w[:, [y]], y, axis=1)
        gaps = row[y] - np.delete(row, y)
        result.append(
            (gaps / np.linalg.norm(normals, ord=1 if norm == math.inf else 2, axis=0)).min()
        )
    return np.array(result)


# The projection.


def _numpy_step(x, normal, gap, norm, clip):
    """By bisection over the level, one image at a time; the corner where there is no solution."""
    normal, gap = normal / np.abs(normal).max(), gap / np.abs(normal).max()
    downhill = -np.sign(gap) * normal
    low, high = clip[0] - x, clip[1] - x

    def step(level):
        return np.clip(level * (downhill if norm == 2 else np.sign(downhill)), low, high)

    small, large = 0.0, 1e4
    for _ in range(100):
        middle = (small + large) / 2
        small, large = (middle, large) if downhill @ step(middle) < abs(gap) else (small, middle)
    return step(large)


@both_norms
def test_step_to_the_plane_is_the_smallest_within_the_box(norm):
    clip = (0.2, 0.9)
    x = rng.uniform(*clip, size=(30, D))
    x[:5] = np.round(x[:5], 1).clip(*clip)  # with ties, and at the faces of the box
    normal = rng.normal(size=(30, D)) * 10.0 ** rng.integers(-12, 6, size=(30, 1))
    normal[:10, ::3] = 0
    gap = rng.normal(size=30) * np.abs(normal).sum(axis=1) / 4
    expected = np.stack([_numpy_step(*row, norm, clip) for row in zip(x, normal, gap, strict=True)])
    args = [tf.constant(a.reshape(30, *SHAPE), tf.float32) for a in (x, normal)]
    step = fab.to_hyperplane(*args, tf.constant(gap, tf.float32), norm, clip)
    step = np.reshape(step, (30, D))
    reached = np.abs((normal * step).sum(axis=1) + gap) < 1e-4 * np.abs(gap)
    assert 3 < reached.sum() < 30  # the others' planes do not meet the box
    np.testing.assert_allclose(step, expected, atol=2e-5)
    assert (x + step >= clip[0] - 1e-6).all()
    assert (x + step <= clip[1] + 1e-6).all()


@both_norms
def test_step_without_a_box_is_the_closed_form(norm):
    normal = rng.normal(size=(4, D)).astype(np.float32) * 1e-25  # squares underflow
    gap = np.array([1, -2, 0, 3], np.float32) * 1e-25
    step = fab.to_hyperplane(
        tf.zeros([4, *SHAPE]), tf.constant(normal.reshape(4, *SHAPE)), tf.constant(gap), norm, None
    )
    normal, gap = normal.astype(float), gap.astype(float)
    if norm == 2:
        expected = -gap[:, None] * normal / (normal**2).sum(axis=1, keepdims=True)
    else:
        expected = -gap[:, None] * np.sign(normal) / np.abs(normal).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.reshape(step, (4, D)), expected, rtol=1e-4)


def test_no_gradient_is_no_step():
    zeros = tf.zeros([2, *SHAPE])
    for norm in (2, math.inf):
        for clip in (None, (0, 1)):
            step = fab.to_hyperplane(zeros, zeros, tf.constant([1.0, 0.0]), norm, clip)
            np.testing.assert_array_equal(step, zeros)


# The attack.


@pytest.mark.slow
@several_classes
@both_norms
def test_smallest_perturbation_is_the_distance_to_the_plane(linear, classes, norm):
    model = linear(classes)
    labels = model(X).numpy().argmax(axis=1)
    distances = _distances(classes, labels, norm)
    for clip in (None, (0, 1)):
        near = distances < 0.3  # the box is out of reach
        eta = FAB(9.0, norm, steps=5, clip=clip).perturbation(model, X, labels).numpy()
        assert near.sum() > 3
        np.testing.assert_allclose(_size(eta, norm)[near], distances[near], rtol=0.02)
        assert (_size(eta, norm)[near] >= distances[near] * (1 - 1e-4)).all()
        assert (_margins(model, X + eta, labels)[near] > 0).all()


@pytest.mark.slow
@several_classes
@both_norms
def test_success_is_exactly_where_epsilon_reaches_the_plane(linear, classes, norm):
    model = linear(classes)
    labels = model(X).numpy().argmax(axis=1)
    distances = np.sort(_distances(classes, labels, norm))
    # Between two distances with room for the few per mille that the attack leaves.
    widest = np.argmax(distances[4:15] / distances[3:14]) + 4
    epsilon = np.sqrt(distances[widest - 1] * distances[widest])
    assert distances[widest] / distances[widest - 1] > 1.04
    attack = FAB(epsilon, norm, steps=5, clip=None)
    eta = attack.perturbation(model, X, labels).numpy()
    fooled = _margins(model, X + eta, labels) > 0
    np.testing.assert_array_equal(fooled, _distances(classes, labels, norm) <= epsilon)
    np.testing.assert_array_equal(eta[~fooled], 0)
    assert _size(eta, norm).max() <= epsilon
    batches = tf.data.Dataset.from_tensor_slices((X, labels)).batch(8)
    assert accuracy(model, batches, attack) == 1 - widest / len(X)


@both_norms
def test_box_is_respected(linear, norm):
    clip = (0.4, 0.6)
    model = linear(5)
    labels = model(X).numpy().argmax(axis=1)
    eta = FAB(9.0, norm, steps=5, targets=2, clip=clip).perturbation(model, X, labels).numpy()
    assert (X + eta).min() >= clip[0] - 1e-6
    assert (X + eta).max() <= clip[1] + 1e-6
    found = _size(eta, norm) > 0
    assert found.mean() > 0.1
    assert (_margins(model, X + eta, labels)[found] > 0).all()
    assert np.isclose(X + eta, clip[0]).any() | np.isclose(X + eta, clip[1]).any()


def test_each_image_has_its_own_epsilon(linear):
    model = linear(5)
    labels = model(X).numpy().argmax(axis=1)
    distances = _distances(5, labels, 2)
    epsilons = distances * np.where(np.arange(len(X)) % 2, 1.05, 0.99)
    eta = FAB(epsilons, 2, steps=5, clip=None).perturbation(model, X, labels).numpy()
    np.testing.assert_array_equal(_size(eta, 2) > 0, np.arange(len(X)) % 2 == 1)


def test_what_is_misclassified_already_stays(linear):
    model = linear(5)
    labels = (model(X).numpy().argmax(axis=1) + 1) % 5
    np.testing.assert_array_equal(FAB(1.0, steps=3).perturbation(model, X, labels), 0)


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:30], shapes[1][:30]


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [FAB(0.25, 2, 4, targets=3), FAB(0.01, math.inf, 4, restarts=2, targets=2)],
    ids=["L2", "Linf, restarts"],
)
def test_early_stop_finds_something_for_the_same_images(trained, some, attack):
    images, labels = some
    compiled = tf.function(
        lambda x, y: attack.perturbation(trained, x, y, seed=[1, 2]), autograph=False
    )
    full = compiled(images, labels).numpy()
    early = attack.for_accuracy()
    assert early.early_stop
    stopped = early.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    norm, epsilon = attack.norm, attack.epsilon
    np.testing.assert_array_equal(_size(full, norm) > 0, _size(stopped, norm) > 0)
    assert 0.1 < (_size(full, norm) > 0).mean() < 0.9
    assert (_size(full, norm) <= _size(stopped, norm) + 1e-5).all()
    assert _size(stopped, norm).max() <= epsilon
    fooled = (_margins(trained, images + full, labels) > 0) > (
        _margins(trained, images, labels) > 0
    )
    np.testing.assert_array_equal(fooled, _size(full, norm) > 0)


@pytest.mark.slow
def test_restarts_find_smaller_perturbations(trained, some):
    images, labels = some[0][:15], some[1][:15]
    sizes = []
    for restarts in (1, 3):
        attack = FAB(9.0, 2, 20, restarts, targets=1)
        compiled = tf.function(
            lambda x, y, a=attack: a.perturbation(trained, x, y, seed=[1, 2]), autograph=False
        )
        sizes.append(_size(compiled(images, labels), 2))
    first, kept = sizes
    assert (kept <= first + 1e-5).all()
    assert (kept < first - 1e-4).any()


@pytest.mark.slow
def test_fab_is_not_much_weaker_than_pgd(trained, some):
    norm, epsilon = math.inf, 0.01
    batches = tf.data.Dataset.from_tensor_slices(some).batch(30)
    pgd = accuracy(trained, batches, PGD(epsilon, norm, 20))
    assert 0.1 < pgd < 0.9
    assert accuracy(trained, batches, FAB(epsilon, norm, 10, targets=4)) <= pgd + 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer of at least 1.*steps=0"),
        ({"restarts": 0}, "`restarts` must be an integer of at least 1.*restarts=0"),
        ({"targets": 2.5}, "`targets` must be an integer of at least 1.*targets=2.5"),
        ({"norm": 1}, "`norm` must be 2 or math.inf.*norm=1"),
        ({"epsilon": -1}, "finite and not negative.*epsilon=-1"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FAB(**{"epsilon": 0.1, **arguments})
