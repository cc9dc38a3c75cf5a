"""Auto-PGD: the algorithm in NumPy, closed forms on linear models, and the DLR losses."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gat_tf import losses
from gat_tf.attacks import APGD, PGD, apgd
from gat_tf.evaluation import accuracy
from gat_tf.logits import Logits

SHAPE = (3, 2, 2)
D = 12
rng = np.random.default_rng(8)
W2 = rng.normal(size=(D, 2)).astype(np.float32)
W5 = rng.normal(size=(D, 5)).astype(np.float32)
B5 = rng.normal(size=5).astype(np.float32)
X = rng.uniform(0.3, 0.7, size=(6, *SHAPE)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1, 0])
Y5 = np.array([0, 1, 2, 3, 4, 0])
both_norms = pytest.mark.parametrize("norm", [2, math.inf])


@pytest.fixture
def two_classes(dense_classifier):
    return dense_classifier(W2, np.array([0.1, -0.2], np.float32), SHAPE)


@pytest.fixture
def five_classes(dense_classifier):
    return dense_classifier(W5, B5, SHAPE)


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:40], shapes[1][:40]


def _size(eta, norm):
    return np.linalg.norm(np.reshape(eta, (len(eta), -1)), ord=norm, axis=1)


def _uphill(labels=Y):
    """The gradient of the margin of the two-class model, `[B, D]`."""
    return np.where(labels == 0, 1, -1)[:, None] * (W2[:, 1] - W2[:, 0])


def _margins(model, images, labels):
    return losses.logit_margin(Logits(model)(tf.constant(images)), tf.constant(labels)).numpy()


# The losses.


def _numpy_dlr(z, y, t=None):
    s = np.sort(z)[::-1]
    if t is None:
        return -(z[y] - max(np.delete(z, y))) / (s[0] - s[2])
    return -(z[y] - z[t]) / (s[0] - (s[2] + s[3]) / 2)


def test_dlr_is_the_formula():
    z = tf.constant(rng.normal(size=(20, 5)), tf.float32)
    labels = np.arange(20) % 5
    targets = (labels + 1 + np.arange(20) % 4) % 5
    expected = [_numpy_dlr(*row) for row in zip(z.numpy(), labels, strict=True)]
    np.testing.assert_allclose(losses.dlr(z, labels), expected, rtol=1e-5)
    expected = [_numpy_dlr(*row) for row in zip(z.numpy(), labels, targets, strict=True)]
    np.testing.assert_allclose(losses.targeted_dlr(z, labels, targets), expected, rtol=1e-5)


def test_dlr_knows_no_scale():
    z = tf.constant(rng.normal(size=(4, 5)), tf.float32)
    labels, targets = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4])
    for scale in (1e-3, 1e6):
        np.testing.assert_allclose(losses.dlr(z * scale, labels), losses.dlr(z, labels), rtol=1e-4)
        np.testing.assert_allclose(
            losses.targeted_dlr(z * scale, labels, targets),
            losses.targeted_dlr(z, labels, targets),
            rtol=1e-4,
        )


def test_dlr_and_its_gradient_are_finite_where_the_largest_are_equal():
    z = tf.constant([[1.0] * 5, [3.0, 3, 3, 3, -1]])
    labels, targets = tf.constant([0, 4]), tf.constant([1, 0])
    for loss in (
        lambda z: losses.dlr(z, labels),
        lambda z: losses.targeted_dlr(z, labels, targets),
    ):
        with tf.GradientTape() as tape:
            tape.watch(z)
            values = loss(z)
        assert np.isfinite(values).all()
        assert np.isfinite(tape.gradient(values, z)).all()


def test_dlr_of_too_few_classes_is_named(two_classes):
    with pytest.raises(ValueError, match=r"Expected logits of at least 3 classes.*Received: 2"):
        losses.dlr(tf.zeros([1, 2]), tf.constant([0]))
    with pytest.raises(ValueError, match=r"Expected logits of at least 4 classes.*Received: 3"):
        losses.targeted_dlr(tf.zeros([1, 3]), tf.constant([0]), tf.constant([1]))
    with pytest.raises(ValueError, match="at least 3 classes"):
        APGD(0.1, loss="dlr").perturbation(two_classes, X, Y)


# The algorithm.


def test_checkpoints_are_the_papers():
    assert apgd.checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(1000) == [0, 220, 410, 570, 700, 800, 870, 930, 990]
    assert apgd.checkpoints(20) == [0, 5, 9, 12, 14, 16, 18, 19, 20]
    assert apgd.checkpoints(1) == [0, 1]


def _numpy_apgd(x, start, f, gradient, epsilon, norm, steps):
    """Algorithm 1 of the paper for one image; returns its iterates."""

    def project(eta):
        if norm == 2:
            length = np.linalg.norm(eta)
            eta = eta * min(1, epsilon / length)
        else:
            eta = np.clip(eta, -epsilon, epsilon)
        return np.clip(x + eta, 0, 1) - x

    def climb(eta, size):
        g = gradient(x + eta)
        return project(eta + size * (g / np.linalg.norm(g) if norm == 2 else np.sign(g)))

    size, size_before, halvings = 2 * epsilon, 2 * epsilon, 0
    before, here = start, climb(start, size)
    values = [f(x + before), f(x + here)]
    iterates = [before, here]
    best, f_best = (here, values[1]) if values[1] > values[0] else (before, values[0])
    f_best_before, last = values[0], 0
    for k in range(1, steps):
        if k in apgd.checkpoints(steps):
            rises = sum(values[i + 1] > values[i] for i in range(last, k))
            few = rises < 0.75 * (k - last)
            stuck = size == size_before and f_best == f_best_before
            size_before, f_best_before, last = size, f_best, k
            if few or stuck:
                size, here = size / 2, best
                halvings += 1
        z = climb(here, size)
        before, here = here, project(here + 0.75 * (z - here) + 0.25 * (here - before))
        iterates.append(here)
        values.append(f(x + here))
        if values[-1] > f_best:
            best, f_best = here, values[-1]
    return iterates, halvings


@both_norms
def test_apgd_is_the_algorithm_in_numpy(five_classes, norm):
    """On the five-class model, whose cross-entropy is curved, from the same starts."""
    epsilon, steps, seed = 0.9, 25, [3, 4]
    w, b = W5.astype(np.float64), B5.astype(np.float64)
    seeds = tf.random.split(tf.constant(seed), 1)
    start = _numpy_start(norm, epsilon, seeds[0])

    def of(y):
        def f(x):
            z = x @ w + b
            return np.log(np.exp(z).sum()) - z[y]

        def gradient(x):
            z = x @ w + b
            return w @ (np.exp(z) / np.exp(z).sum() - np.eye(5)[y])

        def logit_margin(x):
            z = x @ w + b
            return max(np.delete(z, y)) - z[y]

        return f, gradient, logit_margin

    eta = APGD(epsilon, norm, steps).perturbation(five_classes, X, Y5, seed=seed)
    eta, total = np.reshape(eta, (6, D)), 0
    for i, y in enumerate(Y5):
        x = X[i].reshape(D).astype(np.float64)
        f, gradient, logit_margin = of(y)
        iterates, halvings = _numpy_apgd(x, start[i], f, gradient, epsilon, norm, steps)
        total += halvings
        margins = [logit_margin(x + iterate) for iterate in iterates]
        np.testing.assert_allclose(logit_margin(x + eta[i]), max(margins), atol=1e-4)
        if norm == 2:
            np.testing.assert_allclose(eta[i], iterates[np.argmax(margins)], atol=1e-3)
    assert total > 6


@pytest.mark.parametrize(
    ("since", "rises", "halved", "highest_before", "halve"),
    [
        (-1, 0, False, 5.0, False),  # no checkpoint
        (4, 2, False, 4.0, True),  # too few steps have raised the loss
        (4, 3, False, 4.0, False),
        (4, 3, False, 5.0, True),  # enough have, but none above the highest before
        (4, 3, True, 5.0, False),  # the step has only just been halved
    ],
)
def test_step_is_halved_where_it_has_not_served(since, rises, halved, highest_before, halve):
    zero = tf.zeros([1, 1, 1, 1])
    state = apgd._State.at(tf.constant([0]), zero)._replace(
        delta=zero + 1, best=zero + 2, best_gradient=zero + 3, best_loss=tf.constant([5.0]),
        rises=tf.constant([float(rises)]), halved=tf.constant([halved]),
        best_at_checkpoint=tf.constant([highest_before]),
    )  # fmt: skip
    after, uphill = state.checked(zero + 7, tf.constant(float(since)))
    found = [float(tf.squeeze(t)) for t in (after.step_size, after.delta, uphill)]
    assert found == ([1, 2, 3] if halve else [2, 1, 7])
    if since > 0:
        assert (after.rises[0], after.halved[0], after.best_at_checkpoint[0]) == (0, halve, 5)


def _numpy_start(norm, epsilon, seed):
    """Uniform noise over its largest magnitude, or Gaussian noise over its length, clipped."""
    if norm == 2:
        noise = tf.random.stateless_normal(X.shape, seed).numpy().reshape(6, D)
    else:
        noise = tf.random.stateless_uniform(X.shape, seed, -1.0, 1.0).numpy().reshape(6, D)
    start = epsilon * noise / _size(noise, norm)[:, None]
    x = X.reshape(6, D)
    return np.clip(x + start, 0, 1) - x


@both_norms
def test_apgd_reaches_the_optimum_of_a_linear_model(two_classes, norm):
    w = _uphill()
    direction = np.sign(w) if norm == math.inf else w / _size(w, 2)[:, None]
    eta = APGD(0.2, norm, steps=30).perturbation(two_classes, X, Y)
    np.testing.assert_allclose(np.reshape(eta, (6, D)), 0.2 * direction, atol=2e-3)
    reached = _margins(two_classes, X + eta, Y)
    np.testing.assert_allclose(
        reached, _margins(two_classes, X + 0.2 * direction.reshape(X.shape), Y), rtol=1e-5
    )


@both_norms
def test_apgd_reaches_the_optimum_within_the_clip(two_classes, norm):
    clip, w = (0.1, 0.9), _uphill()
    low, high = clip[0] - X.reshape(6, D), clip[1] - X.reshape(6, D)
    best = np.clip(0.5 * np.sign(w), low, high)
    if norm == 2:
        # The optimum is clip(λ w) of length ε, and its length grows with λ.
        best = np.stack([_longest(*row) for row in zip(w, low, high, strict=True)])
    attack = APGD(0.7 if norm == 2 else 0.5, norm, steps=60, clip=clip)
    reached = (w * np.reshape(attack.perturbation(two_classes, X, Y), (6, D))).sum(axis=1)
    optimum = (w * best).sum(axis=1)
    assert ((best == low) | (best == high)).any()
    assert (reached <= optimum * (1 + 1e-5)).all()
    # In L2, to project and then to clip is not the nearest point of both: it converges slowly.
    np.testing.assert_allclose(reached, optimum, rtol=1e-5 if norm == math.inf else 0.02)


def _longest(w, low, high):
    small, large = 0.0, 100.0
    for _ in range(60):
        middle = (small + large) / 2
        if np.linalg.norm(np.clip(middle * w, low, high)) < 0.7:
            small = middle
        else:
            large = middle
    return np.clip(small * w, low, high)


@both_norms
def test_accuracy_is_the_analytic_one_of_a_linear_model(two_classes, norm):
    images = rng.uniform(0.4, 0.6, size=(50, *SHAPE)).astype(np.float32)
    labels = two_classes(images).numpy().argmax(axis=1)
    w = _uphill()[0]
    margins = -_margins(two_classes, images, labels)
    distances = margins / (np.abs(w).sum() if norm == math.inf else np.linalg.norm(w))
    epsilon = np.quantile(distances, 0.6)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(50)
    found = accuracy(two_classes, batches, APGD(epsilon, norm, steps=20, clip=None))
    assert found == (distances > epsilon).mean() == 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "loss"), [(2, "dlr"), (math.inf, "targeted_dlr")])
def test_budget_and_clip_are_never_exceeded(five_classes, norm, loss):
    for epsilon, clip in ((0.3, (0, 1)), (3.0, (0.25, 0.75)), (3.0, None)):
        attack = APGD(epsilon, norm, 7, loss, targets=2, clip=clip)
        images = np.clip(X, 0.25, 0.75)
        eta = attack.perturbation(five_classes, images, Y5).numpy()
        assert _size(eta, norm).max() <= epsilon + 1e-5
        if clip is not None:
            assert (images + eta).min() >= clip[0] - 1e-5
            assert (images + eta).max() <= clip[1] + 1e-5


def test_confident_network_is_attacked_too(dense_classifier):
    """Its cross-entropy is zero in float32, and so is the gradient of it."""
    model = dense_classifier(1000 * W2, np.zeros(2, np.float32), SHAPE)
    labels = model(X).numpy().argmax(axis=1)
    assert (model(X).numpy().max(axis=1) == 1).all()
    eta = APGD(0.2, math.inf, steps=20, clip=None).perturbation(model, X, labels)
    expected = 0.2 * np.sign(_uphill(labels))
    np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-4)


# On a trained network.


@pytest.mark.slow
@both_norms
def test_apgd_is_not_weaker_than_pgd(trained, some, norm):
    images, labels = some
    epsilon = 0.25 if norm == 2 else 0.01
    stands = {}
    for attack in (
        PGD(epsilon, norm, 20),
        *(APGD(epsilon, norm, 20, loss) for loss in apgd.LOSSES[:2]),
    ):
        adversarial = attack(trained, images, labels, seed=[1, 2])
        stands[attack] = (_margins(trained, adversarial, labels) <= 0).mean()
    pgd, cross_entropy, dlr = stands.values()
    assert 0.1 < pgd < 0.9
    # Both start at random: a few images more or less are luck.
    assert cross_entropy <= pgd + 0.05
    assert dlr <= pgd + 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        APGD(0.15, 2, 6, restarts=2),
        APGD(0.006, math.inf, 6, "dlr"),
        APGD(0.15, 2, 3, "targeted_dlr", targets=3),
    ],
    ids=lambda attack: attack.loss,
)
def test_early_stop_fools_the_same_images(trained, trained_logits, some, attack):
    """Compiled and from probabilities, against early, eager and from logits."""
    images, labels = some
    early = attack.for_accuracy()
    assert early.early_stop
    compiled = tf.function(lambda x, y: attack(trained, x, y, seed=[1, 2]), autograph=False)
    adversarial = compiled(images, labels)
    stopped = early(trained_logits, images, labels, from_logits=True, seed=[1, 2])
    full, stopped = (_margins(trained, a, labels) for a in (adversarial, stopped))
    np.testing.assert_array_equal(full > 0, stopped > 0)
    assert 0.1 < (full > 0).mean() < 0.9
    assert (full >= stopped - 1e-5).all()
    # Those that stand have been through the same steps: no draw depends on who else stands.
    np.testing.assert_allclose(full[full <= 0], stopped[full <= 0], atol=1e-4)


@pytest.mark.slow
def test_targets_are_the_most_likely_other_classes(five_classes):
    """With enough steps towards each target, some run ends in each class that can be reached."""
    one = APGD(0.3, 2, 10, "targeted_dlr", targets=1)
    every = APGD(0.3, 2, 10, "targeted_dlr", targets=9)  # there are four
    labels = five_classes(X).numpy().argmax(axis=1)
    margins_one, margins_every = (
        _margins(five_classes, attack(five_classes, X, labels), labels) for attack in (one, every)
    )
    w, z = W5.astype(np.float64), X.reshape(6, D) @ W5 + B5
    for i, y in enumerate(labels):
        # The closed form of the largest margin over one class, and over all of them.
        reach = z[i] - z[i, y] + 0.3 * np.linalg.norm(w - w[:, [y]], axis=0)
        reach[y] = -np.inf
        second = np.argsort(z[i])[-2]
        np.testing.assert_allclose(margins_every[i], reach.max(), atol=0.02)
        assert margins_one[i] >= reach[second] - 0.02


@pytest.mark.slow
def test_targets_after_the_first_are_aimed_at_too(dense_classifier):
    """The most likely other class, 1, is out of reach; the next, 2, is not."""
    kernel, bias = np.zeros((D, 4), np.float32), np.array([0, 0, -3.1, -9], np.float32)
    kernel[0, 1:3] = -1, 5
    model, x, y = dense_classifier(kernel, bias, SHAPE), np.full((1, *SHAPE), 0.5), np.array([0])
    one, two = (
        _margins(model, APGD(0.3, 2, 10, "targeted_dlr", targets=n)(model, x, y, seed=[1, 2]), y)
        for n in (1, 2)
    )
    assert one < 0
    np.testing.assert_allclose(two, 5 * 0.8 - 3.1, atol=0.02)


@pytest.mark.slow
def test_restarts_are_kept_where_they_are_worse_for_the_classifier(trained, some):
    one, three = APGD(0.15, 2, 2), APGD(0.15, 2, 2, restarts=3)
    first, kept = (_margins(trained, a(trained, *some, seed=[1, 2]), some[1]) for a in (one, three))
    assert (kept > first + 1e-6).mean() > 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer of at least 1.*steps=0"),
        ({"restarts": 0}, "`restarts` must be an integer of at least 1.*restarts=0"),
        ({"targets": 0}, "`targets` must be an integer of at least 1.*targets=0"),
        ({"loss": "ce"}, r"`loss` must be one of \('cross_entropy'.*Received: loss='ce'"),
        ({"norm": 1}, "`norm` must be 2 or math.inf.*norm=1"),
        ({"epsilon": -1}, "finite and not negative.*epsilon=-1"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        APGD(**{"epsilon": 0.1, **arguments})
