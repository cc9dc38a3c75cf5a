"""Curves of accuracy against ε, and power, against closed forms on linear classifiers."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import attacks, evaluation
from gat_tf.evaluation import curves
from gat_tf.logits import Logits

SHAPE = (4, 4, 3)
SIZE = 48
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
FG2 = attacks.FastGradient(1.0, 2, clip=None)
FGINF = attacks.FastGradient(1.0, math.inf, clip=None)
PGD2 = attacks.PGD(1.0, 2, steps=5, random_start=False, clip=None)
PGDINF = attacks.PGD(1.0, math.inf, steps=5, random_start=False, clip=None)


def test_arrays_side_by_side_are_named(linear):
    """Where `accuracy` takes x and y, the others take (x, y); they say so."""
    model, x, y = linear[0], np.full((2, *SHAPE), 0.5, np.float32), np.zeros(2, np.int64)
    for measure, args, rest in (
        (evaluation.robustness, (model, x, y), {"norm": 2, "epsilon": 0.5}),
        (evaluation.robustness, (model, x, tf.constant(y), 2, 0.5), {}),
        (evaluation.accuracy_curve, (model, x, y, FG2, [0, 0.5]), {}),
        (evaluation.transfer_curves, ([model], model, x, y, FG2, [0, 0.5]), {}),
        (evaluation.power, (model, x, y, FG2), {}),
        (evaluation.local_lipschitz_value, (model, x, y), {}),
    ):
        message = rf"as a pair: {measure.__name__}\(model, \(images, labels\).*two arguments"
        with pytest.raises(TypeError, match=message):
            measure(*args, **rest)
    curve = evaluation.accuracy_curve(model, (x, y), FG2, np.array([0, 0.5]))  # two arrays, apart
    assert curve.shape == (2,)


@pytest.fixture(scope="module")
def linear(dense_classifier):
    """A classifier of two classes: z_1 - z_0 = w x + b. Returns (model, w, b)."""
    return _linear(dense_classifier, 0)


@pytest.fixture(scope="module")
def other(dense_classifier):
    return _linear(dense_classifier, 1)


def _linear(dense_classifier, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(SIZE, 2)).astype("float32")
    w = (kernel[:, 1] - kernel[:, 0]).astype("float64")
    bias = np.array([0.0, -w.sum() / 2], "float32")  # the boundary passes through grey
    return dense_classifier(kernel, bias, SHAPE), w, float(bias[1])


@pytest.fixture(scope="module")
def some():
    rng = np.random.default_rng(2)
    return rng.uniform(size=(60, *SHAPE)).astype("float32"), rng.integers(0, 2, 60)


@pytest.fixture(scope="module")
def batches(some):
    """60 images in batches of 25: the last one has 10."""
    return tf.data.Dataset.from_tensor_slices(some).batch(25)


def margins(linear, some):
    """How far each image's logit is on the right side, positive where correct."""
    _, w, b = linear
    images, labels = some
    return (2 * labels - 1) * (images.reshape(len(images), -1).astype("float64") @ w + b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "dual"), [(FG2, 2), (PGD2, 2), (FGINF, 1), (PGDINF, 1)], ids=repr
)
def test_curve_is_the_share_of_images_further_than_epsilon_from_the_boundary(
    linear, some, batches, attack, dual
):
    distances = margins(linear, some) / np.linalg.norm(linear[1], dual)
    scale = 1.0 if dual == 2 else 0.1
    epsilons = [scale * e for e in EPSILONS]
    expected = [np.mean(distances > e) for e in epsilons]
    assert len(set(expected)) == len(expected)  # a curve that falls at every step
    curve = evaluation.accuracy_curve(linear[0], batches, attack, epsilons)
    np.testing.assert_allclose(curve, expected, atol=1e-9)


def test_a_transferred_step_costs_the_margin_what_the_two_directions_share(
    linear, other, some, batches
):
    direction = linear[1] / np.linalg.norm(linear[1])
    loss = other[1] @ direction  # per unit of ε: the source's step against the label
    curve = evaluation.transfer_curves(
        [other[0], linear[0], other[0]], linear[0], batches, FG2, (0.0, 0.5, 1.0, 4.0)
    )
    np.testing.assert_array_equal(curve[0], curve[2])
    for epsilon, theirs, own in zip((0.0, 0.5, 1.0, 4.0), *curve[:2], strict=True):
        assert own == pytest.approx(
            np.mean(margins(linear, some) > epsilon * np.linalg.norm(linear[1]))
        )
        assert theirs == pytest.approx(np.mean(margins(other, some) > epsilon * loss))
    assert len(set(curve[0])) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        attacks.FastGradient(1.0, 2),
        attacks.FastGradient(1.0, math.inf, clip=None),
        attacks.RandomPerturbation(1.0, 2),
        attacks.PGD(1.0, 2, steps=4, restarts=2),
    ],
    ids=repr,
)
def test_transfer_to_the_source_itself_is_the_attack_from_scratch(trained, shapes, attack):
    data = tf.data.Dataset.from_tensor_slices((shapes[0][:40], shapes[1][:40])).batch(16)
    epsilons = (0.0, 0.1, 0.4)
    curve = evaluation.transfer_curves([trained], trained, data, attack, epsilons, seed=3)
    scratch = [_from_scratch(trained, data, attack, e, seed=3) for e in epsilons]
    np.testing.assert_allclose(curve, [scratch], atol=1e-9)


def _from_scratch(model, data, attack, epsilon, seed):
    """Attacks run to the end, without leaving images alone that are fooled early."""
    right = []
    for i, (images, labels) in enumerate(data):
        ours = dataclasses.replace(attack, epsilon=epsilon)
        attacked = ours(model, images, labels, seed=(seed, i))
        right.append(np.argmax(model(attacked), axis=-1) == labels.numpy())
    return np.concatenate(right).mean()


@pytest.mark.slow
@pytest.mark.parametrize("attack", [attacks.FastGradient(9.0), FGINF], ids=repr)
def test_fast_gradient_curve_is_accuracy_at_each_epsilon(trained, shapes, attack):
    data = tf.data.Dataset.from_tensor_slices((shapes[0][:60], shapes[1][:60])).batch(25)
    epsilons = np.linspace(0, 0.5, 7)
    curve = evaluation.accuracy_curve(trained, data, attack, epsilons)
    each = [
        evaluation.accuracy(trained, data, dataclasses.replace(attack, epsilon=float(e)))
        for e in epsilons
    ]
    assert curve.tolist() == each
    assert len(set(each)) > 3


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("norm", [2, math.inf])
def test_pgd_curve_never_rises_and_is_at_most_accuracy_at_each_epsilon(trained, shapes, norm):
    data = tf.data.Dataset.from_tensor_slices((shapes[0][:60], shapes[1][:60])).batch(25)
    # Few large steps: an attack that misses at times, so that what was fooled before counts.
    attack = attacks.PGD(1.0, norm, steps=2, step_size=0.1 if norm == 2 else 0.02, restarts=2)
    epsilons = np.array([0.0, 0.1, 0.2, 0.4, 0.8]) * (1 if norm == 2 else 0.1)
    curve = evaluation.accuracy_curve(trained, data, attack, epsilons, seed=1)
    each = np.array(
        [
            evaluation.accuracy(
                trained, data, dataclasses.replace(attack, epsilon=float(e)), seed=1
            )
            for e in epsilons
        ]
    )
    assert (np.diff(curve) <= 0).all()
    assert (curve <= each).all()
    assert curve[0] == evaluation.accuracy(trained, data)
    assert curve[-1] < curve[0] - 0.1


def test_what_pgd_has_fooled_is_not_attacked_again(linear, some, batches):
    """Counted by the images that reach the classifier under a step of the attack."""
    images_seen = []

    class Counting(Logits):
        def __call__(self, images, training=False):
            count = tf.py_function(lambda n: images_seen.append(int(n)), [tf.shape(images)[0]], [])
            with tf.control_dependencies([count]):
                return super().__call__(tf.identity(images), training)

    distances = margins(linear, some) / np.linalg.norm(linear[1])
    epsilons = (0.05, 0.1, 0.2, 0.5)
    evaluation.accuracy_curve(Counting(linear[0]), batches, PGD2, epsilons)
    # Once clean, then at every ε: 5 steps, the attack's own check and the curve's, at most.
    before = [np.sum(distances > e) for e in (0.0, *epsilons[:-1])]
    assert 60 + 2 * sum(before) <= sum(images_seen) <= 60 + 7 * sum(before)


def test_one_gradient_an_image_serves_a_whole_fast_gradient_curve(linear, batches, monkeypatch):
    calls = []

    def counting(*args):
        calls.append(args)
        return original(*args)

    original = curves.logits_and_input_gradient
    monkeypatch.setattr(curves, "logits_and_input_gradient", counting)
    evaluation.accuracy_curve(linear[0], batches, FG2, EPSILONS)
    assert len(calls) == 1  # traced once, outside the loop over ε


@pytest.mark.parametrize(
    "epsilons", [(), (0.2, 0.1), (0.1, 0.1), (-0.1, 0.1), (0.1, math.nan), (0.1, math.inf), 0.1]
)
@pytest.mark.parametrize("curve", ["accuracy_curve", "transfer_curves"])
def test_epsilons_that_do_not_rise_are_named(linear, batches, epsilons, curve):
    models = (linear[0],) if curve == "accuracy_curve" else ([linear[0]], linear[0])
    with pytest.raises(ValueError, match="Expected `epsilons` as finite numbers of at least 0"):
        getattr(evaluation, curve)(*models, batches, FG2, epsilons)


def test_an_attack_without_epsilon_has_no_curve(linear, batches):
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(-1.0)])
    with pytest.raises(ValueError, match="Expected an attack with an epsilon"):
        evaluation.accuracy_curve(linear[0], batches, attacks.GeneratorAttack(generator), (0.1,))


def test_nothing_to_attack_is_named(linear, batches):
    with pytest.raises(ValueError, match="at least one model"):
        evaluation.transfer_curves([], linear[0], batches, FG2, (0.1,))
    for call in (
        lambda: evaluation.accuracy_curve(linear[0], batches.take(0), FG2, (0.1,)),
        lambda: evaluation.power(linear[0], batches.take(0), FG2),
    ):
        with pytest.raises(ValueError, match="no images"):
            call()


def test_power_of_fast_gradient_and_generator_by_hand(linear, some, batches):
    model, w, b = linear
    images, _ = some
    np.testing.assert_allclose(
        evaluation.power(model, batches, dataclasses.replace(FG2, epsilon=0.3)), 0.09, rtol=1e-5
    )
    np.testing.assert_allclose(
        evaluation.power(model, batches, dataclasses.replace(FGINF, epsilon=0.3)),
        0.09 * SIZE,
        rtol=1e-5,
    )
    # Δ = ±F_0 F_1 w
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(-3.0)])
    z = images.reshape(len(images), -1).astype("float64") @ w + b
    probability = 1 / (1 + np.exp(-z))
    expected = (3 * probability * (1 - probability) * np.linalg.norm(w)) ** 2
    attack = attacks.GeneratorAttack(generator, clip=None)
    np.testing.assert_allclose(evaluation.power(model, batches, attack), expected, rtol=1e-4)


def test_power_may_be_that_after_clipping(linear, some, batches):
    attack = attacks.FastGradient(0.4, math.inf)
    _, w, _ = linear
    images, labels = some
    step = -0.4 * np.sign(w).reshape(SHAPE) * (2 * labels - 1)[:, None, None, None]
    left = np.clip(images + step, 0, 1) - images
    np.testing.assert_allclose(
        evaluation.power(linear[0], batches, attack, clipped=True),
        np.sum(left**2, (1, 2, 3)),
        rtol=1e-4,
    )


def test_matched_power_makes_the_generator_of_minus_the_gradient_the_fast_gradient(
    linear, some, batches
):
    """G(Δ) = -kΔ points where the fast gradient does, so at equal power they fool the same."""
    generator = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(-0.5)])
    attack = attacks.GeneratorAttack(generator, clip=None)
    powers = evaluation.power(linear[0], batches, attack)
    own = dataclasses.replace(FG2, epsilon=np.sqrt(powers))
    matched = evaluation.accuracy(linear[0], batches, own)
    assert matched == evaluation.accuracy(linear[0], batches, attack)
    distances = margins(linear, some) / np.linalg.norm(linear[1])
    assert matched == pytest.approx(np.mean(distances > np.sqrt(powers)))
    assert matched != pytest.approx(np.mean(distances > np.sqrt(powers.mean())))


@pytest.mark.parametrize("count", [59, 61, 25])
def test_as_many_epsilons_as_images_are_wanted(linear, batches, count):
    attack = dataclasses.replace(FG2, epsilon=np.full(count, 0.1))
    with pytest.raises(ValueError, match=rf"one for each image. Received: {count} for"):
        evaluation.accuracy(linear[0], batches, attack)


def test_power_takes_one_epsilon_for_each_image(linear, batches):
    epsilons = np.linspace(0.1, 0.5, 60)
    attack = dataclasses.replace(FG2, epsilon=epsilons)
    np.testing.assert_allclose(evaluation.power(linear[0], batches, attack), epsilons**2, rtol=1e-5)
    with pytest.raises(ValueError, match="one for each image"):
        evaluation.power(linear[0], batches, dataclasses.replace(FG2, epsilon=epsilons[:50]))


@pytest.mark.slow
def test_arrays_and_bounds_and_a_bar(trained, shapes, capsys):
    images, labels = (part[:20] for part in shapes)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
    attack, epsilons = attacks.FastGradient(1, 2), [0, 0.2]
    expected = evaluation.accuracy_curve(trained, batches, attack, epsilons)
    found = evaluation.accuracy_curve(trained, (images, labels), attack, epsilons, verbose=1)
    np.testing.assert_array_equal(found, expected)
    assert "1/1" in (printed := capsys.readouterr().out)
    assert f"accuracy: {expected[-1]:.4f}" in printed
    attack = attacks.FastGradient(1, 2, clip=None)
    with pytest.raises(ValueError, match="images within"):
        evaluation.accuracy_curve(trained, (images * 2, labels), attack, epsilons)
    evaluation.accuracy_curve(trained, (images * 2, labels), attack, epsilons, bounds=(0, 2))
