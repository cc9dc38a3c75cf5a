"""The command that tells how robust a user's Keras classifier is."""

import base64
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from gat_tf import attacks, data, models, plotting
from gat_tf.evaluation.robustness import Budget
from gat_tf.experiments.lab import locks, units
from gat_tf.experiments.lab import results as lab_results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.robustness import command
from gat_tf.robustness.command import Config

SMALL = Budget(
    pgd_steps=4, restarts=1, apgd_steps=4, targets=2, fab_steps=3, queries=20,
    hard_label_steps=1, hard_label_images=4,
)  # fmt: skip


def config_for(model, **settings):
    budget = dataclasses.asdict(SMALL)
    return Config(model=str(model), **{"dataset": "shapes", "images": 20, **budget, **settings})


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
        "epsilon": 0.7,
        "images": None,
        "save_images": True,
    }
    config = config_for(folder / "grey.keras", **settings)
    return config, folder / "out", command.run(config, folder / "out")


@pytest.mark.slow
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
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    settings = {"dataset": str(tmp_path / "images.npz"), "images": None, "high": 255.0}
    config = config_for(tmp_path / "mine.keras", **settings, epsilon=4.0)
    results = command.run(config, tmp_path / "out")
    assert results["bounds"] == [0, 255]
    assert results["clean_accuracy"] > 0.8
    assert results["worst_case_accuracy"] <= results["clean_accuracy"]
    assert results["composition"] == ["APGD-CE", "FAB-T", "Square"]  # DLR needs four classes
    assert results["curve"]["epsilons"][-1] <= 255
    assert results["curve"]["accuracy"][-1] < results["clean_accuracy"]


def test_runner_evaluates_a_users_model_of_another_shape(grey):
    _config, folder, results = grey
    assert lab_results.load(folder, command.NAME) == json.loads(json.dumps(results))
    assert results["images"] == 24
    (unit,) = results["units"]
    assert (unit["images from"], unit["images"]) == (0, 24)
    written = {"images-000000.json", "images-000000.npz", ".locks"}
    assert {p.name for p in (folder / "units").iterdir()} == written
    text = (folder / "robustness.md").read_text()
    assert text == lab_results.table(results)
    assert "APGD-T (on what withstood the rest of AutoAttack so far)" in text
    assert "L2 ball of ε = 0.7 on pixels in [0, 1]: " in text
    of_255 = command.table({**results, "norm": "Linf", "epsilon": 8 / 255})
    assert "Linf ball of ε = 0.03137 (8/255) on pixels in [0, 1]: " in of_255
    nothing = "No attack fooled any of the first 24 images"
    assert nothing not in text
    assert nothing in command.table({**results, "fooled": []})
    assert (folder / "robustness.png").stat().st_size > 5_000
    assert results["worst"][0]["epsilon"] <= results["worst"][-1]["epsilon"]


def test_worst_case_images_are_stored_and_drawn(grey):
    config, folder, results = grey
    model = keras.models.load_model(config.model)
    with np.load(folder / "worst_case_images.npz") as stored, np.load(config.dataset) as given:
        fooled = np.argmax(model.predict(stored["images"], verbose=0), axis=1) != stored["labels"]
        assert fooled.all()
        np.testing.assert_array_equal(stored["labels"], given["labels"][stored["index"]])
        clean = given["images"][stored["index"]] / 255
        lengths = np.linalg.norm((stored["images"] - clean).reshape(len(clean), -1), axis=1)
        assert 0.05 < lengths.max() <= 0.7001
        count = round((results["clean_accuracy"] - results["worst_case_accuracy"]) * 24)
        assert len(stored["index"]) == len(stored["attack"]) == count > 0
        first = results["fooled"][0]
        assert first["image"] == stored["index"][0]
        z = model.predict(stored["images"][:1], verbose=0)[0]
        stored_attack = stored["attack"][0]
    assert len(results["fooled"]) == min(count, 5)
    assert first["clean"]["class"] == first["label"] != first["perturbed"]["class"]
    assert first["perturbed"]["class"] == np.argmax(z)
    confidence = np.exp(z.max()) / np.exp(z).sum()
    assert first["perturbed"]["confidence"] == pytest.approx(confidence, abs=1e-3)
    figure = command.figures(results)["robustness_images"]
    shown = [axes.get_xlabel() for axes in figure.axes]
    assert figure.axes[0].get_ylabel() == f"true: class {first['label']}\n{stored_attack}"
    assert shown[2] == f"class {first['perturbed']['class']}, {100 * confidence:.0f} %"
    assert (folder / "robustness_images.png").stat().st_size > 5_000


@pytest.mark.parametrize(("high", "epsilon"), [(1, 8 / 255), (255, 8.0)])
def test_figure_has_every_attack_and_the_curve_up_to_the_evaluations_epsilon(high, epsilon):
    """Pixels in [0, 1] have an axis of 255ths; HopSkipJump, of some images alone, is hollow."""
    results = {
        "norm": "Linf",
        "epsilon": epsilon,
        "bounds": [0, high],
        "images": 100,
        "config": {"hard_label_images": 20},
        "clean_accuracy": 0.5,
        "attacks": [
            {"name": "Square", "accuracy": 0.25},
            {"name": "HopSkipJump", "accuracy": 0.75},
        ],
        "worst_case_accuracy": 0.0,
        "curve": {"epsilons": [0, epsilon / 4, epsilon / 2], "accuracy": [0.5, 0.1, 0]},
        "worst": [{"name": "cat", "epsilon": epsilon / 2, "shape": [1, 1, 3], "pixels": "AAAA"}],
    }
    attacked, curve, cat = command.figures(results)["robustness"].axes
    assert cat.get_title() == ("cat\nε 4/255" if high == 1 else "cat\nε 4")
    names = ["clean", "Square", "HopSkipJump (first 20 only)", "worst case"]
    assert [label.get_text() for label in attacked.get_yticklabels()] == names
    filled, hollow = (bars.lines[0] for bars in attacked.containers)
    assert filled.get_xydata().tolist() == [[50, 0], [25, 1], [0, 3]]
    assert hollow.get_xydata().tolist() == [[75, 2]]
    assert (filled.get_fillstyle(), hollow.get_fillstyle()) == ("full", "none")
    ball = "L∞ 8/255" if high == 1 else "L∞ 8"
    assert attacked.get_title(loc="left") == f"each attack, {ball}"
    assert attacked.get_xlim() == (-3, 120)  # dots at 0 and 100 are drawn whole
    line, dashed = curve.lines
    np.testing.assert_allclose(line.get_xdata(), [0, epsilon / 4, epsilon / 2, epsilon])
    assert line.get_ydata().tolist() == [50, 10, 0, 0]
    assert dashed.get_xdata() == [epsilon, epsilon]
    assert curve.get_xlim()[1] > epsilon
    assert [tick.get_text() for tick in curve.get_xticklabels()] == ["0", "2", "4", "8"]
    assert ("255" in curve.get_xlabel()) == (high == 1)


def test_missing_images_of_a_unit_are_named(grey, tmp_path):
    config, folder, _ = grey
    copy = shutil.copytree(folder, tmp_path / "out")
    (path,) = (copy / "units").glob("*.npz")
    path.unlink()
    with pytest.raises(ConfigError, match=r"images-000000\.npz.*delete .*images-000000\.json"):
        command.run(config, copy)


def test_killed_evaluation_continues(grey, tmp_path, monkeypatch):
    config, _folder, results = grey
    run_square = attacks.Square.perturb

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks.Square, "perturb", killed)
    with pytest.raises(KeyboardInterrupt):
        command.run(config, tmp_path)
    assert len(list((tmp_path / "units/images-000000.parts").glob("[!.]*.json"))) == 7
    monkeypatch.setattr(attacks.Square, "perturb", run_square)
    for done in (attacks.APGD, attacks.FAB):  # are not run again
        monkeypatch.setattr(done, "perturb", killed)
    again = command.run(config, tmp_path)

    def standing(found):
        return [row["standing"] for row in found["attacks"]]

    assert standing(again) == standing(results)
    assert again["curve"] == results["curve"]
    assert again["fooled"] == results["fooled"]  # also those found before


def test_chunks_that_others_have_computed_are_merged_to_the_whole(
    grey, tmp_path, monkeypatch, capsys
):
    """Others are at the second of three chunks, and end when nothing else is left."""
    config, _, results = grey
    config = dataclasses.replace(config, chunk_size=10, queries=5, fab_steps=1, apgd_steps=1)
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    robustness, firsts = command.evaluation.robustness, []
    monkeypatch.setattr(
        command.evaluation, "robustness",
        lambda *args, **given: firsts.append(given["first"]) or robustness(*args, **given),
    )  # fmt: skip
    alone = command.run(config, tmp_path / "alone")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("images ")]
    assert [line.partition(":")[0] for line in said] == [
        "images 0 to 9", "images 10 to 19", "images 20 to 23"
    ]  # fmt: skip
    assert firsts == [0, 10, 20]  # on which their random numbers depend
    assert [unit["images from"] for unit in alone["units"]] == [0, 10, 20]
    assert alone["images"] == 24
    assert alone["clean_accuracy"] == results["clean_accuracy"]
    others = contextlib.ExitStack()
    folder = tmp_path / "shared/units"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "alone/config.json", tmp_path / "shared")
    others.enter_context(locks.held(folder / ".locks/images-000010"))

    def wait(paths):
        assert [path.name for path in paths] == ["images-000010"]
        assert units.Units(folder).names() == ["images-000000", "images-000020"]
        for path in (tmp_path / "alone/units").glob("images-000010.*"):
            shutil.copy(path, folder)
        others.close()

    monkeypatch.setattr(locks, "wait", wait)
    shared = command.run(config, tmp_path / "shared")

    def to_the_image(found):
        return [(row["name"], row["standing"]) for row in found["attacks"]]

    assert to_the_image(shared) == to_the_image(alone)
    assert shared["curve"] == alone["curve"]
    assert shared["worst"] == alone["worst"]
    assert len(shared["curve"]["fooled_at"]) == 24


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
        command.run(dataclasses.replace(other, model=str(path)), copy)


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
         "Pass --from_logits"),
        (lambda path: models.classifier(5, width=1 / 24).save(path),
         "Expected the 5 classes of .*Received: 10"),
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
        command.run(config_for(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 1))}, "`images` and `labels`.*Received: images"),
        ({"images": np.zeros((2, 4)), "labels": np.zeros(2, int)}, r"images \[N, H, W, C\]"),
        ({"images": np.zeros((2, 4, 4, 1)), "labels": np.full(2, 0.5)}, "integer labels"),
    ],
)
def test_images_that_are_none_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    config = Config(model="any", dataset=str(tmp_path / "images.npz"))
    with pytest.raises(ConfigError, match=message):
        command.load_images(config)


def test_images_are_scaled_to_the_models_range(tmp_path):
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(2, int))
    config = Config(model="any", dataset=str(tmp_path / "images.npz"), low=-1.0, high=3.0)
    found, labels = command.load_images(config)
    np.testing.assert_array_equal(found.ravel(), [-1, 3])
    # 255 is the brightest pixel also where scaling rounds.
    config = dataclasses.replace(config, low=-2.1179, high=2.64)
    assert command.load_images(config)[0].max() <= np.float32(2.64)
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
        command.load_images(Config(model="any", dataset=str(path)))


def test_no_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--model"):
        command.run(Config(), tmp_path)
    with pytest.raises(ConfigError, match="low below high"):
        Config(low=1.0, high=0.0)


@pytest.mark.slow
def test_built_in_images_are_those_of_load():
    images, labels = command.load_images(Config(model="any", dataset="shapes", images=7))
    split = data.load("shapes").test
    np.testing.assert_allclose(images, split.images[:7] / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, split.labels[:7])


def test_images_of_a_whole_file_are_said_to_be_that(grey, tmp_path):
    """All images of an undivided file are attacked, though `data.load` trains on most of them."""
    config, folder, results = grey
    assert len(data.load(config.dataset).train.labels) < results["images"] == 24
    sentence = "not divided into splits: all of its images count as test images"
    assert sentence in (folder / "robustness.md").read_text()
    assert sentence not in command.table({**results, "divided": True})
    with np.load(config.dataset) as arrays:
        np.savez(tmp_path / "test.npz", x_test=arrays["images"], y_test=arrays["labels"])
    assert not command._is_divided(config)
    for dataset in ("shapes", str(tmp_path / "test.npz")):
        assert command._is_divided(dataclasses.replace(config, dataset=dataset))


def test_folder_of_images_is_resized_to_the_model(grey, tmp_path):
    config, _, _ = grey
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    for name in "0123":
        (tmp_path / "images" / name).mkdir(parents=True)
    keras.utils.save_img(tmp_path / "images" / "2" / "a.png", image, scale=False)
    config = dataclasses.replace(config, dataset=str(tmp_path / "images"))
    images, labels = command.load_images(config, (None, 28, 28, 1))
    grey_image = image @ np.array([0.299, 0.587, 0.114])
    halved = grey_image.reshape(28, 2, 28, 2).mean(axis=(1, 3))  # bilinear, at the pixels' middle
    np.testing.assert_allclose(images[0, :, :, 0], halved / 255, atol=1.5 / 255)
    assert labels.tolist() == [2]
    for name in "0123":
        for i in range(3):
            keras.utils.save_img(tmp_path / "images" / name / f"b{i}.png", image, scale=False)
    few = dataclasses.replace(config, images=4)  # not only of the first class
    assert command.load_images(few, (None, 28, 28, 1))[1].tolist() == [0, 1, 2, 3]
    assert command.load_images(config, (None, 28, 28, 1))[1].tolist() == [0, 1, 2, 3] * 3 + [2]
    shutil.rmtree(tmp_path / "images" / "3")
    with pytest.raises(ConfigError, match=r"the 4 classes.*Received: 3, 0, 1, 2\. In a folder, an"):
        command.run(config, tmp_path / "out")


@pytest.mark.parametrize("high", [1, 255])
def test_range_of_pixels_is_judged_on_all_classes(high, dense_classifier):
    """Images of one class after the other; with pixels up to 255 all are taken for the first."""
    labels = np.repeat([0, 1], 120)
    images = np.where(labels[:, None, None, None] == 0, 0.8, 0.2).astype(np.float32)
    images[:30] = 0.1  # of the first hundred, 30 are wrong on the right range
    kernel, bias = np.array([[10.0, -10.0]], np.float32), np.array([-5.0, 5.0])
    model = dense_classifier(kernel, bias, (1, 1, 1))
    given = Config(model="mine.keras", dataset="images.npz", high=high)
    if high == 1:
        command._require_range(model, images * high, labels, given)
    else:
        with pytest.raises(ConfigError, match="--high=1 "):
            command._require_range(model, images * high, labels, given)


def test_model_of_several_outputs_is_named(tmp_path):
    images = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    outputs = [keras.layers.Dense(10)(x), keras.layers.Dense(1)(x)]
    keras.Model(images, outputs).save(tmp_path / "two.keras")
    with pytest.raises(ConfigError, match=r"one output.*Received: 2 outputs"):
        command.run(config_for(tmp_path / "two.keras"), tmp_path / "out")


def test_other_images_in_the_same_file_are_not_mixed_in(grey, tmp_path):
    config, folder, _ = grey
    copy = shutil.copytree(folder, tmp_path / "out")
    path = tmp_path / "images.npz"
    with np.load(config.dataset) as arrays:
        np.savez(path, images=arrays["images"] // 2 * 2, labels=arrays["labels"])
    written = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**written, "dataset": str(path)}))
    with pytest.raises(ConfigError, match="the images that is there now"):
        command.run(dataclasses.replace(config, dataset=str(path)), copy)


@pytest.mark.slow
def test_command_line_reads_the_model_and_names_what_is_missing(tmp_path):
    command_line = [sys.executable, "-m", "gat_tf.robustness", "--dataset=shapes"]
    missing = f"--model={tmp_path / 'none.keras'}"
    root = str(pathlib.Path(__file__).parent.parent)
    result = subprocess.run(
        [*command_line, missing], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert result.returncode == 1
    assert "Error: Expected a .keras file of a classifier. Received: no file" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_norm_is_known_in_any_case():
    assert Config(norm="linf") == Config(norm="Linf")
    assert Config(norm="l2").radius() == 0.5
    with pytest.raises(ConfigError, match="L1"):
        Config(norm="L1")


def test_standard_epsilon_grows_with_the_pixels_range():
    config = Config(model="any", low=-1.0, high=1.0)
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
        command.run(
            dataclasses.replace(config, dataset=str(tmp_path / "images.npz")), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [[16, 1, 1], [4, 4, 2], [1, 5, 1], [4, 4, 13], [4, 4, 3]])
def test_worst_images_of_any_shape_are_drawn(shape, tmp_path):
    pixels = base64.b64encode(bytes(math.prod(shape))).decode()
    worst = [
        {"image": 0, "label": 1, "name": "bee", "epsilon": 0.1, "shape": shape, "pixels": pixels}
    ]
    made = {
        "config": {"hard_label_images": 1}, "norm": "L2", "epsilon": 0.1, "images": 1,
        "clean_accuracy": 1.0, "worst_case_accuracy": 0.0, "attacks": [], "curve": None,
        "worst": worst,
    }  # fmt: skip
    (figure,) = command.figures(made).values()
    plotting.save(figure, tmp_path / "figure.png")
    (axes,) = (a for a in figure.axes if a.images)
    assert axes.images[0].get_array().shape[:2] == tuple(shape[:2])


def test_parts_of_an_evaluation_are_kept_under_names_for_files(tmp_path):
    from gat_tf.experiments.lab import budget

    kept, calls = units.Units(tmp_path / "units"), []
    stage = budget.kept_in(kept, {"model": "1"})
    for _ in range(2):
        assert stage("PGD-20, 5 restarts", lambda: calls.append(1) or {"a": 1}) == {"a": 1}
    assert calls == [1]
    assert kept.names() == ["pgd-20--5-restarts"]
    with pytest.raises(ConfigError, match="of the model that is there now"):
        budget.kept_in(kept, {"model": "2"})("PGD-20, 5 restarts", dict)
