"""The robustness evaluation: counts, worst case, and checks that catch masked gradients."""

import dataclasses
import gc
import itertools
import json
import math
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gat_tf import attacks, evaluation, models
from gat_tf.attacks import compiled
from gat_tf.evaluation import evaluator
from gat_tf.evaluation.evaluator import Evaluator
from gat_tf.evaluation.merging import _all_images
from gat_tf.evaluation.robustness import Budget
from gat_tf.evaluation.sanity import sanity_checks, withstood
from gat_tf.logits import Logits

INF = math.inf
EPSILON = 0.006  # of the honest model, some of which stands
SMALL = Budget(
    pgd_steps=10, restarts=2, apgd_steps=10, targets=2, fab_steps=5, queries=30,
    hard_label_steps=2, hard_label_images=5,
)  # fmt: skip


def dataset(shapes, count=40, batch=20):
    images, labels = (array[:count] for array in shapes)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


@pytest.fixture(scope="module")
def stages():
    """What each stage of `honest` has computed."""
    return {}


@pytest.fixture(scope="module")
def honest(trained, shapes, stages):
    def stage(name, compute):
        stages[name] = compute()
        return stages[name]

    return evaluation.robustness(
        trained, dataset(shapes), INF, EPSILON, budget=SMALL, batch_size=16, stage=stage,
        return_images=True,
    )  # fmt: skip


def checks_of(result):
    return {c["check"]: c["passed"] for c in result["checks"]}


def test_an_honest_model_passes_every_check(honest):
    assert all(checks_of(honest).values()), honest["checks"]
    assert "ε fits the range of the pixels" in checks_of(honest)
    assert 0 < honest["worst_case_accuracy"] < honest["clean_accuracy"]


def test_worst_case_is_that_of_each_image(honest):
    masks = [withstood(row) for row in honest["attacks"]]
    assert honest["worst_case_accuracy"] == np.mean(np.all(masks, axis=0))
    assert honest["worst_case_accuracy"] <= min(
        row["accuracy"] for row in honest["attacks"] if row["name"] != "HopSkipJump"
    )


def test_worst_case_and_checks_by_hand(dense_classifier):
    """Of four images that each attack leaves others of; what is stored is not computed."""
    model = dense_classifier(np.array([[-1, 1]], np.float32), np.zeros(2, np.float32), (1, 1, 1))
    images, labels = np.full((4, 1, 1, 1), 0.5, np.float32), np.ones(4, np.int64)
    standing = {"random noise": "1111", "fast gradient": "1100", "PGD-20": "1110"}
    standing |= {"PGD-100, 5 starts": "0110", "APGD-CE": "1011"}
    others = {
        "curve": {"epsilons": [0.0, 1.0], "accuracy": [1.0, 0.0], "fooled_at": [1.0] * 4},
        "same logits": {"change": 0.0},
        "gradients": {"zero_gradients": 0.0},
    }

    def stored(name, compute):
        digits = standing.get(name, "1111")
        row = {"name": name, "standing": digits, "accuracy": digits.count("1") / 4, "gradients": 1}
        return others.get(name) or row

    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    result = evaluation.robustness(model, data, INF, 0.1, stage=stored)
    assert result["clean_accuracy"] == 1
    assert result["worst_case_accuracy"] == 0  # though two of them withstand each attack
    assert [name for name, passed in checks_of(result).items() if not passed] == [
        "iterative is no weaker than single-step",  # 75 % and 50 % withstand them
        "random starts and further steps do not matter too much",  # from 75 % to 50 %
    ]


def test_composition_goes_on_with_what_stands(honest, trained, shapes):
    rows = {row["name"]: row for row in honest["attacks"]}
    ladder = [rows[name] for name in honest["composition"]]
    assert [row["name"] for row in ladder] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert ladder[0]["attacked"] == honest["clean_accuracy"] * 40
    for before, after in itertools.pairwise(ladder):
        assert after["attacked"] == round(before["accuracy"] * 40)
        assert after["accuracy"] <= before["accuracy"]
    assert rows["Square"]["gradients"] == 0


@pytest.mark.slow
def test_cost_of_a_fast_gradient_by_hand(trained, shapes):
    evaluator = Evaluator(trained, dataset(shapes), batch_size=16)
    found = evaluator.attack(attacks.FastGradient(0.03, INF))
    correct = int(evaluator.correct.sum())
    # One gradient an image, and one look at what has come of it.
    assert (found.gradients, found.evaluations) == (correct, 2 * correct)
    pgd = attacks.PGD(0.0, INF, 7, random_start=False)
    assert evaluator.attack(pgd).gradients == 7 * correct  # nothing falls, nothing stops early


def test_accuracies_are_those_of_accuracy(honest, trained, shapes):
    expected = evaluation.accuracy(trained, dataset(shapes), attacks.FastGradient(EPSILON, INF))
    rows = {row["name"]: row["accuracy"] for row in honest["attacks"]}
    assert rows["fast gradient"] == pytest.approx(expected)
    assert honest["clean_accuracy"] == pytest.approx(evaluation.accuracy(trained, dataset(shapes)))


@pytest.mark.parametrize("which", [True, 9])
def test_worst_case_images_are_fooled_and_within_the_ball(which, honest, stages, trained, shapes):
    def stored(name, compute):
        return json.loads(json.dumps(stages[name]))  # as from a file

    data = dataset(shapes)
    result = evaluation.robustness(
        trained, data, INF, EPSILON, budget=SMALL, stage=stored, return_images=which
    )
    found = result["worst_case_images"]
    if which is True:
        np.testing.assert_array_equal(found["images"], honest["worst_case_images"]["images"])
    images, labels = (array[:40] for array in shapes)
    correct = np.argmax(trained.predict(images, verbose=0), axis=1) == labels
    standing = {row["name"]: withstood(row) for row in result["attacks"]}
    fallen = correct & ~np.all(list(standing.values()), axis=0)
    candidates = range(40 if which is True else which)
    assert found["index"] == [i for i in candidates if fallen[i]]
    assert 0 < len(found["index"]) < len(candidates) + 1
    eta = found["images"] - images[found["index"]]
    assert 0 < np.abs(eta).max() <= EPSILON * (1 + 1e-4)
    assert found["images"].dtype == np.float32
    predicted = np.argmax(trained.predict(found["images"], verbose=0), axis=1)
    assert (predicted != labels[found["index"]]).all()
    for i, attack in zip(found["index"], found["attack"], strict=True):
        assert attack == [name for name, stands in standing.items() if not stands[i]][-1]
    assert all("fooled" not in row for row in result["attacks"])


def test_worst_case_images_of_chunks_are_numbered_through():
    def chunk(count, index, value):
        images = np.full((len(index), 1, 1, 1), value, np.float32)
        found = {"index": index, "attack": [f"attack {value}"] * len(index), "images": images}
        return {"images": count, "worst_case_images": found}

    found = _all_images([chunk(4, [0, 3], 1), chunk(4, [], 2), chunk(2, [1], 3)])
    assert found["index"] == [0, 3, 9]
    assert found["attack"] == ["attack 1", "attack 1", "attack 3"]
    np.testing.assert_array_equal(found["images"].ravel(), [1, 1, 3])


@pytest.mark.slow
def test_no_worst_case_images_where_nothing_falls(dense_classifier):
    model = dense_classifier(np.array([[-9, 9]], np.float32), np.zeros(2, np.float32), (1, 1, 1))
    data = np.full((2, 1, 1, 1), 0.9, np.float32), np.ones(2, np.int64)
    result = evaluation.robustness(model, data, INF, 0.0, budget=SMALL, return_images=True)
    assert result["worst_case_accuracy"] == 1
    assert result["worst_case_images"]["images"].shape == (0, 1, 1, 1)


def test_curve_goes_down_to_zero(honest):
    curve = honest["curve"]
    assert curve["epsilons"][:5] == pytest.approx(
        [0, EPSILON / 4, EPSILON / 2, EPSILON, 2 * EPSILON]
    )
    assert curve["accuracy"][-1] == 0
    fooled = [e for e in curve["fooled_at"] if e is not None]
    assert len(fooled) == 40
    for epsilon, accuracy in zip(curve["epsilons"], curve["accuracy"], strict=True):
        assert np.mean(np.array(fooled) > epsilon) <= accuracy + 1e-9


def test_arrays_are_evaluated_and_every_attack_has_its_bar(trained, shapes, capsys):
    arrays = tuple(part[:20] for part in shapes)
    evaluator = Evaluator(trained, arrays, batch_size=8, verbose=1)
    np.testing.assert_array_equal(evaluator.images, arrays[0])
    found = evaluator.attack(attacks.FastGradient(0.03, INF))
    batches = -(-int(evaluator.correct.sum()) // 8)
    printed = capsys.readouterr().out
    assert f"{batches}/{batches}" in printed
    robust = found.robust[evaluator.correct].mean()
    assert f"robust: {robust:.4f}" in printed


def test_only_the_chosen_images_are_attacked(trained, shapes):
    evaluator = Evaluator(trained, dataset(shapes), batch_size=7)
    only = np.arange(40) % 3 == 0
    found = evaluator.attack(attacks.RandomPerturbation(0.1), only)
    changed = np.abs(found.adversarial - evaluator.images).max(axis=(1, 2, 3)) > 0
    np.testing.assert_array_equal(changed, only)
    np.testing.assert_array_equal(found.robust[~only], evaluator.correct[~only])


@pytest.mark.slow
def test_transfer_follows_the_other_model(trained, trained_with_state, shapes):
    evaluator = Evaluator(trained, dataset(shapes))
    attack = attacks.FastGradient(0.05, INF)
    found = evaluator.attack(attack, source=Logits(trained_with_state))
    images, labels = evaluator.images, evaluator.labels
    expected = attack(trained_with_state, images, labels).numpy()
    right = evaluator.correct
    np.testing.assert_allclose(found.adversarial[right], expected[right], atol=1e-6)


@pytest.mark.slow
def test_transferred_attack_goes_on_beyond_what_fools_its_source(dense_classifier):
    """A pixel of 0.5 in steps of 0.1: the source is fooled below 0.45, the model below 0.25."""

    def above(threshold):
        kernel, bias = np.array([[-1, 1]], np.float32), np.array([threshold, -threshold])
        return dense_classifier(10 * kernel, 10 * bias, (1, 1, 1))

    evaluator = Evaluator(above(0.25), (np.full((2, 1, 1, 1), 0.5, np.float32), np.array([1, 1])))
    attack = attacks.PGD(0.3, INF, 3, step_size=0.1, random_start=False)
    found = evaluator.attack(attack, source=Logits(above(0.45)))
    np.testing.assert_allclose(found.adversarial.ravel(), 0.2, atol=1e-6)
    assert not found.robust.any()


class _Traced(keras.layers.Layer):
    """Multiplies by a weight, and counts how often its Python code runs."""

    __module__ = "keras.layers"  # functions of a model with a layer of the user's own are not kept

    def build(self, shape):
        self.calls = []
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        self.calls.append(1)
        return self.scale * x


def _signs():
    """Of two pixels, the larger one is the class; a negative scale turns that round."""
    images = keras.Input((1, 2, 1))
    counted = _Traced()
    head = keras.layers.Dense(2, "softmax", kernel_initializer="identity")
    return keras.Model(images, head(keras.layers.Flatten()(counted(images)))), counted


class _Own(keras.layers.Layer):
    """A layer whose settings nobody knows of."""

    def __init__(self):
        super().__init__()
        self._settings = {"sign": 1.0}

    def call(self, x):
        return self._settings["sign"] * x


def _normalising():
    layer = keras.layers.Normalization(axis=None)
    layer.adapt(PIXELS)
    return layer, lambda: layer.adapt(-PIXELS)


def _of_own_kind():
    layer = _Own()
    return layer, lambda: layer._settings.update({"sign": -1.0})


@pytest.mark.parametrize("made", [_of_own_kind, _normalising])
def test_evaluation_sees_what_has_changed_in_a_layer(made):
    layer, change = made()
    images = keras.Input((1, 2, 1))
    head = keras.layers.Dense(2, "softmax", kernel_initializer="identity")
    model = keras.Model(images, head(keras.layers.Flatten()(layer(images))))
    labels = np.array([1, 0, 1])

    def evaluated():
        evaluator = Evaluator(model, (PIXELS, labels))
        return evaluator.correct.tolist(), evaluator.gradient_norms()

    evaluated()
    change()
    correct, norms = evaluated()
    expected = model.predict(PIXELS, verbose=0)
    assert correct == (np.argmax(expected, axis=1) == labels).tolist()
    compiled._COMPILED.pop(model, None)
    np.testing.assert_allclose(norms, evaluated()[1], rtol=1e-6)


def test_an_attack_of_the_users_own_may_hold_arrays_and_ask_in_python():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Own(attacks.FastGradient):
        mask: np.ndarray | None = None

        def perturb(self, logits, images, labels, seed=None):
            if self.epsilon > 0 and tf.reduce_mean(images) > 0:
                return super().perturb(logits, images, labels, seed) * self.mask
            return tf.zeros_like(images)

    model, _ = _signs()
    mask = np.array([1, 0], np.float32).reshape(1, 2, 1)
    found = Evaluator(model, (PIXELS, np.array([1, 0, 1]))).attack(Own(0.3, INF, mask=mask))
    assert found.robust.tolist() == [False, False, True]


PIXELS = np.array([[0.4, 0.6], [0.6, 0.4], [0.1, 0.9]], np.float32).reshape(3, 1, 2, 1)


def test_another_evaluation_of_a_model_traces_nothing_and_sees_other_weights(monkeypatch):
    model, counted = _signs()
    few = Budget(pgd_steps=2, restarts=1, apgd_steps=2, targets=1, fab_steps=2, queries=2,
                 hard_label_steps=1, hard_label_images=1)  # fmt: skip

    def evaluate(epsilon, labels=(1, 0, 1)):
        result = evaluation.robustness(model, (PIXELS, np.array(labels)), INF, epsilon, budget=few)
        assert result["clean_accuracy"] == 1
        return result["worst_case_accuracy"]

    assert evaluate(0.2) == pytest.approx(1 / 3)  # differences of 0.2, 0.2 and 0.8
    counted.calls.clear()
    assert [evaluate(epsilon) for epsilon in (0.2, 0.05, 0.5)] == pytest.approx([1 / 3, 1, 0])
    # Operation by operation: the search for a gradient, and the two calls that are compared.
    assert len(counted.calls) == 3 * 3
    counted.scale.assign(-1.0)
    assert evaluate(0.2, labels=(0, 1, 0)) == pytest.approx(1 / 3)
    counted.calls.clear()
    monkeypatch.setattr(evaluator, "_MOST_KEPT", 0)  # a large model's constants are not kept
    evaluate(0.2, labels=(0, 1, 0))
    assert len(counted.calls) > 3


def test_each_evaluation_has_its_own_range_and_source():
    (model, _), (source, turned) = _signs(), _signs()
    turned.scale.assign(-1.0)
    labels = np.array([1, 0, 1])

    def attacked(bounds, source):
        evaluator = Evaluator(model, (PIXELS, labels), bounds=bounds)
        source = source and Logits(source)
        return evaluator.attack(attacks.FastGradient(0.5, INF), source=source).adversarial

    towards = attacked((0.0, 1.0), None).reshape(3, 2)
    np.testing.assert_allclose(towards, [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]], rtol=1e-6)
    # The source would rather have the pixels the other way round: from one end to the other.
    for low, high in ((0.0, 1.0), (0.1, 0.9)):
        away = attacked((low, high), source).reshape(3, 2)
        np.testing.assert_allclose(away, [[low, high], [high, low], [low, high]], rtol=1e-6)
    np.testing.assert_array_equal(attacked((0.1, 0.9), model).reshape(3, 2), towards)


def test_each_evaluation_has_its_own_kind_of_images_and_labels():
    images = keras.Input((None, None, 1))
    pooled = layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, layers.Dense(2, "softmax")(pooled))
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])  # J = log(1 + exp(-2x))
    for size, integer in ((2, np.int64), (3, np.int64), (3, np.int32)):
        x = np.full((1, size, size, 1), 0.25, np.float32), np.array([1], integer)
        expected = 2 / (1 + math.exp(0.5)) / size  # x is the mean of size² pixels
        np.testing.assert_allclose(Evaluator(model, x).gradient_norms(), expected, rtol=1e-5)


def test_each_evaluation_reads_the_outputs_as_it_is_told():
    images = keras.Input((1, 1, 1))
    model = keras.Model(images, layers.Dense(2, "relu")(layers.Flatten()(images)))
    model.layers[-1].set_weights([np.array([[1.0, -1.0]]), np.array([0.0, 1.0])])  # x and 1 - x
    x = np.full((1, 1, 1, 1), 0.25, np.float32), np.array([1])
    slope = Evaluator(model, x).gradient_norms()
    np.testing.assert_allclose(slope, 1 / (1 - 0.25), rtol=1e-5)  # of J = -log(1 - x)
    with pytest.raises(ValueError, match="look like probabilities: rows sum from 1 to 1"):
        Evaluator(model, x, from_logits=True)
    model.layers[-1].set_weights([np.array([[1.0, -1.0]]), np.array([0.0, 2.0])])  # x and 2 - x
    slope = Evaluator(model, x, from_logits=True).gradient_norms()
    expected = 2 / (1 + math.exp(1.5))  # of J = log(1 + exp(x - (2 - x)))
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_evaluated_models_are_not_kept_alive():
    (model, _), (source, _) = _signs(), _signs()
    evaluator = Evaluator(model, (PIXELS, np.array([1, 0, 1])))
    evaluator.attack(attacks.PGD(0.5, INF, 2))
    evaluator.attack(attacks.PGD(0.5, INF, 2), source=Logits(source))
    gone = weakref.ref(model), weakref.ref(source)
    del model, source, evaluator
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_every_batch_is_perturbed_at_random_anew(dense_classifier):
    model = dense_classifier(np.zeros((4, 2), np.float32), np.array([1.0, 0.0]), (2, 2, 1))
    data = np.full((4, 2, 2, 1), 0.5, np.float32), np.zeros(4, np.int64)
    found = Evaluator(model, data, batch_size=2).attack(attacks.RandomPerturbation(0.1, 2))
    assert found.robust.all()
    first, second = found.adversarial[:2], found.adversarial[2:]
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 1e-3).all()


# Chunks of the images.


def without_times(result):
    """A result as it has to be whoever computes it."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result["attacks"]]
    return {**result, "attacks": rows}


@pytest.mark.slow
def test_chunks_computed_apart_are_merged_to_the_whole_to_the_image(dense_classifier):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(12, 5)).astype(np.float32)
    model = dense_classifier(kernel, np.zeros(5, np.float32), (2, 2, 3))
    images = rng.uniform(size=(22, 2, 2, 3)).astype(np.float32)
    labels = (images.reshape(22, 12) @ kernel).argmax(1)
    labels[::7] = (labels[::7] + 1) % 5
    settings = {"budget": SMALL, "batch_size": 4, "chunk_size": 8, "seed": 3}
    whole = evaluation.robustness(model, (images, labels), INF, 0.1, **settings)

    def chunk(first):  # the last has two images, in any order and by anyone
        some = slice(first, first + 8)
        return evaluation.robustness(
            model, (images[some], labels[some]), INF, 0.1, first=first, **settings
        )

    third, first, second = map(chunk, (16, 0, 8))
    merged = evaluation.merged([first, second, third])
    assert without_times(merged) == without_times(whole)
    assert whole["images"] == 22
    assert len(whole["curve"]["fooled_at"]) == 22
    rows = {row["name"]: row for row in whole["attacks"]}
    assert whole["clean_accuracy"] == 18 / 22
    for name, row in rows.items():
        assert len(row["standing"]) == 22
        if name not in ("HopSkipJump", *whole["composition"]):
            # Images that are wrong without an attack count as that.
            assert row["attacked"] == 18
            assert row["accuracy"] == row["standing"].count("1") / 22
    hard = rows["HopSkipJump"]  # the first five of all alone
    assert (hard["tried"], hard["attacked"]) == (5, 4)
    expected = np.all([withstood(row) for row in rows.values()], axis=0).mean()
    assert whole["worst_case_accuracy"] == expected
    # Without chunks the random numbers are others, the clean images the same.
    alone = evaluation.robustness(
        model, (images, labels), INF, 0.1, **{**settings, "chunk_size": 22}
    )
    assert alone["clean_accuracy"] == whole["clean_accuracy"]


def test_random_numbers_depend_on_the_images_place_in_the_whole(trained, shapes):
    attack = attacks.RandomPerturbation(0.1)
    images, labels = (array[:30] for array in shapes)
    every = np.ones(30, bool)
    whole = Evaluator(trained, (images, labels), batch_size=10).attack(attack, every)
    rest = Evaluator(trained, (images[10:], labels[10:]), batch_size=10, first=1)
    np.testing.assert_array_equal(
        rest.attack(attack, every[10:]).adversarial, whole.adversarial[10:]
    )


def a_chunk(clean, standing, curve, **more):
    """A chunk's result by hand: clean and standing are strings of 0 and 1."""
    size = len(clean)
    rows = [
        {
            "name": name, "attacked": clean.count("1"), "tried": size, "seconds": 0.25,
            "accuracy": digits.count("1") / size, "evaluations": 10, "gradients": 1,
            "standing": digits,
        }
        for name, digits in standing.items()
    ]  # fmt: skip
    return {
        "norm": "Linf", "epsilon": 0.1, "bounds": [0, 1], "images": size,
        "clean_accuracy": clean.count("1") / size, "differentiable": True,
        "worst_case_accuracy": 0.0, "attacks": rows, "composition": [], "checks": [],
        "curve": dict(zip(("epsilons", "accuracy", "fooled_at"), curve, strict=True)),
        "logits_change": 0.0, "zero_gradients": 0.0, "budget": dataclasses.asdict(Budget()), **more,
    }  # fmt: skip


def test_merged_by_hand():
    """Two images and three; the first curve has ended where the second goes on."""
    names = ("random noise", "fast gradient", "PGD-20", "PGD-100, 5 starts", "Square",
             "HopSkipJump")  # fmt: skip
    ours = dict(zip(names, ("11", "10", "10", "10", "11", "11"), strict=True))
    theirs = dict(zip(names, ("101", "101", "001", "001", "001", "101"), strict=True))
    first = a_chunk("11", ours, ([0, 0.1], [1.0, 0.0], [0.1, 0.1]), zero_gradients=0.5)
    second = a_chunk("101", theirs, ([0, 0.1, 0.2], [2 / 3, 1 / 3, 0.0], [0.2, 0, 0.1]),
                     logits_change=1e-2)  # fmt: skip
    found = evaluation.merged([first, second])
    assert (found["images"], found["clean_accuracy"]) == (5, 4 / 5)
    assert found["worst_case_accuracy"] == 2 / 5  # images 1 and 5
    rows = {row["name"]: row for row in found["attacks"]}
    assert rows["PGD-20"]["standing"] == "10001"
    assert [row["accuracy"] for row in found["attacks"]] == [0.8, 0.6, 0.4, 0.4, 0.6, 0.8]
    assert rows["PGD-20"]["attacked"] == 4
    assert (rows["PGD-20"]["evaluations"], rows["PGD-20"]["gradients"]) == (20, 2)
    assert rows["PGD-20"]["seconds"] == 0.5
    assert found["curve"] == {
        "epsilons": [0, 0.1, 0.2], "accuracy": [0.8, 0.2, 0.0], "fooled_at": [0.1, 0.1, 0.2, 0, 0.1]
    }  # fmt: skip
    assert found["zero_gradients"] == pytest.approx(0.2)  # one of the five
    assert found["logits_change"] == 1e-2
    failed = {name for name, passed in checks_of(found).items() if not passed}
    assert failed == {
        "the model gives the same logits twice",
        "the loss's gradient does not vanish",
    }
    assert evaluation.merged([first]) is first


def test_chunk_without_any_right_image_is_merged_and_all_of_them_are_an_error():
    curve = ([0.0], [0.0], [0.0])
    names = ("random noise", "fast gradient", "PGD-20", "PGD-100, 5 starts", "Square",
             "HopSkipJump")  # fmt: skip
    wrong = a_chunk("0", dict.fromkeys(names, "0"), curve)
    right = a_chunk("1", dict.fromkeys(names, "1"), ([0.0, 1.0], [1.0, 0.0], [1.0]))
    assert evaluation.merged([wrong, right])["clean_accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"gets none of 2 right\. Are labels"):
        evaluation.merged([wrong, wrong])


class _Subclassed(keras.Model):
    """A model whose number of classes cannot be seen from outside."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def call(self, images):
        return self.classifier(images)


def _by_label(label, count=8):
    """Images with dark pixels, all of one label, as a dataset."""
    images = np.random.default_rng(0).uniform(0, 1, (count, 4, 4, 1)).astype(np.float32)
    images[:, 0] = 0
    return tf.data.Dataset.from_tensor_slices((images, np.full(count, label))).batch(4)


def _square_root_model(power=0.5):
    """Whose gradient is infinite at dark pixels: class 1 for all."""
    images = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.ops.power(images, power))
    model = keras.Model(images, keras.layers.Dense(4, "softmax")(x))
    model.set_weights([np.zeros((16, 4)), np.array([0, 1, 0, 0])])
    model.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(16, 4)) * 1e-3)
    return model


@pytest.mark.slow
def test_gradients_that_are_not_finite_are_an_error_and_no_success_of_the_attack():
    model = _square_root_model()
    for call in (
        lambda: evaluation.robustness(model, _by_label(1), 2, 1e-6, budget=SMALL),
        lambda: evaluation.accuracy(model, _by_label(1), attacks.FastGradient(1e-6, 2)),
    ):
        with pytest.raises(ValueError, match=r"finite logits.*square root or a logarithm at 0"):
            call()
    assert evaluation.accuracy(model, _by_label(1)) == 1


def test_labels_beyond_a_subclassed_models_classes_are_named(trained, shapes):
    images, labels = shapes[0][:10], shapes[1][:10] + 7
    data_set = tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)
    with pytest.raises(ValueError, match=r"labels from 0 to 9.*Received: labels from 7 to"):
        Evaluator(_Subclassed(trained), data_set)


def test_source_of_other_classes_is_named(trained, shapes):
    source = models.classifier(4, width=1 / 24, input_shape=(16, 16, 3))
    with pytest.raises(ValueError, match=r"source with 10 classes.*with 4"):
        evaluation.robustness(trained, dataset(shapes), INF, EPSILON, source=source, budget=SMALL)


def test_classifier_that_is_never_right_is_named(trained, shapes):
    images = shapes[0][:20]
    wrong = (np.argmax(trained.predict(images, verbose=0), axis=1) + 1) % 10
    data_set = tf.data.Dataset.from_tensor_slices((images, wrong)).batch(20)
    with pytest.raises(ValueError, match=r"gets none of 20 right\. Are labels, class order"):
        evaluation.robustness(trained, data_set, INF, EPSILON, budget=SMALL)


def test_outputs_that_are_no_tensor_are_named(trained, shapes):
    class Named(_Subclassed):
        def call(self, images):
            return {"y": self.classifier(images)}

    with pytest.raises(ValueError, match=r"outputs \[batch, classes\].*of type dict"):
        Evaluator(Named(trained), dataset(shapes))


def test_operation_without_a_gradient_leaves_the_attacks_without_one(trained, shapes):
    class Resized(keras.layers.Layer):
        def call(self, images):
            return tf.image.resize(images, (16, 16), method="area")

    images = keras.Input((16, 16, 3))
    model = keras.Model(images, trained(Resized()(images)))
    assert not Evaluator(model, dataset(shapes)).differentiable
    with pytest.raises(ValueError, match="has no gradient with respect to its images"):
        attacks.FastGradient(0.1, 2)(model, shapes[0][:2], shapes[1][:2])


# Masked gradients.


def masked(trained, kind):
    """The classifier with something in it that hides its gradient and nothing else."""
    images = keras.Input((16, 16, 3))
    if kind == "temperature":  # probabilities that are 0 and 1 in float32
        body = keras.Model(trained.input, trained.get_layer("logits").output)
        z = keras.layers.Rescaling(1e4)(body(images))
        return keras.Model(images, keras.layers.Softmax()(z))
    x = keras.layers.Discretization(bin_boundaries=list(np.arange(1, 16) / 16))(images)
    return keras.Model(images, trained(keras.layers.Rescaling(1 / 15)(x)))


@pytest.mark.slow
def test_large_temperature_is_caught(trained, shapes):
    result = evaluation.robustness(
        masked(trained, "temperature"), dataset(shapes), INF, 0.03, budget=SMALL
    )
    failed = [name for name, passed in checks_of(result).items() if not passed]
    assert "the loss's gradient does not vanish" in failed
    # The attacks themselves are not fooled: they follow the margin.
    assert result["worst_case_accuracy"] < result["clean_accuracy"]


@pytest.mark.slow
def test_quantised_input_is_caught_and_attacked_without_gradients(trained, shapes):
    result = evaluation.robustness(
        masked(trained, "quantised"), dataset(shapes), INF, 0.1, budget=SMALL
    )
    assert not result["differentiable"]
    assert checks_of(result) == {
        "the model has input gradients": False,
        "the model gives the same logits twice": True,
        "ε fits the range of the pixels": True,
    }
    names = [row["name"] for row in result["attacks"]]
    assert names == ["random noise", "Square", "HopSkipJump"]
    assert result["curve"] is None
    assert result["worst_case_accuracy"] < result["clean_accuracy"]


@pytest.mark.slow
def test_gradient_that_points_away_is_caught(trained, shapes):
    """A layer whose gradient has the wrong sign: gradient attacks make the image easier."""

    @keras.saving.register_keras_serializable("test")
    class Backwards(keras.layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def reversed_(x):
                return tf.identity(x), lambda upstream: -upstream

            return reversed_(x)

    images = keras.Input((16, 16, 3))
    model = keras.Model(images, trained(Backwards()(images)))
    result = evaluation.robustness(
        model, dataset(shapes), INF, 0.06, budget=dataclasses.replace(SMALL, queries=300)
    )
    failed = {name for name, passed in checks_of(result).items() if not passed}
    assert "accuracy reaches zero as ε grows" in failed
    assert any(name.startswith("Square") for name in failed)


@pytest.fixture(params=[False, True])
def rewritten(request):
    """With the rewriting of graphs that a user has, and without it, as other tests are."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not request.param})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.mark.usefixtures("rewritten")
def test_constant_weights_are_the_same_function(shapes):
    images = keras.Input((16, 16, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(images)))
    model = keras.Model(images, layers.Dense(10, "softmax")(layers.GlobalMaxPooling2D()(x)))
    random = np.random.default_rng(2)
    data_set = dataset(shapes)
    evaluator = Evaluator(model, data_set, batch_size=40)
    x = tf.constant(evaluator.images)
    for _ in range(2):  # the weights of today, not of the first call
        model.set_weights([random.uniform(0.5, 2, w.shape) for w in model.get_weights()])
        constant = tf.function(evaluator.logits.with_constant_weights()).get_concrete_function(x)
        assert not [v for v in constant.graph.variables if v.dtype == tf.float32]
        z = evaluator.logits(x).numpy()
        np.testing.assert_allclose(constant(x), z, atol=1e-5 * np.abs(z).max())


def test_random_numbers_of_constant_weights_still_draw_anew(trained, shapes):
    images = keras.Input((16, 16, 3))
    noisy = keras.Model(images, trained(AlwaysNoise()(images)))
    evaluator = Evaluator(noisy, dataset(shapes))
    call = tf.function(evaluator.logits.with_constant_weights())
    x = tf.constant(evaluator.images)
    assert np.abs(call(x).numpy() - call(x).numpy()).max() > 0.01


class AlwaysNoise(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + 0.1 * keras.random.normal(tf.shape(x), seed=self.seeds)


@pytest.mark.parametrize("source", ["tensorflow", "keras", "numpy"])
def test_random_numbers_in_the_model_are_caught(trained, shapes, source):
    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, x):
            if source == "tensorflow":
                return x + 0.1 * tf.random.normal(tf.shape(x))
            if source == "keras":
                return x + 0.1 * keras.random.normal(tf.shape(x), seed=self.seeds)
            return x + 0.1 * np.random.default_rng().normal()  # a constant once compiled

    images = keras.Input((16, 16, 3))
    noisy = Evaluator(keras.Model(images, trained(Noise()(images))), dataset(shapes))
    assert noisy.change() > 0.01
    assert Evaluator(trained, dataset(shapes)).change() < 1e-6
    if source == "tensorflow":
        result = {"differentiable": False, "attacks": [], "logits_change": noisy.change()}
        _, check = sanity_checks(result)
        assert check["check"] == "the model gives the same logits twice"
        assert not check["passed"]
        assert "`samples` of PGD and APGD" in check["evidence"]


def test_bad_arguments_are_named(trained, shapes):
    with pytest.raises(ValueError, match="norm"):
        evaluation.robustness(trained, dataset(shapes), 1, 0.1)
    with pytest.raises(ValueError, match="epsilon"):
        evaluation.robustness(trained, dataset(shapes), 2, -0.1)
    with pytest.raises(ValueError, match="no images"):
        evaluation.robustness(trained, dataset(shapes).take(0), 2, 0.1)
    with pytest.raises(ValueError, match="queries"):
        Budget(queries=0)


@pytest.mark.parametrize(
    ("norm", "epsilon", "high", "passed"),
    [
        ("Linf", 8 / 255, 1, True),
        ("Linf", 8 / 255, 255, False),  # of [0, 1]
        ("Linf", 8, 255, True),
        ("Linf", 8, 1, False),  # of [0, 255]
        ("Linf", 0.5, 1, False),  # every image can become grey
        ("Linf", 0.3, 1, True),  # of MNIST
        ("Linf", 0, 255, True),  # no attack is meant
        ("L2", 0.5, 1, True),
        ("L2", 0.5, 255, False),
        ("L2", 127.5, 255, True),
        ("L2", 127.5, 1, False),
        ("L2", 0, 1, True),
    ],
)
def test_epsilon_in_other_units_than_the_pixels_fails_a_check(norm, epsilon, high, passed, honest):
    """32 x 32 x 3 values: a diagonal of 55.4 times the range."""
    result = {**honest, "norm": norm, "epsilon": epsilon, "bounds": [0, high]}
    result["image_shape"] = [32, 32, 3]
    found = {c["check"]: c for c in sanity_checks(result)}["ε fits the range of the pixels"]
    assert found["passed"] == passed
    assert f"ε = {epsilon:.4g} on pixels from 0 to {high}" in found["evidence"]
    usual = {("Linf", 1): "0.03137", ("Linf", 255): "8", ("L2", 1): "0.5", ("L2", 255): "127.5"}
    assert found["evidence"].endswith(f"would be {usual[norm, high]}")
    # An old result, of which the size of the images is not known, is not judged anew.
    del result["image_shape"]
    assert "ε fits the range of the pixels" not in {c["check"] for c in sanity_checks(result)}


def test_hard_label_attack_is_judged_by_the_images_it_has_seen(honest):
    result = {**honest, "attacks": [dict(row) for row in honest["attacks"]]}
    for row in result["attacks"]:  # nothing falls but one image, to HopSkipJump
        row["standing"] = "1" * 40
        if row["name"] == "HopSkipJump":
            row["standing"] = "0" + "1" * 39
    found = {c["check"]: c for c in sanity_checks(result)}
    (name,) = (name for name in found if name.startswith("HopSkipJump"))
    assert not found[name]["passed"]
    assert found[name]["evidence"].startswith("20.0%")  # one of five
