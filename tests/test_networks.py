"""How networks are trained and chosen: search, inheritance, splits, attacks and precision."""

import contextlib
import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from linear_networks import NETWORKS, linear_classifier, path, two_halves, write, write_network

from gat_tf import attacks, data, models, training
from gat_tf.experiments import methods, networks, surrogates
from gat_tf.experiments.lab import files, fitting, locks, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.methods import METHODS, Hyperparameter
from gat_tf.experiments.networks import Network, Networks
from gat_tf.training.base import ADAM_EPSILON

pytestmark = pytest.mark.usefixtures("eagerly")
INF = math.inf
SEARCH = dataclasses.replace(
    NETWORKS, strategy="one_device", search=True, search_window=1, search_extensions=0,
    hyperparameters={}, epochs=1, search_epochs=1,
)  # fmt: skip
SPLITS = data.Splits(*(two_halves(20, seed) for seed in range(3)), 10)


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setattr(methods, "_classifier", linear_classifier)


def write_trial(folder, name, scores):
    """A trial of the search that is done; None is one that diverged."""
    trial = {"validation_accuracy": None, "history": {"validation_accuracy": [None]}}
    if scores is not None:
        scores = scores if isinstance(scores, list) else [scores]
        trial = {"validation_accuracy": max(scores), "history": {"validation_accuracy": scores}}
    files.write_json(folder / "search" / f"shapes-{name}.json", trial)


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Returns a function: (method, trials by name, settings) -> hyperparameters and trials used.

    Trials that are not dictated fail the test.
    """

    def no_trial(self, name, *_):
        raise AssertionError(f"a trial that nobody expected: {name}")

    def searched(method, trials, **settings):
        folder = tmp_path / "networks"
        found = Networks(dataclasses.replace(SEARCH, **settings), folder)
        for name, scores in trials.items():
            write_trial(folder, name, scores)
        read, used = found.trials.read, []
        monkeypatch.setattr(found.trials, "read", lambda name: used.append(name) or read(name))
        values = found.hyperparameters("shapes", method)
        return values, {name.removeprefix("shapes-") for name in used}

    monkeypatch.setattr(Networks, "_trial", no_trial)
    return searched


PEAK = {
    "fg_l2-epsilon=0.1": [0.1, 0.9, 0.1],
    "fg_l2-epsilon=0.3": [0.5, 0.6, 0.55],
    "fg_l2-epsilon=0.9": [0.2, 0.3, 0.2],
}


@pytest.mark.parametrize(
    ("window", "best"),
    # Best means: of one epoch 0.9 and 0.6; of two 0.5 and 0.575; of three or all 0.37 and 0.55.
    [(1, 0.1), (2, 0.3), (3, 0.3), (99, 0.3)],
)
def test_trial_is_scored_by_its_best_mean_over_a_window(searched, window, best):
    grids = {"fg_l2.epsilon": (0.1, 0.3, 0.9)}
    values, _ = searched("fg_l2", PEAK, grids=grids, search_window=window)
    assert values == {"epsilon": best}


def test_window_means_are_of_successive_epochs():
    def score(*accuracies, window):
        trial = {"validation_accuracy": 0, "history": {"validation_accuracy": list(accuracies)}}
        return networks._score(trial, window)

    assert score(0.2, 0.8, 0.4, 0.6, window=2) == pytest.approx(0.6)
    assert score(0.2, 0.8, 0.4, 0.6, window=3) == pytest.approx(0.6)
    assert score(0.9, 0.0, 0.9, window=2) == pytest.approx(0.45)
    assert score(0.2, 0.4, window=5) == pytest.approx(0.3)


def trials(method, key, **scores):
    return {f"{method}-{key}={value}": score for value, score in scores.items()}


@pytest.mark.parametrize(
    ("scores", "extensions", "used", "best"),
    [
        # Upwards by a factor of 3, while the last is the best.
        ({"0.1": 0.1, "0.3": 0.2, "0.9": 0.3, "2.7": 0.2}, 2, ["2.7"], 0.9),
        ({"0.1": 0.1, "0.3": 0.2, "0.9": 0.3, "2.7": 0.4, "8.1": 0.5}, 2, ["2.7", "8.1"], 8.1),
        ({"0.1": 0.1, "0.3": 0.2, "0.9": 0.3, "2.7": 0.4}, 1, ["2.7"], 2.7),
        ({"0.1": 0.1, "0.3": 0.2, "0.9": 0.3}, 0, [], 0.9),
        # Downwards.
        ({"0.1": 0.5, "0.3": 0.2, "0.9": 0.3, "0.0333333": 0.1}, 2, ["0.0333333"], 0.1),
        # Inside.
        ({"0.1": 0.1, "0.3": 0.5, "0.9": 0.3}, 2, [], 0.3),
    ],
)
def test_best_value_at_an_edge_extends_the_grid_by_the_same_factor(
    searched, scores, extensions, used, best
):
    values, read = searched(
        "fg_l2", trials("fg_l2", "epsilon", **scores), search_extensions=extensions,
        grids={"fg_l2.epsilon": (0.1, 0.3, 0.9)},
    )  # fmt: skip
    assert values == {"epsilon": best}
    assert read == {f"fg_l2-epsilon={value}" for value in ["0.1", "0.3", "0.9", *used]}


@pytest.mark.parametrize(
    ("grid", "scores", "used"),
    [
        ((0.3, 0.6), {"0.3": 0.1, "0.6": 0.2}, []),  # 1.2 is no rate
        ((0.5, 0.7), {"0.5": 0.1, "0.7": 0.2, "0.98": 0.1}, ["0.98"]),
        ((0.0, 0.5), {"0.0": 0.1, "0.5": 0.2}, []),  # from 0 there is no factor
        ((0.0, 0.5), {"0.0": 0.2, "0.5": 0.1}, []),
        ((0.5,), {"0.5": 0.1}, []),
    ],
)
def test_grids_that_cannot_be_extended_are_not(searched, grid, scores, used):
    _, read = searched(
        "dropout", trials("dropout", "rate", **scores), search_extensions=1,
        grids={"dropout.rate": grid},
    )  # fmt: skip
    assert read == {f"dropout-rate={value}" for value in [*map(str, grid), *used]}


def test_the_first_of_equal_values_is_taken(searched):
    scores = {"0.3": 0.5, "0.1": 0.5, "0.9": 0.5}
    grids = {"fg_l2.epsilon": (0.3, 0.1, 0.9)}
    values, _ = searched("fg_l2", trials("fg_l2", "epsilon", **scores), grids=grids)
    assert values == {"epsilon": 0.3}


def test_diverged_trial_is_not_taken(searched):
    scores = {"0.1": None, "0.3": 0.05, "0.9": None}
    grids = {"fg_l2.epsilon": (0.1, 0.3, 0.9)}
    values, _ = searched("fg_l2", trials("fg_l2", "epsilon", **scores), grids=grids)
    assert values == {"epsilon": 0.3}


def test_search_in_which_everything_diverges_is_named(searched):
    scores = {"0.1": None, "0.3": None}
    with pytest.raises(ConfigError, match=r"Every trial of fg_l2 on shapes diverged; see .*search"):
        searched("fg_l2", trials("fg_l2", "epsilon", **scores), grids={"fg_l2.epsilon": (0.1, 0.3)})


GAT = {"gat.c_g": (0.1, 0.3), "gat.generator_learning_rate": (1e-4, 1e-3)}
OF_GAT = {
    "gat-c_g=0.1": 0.4,
    "gat-c_g=0.3": 0.5,
    # At the best c_g; that of the given rate is known.
    "gat-c_g=0.3-generator_learning_rate=0.001": 0.6,
}


@pytest.mark.parametrize(("score", "rate"), [(0.6, 1e-3), (0.5, 1e-4), (0.45, 1e-4)])
def test_one_hyperparameter_is_searched_after_the_other(searched, score, rate):
    last = "gat-c_g=0.3-generator_learning_rate=0.001"
    values, read = searched(
        "gat", {**OF_GAT, last: score}, grids=GAT,
        hyperparameters={"gat.generator_learning_rate": 1e-4},
    )  # fmt: skip
    assert values == {"c_g": 0.3, "generator_learning_rate": rate}
    assert read == set(OF_GAT)


def test_dropout_gat_inherits_what_gats_search_has_found(searched):
    of_dropout = {"dropout_gat-rate=0.1": 0.7, "dropout_gat-rate=0.3": 0.6}
    values, read = searched(
        "dropout_gat", {**OF_GAT, **of_dropout}, grids={**GAT, "dropout_gat.rate": (0.1, 0.3)},
        hyperparameters={"gat.generator_learning_rate": 1e-4},
    )  # fmt: skip
    assert values == {"c_g": 0.3, "generator_learning_rate": 1e-3, "rate": 0.1}
    assert read == {*OF_GAT, *of_dropout}


@pytest.mark.parametrize(("score", "c_g"), [(0.8, 1.0), (0.7, 0.3)])
def test_dropout_gat_may_search_its_own_c_g_from_gats(searched, score, c_g):
    of_dropout = {
        "dropout_gat-rate=0.1": 0.7,
        "dropout_gat-rate=0.3": 0.6,
        "dropout_gat-rate=0.1-c_g=1.0": score,
    }
    grids = {**GAT, "dropout_gat.rate": (0.1, 0.3), "dropout_gat.c_g": (0.3, 1.0)}
    values, read = searched(
        "dropout_gat", {**OF_GAT, **of_dropout}, grids=grids,
        hyperparameters={"gat.generator_learning_rate": 1e-4},
    )  # fmt: skip
    assert values == {"c_g": c_g, "generator_learning_rate": 1e-3, "rate": 0.1}
    assert read == {*OF_GAT, *of_dropout}


def test_trials_are_trained_with_what_is_inherited_given_and_tried(tmp_path, monkeypatch):
    tried = {}

    def trial(self, name, dataset, method, values, point):
        tried[name] = (values, point)
        accuracy = 1 - abs(point[list(point)[-1]] - 0.3)  # the best is next to 0.3
        history = {"validation_accuracy": [accuracy]}
        return {"validation_accuracy": accuracy, "history": history}

    monkeypatch.setattr(Networks, "_trial", trial)
    grids = {"gat.c_g": (0.3, 1.0), "gat.generator_learning_rate": (), "dropout_gat.rate": (0.2,)}
    config = dataclasses.replace(SEARCH, grids=grids, hyperparameters={
        "gat.generator_learning_rate": 1e-4, "dropout_gat.rate": 0.5})  # fmt: skip
    found = Networks(config, tmp_path)
    gat = {"c_g": 0.3, "generator_learning_rate": 1e-4}
    assert found.hyperparameters("shapes", "dropout_gat") == {**gat, "rate": 0.2}
    assert tried == {
        "shapes-gat-c_g=0.3": (gat, {"c_g": 0.3}),
        "shapes-gat-c_g=1.0": ({**gat, "c_g": 1.0}, {"c_g": 1.0}),
        "shapes-dropout_gat-rate=0.2": ({**gat, "rate": 0.2}, {"rate": 0.2}),
    }


@pytest.fixture
def named(monkeypatch):
    """Trials and trainings that only tell their names, in the order in which they are made."""
    made = []

    def told(name, unit):
        made.append(name)
        return unit

    def trial(self, name, dataset, method, values, point):
        history = {"validation_accuracy": [0.5]}
        return told(name, {"validation_accuracy": 0.5, "history": history})

    def training(self, network):
        values = self.hyperparameters(network.dataset, network.method)
        return told(network.name, {**network._asdict(), "hyperparameters": values})

    monkeypatch.setattr(Networks, "_trial", trial)
    monkeypatch.setattr(Networks, "_train", training)
    return made


def test_while_others_are_at_a_trial_everything_else_is_done(tmp_path, monkeypatch, named):
    grids = {"gat.c_g": (0.3, 1.0), "gat.generator_learning_rate": (), "dropout_gat.rate": (0.2,),
             "fg_l2.epsilon": (0.5,)}  # fmt: skip
    found = Networks(dataclasses.replace(SEARCH, grids=grids), tmp_path)
    others = contextlib.ExitStack()
    others.enter_context(locks.held(tmp_path / "search/.locks/shapes-gat-c_g=0.3"))
    waited = []

    def wait(paths):
        waited.append({path.name for path in paths})
        others.close()

    monkeypatch.setattr(locks, "wait", wait)
    ours = [Network("shapes", method, 0) for method in ("dropout_gat", "gat", "baseline", "fg_l2")]
    found.train(ours)
    before = ["gat-c_g=1.0", "fg_l2-epsilon=0.5", "baseline-seed0", "fg_l2-seed0"]
    after = ["gat-c_g=0.3", "dropout_gat-rate=0.2", "dropout_gat-seed0", "gat-seed0"]
    assert named == [f"shapes-{name}" for name in before + after]
    assert waited == [{"shapes-gat-c_g=0.3"}]


def test_while_others_train_a_network_the_next_is_trained(tmp_path, monkeypatch, named):
    found = Networks(dataclasses.replace(SEARCH, search=False), tmp_path)
    others = contextlib.ExitStack()
    others.enter_context(locks.held(tmp_path / "units/.locks/shapes-baseline-seed0"))
    monkeypatch.setattr(locks, "wait", lambda paths: others.close())
    trained = []
    wanted = [Network("shapes", "baseline", seed) for seed in range(3)]
    units.shared(found.steps(wanted, trained.append))
    assert trained == named == [f"shapes-baseline-seed{seed}" for seed in (1, 2, 0)]


def test_without_a_search_values_are_given_inherited_or_the_methods(tmp_path):
    given = {"gat.c_g": 0.7, "dropout_gat.rate": 0.4}
    config = dataclasses.replace(NETWORKS, hyperparameters=given)
    found = Networks(config, tmp_path / "a")
    gat = {"c_g": 0.7, "generator_learning_rate": 1e-6}
    assert found.hyperparameters("shapes", "gat") == gat
    assert found.hyperparameters("shapes", "dropout_gat") == {**gat, "rate": 0.4}
    assert found.hyperparameters("shapes", "fg_linf") == {"epsilon": 1 / 255}
    assert found.hyperparameters("shapes", "baseline") == {}
    own = dataclasses.replace(NETWORKS, hyperparameters={**given, "dropout_gat.c_g": 0.2})
    found = Networks(own, tmp_path / "b")
    assert found.hyperparameters("shapes", "dropout_gat")["c_g"] == 0.2
    assert found.hyperparameters("shapes", "gat") == gat


# What is trained.

VALUES = {
    "dropout.rate": 0.25, "random.epsilon": 0.125, "fg_linf.epsilon": 0.25, "fg_l2.epsilon": 0.5,
    "gat.c_g": 0.75, "gat.generator_learning_rate": 0.002, "dropout_gat.rate": 0.375,
    "pgd.epsilon": 0.0625, "pgd.steps": 3,
    "trades.epsilon": 0.0625, "trades.steps": 3, "trades.beta": 4.0,
    "awp.gamma": 0.25, "awp.warmup_steps": 7,
    "fg_l2_gat_power.epsilon": 0.875,
    "shared_power.power": 1.25, "scaled_gradient.scale": 1.5, "gat_frozen.c_g": 0.75,
}  # fmt: skip
ATTACKS = {
    "random": attacks.RandomPerturbation(0.125, INF, clip=None),
    "fg_linf": attacks.FastGradient(0.25, INF, clip=None),
    "fg_l2": attacks.FastGradient(0.5, 2, clip=None),
    "pgd": attacks.PGD(0.0625, INF, 3),
    "fg_l2_gat_power": attacks.FastGradient(0.875, 2, clip=None),
    "shared_power": surrogates.SharedPower(1.25, clip=None),
    "scaled_gradient": surrogates.ScaledGradient(1.5, clip=None),
}
GANS = {"gat": 0.002, "dropout_gat": 0.002, "gat_frozen": 0.0}  # learning rate of the generator


def about(attack):
    """What an attack is; attacks themselves are the same only if they are one object."""
    return attack and (type(attack), vars(attack))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Returns a function: method -> what would be fitted, and the attack of its validation."""
    config = dataclasses.replace(
        NETWORKS, hyperparameters=VALUES, alpha=0.625, strategy="one_device", learning_rate=0.003
    )
    found = Networks(config, tmp_path)
    validated = []
    monkeypatch.setattr(fitting, "validation_accuracy", lambda *args: validated.append(args))
    monkeypatch.setattr(fitting, "trained", lambda folder, name, about, prepare, **_: prepare())

    def prepared(method):
        of_fitting, _ = found._train(Network("shapes", method, 0))
        ((classifier, _, attack),) = validated
        assert classifier is of_fitting.network
        return of_fitting, attack

    return prepared


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_its_attack_and_hyperparameters(prepared, method):
    fit, attack = prepared(method)
    assert about(attack) == (about(ATTACKS["pgd"]) if method in ("pgd", "trades", "awp") else None)
    rates = [layer.rate for layer in fit.network.layers if isinstance(layer, keras.layers.Dropout)]
    expected_rate = {"dropout": 0.25, "dropout_gat": 0.375}.get(method, 0)
    assert set(rates) <= {expected_rate}
    assert bool(rates) == (expected_rate > 0)
    optimizers = [fit.model.optimizer]
    assert float(fit.model.optimizer.learning_rate) == pytest.approx(0.003)
    if method in ATTACKS:
        assert isinstance(fit.model, training.AdversarialTraining)
        assert about(fit.model.attack) == about(ATTACKS[method])
        assert fit.model.alpha == (0 if method == "pgd" else 0.625)
    elif method == "trades":
        assert isinstance(fit.model, training.TRADES)
        assert about(fit.model.attack) == about(ATTACKS["pgd"])
        assert fit.model.beta == 4
    elif method == "awp":
        assert isinstance(fit.model, training.AWP)
        assert about(fit.model.attack) == about(ATTACKS["pgd"])
        assert (fit.model.gamma, fit.model.warmup_steps) == (0.25, 7)
    elif method in GANS:
        assert isinstance(fit.model, training.GAT)
        assert (fit.model.c_g, fit.model.alpha) == (0.75, 0.625)
        assert float(fit.model.generator_optimizer.learning_rate) == pytest.approx(GANS[method])
        optimizers.append(fit.model.generator_optimizer)
    elif method == "fg_l2_gat_schedule":
        (schedule,) = fit.callbacks
        assert fit.model.attack.epsilon is schedule.epsilon
        schedule.on_epoch_begin(20)
        assert float(schedule.epsilon) == pytest.approx(math.sqrt(0.105))
    else:
        assert method in ("baseline", "dropout")
        assert isinstance(fit.model, methods.CleanTraining)
    assert {optimizer.epsilon for optimizer in optimizers} == {ADAM_EPSILON}


def test_generator_draws_minibatches_of_its_own_as_the_papers_algorithm_has_it():
    values = {"c_g": 0.3, "generator_learning_rate": 1e-6}
    for settings, draws in (
        ({"minibatches": "separate"}, 1),
        ({"minibatches": "separate", "generator_steps": 3}, 3),
        ({"minibatches": "shared", "generator_steps": 3}, 0),
    ):
        config = dataclasses.replace(NETWORKS, **settings)
        assert METHODS["gat"].build(config, values, SPLITS, 0).draws == draws


@pytest.mark.slow
def test_same_seed_starts_methods_from_the_same_weights():
    first = {}
    for method in ("baseline", "random", "fg_linf", "fg_l2", "gat", "pgd"):  # dropout draws too
        keras.utils.set_random_seed(7)
        values = {"epsilon": 0.1, "steps": 2, "c_g": 0.3, "generator_learning_rate": 1e-4}
        first[method] = METHODS[method].build(NETWORKS, values, SPLITS, 7).classifier.get_weights()
    for method, ours in first.items():
        for a, b in zip(ours, first["baseline"], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=method)


@pytest.mark.slow
def test_clean_training_is_keras_own_on_the_cross_entropy(tmp_path, monkeypatch):
    """The logits are trained; a softmax in between would train badly."""
    classifier = models.classifier(10, width=1 / 12)
    weights = classifier.get_weights()
    monkeypatch.setattr(methods, "_classifier", lambda *_: classifier)
    images, labels = two_halves(40, 0)
    images = images / np.float32(255)
    trainee = methods._clean(NETWORKS, {}, 10, 0)
    ours = trainee.model.train_on_batch(images, labels)
    reference = models.classifier(10, width=1 / 12)
    reference.set_weights(weights)
    reference.compile(methods._optimizer(NETWORKS), "sparse_categorical_crossentropy")
    theirs = reference.train_on_batch(images, labels)
    assert np.ravel(ours)[0] == pytest.approx(np.ravel(theirs)[0], rel=1e-4)
    for a, b in zip(classifier.weights, reference.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


# On which images.


@pytest.fixture
def halves(monkeypatch):
    """Train and validation images that are easy, and test images with all labels wrong."""
    asked = []

    def load(name, data_dir, *, image_size, train_size, validation_size, test_size):
        asked.append(train_size)
        return data.Splits(
            two_halves(40, 0), two_halves(20, 1), two_halves(20, 2, swapped=True), 10
        )

    monkeypatch.setattr(data, "load", load)
    return asked


@pytest.mark.slow
def test_networks_are_chosen_on_the_validation_images_and_tested_on_the_test_images(
    linear, halves, tmp_path
):
    config = dataclasses.replace(
        SEARCH, epochs=3, search_epochs=2, grids={"dropout.rate": (0.0, 0.5)}, search_train_size=20
    )
    found = Networks(config, tmp_path)
    network = Network("shapes", "dropout", 3)
    found.train([network])
    unit = found.units.read(network.name)
    assert unit["validation_accuracy"] == 1
    assert unit["test_accuracy"] == 0
    assert unit["seed"] == 3
    tried = found.trials.read_all()
    assert [t["hyperparameters"] for t in tried] == [{"rate": 0.0}, {"rate": 0.5}]
    for trial in tried:
        assert trial["validation_accuracy"] == 1
        assert "test_accuracy" not in trial
        assert trial["seed"] == config.search_seed
        assert trial["epochs"] == 2
    assert not list((tmp_path / "search").glob("*.keras"))
    assert unit["hyperparameters"] == {"rate": 0.0}  # the first of equals
    assert set(halves) == {20, 100}  # trials have their own number of training images


@pytest.mark.slow
def test_pgd_trained_network_is_chosen_under_its_attack(linear, halves, tmp_path):
    """Under an attack that turns every image grey half of them are wrong at least."""
    config = dataclasses.replace(
        SEARCH, search=False, hyperparameters={"pgd.epsilon": 1.0, "pgd.steps": 1}
    )
    found = Networks(config, tmp_path)
    network = Network("shapes", "pgd", 0)
    found.train([network])
    unit = found.units.read(network.name)
    assert unit["validation_accuracy"] <= 0.5
    assert unit["hyperparameters"] == {"epsilon": 1.0, "steps": 1}


@pytest.mark.slow
def test_classifier_trained_in_bfloat16_is_kept_and_tested_in_float32(
    linear, halves, tmp_path, monkeypatch
):
    config = dataclasses.replace(SEARCH, search=False, precision="mixed_bfloat16", epochs=2)
    found = Networks(config, tmp_path)
    tested = []
    accuracy = networks.evaluation.accuracy

    def spied(model, dataset):
        tested.append({layer.compute_dtype for layer in model.layers})
        return accuracy(model, dataset)

    monkeypatch.setattr(networks.evaluation, "accuracy", spied)
    network = Network("shapes", "baseline", 0)
    # Test images that are decided by little, so that bfloat16 gets others right.
    test = two_halves(500, 4)
    test = data.Split(np.random.default_rng(5).integers(0, 256, test.images.shape, np.uint8),
                      test.labels)  # fmt: skip
    splits = data.Splits(two_halves(40, 0), two_halves(20, 1), test, 10)
    monkeypatch.setattr(data, "load", lambda *_, **__: splits)
    found.train([network])
    unit = found.units.read(network.name)
    assert unit["precision"] == "mixed_bfloat16"
    assert tested == [{"float32"}]
    model = found.load(network)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    kernel, bias = model.get_weights()
    assert kernel.dtype == np.float32
    logits = test.images.reshape(500, -1) / np.float32(255) @ kernel + bias
    assert unit["test_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == test.labels))


# What is there already.


def test_networks_with_other_hyperparameters_are_refused(tmp_path):
    folder = write(tmp_path, fg_l2={0: 40}, baseline={0: 40})
    unit_path = path(folder, "fg_l2", 0, ".json")
    ours = METHODS["fg_l2"].hyperparameters["epsilon"].value
    wanted = [Network("shapes", "fg_l2", 0), Network("shapes", "baseline", 0)]
    found = Networks(NETWORKS, folder)
    files.write_json(unit_path, files.read_json(unit_path) | {"hyperparameters": {"epsilon": ours}})
    found.train(wanted)
    files.write_json(unit_path, files.read_json(unit_path) | {"hyperparameters": {"epsilon": 0.5}})
    with pytest.raises(ConfigError, match=rf"epsilon: 0\.5 there, {ours:g} here"):
        found.train(wanted)


def test_method_whose_default_has_changed_is_not_mixed_with_what_was_trained(tmp_path, monkeypatch):
    folder = write(tmp_path)
    write_network(folder, "random", 0, 40)
    unit_path = path(folder, "random", 0, ".json")
    ours = {"hyperparameters": {"epsilon": 1 / 255}}
    files.write_json(unit_path, files.read_json(unit_path) | ours)
    changed = dataclasses.replace(
        METHODS["random"], hyperparameters={"epsilon": Hyperparameter(2 / 255)}
    )
    monkeypatch.setitem(METHODS, "random", changed)
    with pytest.raises(ConfigError, match="was trained with other hyperparameters"):
        Networks(NETWORKS, folder).train([Network("shapes", "random", 0)])


def test_folder_is_opened_as_it_is_or_as_a_preset(tmp_path):
    write(tmp_path / "there")
    found = Networks.open(str(tmp_path / "there"), "paper", "some/folder", "one_device")
    expected = dataclasses.replace(NETWORKS, data_dir="some/folder", strategy="one_device")
    assert found.config == expected
    found = Networks.open(str(tmp_path / "new"), "quick", None, "one_device")
    assert (found.config.epochs, found.config.batch_size) == (20, 25)
    assert json.loads((tmp_path / "new/config.json").read_text())["experiment"] == "networks"
