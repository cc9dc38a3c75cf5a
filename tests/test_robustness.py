"""The robustness evaluation: counts, worst case, checks that catch masked gradients, the runner."""

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from gat_tf.experiments.config import ConfigError

from gat_tf import attacks, data, evaluation, models
from gat_tf.evaluation.evaluator import Evaluator
from gat_tf.evaluation.robustness import Budget, standing_of
from gat_tf.experiments import reports
from gat_tf.experiments import robustness as runner

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
def honest(trained, shapes):
    return evaluation.robustness(
        trained, dataset(shapes), INF, EPSILON, budget=SMALL, batch_size=16
    )


def checks_of(result):
    return {c["check"]: c["passed"] for c in result["checks"]}


def test_an_honest_model_passes_every_check(honest):
    assert all(checks_of(honest).values()), honest["checks"]
    assert 0 < honest["worst_case_accuracy"] < honest["clean_accuracy"]


def test_worst_case_is_that_of_each_image(honest):
    masks = [standing_of(row) for row in honest["attacks"]]
    assert honest["worst_case_accuracy"] == np.mean(np.all(masks, axis=0))
    assert honest["worst_case_accuracy"] <= min(
        row["accuracy"] for row in honest["attacks"] if row["name"] != "HopSkipJump"
    )


def test_composition_goes_on_with_what_stands(honest, trained, shapes):
    rows = {row["name"]: row for row in honest["attacks"]}
    ladder = [rows[name] for name in honest["composition"]]
    assert [row["name"] for row in ladder] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert ladder[0]["attacked"] == honest["clean_accuracy"] * 40
    for before, after in itertools.pairwise(ladder):
        assert after["attacked"] == round(before["accuracy"] * 40)
        assert after["accuracy"] <= before["accuracy"]
    assert rows["Square"]["gradients"] == 0


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
    standing = found.standing[evaluator.correct].mean()
    assert f"standing: {standing:.4f}" in printed


def test_only_the_chosen_images_are_attacked(trained, shapes):
    evaluator = Evaluator(trained, dataset(shapes), batch_size=7)
    only = np.arange(40) % 3 == 0
    found = evaluator.attack(attacks.RandomPerturbation(0.1), only)
    changed = np.abs(found.adversarial - evaluator.images).max(axis=(1, 2, 3)) > 0
    np.testing.assert_array_equal(changed, only)
    np.testing.assert_array_equal(found.standing[~only], evaluator.correct[~only])


def test_transfer_follows_the_other_model(trained, trained_with_state, shapes):
    evaluator = Evaluator(trained, dataset(shapes))
    attack = attacks.FastGradient(0.05, INF)
    from gat_tf.logits import Logits

    found = evaluator.attack(attack, source=Logits(trained_with_state))
    images, labels = evaluator.images, evaluator.labels
    expected = attack(trained_with_state, images, labels).numpy()
    right = evaluator.correct
    np.testing.assert_allclose(found.adversarial[right], expected[right], atol=1e-6)


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


def test_large_temperature_is_caught(trained, shapes):
    result = evaluation.robustness(
        masked(trained, "temperature"), dataset(shapes), INF, 0.03, budget=SMALL
    )
    failed = [name for name, passed in checks_of(result).items() if not passed]
    assert "the loss's gradient does not vanish" in failed
    # The attacks themselves are not fooled: they follow the margin.
    assert result["worst_case_accuracy"] < result["clean_accuracy"]


def test_quantised_input_is_caught_and_attacked_without_gradients(trained, shapes):
    result = evaluation.robustness(
        masked(trained, "quantised"), dataset(shapes), INF, 0.1, budget=SMALL
    )
    assert not result["differentiable"]
    assert checks_of(result) == {
        "the model has input gradients": False,
        "the model gives the same logits twice": True,
    }
    names = [row["name"] for row in result["attacks"]]
    assert names == ["random noise", "Square", "HopSkipJump"]
    assert result["curve"] is None
    assert result["worst_case_accuracy"] < result["clean_accuracy"]


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
        from gat_tf.evaluation.robustness import _checks

        result = {"differentiable": False, "attacks": []}
        _, check = _checks(result, None, noisy.change(), SMALL, 10)
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


# The runner.


def config_for(model, **settings):
    budget = dataclasses.asdict(SMALL)
    return runner.Config(
        model=str(model), **{"dataset": "shapes", "images": 20, **budget, **settings}
    )


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A user's own: 12x12 grey images and a Keras model with logits, in files."""
    folder = tmp_path_factory.mktemp("grey")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 28, 28, 1), np.uint8)
    labels = (images.mean(axis=(1, 2, 3)) > 127).astype(np.int64) + (images[:, 0, 0, 0] > 127)
    np.savez(folder / "images.npz", images=images, labels=labels)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images / 255.0, labels, epochs=30, verbose=0)
    model.save(folder / "grey.keras")
    settings = {
        "dataset": str(folder / "images.npz"),
        "from_logits": True,
        "norm": "L2",
        "epsilon": 0.5,
        "images": None,
    }
    config = config_for(folder / "grey.keras", **settings)
    return config, folder / "out", runner.run(config, folder / "out")


def test_runner_evaluates_a_users_model_of_larger_images(tmp_path, monkeypatch):
    """64×64×3, with preprocessing, batch norm and dropout inside, on 0 to 255."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    images[np.arange(12), :, :, labels] //= 4  # the darkest channel is the class
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 5, 4, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    model.fit(images.astype(np.float32), labels, epochs=60, verbose=0)
    model.save(tmp_path / "mine.keras")
    monkeypatch.setattr(reports.common, "save_figure", lambda *_: None)
    settings = {"dataset": str(tmp_path / "images.npz"), "images": None, "high": 255.0}
    config = config_for(tmp_path / "mine.keras", **settings, epsilon=4.0)
    results = runner.run(config, tmp_path / "out")
    assert results["bounds"] == [0, 255]
    assert results["clean_accuracy"] > 0.8
    assert results["worst_case_accuracy"] <= results["clean_accuracy"]
    assert results["composition"] == ["APGD-CE", "FAB-T", "Square"]  # DLR needs four classes
    assert results["curve"]["epsilons"][-1] <= 255
    assert results["curve"]["accuracy"][-1] < results["clean_accuracy"]


def test_runner_evaluates_a_users_model_of_another_shape(grey):
    _config, folder, results = grey
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert results["images"] == 24
    assert reports.load(folder, "robustness")
    text = (folder / "robustness.md").read_text()
    assert text == reports.markdown(results)
    assert "APGD-T (on what stood the rest of AutoAttack so far)" in text
    assert (folder / "robustness.png").stat().st_size > 5_000
    assert results["worst"][0]["epsilon"] <= results["worst"][-1]["epsilon"]


def test_killed_evaluation_continues(grey, tmp_path, monkeypatch):
    config, _folder, results = grey
    run_square = attacks.Square.perturb

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks.Square, "perturb", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.run(config, tmp_path)
    there = {p: p.stat().st_mtime_ns for p in (tmp_path / "units").glob("*.json")}
    assert len(there) == 7
    monkeypatch.setattr(attacks.Square, "perturb", run_square)
    again = runner.run(config, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in there} == there

    def standing(found):
        return [row["standing"] for row in found["attacks"]]

    assert standing(again) == standing(results)
    assert again["curve"] == results["curve"]


def test_folder_of_another_model_is_not_mixed(grey, tmp_path):
    config, folder, _ = grey
    model = keras.models.load_model(config.model)
    model.set_weights([w + 0.01 for w in model.get_weights()])
    other = dataclasses.replace(config)
    path = tmp_path / "grey.keras"
    model.save(path)

    copy = shutil.copytree(folder, tmp_path / "out")
    changed = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**changed, "model": str(path)}))
    with pytest.raises(ConfigError, match="the model that is there now"):
        runner.run(dataclasses.replace(other, model=str(path)), copy)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "no file"),
        (lambda path: path.write_text("no model"), "Expected a Keras model"),
        (
            lambda path: keras.Sequential(
                [keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten(),
                 keras.layers.Dense(10, "softmax")]
            ).save(path),
            "without running code of its own",
        ),
        (lambda path: models.classifier(width=1 / 24, classifier_activation=None).save(path),
         "Pass from_logits=True"),
        (lambda path: models.classifier(5, width=1 / 24).save(path), "Expected labels from 0 to 4"),
        (
            lambda path: keras.Sequential(
                [keras.Input((32, 32, 3)), keras.layers.Flatten(),
                 keras.layers.Dense(10, "sigmoid")]
            ).save(path),
            "Multi-label classification",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_be_evaluated_are_named(write, message, tmp_path):
    path = tmp_path / "model.keras"
    if write is not None:
        write(path)
    with pytest.raises(ConfigError, match=message):
        runner.run(config_for(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 1))}, "cannot be read as that"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(2, int)}, r"images \[N, H, W, C\]"),
        ({"images": np.zeros((2, 4, 4, 1)), "labels": np.zeros(2)}, "integer labels"),
    ],
)
def test_images_that_are_none_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    config = runner.Config(model="any", dataset=str(tmp_path / "images.npz"))
    with pytest.raises(ConfigError, match=message):
        runner.load_images(config)


def test_images_are_scaled_to_the_models_range(tmp_path):
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(2, int))
    config = runner.Config(model="any", dataset=str(tmp_path / "images.npz"), low=-1.0, high=3.0)
    found, labels = runner.load_images(config)
    np.testing.assert_array_equal(found.ravel(), [-1, 3])
    # 255 is the brightest pixel also where scaling rounds.
    config = dataclasses.replace(config, low=-2.1179, high=2.64)
    assert runner.load_images(config)[0].max() <= np.float32(2.64)
    assert (found.dtype, labels.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "npy"])
def test_file_that_is_no_whole_npz_is_named(kind, tmp_path):
    path = tmp_path / "images.npz"
    arrays = {"images": np.zeros((9, 4, 4, 1)), "labels": np.zeros(9, int)}
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, arrays["images"])
    else:
        np.savez(path, **arrays)
        whole = path.read_bytes()
        path.write_bytes({"text": b"nothing", "empty": b"", "truncated": whole[:-40]}[kind])
    with pytest.raises(ConfigError, match="cannot be read"):
        runner.load_images(runner.Config(model="any", dataset=str(path)))


def test_no_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--model"):
        runner.run(runner.Config(), tmp_path)
    with pytest.raises(ConfigError, match="low below high"):
        runner.Config(low=1.0, high=0.0)


def test_built_in_images_are_those_of_load():
    images, labels = runner.load_images(runner.Config(model="any", dataset="shapes", images=7))
    split = data.load("shapes").test
    np.testing.assert_allclose(images, split.images[:7] / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, split.labels[:7])


def test_other_images_in_the_same_file_are_not_mixed_in(grey, tmp_path):
    config, folder, _ = grey
    copy = shutil.copytree(folder, tmp_path / "out")
    path = tmp_path / "images.npz"
    with np.load(config.dataset) as arrays:
        np.savez(path, images=arrays["images"] // 2 * 2, labels=arrays["labels"])
    written = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**written, "dataset": str(path)}))
    with pytest.raises(ConfigError, match="the images that is there now"):
        runner.run(dataclasses.replace(config, dataset=str(path)), copy)


def test_hard_label_attack_is_judged_by_the_images_it_has_seen(honest):
    from gat_tf.evaluation.robustness import _checks

    result = {**honest, "attacks": [dict(row) for row in honest["attacks"]]}
    for row in result["attacks"]:  # nothing falls but one image, to HopSkipJump
        row["standing"] = "1" * 40
        if row["name"] == "HopSkipJump":
            row["standing"] = "0" + "1" * 39
    found = {c["check"]: c for c in _checks(result, {"zero_gradients": 0.0}, 0.0, SMALL, 10)}
    (name,) = (name for name in found if name.startswith("HopSkipJump"))
    assert not found[name]["passed"]
    assert found[name]["evidence"].startswith("20.0%")  # one of five


def test_command_line_reads_the_model_and_names_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "gat_tf.experiments.robustness", "--dataset=shapes"]
    missing = f"--model={tmp_path / 'none.keras'}"
    result = subprocess.run([*command, missing], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert "Error: Expected a .keras file of a classifier. Received: no file" in result.stderr
    assert "Traceback" not in result.stderr


def test_standard_epsilon_grows_with_the_pixels_range():
    config = runner.Config(model="any", low=-1.0, high=1.0)
    assert config.radius() == pytest.approx(16 / 255)
    assert dataclasses.replace(config, norm="L2").radius() == 1
    assert dataclasses.replace(config, epsilon=0.1).radius() == 0.1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 12, 12, 1), np.uint8), r"shape \(28, 28, 1\).*Received: \(12, 12, 1\)"),
        (np.full((2, 28, 28, 1), 178.5), r"--low=0 to --high=1.*float32 from 178.5.*as uint8"),
        (np.full((2, 28, 28, 1), np.nan), r"from nan to nan"),
    ],
)
def test_images_that_do_not_fit_the_model_are_named(grey, images, message, tmp_path):
    config, _, _ = grey
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(2, int))
    with pytest.raises(ConfigError, match=message):
        runner.run(
            dataclasses.replace(config, dataset=str(tmp_path / "images.npz")), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_stopped_by_hand_is_one_line(grey, tmp_path):
    config, _, _ = grey
    command = ["robustness", f"--model={config.model}", f"--output_dir={tmp_path}"]
    script = (
        "import sys\n"
        "from gat_tf.experiments import config, robustness\n"
        "def run(*_): raise KeyboardInterrupt\n"
        f"sys.argv = {command!r}\n"
        "config.main(robustness.Config, robustness.PRESETS, run, 'robustness')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert "Stopped. The same command continues" in done.stderr
    assert "Traceback" not in done.stderr
