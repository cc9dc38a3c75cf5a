"""Attacks: closed forms on linear models, and one contract that every attack keeps."""

import dataclasses
import inspect
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gat_tf import attacks, checks, models
from gat_tf.attacks import (
    APGD,
    FAB,
    PGD,
    FastGradient,
    GeneratorAttack,
    HopSkipJump,
    RandomPerturbation,
    Square,
    norms,
)
from gat_tf.attacks.base import seed_or_random
from gat_tf.gradients import input_gradient
from gat_tf.logits import Logits

SHAPE = (3, 2, 2)
D = 12
rng = np.random.default_rng(5)
W = rng.normal(size=(D, 2)).astype(np.float32)
X = rng.uniform(0.3, 0.7, size=(6, *SHAPE)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1, 0])
both_norms = pytest.mark.parametrize("norm", [2, math.inf])


@pytest.fixture(autouse=True, scope="module")
def _seed():
    """Once: TensorFlow throws away what is compiled with each seed. The attacks have their own."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def seeded():
    """For the tests that draw without a seed of their own."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def two_classes(dense_classifier):
    return dense_classifier(W, np.array([0.1, -0.2], np.float32), SHAPE)


@pytest.fixture
def three_classes(dense_classifier):
    return dense_classifier(W3, B3, SHAPE)


W3 = rng.normal(size=(D, 3)).astype(np.float32)
B3 = rng.normal(size=3).astype(np.float32)


def _size(eta, norm):
    return np.linalg.norm(np.reshape(eta, (len(eta), -1)), ord=norm, axis=1)


def _uphill(norm, labels=Y):
    """The direction of norm 1 that raises the loss of a linear two-class model, `[B, D]`."""
    w = np.where(labels == 0, 1, -1)[:, None] * (W[:, 1] - W[:, 0])
    return np.sign(w) if norm == math.inf else w / np.linalg.norm(w, axis=1, keepdims=True)


def _mean_loss(model, images, labels):
    return keras.losses.sparse_categorical_crossentropy(labels, model(images)).numpy().mean()


# Closed forms.


@both_norms
def test_fast_gradient_is_the_formula(two_classes, norm):
    eta = FastGradient(0.3, norm).perturbation(two_classes, X, Y)
    np.testing.assert_allclose(np.reshape(eta, (6, D)), 0.3 * _uphill(norm), atol=1e-6)
    away = FastGradient(0.3, norm, targeted=True).perturbation(two_classes, X, Y)
    np.testing.assert_allclose(away, -eta, atol=1e-6)


@both_norms
def test_fast_gradient_of_more_classes_follows_the_loss(three_classes, norm):
    labels = np.array([0, 1, 2, 0, 1, 2])
    gradient = _loss_gradient(X.reshape(6, D), labels)
    expected = 0.3 * np.sign(gradient)
    if norm == 2:
        expected = 0.3 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    eta = FastGradient(0.3, norm).perturbation(three_classes, X, labels)
    np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-6)


@both_norms
def test_call_adds_the_perturbation_and_clips(two_classes, norm):
    for clip, low, high in (((0, 1), 0, 1), ((0.2, 0.8), 0.2, 0.8), (None, -9, 9)):
        attack = FastGradient(1.5, norm, clip=clip)
        eta = attack.perturbation(two_classes, X, Y).numpy()
        expected = np.clip(X + eta, low, high)
        np.testing.assert_allclose(attack(two_classes, X, Y), expected, atol=1e-7)
        assert (X + eta).min() < 0  # that there is something to clip


@both_norms
def test_pgd_reaches_the_optimum_of_a_linear_model(two_classes, norm):
    attack = PGD(0.2, norm, steps=5, random_start=False)
    eta = attack.perturbation(two_classes, X, Y)
    np.testing.assert_allclose(np.reshape(eta, (6, D)), 0.2 * _uphill(norm), atol=1e-6)


def test_pgd_reaches_the_optimum_within_the_clip(two_classes):
    attack = PGD(0.5, math.inf, steps=5, random_start=False, clip=(0.1, 0.9))
    expected = np.clip(X.reshape(6, D) + 0.5 * _uphill(math.inf), 0.1, 0.9)
    np.testing.assert_allclose(np.reshape(attack(two_classes, X, Y), (6, D)), expected, atol=1e-6)


def _loss_gradient(x, labels):
    z = x @ W3.astype(np.float64) + B3
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return (p - np.eye(3)[labels]) @ W3.T


def _numpy_pgd(start, labels, epsilon, norm, steps, step_size, sign):
    """Step, project, clip to [0, 1]; images and perturbations are `[B, D]`."""
    x, eta = X.reshape(6, D).astype(np.float64), start
    for _ in range(steps):
        gradient = sign * _loss_gradient(x + eta, labels)
        if norm == 2:
            eta = eta + step_size * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
            length = np.linalg.norm(eta, axis=1, keepdims=True)
            eta = np.where(length > epsilon, eta * epsilon / length, eta)
        else:
            eta = np.clip(eta + step_size * np.sign(gradient), -epsilon, epsilon)
        eta = np.clip(x + eta, 0, 1) - x
    return eta


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("step_size", [None, 0.25])
@both_norms
def test_pgd_is_the_loop_in_numpy(three_classes, norm, step_size, random_start, targeted):
    epsilon, labels, seed = 0.6, np.array([0, 1, 2, 0, 1, 2]), [3, 4]
    attack = PGD(epsilon, norm, 7, step_size, random_start, targeted=targeted)
    start = np.zeros((6, D))
    if random_start:
        start = np.reshape(_start_of(attack, three_classes, labels, seed), (6, D))
    eta = attack.perturbation(three_classes, X, labels, seed=seed)
    expected = _numpy_pgd(
        start, labels, epsilon, norm, 7, step_size or 2.5 * epsilon / 7, -1 if targeted else 1
    )
    np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-5)


def _start_of(attack, model, labels, seed, images=X):
    """A step of size 0 stays where the attack starts."""
    still = dataclasses.replace(attack, steps=1, step_size=0, early_stop=False)
    return still.perturbation(model, images, labels, seed=seed).numpy()


@pytest.mark.usefixtures("uncompiled")
@both_norms
def test_random_starts_lie_within_ball_and_clip_and_differ(two_classes, norm):
    images = np.concatenate([X, np.zeros_like(X), np.ones_like(X)])
    labels = np.tile(Y, 3)
    attack = PGD(0.3, norm)
    first = _start_of(attack, two_classes, labels, [0, 1], images)
    assert _size(first, norm).max() <= 0.3 + 1e-6
    assert _size(first, norm).min() > 0.01
    assert (images + first).min() >= 0
    assert (images + first).max() <= 1
    second = _start_of(attack, two_classes, labels, [0, 2], images)
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 1e-3).all()
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_projection_is_the_nearest_point_of_the_ball():
    eta = np.zeros((4, 1, 1, 2), np.float32)
    eta[:, 0, 0] = [[3, 4], [0.3, -0.4], [-6, 0.1], [0, 0]]
    epsilon = tf.constant([1.0, 1.0, 2.0, 1.0])[:, None, None, None]
    length = np.hypot(6, 0.1)
    l2 = [[0.6, 0.8], [0.3, -0.4], [-12 / length, 0.2 / length], [0, 0]]
    np.testing.assert_allclose(norms.project(eta, epsilon, 2)[:, 0, 0], l2, rtol=1e-6)
    linf = [[1, 1], [0.3, -0.4], [-2, 0.1], [0, 0]]
    np.testing.assert_allclose(norms.project(eta, epsilon, math.inf)[:, 0, 0], linf, rtol=1e-6)


def test_direction_and_norm_survive_gradients_whose_squares_are_zero():
    gradient = np.zeros((3, 1, 1, 2), np.float32)
    gradient[:, 0, 0] = [[3e-30, -4e-30], [3e15, 4e15], [0, 0]]
    np.testing.assert_allclose(
        norms.direction(gradient, 2)[:, 0, 0], [[0.6, -0.8], [0.6, 0.8], [0, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(norms.l2_norm(gradient), [5e-30, 5e15, 0], rtol=1e-6)
    np.testing.assert_array_equal(
        norms.direction(gradient, math.inf)[:, 0, 0], [[1, -1], [1, 1], [0, 0]]
    )


def test_power_is_the_sum_of_squares():
    eta = rng.normal(size=(3, 2, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(norms.power(eta), (eta**2).sum(axis=(1, 2, 3)), rtol=1e-6)


@both_norms
def test_points_of_the_ball_are_uniform(norm):
    shape = tf.constant([4000, 2, 1, 1])
    points = norms.random_in_ball(shape, tf.fill([4000, 1, 1, 1], 0.5), norm, tf.constant([1, 2]))
    points = np.reshape(points, (4000, 2)) / 0.5
    assert _size(points, norm).max() <= 1 + 1e-6
    # Uniform in two dimensions: P(size <= r) = r^2, and no side is preferred.
    for r in (0.3, 0.5, 0.8):
        assert abs((_size(points, norm) <= r).mean() - r**2) < 4 * 0.5 / np.sqrt(4000)
    assert np.abs(points.mean(axis=0)).max() < 4 * 0.6 / np.sqrt(4000)


@pytest.mark.usefixtures("seeded")
def test_random_perturbation_has_size_epsilon_and_no_side(two_classes):
    images, labels = np.full((400, *SHAPE), 0.5, np.float32), np.zeros(400, int)
    eta = RandomPerturbation(0.2, math.inf).perturbation(two_classes, images, labels)
    np.testing.assert_allclose(np.abs(eta), 0.2, rtol=1e-6)
    assert abs(np.mean(eta)) < 4 * 0.2 / np.sqrt(400 * D)
    eta = RandomPerturbation(0.2, 2).perturbation(two_classes, images, labels)
    np.testing.assert_allclose(_size(eta, 2), 0.2, rtol=1e-5)
    assert np.abs(np.mean(eta, axis=0)).max() < 4 * 0.2 / np.sqrt(D * 400)


def test_generator_attack_feeds_the_gradient_of_the_probability(trained, shapes):
    images, labels = shapes[0][:8], shapes[1][:8]
    generator = models.perturbation_generator((16, 16, 3), width=1 / 12)
    eta = GeneratorAttack(generator).perturbation(trained, images, labels)
    delta = input_gradient(trained, images, labels, of="probability")
    np.testing.assert_allclose(eta, generator(delta), atol=1e-7)
    assert np.abs(eta).max() > 0


# Restarts, early stopping and targets, on a trained network.


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:80], shapes[1][:80]


@pytest.fixture(scope="module")
def weak():
    """Fools some of the images, and not always the same ones."""
    return PGD(0.15, 2, steps=3)


def _margins(model, images, eta, labels):
    logits = Logits(model)(tf.constant(images + eta)).numpy()
    of_label = np.eye(10)[labels] == 1
    return np.where(of_label, -np.inf, logits).max(axis=1) - logits[of_label]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("targeted", [False, True])
def test_restarts_keep_the_worst_of_each_image(trained, some, weak, targeted):
    images, labels = some
    labels = (labels + 1) % 10 if targeted else labels
    weak = dataclasses.replace(weak, targeted=targeted)
    three = dataclasses.replace(weak, restarts=3)
    seed = tf.constant([7, 8])
    kept = three.perturbation(trained, images, labels, seed=seed).numpy()
    runs = [
        weak.perturbation(trained, images, labels, seed=s).numpy() for s in tf.random.split(seed, 3)
    ]
    margins = np.stack([_margins(trained, images, run, labels) for run in runs])
    worst = margins.argmin(axis=0) if targeted else margins.argmax(axis=0)
    assert len(set(worst)) == 3  # no run is the worst of all images
    expected = np.stack(runs)[worst, np.arange(len(labels))]
    np.testing.assert_allclose(kept, expected, atol=1e-5)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("random_start", [False, True])
def test_early_stop_fools_what_all_the_steps_fool(trained, some, weak, random_start):
    images, labels = some
    weak = dataclasses.replace(weak, random_start=random_start)
    early = dataclasses.replace(weak, early_stop=True)
    fooled, fooled_early = (
        _margins(trained, images, a.perturbation(trained, images, labels, seed=[1, 2]), labels) > 0
        for a in (weak, early)
    )
    assert 0.1 < fooled.mean() < 0.9
    assert not (fooled & ~fooled_early).any()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("restarts", [1, 3])
def test_early_stop_takes_the_same_steps_until_an_image_is_fooled(trained, some, weak, restarts):
    images, labels = some
    weak = dataclasses.replace(weak, restarts=restarts)
    early = dataclasses.replace(weak, early_stop=True)
    eta = early.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    stands = _margins(trained, images, eta, labels) <= 0
    assert 0.1 < stands.mean() < 0.9
    full = weak.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    np.testing.assert_allclose(eta[stands], full[stands], atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_early_stop_with_restarts_fools_no_fewer(trained, some, weak):
    images, labels = some
    weak = dataclasses.replace(weak, restarts=3)
    early = dataclasses.replace(weak, early_stop=True)
    fooled, fooled_early = (
        _margins(trained, images, a.perturbation(trained, images, labels, seed=[5, 6]), labels) > 0
        for a in (weak, early)
    )
    assert not (fooled & ~fooled_early).any()


@pytest.mark.usefixtures("uncompiled")
def test_early_stop_leaves_what_is_misclassified_already(trained, some, weak):
    images, labels = some
    wrong = _margins(trained, images, 0, labels) > 0
    assert 0.05 < wrong.mean() < 0.9
    early = dataclasses.replace(weak, early_stop=True, random_start=False)
    eta = early.perturbation(trained, images, labels).numpy()
    np.testing.assert_array_equal(eta[wrong], 0)
    assert (_size(eta[~wrong], 2) > 0.01).all()


@pytest.mark.usefixtures("uncompiled")
def test_early_stop_leaves_what_the_random_start_fools(trained, some, weak):
    images, labels = some
    early = dataclasses.replace(weak, early_stop=True)
    still = dataclasses.replace(early, steps=1, step_size=0)
    start = still.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    wrong = _margins(trained, images, start, labels) > 0
    eta = early.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    np.testing.assert_array_equal(eta[wrong], start[wrong])
    assert (np.abs(eta - start)[~wrong].max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "attack",
    [
        FastGradient(0.3, 2, targeted=True),
        FastGradient(0.02, math.inf, targeted=True),
        PGD(0.3, 2, steps=5, targeted=True),
        PGD(0.02, math.inf, steps=5, restarts=2, targeted=True),
        PGD(0.3, 2, steps=5, targeted=True, early_stop=True),
    ],
)
def test_targeted_attacks_make_the_target_more_probable(trained, some, attack):
    images, labels = some
    targets = (labels + 3) % 10
    before = trained(images).numpy()[np.arange(80), targets].mean()
    after = trained(attack(trained, images, targets)).numpy()[np.arange(80), targets].mean()
    assert after > 1.3 * before


@pytest.mark.slow
def test_stronger_attacks_leave_less(trained, some):
    losses_of = {
        name: _mean_loss(trained, attack(trained, *some, seed=[1, 2]), some[1])
        for name, attack in {
            "random": RandomPerturbation(0.5, 2),
            "fast gradient": FastGradient(0.5, 2),
            "pgd": PGD(0.5, 2, steps=10),
        }.items()
    }
    assert losses_of["random"] < losses_of["fast gradient"] < losses_of["pgd"]


# The contract. A new attack gets its line here.


@dataclasses.dataclass
class Case:
    """How the contract builds an attack of a given ε, and what it may ask of it."""

    build: object
    norm: float
    size: float  # an ε that a trained network feels
    raises_loss: bool = True
    per_image: bool = True
    fills_epsilon: bool = True  # rather than being as small as can be, or zero
    by_class: bool = False  # sees that alone, and rounding may lead it elsewhere


def _generator_of_size(epsilon, **kwargs):
    """Against the gradient of the probability, saturated, and at most ε at each pixel."""
    generator = keras.Sequential(
        [
            layers.Rescaling(-1e4),
            layers.Activation("tanh"),
            layers.Rescaling(epsilon),
        ]
    )
    return GeneratorAttack(generator, **kwargs)


def _with(attack, **fixed):
    return lambda epsilon, **kwargs: attack(epsilon, **fixed, **kwargs)


CASES = {
    "FastGradient, L2": Case(_with(FastGradient, norm=2), 2, 0.5),
    "FastGradient, Linf": Case(_with(FastGradient, norm=math.inf), math.inf, 0.03),
    "PGD, L2": Case(_with(PGD, norm=2, steps=4), 2, 0.5),
    "PGD, Linf": Case(_with(PGD, norm=math.inf, steps=4), math.inf, 0.03),
    "PGD, restarts": Case(_with(PGD, norm=2, steps=3, restarts=2), 2, 0.5),
    "PGD, early stop": Case(_with(PGD, norm=2, steps=4, early_stop=True), 2, 0.5),
    "APGD, L2": Case(_with(APGD, norm=2, steps=4), 2, 0.5),
    "APGD, Linf": Case(_with(APGD, norm=math.inf, steps=4), math.inf, 0.03),
    "APGD, early stop": Case(
        _with(APGD, norm=2, steps=3, loss="dlr", restarts=2, early_stop=True), 2, 0.5
    ),
    "FAB, L2": Case(_with(FAB, norm=2, steps=4, targets=2), 2, 0.5, fills_epsilon=False),
    "FAB, Linf": Case(
        _with(FAB, norm=math.inf, steps=4, targets=2), math.inf, 0.03, fills_epsilon=False
    ),
    "Square, L2": Case(_with(Square, norm=2, queries=12), 2, 1.0),
    "Square, Linf": Case(_with(Square, norm=math.inf, queries=8, restarts=2), math.inf, 0.03),
    "HopSkipJump, L2": Case(
        _with(HopSkipJump, norm=2, steps=1, evaluations=9),
        2, 3.0, fills_epsilon=False, by_class=True
    ),
    "HopSkipJump, Linf": Case(
        _with(HopSkipJump, norm=math.inf, steps=1, evaluations=9),
        math.inf, 0.15, fills_epsilon=False, by_class=True
    ),
    "RandomPerturbation, L2": Case(
        # It is the row of the paper's table that does not know the network.
        _with(RandomPerturbation, norm=2), 2, 0.5, raises_loss=False
    ),
    "RandomPerturbation, Linf": Case(
        _with(RandomPerturbation, norm=math.inf), math.inf, 0.03, raises_loss=False
    ),
    # A generator has no ε of its own.
    "GeneratorAttack": Case(_generator_of_size, math.inf, 0.03, per_image=False),
}  # fmt: skip
every_attack = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def every_attack_that(has):
    """Those of which a line of the contract can be said at all."""
    chosen = {name: case for name, case in CASES.items() if has(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())


def test_every_attack_has_a_case():
    public = {getattr(attacks, name) for name in attacks.__all__}
    concrete = {a for a in public if inspect.isclass(a) and not inspect.isabstract(a)}
    assert concrete == {type(case.build(0.1)) for case in CASES.values()}


def test_autoattack_has_the_published_attacks_in_their_order():
    composition = attacks.autoattack(0.1, 2, 10)
    assert list(composition) == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    apgd, targeted, fab, square = composition.values()
    assert (apgd.steps, targeted.steps, targeted.loss) == (100, 100, "targeted_dlr")
    assert (targeted.targets, fab.targets, fab.steps, square.queries) == (9, 9, 100, 5_000)
    assert {(a.epsilon, a.norm) for a in composition.values()} == {(0.1, 2)}
    # The targeted DLR loss compares the four largest logits.
    assert list(attacks.autoattack(0.1, 2, 3)) == ["APGD-CE", "FAB-T", "Square"]
    assert list(attacks.autoattack(0.1, 2, 4)) == list(composition)


@pytest.mark.slow
@every_attack
def test_perturbation_keeps_to_epsilon_and_images_to_the_clip(case, trained, some):
    for clip in ((0.0, 1.0), None):
        attack = case.build(case.size, clip=clip)
        eta = attack.perturbation(trained, *some, seed=[1, 2]).numpy()
        assert eta.shape == some[0].shape
        assert _size(eta, case.norm).max() <= case.size + 1e-5
        assert _size(eta, case.norm).max() > 0.5 * case.size
        adversarial = attack(trained, *some, seed=[1, 2]).numpy()
        expected = some[0] + eta if clip is None else np.clip(some[0] + eta, *clip)
        np.testing.assert_allclose(adversarial, expected, atol=1e-6)
        assert clip is None or (adversarial.min() >= 0 and adversarial.max() <= 1)


@pytest.mark.usefixtures("uncompiled")
@every_attack_that(lambda case: case.fills_epsilon)
def test_without_clip_images_may_leave_the_range(case, trained, shapes):
    images = np.tile(np.array([0, 1], np.float32)[:, None, None, None], (1, 16, 16, 3))
    # Only an attack that does something to these two can show it.
    labels = np.argmax(trained(images), axis=1)
    adversarial = case.build(case.size, clip=None)(trained, images, labels, seed=[1, 2]).numpy()
    assert adversarial.min() < 0
    assert adversarial.max() > 1


@pytest.mark.usefixtures("uncompiled")
@every_attack
def test_images_keep_to_a_clip_of_other_bounds(case, trained, some):
    images = some[0] * 0.5 + 0.25
    adversarial = case.build(2.0, clip=(0.25, 0.75))(trained, images, some[1], seed=[1, 2])
    assert np.min(adversarial) >= 0.25
    assert np.max(adversarial) <= 0.75


@every_attack_that(lambda case: case.raises_loss)
def test_loss_rises(case, trained, some):
    adversarial = case.build(case.size)(trained, *some, seed=[1, 2])
    clean = _mean_loss(trained, *some)
    assert _mean_loss(trained, adversarial, some[1]) > clean + 0.05


@every_attack
def test_weights_and_batch_norm_state_stay(case, trained_with_state, some):
    before = [v.numpy() for v in trained_with_state.variables]
    case.build(case.size)(trained_with_state, *some, seed=[1, 2])
    for variable, value in zip(trained_with_state.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@every_attack
def test_network_is_attacked_in_inference_mode(case, trained_with_state, some):
    # In training mode dropout, and batch norm over the batch, would tell the two apart.
    attack = case.build(case.size)
    images, labels = some[0][:6], some[1][:6]
    first = attack.perturbation(trained_with_state, images, labels, seed=[1, 2])
    second = attack.perturbation(trained_with_state, images, labels, seed=[1, 2])
    np.testing.assert_array_equal(first, second)


@pytest.mark.usefixtures("uncompiled")
@every_attack_that(lambda case: case.per_image)
def test_each_image_has_its_own_epsilon(case, trained, some):
    images, labels = some[0][:8], some[1][:8]
    epsilons = case.size * np.array([0, 0.1, 0.2, 0.5, 1, 1, 2, 4], np.float32)
    attack = case.build(epsilons, clip=None)
    eta = attack.perturbation(trained, images, labels, seed=[1, 2]).numpy()
    assert (_size(eta, case.norm) <= epsilons + 1e-5).all()
    # An image whose ε is the one number's gets the one number's perturbation.
    same = case.build(case.size, clip=None).perturbation(trained, images, labels, seed=[1, 2])
    np.testing.assert_allclose(eta[4:6], same[4:6], atol=1e-6)
    np.testing.assert_array_equal(eta[0], 0)
    assert not case.fills_epsilon or _size(eta, case.norm)[3] > 0.2 * epsilons[3]


@every_attack
def test_epsilon_zero_is_the_identity(case, trained, some):
    np.testing.assert_array_equal(case.build(0.0)(trained, *some), some[0])


@pytest.mark.slow
@every_attack_that(lambda case: not case.by_class)
def test_compiled_and_eager_are_the_same(case, trained, some):
    attack = case.build(case.size)

    # With AutoGraph as in a user's function, or without it as in Keras's.
    @tf.function(reduce_retracing=True, autograph=case.norm == 2)
    def compiled(images, labels):
        return attack.perturbation(trained, images, labels, seed=[1, 2])

    eager = attack.perturb(Logits(trained), *map(tf.constant, some), seed=tf.constant([1, 2]))
    # The sign of a gradient that is zero but for rounding is anybody's guess.
    differ = np.abs(compiled(*some) - eager) > 1e-5
    assert differ.mean() < 1e-3


@pytest.mark.slow
@every_attack
def test_seed_fixes_the_result_and_tf_random_the_rest(case, trained, some):
    attack = case.build(case.size)
    images, labels = some[0][:4], some[1][:4]
    tf.random.set_seed(11)
    drawn = seed_or_random(None)
    tf.random.set_seed(11)
    unseeded = attack.perturbation(trained, images, labels)
    for _ in range(2):
        np.testing.assert_array_equal(
            attack.perturbation(trained, images, labels, seed=drawn), unseeded
        )


def test_calls_without_a_seed_differ(trained, some):
    attack = RandomPerturbation(0.5, norm=2)
    first, second = (attack.perturbation(trained, *some).numpy() for _ in range(2))
    assert np.all(np.any(first != second, axis=(1, 2, 3)))


@pytest.mark.usefixtures("uncompiled", "seeded")
@every_attack_that(lambda case: case.fills_epsilon)
def test_other_sizes_and_channels(case):
    model = models.classifier(3, width=1 / 12, input_shape=(12, 10, 1))
    images = rng.random((5, 12, 10, 1), dtype=np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    eta = case.build(0.3).perturbation(model, images, labels).numpy()
    assert eta.shape == images.shape
    assert np.isfinite(eta).all()
    assert _size(eta, case.norm).max() <= 0.3 + 1e-5
    assert np.abs(eta).max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@every_attack
def test_logits_and_probabilities_are_attacked_alike(case, trained, trained_logits, some):
    attack = case.build(case.size)
    images, labels = some[0][:20], some[1][:20]
    of_probabilities = attack.perturbation(trained, images, labels, seed=[1, 2])
    of_logits = attack.perturbation(trained_logits, images, labels, from_logits=True, seed=[1, 2])
    assert (np.abs(of_probabilities - of_logits) > 1e-5).mean() < 1e-3


@pytest.mark.slow
@every_attack
def test_any_integer_labels_and_floating_images_will_do(case, trained, some):
    attack = case.build(case.size)
    images, labels = some[0][:4], some[1][:4]
    expected = attack.perturbation(trained, images, labels, seed=[1, 2])
    assert expected.dtype == tf.float32
    eta = attack.perturbation(trained, images.astype(float), labels.astype(np.uint8), seed=[1, 2])
    np.testing.assert_allclose(eta, expected, atol=1e-6)


@every_attack
def test_attack_comes_back_from_its_configuration(case, trained, some):
    attack = case.build(case.size, clip=(0, 1))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(attack)
    for field in dataclasses.fields(attack):
        if field.name not in ("clip", "generator"):
            assert getattr(again, field.name) == getattr(attack, field.name)
    assert tuple(again.clip) == (0, 1)
    images, labels = some[0][:4], some[1][:4]
    np.testing.assert_array_equal(
        again(trained, images, labels, seed=[1, 2]), attack(trained, images, labels, seed=[1, 2])
    )


def test_attacks_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FastGradient(0.1).epsilon = 0.2


def test_accuracy_alone_lets_pgd_stop_early():
    assert PGD(0.1, restarts=3).for_accuracy().early_stop
    assert PGD(0.1, restarts=3).for_accuracy().restarts == 3
    attack = FastGradient(0.1)
    assert attack.for_accuracy() is attack


def test_fast_gradient_needs_no_particular_scale_of_gradient():
    gradient = rng.normal(size=(3, 2, 2, 1)).astype(np.float32)
    for norm in (2, math.inf):
        attack = FastGradient(0.3, norm)
        small = attack.from_gradient(tf.constant(gradient * 1e-25))
        np.testing.assert_allclose(small, attack.from_gradient(tf.constant(gradient)), rtol=1e-5)


# Bad input: one error, which says what was expected and what was received.

Z = np.zeros((4, *SHAPE), np.float32)
ZEROS = np.zeros(4, np.int64)


def _but(index, value):
    array = Z.copy()
    array.flat[index] = value
    return array


# A graph prints 0 where Python prints 0.0, and knows no batch size before it runs.
BAD_BATCHES = {
    "above 1": (_but(17, 1.5), ZEROS, r"images within \[0.0, 1.0\].*from 0(.0)? to 1.5"),
    "below 0": (_but(0, -0.5), ZEROS, r"images within \[0.0, 1.0\].*from -0.5 to 0(.0)?"),
    "nan first": (_but(0, np.nan), ZEROS, r"images within \[0.0, 1.0\].*from nan"),
    "nan last": (_but(-1, np.nan), ZEROS, r"images within \[0.0, 1.0\].*nan"),
    "infinite": (_but(5, np.inf), ZEROS, r"images within \[0.0, 1.0\].*to inf"),
    "uint8": (Z.astype(np.uint8), ZEROS, r"floating-point images.*uint8.*divide them by 255"),
    "one image": (Z[0], ZEROS, r"\[batch, height, width, channels\].*shape \(\w+, 2, 2\)"),
    "label too large": (Z, np.array([0, 1, 2, 1]), r"labels from 0 to 1,.*2 classes.*from 0 to 2"),
    "label negative": (Z, -np.array([0, 1, 0, 0]), r"labels from 0 to 1,.*2 classes.*from -1 to 0"),
    "one-hot": (Z, np.eye(2)[ZEROS], r"integer labels.*float64.*\(\w+, 2\).*pass their argmax"),
    "one-hot integers": (Z, np.eye(2, dtype=int)[ZEROS], r"integer labels.*\(\w+, 2\).*argmax"),
    "float labels": (Z, ZEROS * 1.0, r"integer labels.*Received: float64 labels"),
    "one label": (Z, ZEROS[:1], r"one (class number|label).* image.*Received: .*\b1\b"),
    "a label missing": (Z, ZEROS[:3], r"one (class number|label).* image.*Received: .*\b3\b"),
}
bad_batches = pytest.mark.parametrize(
    ("images", "labels", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys()
)


@bad_batches
def test_bad_batch_is_named(two_classes, images, labels, message):
    with pytest.raises(ValueError, match=message):
        FastGradient(0.1)(two_classes, images, labels)
    with pytest.raises(ValueError, match=message):
        PGD(0.1).perturbation(two_classes, images, labels)
    with pytest.raises(ValueError, match=message):
        input_gradient(two_classes, images, labels)


@bad_batches
def test_bad_batch_is_named_inside_a_compiled_function(two_classes, images, labels, message):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *images.shape[1:]], images.dtype),
            tf.TensorSpec([None, *labels.shape[1:]], labels.dtype),
        ]
    )
    def compiled(images, labels):
        return FastGradient(0.1)(two_classes, images, labels)

    with pytest.raises(ValueError, match=message), checks.readable_errors():
        compiled(images, labels)


def test_assertion_inside_a_graph_is_tensorflows_until_it_is_made_readable(two_classes):
    compiled = tf.function(lambda x, y: FastGradient(0.1)(two_classes, x, y))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected images within"):
        compiled(Z + 2, ZEROS)


def test_other_errors_of_tensorflow_pass_unchanged():
    error = tf.errors.InvalidArgumentError(None, None, "something else [of] [it]")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught, checks.readable_errors():
        raise error
    assert caught.value is error


def test_bounds_of_the_images_are_those_of_the_clip(two_classes):
    attack = FastGradient(0.1, clip=(-1, 1))
    attack(two_classes, Z - 1, ZEROS)
    with pytest.raises(ValueError, match=r"images within \[-1, 1\].*from -2(.0)? to -2(.0)?"):
        attack(two_classes, Z - 2, ZEROS)
    with pytest.raises(ValueError, match=r"images within \[0.0, 1.0\].*from -1(.0)? to -1(.0)?"):
        FastGradient(0.1, clip=None)(two_classes, Z - 1, ZEROS)


class Hidden(keras.Model):
    """A model whose end and number of classes cannot be seen from outside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return tf.identity(self.inner(x))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("hide", [lambda m: m, Hidden], ids=["visible", "hidden"])
def test_logits_and_probabilities_are_not_mixed_up(dense_classifier, hide, compiled):
    bias = np.zeros(2, np.float32)
    probabilities = hide(dense_classifier(W, bias, SHAPE))
    logits = hide(dense_classifier(W, bias, SHAPE, activation=None))

    def attack(model, from_logits):
        def call(images, labels):
            return FastGradient(0.1)(model, images, labels, from_logits=from_logits)

        with checks.readable_errors():
            return (tf.function(call) if compiled else call)(X, Y)

    with pytest.raises(ValueError, match=r"Expected logits.*from_logits=True.*from_logits=False"):
        attack(probabilities, from_logits=True)
    with pytest.raises(ValueError, match=r"Expected probabilities.*from_logits=False.*True"):
        attack(logits, from_logits=False)
    np.testing.assert_allclose(attack(logits, True), attack(probabilities, False), atol=1e-6)


def test_label_out_of_range_of_a_hidden_number_of_classes(two_classes):
    with pytest.raises(ValueError, match=r"labels from 0 to 1,.*2 classes.*from 2 to 2"):
        FastGradient(0.1)(Hidden(two_classes), Z, ZEROS + 2)


@pytest.mark.parametrize("model", [lambda x: x, None, "model"])
def test_model_that_is_none_of_keras_is_named(model):
    with pytest.raises(TypeError, match=r"Expected a Keras 3 model.*Received: .*of type"):
        FastGradient(0.1)(model, X, Y)


every_epsilon = pytest.mark.parametrize("attack", [FastGradient, PGD, RandomPerturbation])


@every_epsilon
@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (-0.1, "finite and not negative.*Received: epsilon=-0.1"),
        (math.nan, "finite and not negative.*Received: epsilon=nan"),
        (math.inf, "finite and not negative.*Received: epsilon=inf"),
        ([0.1, -0.1], r"finite and not negative.*Received: epsilon=\[0.1, -0.1\]"),
        (np.ones((2, 2)), "one number or one per image.*Received: array"),
        ("8/255", "one number or one per image.*Received: '8/255'"),
        (None, "one number or one per image.*Received: None"),
    ],
)
def test_bad_epsilon_is_named(attack, epsilon, message):
    with pytest.raises(ValueError, match=message):
        attack(epsilon)


@every_epsilon
def test_wrong_number_of_epsilons_is_named(two_classes, attack):
    with pytest.raises(ValueError, match=r"one for each of the 6 images\. Received: 5"):
        attack([0.1] * 5)(two_classes, X, Y)


@every_epsilon
@pytest.mark.parametrize("norm", [1, 0, "inf", None])
def test_bad_norm_is_named(attack, norm):
    with pytest.raises(ValueError, match=f"`norm` must be 2 or math.inf.*norm={norm!r}"):
        attack(0.1, norm)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer of at least 1.*steps=0"),
        ({"steps": 2.5}, "`steps` must be an integer of at least 1.*steps=2.5"),
        ({"restarts": 0}, "`restarts` must be an integer of at least 1.*restarts=0"),
        ({"restarts": 2, "random_start": False}, "needs random_start=True.*restarts=2"),
        ({"step_size": -1}, r"`step_size` must be a finite number in \[0, inf\].*step_size=-1"),
        ({"step_size": math.nan}, "`step_size` must be a finite number.*step_size=nan"),
        ({"step_size": "1"}, "`step_size` must be a finite number.*step_size='1'"),
    ],
)
def test_bad_argument_of_pgd_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(0.1, **arguments)


@every_attack
def test_bad_clip_is_named(case):
    for clip in ((1, 0), (0, 0), (0, math.nan), 1, (0, 0.5, 1), "01"):
        with pytest.raises(ValueError, match=r"`clip` must be None or \(low, high\).*clip="):
            case.build(0.1, clip=clip)
