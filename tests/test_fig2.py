"""The Fig. 2 runner, end to end on tiny configurations, and its measurements in closed form."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import keras
import linear_table2
import numpy as np
import pytest
import tensorflow as tf
from gat_tf.experiments.config import ConfigError
from linear_table2 import TABLE2, images_tested, times

from gat_tf import data
from gat_tf.experiments import config as configs
from gat_tf.experiments import fig2, files, table2, units
from gat_tf.experiments.reports import common
from gat_tf.experiments.reports import fig2 as report

TINY = dataclasses.replace(
    fig2.PRESETS["quick"],
    c_g=(0.1, 1.0),
    width=1 / 12,
    batch_size=40,
    epochs=2,
    patience=2,
    generator_learning_rate=1e-2,
    search_epochs=2,
    search_c_g=0.1,
    pgd_steps=2,
    strategy="one_device",
)
MEASURED = (
    "test_images",
    "clean_accuracy",
    "power",
    "power_quantiles",
    "power_after_clipping",
    "accuracy",
    "clipped_accuracy",
)
UNITS = ("shapes-c_g=0.1-seed0", "shapes-c_g=1-seed0")


def strict_json(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """TINY, its baseline of seed 0 a linear one."""
    folder = linear_table2.write(tmp_path_factory.mktemp("table2"), baseline={0: 40})
    return dataclasses.replace(TINY, table2_dir=str(folder))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, fig2.run(config, folder)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished folder, to be changed."""
    return shutil.copytree(whole[0], tmp_path / "copy")


@pytest.fixture
def training_alone(whole, monkeypatch):
    """Runs that train, but draw nothing and take their measurements from `whole`."""
    measured = {name: whole[1]["units"][0][name] for name in MEASURED}
    monkeypatch.setattr(fig2, "compare", lambda *_: measured)
    monkeypatch.setattr(common, "save_figure", lambda *_: None)


@pytest.fixture(scope="module")
def diverged(whole, config, tmp_path_factory):
    """A copy of the finished folder, a unit whose loss overflows beside the others."""
    folder = shutil.copytree(whole[0], tmp_path_factory.mktemp("diverged") / "copy")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in cast")
        return folder, fig2.run(dataclasses.replace(config, c_g=(1e300, 0.1)), folder)


def test_every_unit_and_file_is_there(whole):
    folder, results = whole
    units = {p.name for p in (folder / "units").iterdir()}
    assert units == {f"{name}.{suffix}" for name in UNITS for suffix in ("json", "keras")}
    assert strict_json(folder / "results.json") == json.loads(json.dumps(results))
    assert [u["c_g"] for u in results["units"]] == [0.1, 1.0]
    assert {u["status"] for u in results["units"]} == {"done"}
    assert results["trials"] == []
    for name in ("fig2", "fig2_training", "fig2_images_shapes"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    rows = [
        line
        for line in (folder / "fig2.md").read_text().splitlines()
        if re.match(r"\| [\d.]", line)
    ]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 0.1"]


def test_results_tell_how_the_generators_were_trained(whole):
    for unit in whole[1]["units"]:
        losses = unit["history"]["validation_loss"]
        assert len(losses) == unit["epochs"] == 2
        assert unit["validation_loss"] == pytest.approx(min(losses), rel=1e-5)
        assert unit["best_epoch"] == np.argmin(losses) + 1
        assert unit["generator_learning_rate"] == TINY.generator_learning_rate
        assert unit["environment"]["versions"]["keras"] == keras.__version__


def test_saved_generator_has_the_recorded_power_and_accuracy(whole, config):
    folder, results = whole
    images, labels = images_tested()
    baseline = table2.unit_path(pathlib.Path(config.table2_dir), "shapes", "baseline", 0)
    classifier = keras.models.load_model(baseline.with_suffix(".keras"))
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        of_label = tf.gather(classifier(x), labels, batch_dims=1)
    gradients = tape.gradient(of_label, x)
    powers = []
    for name, unit in zip(UNITS, results["units"], strict=True):
        generator = keras.models.load_model(folder / "units" / f"{name}.keras")
        perturbations = generator.predict(gradients, verbose=0)
        assert unit["test_images"] == 50
        assert unit["clean_accuracy"] == pytest.approx(
            (classifier(x).numpy().argmax(-1) == labels).mean()
        )
        powers.append((perturbations**2).sum(axis=(1, 2, 3)).mean())
        assert unit["power"] == pytest.approx(powers[-1], rel=1e-3)
        attacked = images + perturbations
        for kind, shown in (("accuracy", attacked), ("clipped_accuracy", attacked.clip(0, 1))):
            right = classifier(shown).numpy().argmax(-1) == labels
            assert unit[kind]["gat"] == pytest.approx(right.mean()), kind
    assert min(powers) > 0


def test_running_again_computes_nothing(whole, config, training_alone):
    folder, results = whole
    before = times(folder / "units")
    again = fig2.run(config, folder)
    assert times(folder / "units") == before
    assert again["units"] == results["units"]


def test_deleted_unit_alone_is_computed_again(whole, config, copy, training_alone):
    before = times(copy / "units")
    (copy / "units" / f"{UNITS[0]}.json").unlink()
    again = fig2.run(config, copy)
    after = times(copy / "units")
    changed = {p.name for p in after if after[p] != before[p]}
    assert changed == {f"{UNITS[0]}.json", f"{UNITS[0]}.keras"}
    ours, theirs = again["units"][0], whole[1]["units"][0]
    assert ours["best_epoch"] == theirs["best_epoch"]
    assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-4)
    assert ours["history"].keys() == theirs["history"].keys()
    for name, values in theirs["history"].items():
        assert ours["history"][name] == pytest.approx(values, rel=1e-4), name
    generators = [
        keras.models.load_model(folder / "units" / f"{UNITS[0]}.keras").get_weights()
        for folder in (copy, whole[0])
    ]
    for a, b in zip(*generators, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_missing_baseline_is_trained_in_table_2s_folder(tmp_path, training_alone):
    folder = linear_table2.write(tmp_path / "table2")
    config = dataclasses.replace(TINY, table2_dir=str(folder), c_g=(1.0,), epochs=1)
    results = fig2.run(config, tmp_path / "fig2")
    baseline = files.read_json(table2.unit_path(folder, "shapes", "baseline", 0))
    assert (baseline["status"], baseline["epochs"]) == ("done", TABLE2.epochs)
    assert [p.name for p in (folder / "units").glob("*.json")] == ["shapes-baseline-seed0.json"]
    (unit,) = results["units"]
    (clean_accuracy,) = unit["history"]["clean_accuracy"]  # on the training images
    classifier = keras.models.load_model(folder / "units" / "shapes-baseline-seed0.keras")
    train = data.load("shapes", train_size=100).train
    predicted = classifier.predict(train.images / np.float32(255), verbose=0).argmax(-1)
    assert clean_accuracy == pytest.approx((predicted == train.labels).mean(), abs=1e-5)


def write_trial(config, folder, rate, status, loss):
    """A trial of the search that is done."""
    baseline = table2.unit_path(pathlib.Path(config.table2_dir), "shapes", "baseline", 0)
    trial = {
        "generator_learning_rate": rate,
        "classifiers": {"baseline": units.digest(baseline.with_suffix(".keras"))},
        "status": status,
        "validation_loss": loss,
    }
    files.write_json(folder / "search" / f"shapes-generator_learning_rate={rate!r}.json", trial)


def claim(config, folder):
    """Makes a folder that of a configuration, as a run that was stopped at once does."""
    configs.claim_folder("fig2", config, folder, table2=configs.identity(TABLE2))


def test_search_picks_the_rate_of_the_lowest_validation_loss(config, tmp_path, training_alone):
    grid = (1e-6, 1e-2, 0.5)
    config = dataclasses.replace(
        config, search=True, generator_learning_rate_grid=grid, c_g=(0.1,), epochs=1
    )
    claim(config, tmp_path)
    write_trial(config, tmp_path, 0.5, "failed", None)  # a trial that is there is not made again
    before = times(tmp_path / "search")
    results = fig2.run(config, tmp_path)
    assert times(tmp_path / "search").items() > before.items()
    trials = {trial["generator_learning_rate"]: trial for trial in results["trials"]}
    assert len(results["trials"]) == 3
    assert trials.keys() == set(grid)
    losses = {}
    for rate in grid[:2]:
        assert (trials[rate]["seed"], trials[rate]["c_g"]) == (config.search_seed, 0.1)
        assert trials[rate]["epochs"] == config.search_epochs
        assert "accuracy" not in trials[rate]
        losses[rate] = min(trials[rate]["history"]["validation_loss"])
    (unit,) = results["units"]
    assert unit["generator_learning_rate"] == min(losses, key=losses.get)


def test_search_in_which_everything_diverges_is_named(config, tmp_path):
    config = dataclasses.replace(config, search=True, generator_learning_rate_grid=(1e-3, 1e-2))
    claim(config, tmp_path)
    for rate in config.generator_learning_rate_grid:
        write_trial(config, tmp_path, rate, "failed", None)
    with pytest.raises(ConfigError, match="Every trial on shapes diverged"):
        fig2.run(config, tmp_path)


def test_search_needs_no_baseline_of_another_seed(tmp_path, training_alone):
    folder = linear_table2.write(tmp_path / "table2", baseline={1: 40})
    config = dataclasses.replace(
        TINY,
        table2_dir=str(folder),
        seeds=(1,),
        c_g=(1.0,),
        epochs=1,
        search=True,
        search_epochs=1,
        generator_learning_rate_grid=(1e-3,),
    )
    results = fig2.run(config, tmp_path / "fig2")
    assert [u["seed"] for u in results["units"]] == [1]


def test_diverging_unit_is_recorded_and_the_others_stay(whole, diverged):
    folder, results = diverged
    names = {p.name for p in (folder / "units").iterdir()}
    assert names - {p.name for p in (whole[0] / "units").iterdir()} == {
        "shapes-c_g=1e+300-seed0.json"
    }
    failed = strict_json(folder / "units" / "shapes-c_g=1e+300-seed0.json")
    assert failed["status"] == "failed"
    assert re.match(r"The loss became (nan|inf) in epoch 1", failed["reason"])
    assert "accuracy" not in failed
    for name in UNITS:
        ours, theirs = (path / "units" / f"{name}.json" for path in (folder, whole[0]))
        assert ours.read_bytes() == theirs.read_bytes()
    assert [row["c_g"] for row in results["summary"]["shapes"]] == [1.0, 0.1]
    assert len(strict_json(folder / "results.json")["units"]) == 3
    assert (folder / "fig2_training.pdf").read_bytes().startswith(b"%PDF")


def test_table_tells_what_diverged_beside_what_did_not(diverged):
    table = (diverged[0] / "fig2.md").read_text()
    assert "1e+300" in table
    assert "diverged" in table


def test_results_without_a_finished_unit_say_so(diverged, config, tmp_path):
    name = "shapes-c_g=1e+300-seed0.json"
    config = dataclasses.replace(config, c_g=(1e300,))
    claim(config, tmp_path)
    (tmp_path / "units").mkdir()
    shutil.copy(diverged[0] / "units" / name, tmp_path / "units" / name)
    results = fig2.run(config, tmp_path)
    assert results["summary"] == {"shapes": []}
    assert results["verdicts"] == {}
    assert "every generator diverged" in (tmp_path / "fig2.md").read_text()
    assert not list(tmp_path.glob("*.png"))
    strict_json(tmp_path / "results.json")


def test_folder_of_another_configuration_is_left_alone(whole, config):
    folder, _ = whole
    before = times(folder)
    with pytest.raises(ConfigError, match=r"another configuration.*epochs: 2 there, 3 here"):
        fig2.run(dataclasses.replace(config, epochs=3), folder)
    assert times(folder) == before


def test_truncated_unit_is_named_and_loses_nothing(config, copy):
    broken = copy / "units" / f"{UNITS[1]}.json"
    broken.write_text(broken.read_text()[:100])
    before = times(copy)
    with pytest.raises(files.BrokenFileError, match=rf"{UNITS[1]}\.json.*truncated.*Delete it"):
        fig2.run(config, copy)
    assert times(copy) == before


def test_lost_classifier_is_named_with_what_to_do(tmp_path):
    folder = linear_table2.write(tmp_path / "table2", baseline={0: 40})
    (folder / "units" / "shapes-baseline-seed0.keras").unlink()
    config = dataclasses.replace(TINY, table2_dir=str(folder))
    with pytest.raises(ConfigError, match=r"seed0\.keras.*Put it back, or delete .*seed0\.json"):
        fig2.run(config, tmp_path / "fig2")


def test_diverged_baseline_is_named_with_what_to_do(tmp_path):
    folder = linear_table2.write(tmp_path / "table2", baseline={0: 40})
    path = folder / "units" / "shapes-baseline-seed0.json"
    failed = {"status": "failed", "reason": "The loss became nan in epoch 3."}
    files.write_json(path, files.read_json(path) | failed)
    config = dataclasses.replace(TINY, table2_dir=str(folder))
    with pytest.raises(ConfigError, match=r"seed0.*became nan in epoch 3\. Leave out its seed"):
        fig2.run(config, tmp_path / "fig2")


def test_folder_of_another_experiment_is_no_table_2(config, whole, tmp_path):
    config = dataclasses.replace(config, table2_dir=str(whole[0]))
    with pytest.raises(ConfigError, match=r"config\.json\. Received: one of another experiment"):
        fig2.run(config, tmp_path)


@pytest.mark.parametrize("whose", ["results", "table2"])
def test_unwritable_folder_is_named(config, tmp_path, whose):
    (tmp_path / "file").write_text("")
    output_dir = tmp_path / "output"
    if whose == "results":
        output_dir = tmp_path / "file" / "results"
    else:
        config = dataclasses.replace(config, table2_dir=str(tmp_path / "file" / "table2"))
    with pytest.raises(ConfigError, match=rf"folder {tmp_path}/file/{whose} cannot be written"):
        fig2.run(config, output_dir)


def test_number_of_test_images_that_cannot_be_is_named(config, tmp_path):
    with pytest.raises(ConfigError, match=r"at least 1\. Received: size=0"):
        fig2.run(dataclasses.replace(config, test_size=0), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("datasets", ("cifar",), "data set to be one of cifar10, .*Received: cifar"),
        ("datasets", (), "data set to be one of cifar10, .*Received: none at all"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("table2_preset", "full", "table2_preset to be one of paper, .*Received: full"),
        ("seeds", (), "seeds of at least 0"),
        ("seeds", (0, -1), "seeds of at least 0"),
        ("search_seed", -1, "seeds of at least 0"),
        ("c_g", (), "at least one value in c_g"),
        ("c_g", (1.0, -1.0), "c_g to be a finite number.*Received: -1.0"),
        ("c_g", (float("nan"),), "c_g to be a finite number.*Received: nan"),
        ("c_g", (float("inf"),), "c_g to be a finite number.*Received: inf"),
        ("search_c_g", -0.5, "search_c_g to be a finite number.*Received: -0.5"),
        ("width", 0.0, "width to be a finite number.*Received: 0.0"),
        ("batch_size", 0, "batch_size to be a finite number.*Received: 0"),
        ("epochs", 0, "epochs to be a finite number.*Received: 0"),
        ("patience", 0, "patience to be a finite number.*Received: 0"),
        ("pgd_steps", 0, "pgd_steps to be a finite number.*Received: 0"),
        ("generator_learning_rate", float("nan"), "generator_learning_rate to be.*Received: nan"),
        ("generator_learning_rate_grid", (1e-3, -1.0), "generator_learning_rate_grid to be.*-1.0"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_search_over_nothing_is_named_before_anything_runs():
    with pytest.raises(ConfigError, match="generator_learning_rate_grid"):
        dataclasses.replace(TINY, search=True, generator_learning_rate_grid=())


def test_paper_preset_is_the_papers_setting():
    config = fig2.PRESETS["paper"]
    assert config == fig2.Config()
    assert set(fig2.PRESETS) == set(fig2.Config.PRESETS)
    assert config.datasets == ("cifar10", "cifar100")
    assert config.table2_preset == "paper"
    assert (config.generator_learning_rate, config.width, config.test_size) == (1e-6, 1.0, None)


def test_compare_on_a_linear_classifier_by_hand(dense_classifier):
    """G(Δ) = -kΔ is the fast gradient with each image's own power."""
    rng = np.random.default_rng(5)
    shape, size, count, k = (4, 4, 3), 48, 70, 0.3
    images = rng.uniform(0, 1, (count, *shape)).astype(np.float32)
    x = images.reshape(count, size).astype(np.float64)
    kernel = rng.normal(size=(size, 2)).astype(np.float32)
    w = kernel[:, 1].astype(np.float64) - kernel[:, 0]
    bias = np.array([0, -w.sum() / 2], np.float32)  # the boundary goes through the middle
    f = x @ w + bias[1]
    labels = (f > 0).astype(np.int64)
    labels[:5] = 1 - labels[:5]
    sign = 2.0 * labels - 1
    probability = 1 / (1 + np.exp(-sign * f))
    delta = (sign * probability * (1 - probability))[:, None] * w
    own = k * np.linalg.norm(delta, axis=1)
    l1, l2 = np.abs(w).sum(), np.linalg.norm(w)
    mean = k**2 * (np.linalg.norm(delta, axis=1) ** 2).mean()
    distance, distance_linf = sign * f / l2, sign * f / l1
    all_of = np.sqrt(mean) * np.ones(count)
    unclipped = {
        "gat": distance > own,
        "fg_l2": distance > all_of,
        "fg_linf": distance_linf > all_of / size**0.5,
        "fg_l2_own": distance > own,
        "fg_linf_own": distance_linf > own / size**0.5,
        "pgd_l2": distance > all_of,
    }
    gaps = [distance - own, distance - all_of]
    gaps += [distance_linf * size**0.5 - radius for radius in (own, all_of)]
    assert np.abs(gaps).min() > 1e-4  # nothing hangs on a rounding

    generator = keras.Sequential([keras.Input(shape), keras.layers.Rescaling(-k)])
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(30)
    results = fig2.compare(dense_classifier(kernel, bias, shape), generator, dataset, 20)
    assert results["test_images"] == count
    assert results["clean_accuracy"] == pytest.approx((count - 5) / count)
    assert results["power"] == pytest.approx(mean, rel=1e-4)
    quantiles = dict(zip(("p10", "p50", "p90"), np.quantile(own**2, (0.1, 0.5, 0.9)), strict=True))
    assert results["power_quantiles"] == pytest.approx(quantiles, rel=1e-3)
    assert list(results["accuracy"]) == list(results["clipped_accuracy"]) == list(report.ATTACKS)
    assert results["accuracy"]["gat"] == results["accuracy"]["fg_l2_own"]
    for name, right in unclipped.items():
        assert results["accuracy"][name] == pytest.approx(right.mean()), name
    assert len({right.sum() for right in unclipped.values()}) == 4  # they tell attacks apart

    down = -sign[:, None] * w / l2
    down_linf = -sign[:, None] * np.sign(w) / size**0.5
    perturbed = {
        "gat": x - k * delta,
        "fg_l2": x + all_of[:, None] * down,
        "fg_linf": x + all_of[:, None] * down_linf,
        "fg_l2_own": x + own[:, None] * down,
        "fg_linf_own": x + own[:, None] * down_linf,
    }
    for name, values in perturbed.items():
        left = np.clip(values, 0, 1)
        margin = sign * (left @ w + bias[1])
        assert np.abs(margin).min() > 1e-4
        assert results["clipped_accuracy"][name] == pytest.approx((margin > 0).mean()), name
        if name in ("gat", "fg_l2", "fg_linf"):
            power = ((left - x) ** 2).sum(axis=1).mean()
            assert results["power_after_clipping"][name] == pytest.approx(power, rel=1e-4), name
    assert set(results["power_after_clipping"]) == {"gat", "fg_l2", "fg_linf"}
    # Its steps regain what clipping takes.
    assert results["clipped_accuracy"]["pgd_l2"] <= results["clipped_accuracy"]["fg_l2"]


def command_line(*arguments):
    command = [sys.executable, "-m", "gat_tf.experiments.fig2", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_help_lists_presets_and_every_field():
    text = command_line("--help").stdout
    for field in dataclasses.fields(fig2.Config):
        assert re.search(rf"^  --(\[no\])?{field.name}:", text, re.MULTILINE), field.name
    assert "<paper|reduced|quick>" in text
    for meaning in fig2.Config.PRESETS.values():
        assert meaning.split(",")[0] in " ".join(text.split())


def test_command_line_errors_are_one_line(tmp_path):
    process = command_line("--preset=quick", "--c_g=1,-1", f"--output_dir={tmp_path}")
    assert process.returncode == 1
    assert process.stderr.strip().splitlines()[-1].startswith("Error: Expected c_g to be a finite")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())
