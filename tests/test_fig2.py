"""Fig. 2, end to end on tiny configurations, its measurements in closed form, and by hand."""

import dataclasses
import json
import pathlib
import re
import shutil
import warnings

import keras
import linear_networks
import numpy as np
import pytest
import tensorflow as tf
from linear_networks import NETWORKS, images_tested, path, times

from gat_tf import data
from gat_tf.experiments import fig2, generators
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import files, units
from gat_tf.experiments.lab import results as lab_results
from gat_tf.experiments.lab.config import ConfigError

pytestmark = pytest.mark.usefixtures("eagerly")
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
    """Of a file; NaN is no JSON."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def baseline_of(config):
    return path(pathlib.Path(config.networks_dir), "baseline", 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """TINY, its baseline of seed 0 a linear one."""
    folder = linear_networks.write(tmp_path_factory.mktemp("networks"), baseline={0: 40})
    return dataclasses.replace(TINY, networks_dir=str(folder))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig2, "collapsed", lambda _: False)  # so short a training fools nobody
        return folder, fig2.run(config, folder)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished folder, to be changed."""
    return shutil.copytree(whole[0], tmp_path / "copy")


@pytest.fixture
def training_alone(whole, monkeypatch):
    """Runs that train, but draw nothing and take their measurements from `whole`."""
    measured = {name: whole[1]["units"][0][name] for name in MEASURED}
    monkeypatch.setattr(generators, "compare", lambda *_: measured)
    monkeypatch.setattr(generators.Runner, "draw_images", lambda *_: None)
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)


@pytest.fixture(scope="module")
def diverged(whole, config, tmp_path_factory):
    """A copy of the finished folder, a unit whose loss overflows beside the others."""
    folder = shutil.copytree(whole[0], tmp_path_factory.mktemp("diverged") / "copy")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab_results, "draw", lambda *_: None)
        patch.setattr(fig2, "collapsed", lambda _: False)
        warnings.filterwarnings("ignore", "overflow encountered in cast")
        return folder, fig2.run(dataclasses.replace(config, c_g=(1e300, 0.1)), folder)


def test_every_unit_and_file_is_there(whole):
    folder, results = whole
    assert {p.name for p in times(folder / "units")} == {
        f"{name}.{suffix}" for name in UNITS for suffix in ("json", "keras")
    }
    written = strict_json(folder / "results.json")
    assert "units" not in written
    assert {**written, "units": results["units"]} == json.loads(json.dumps(results))
    assert results["networks_config"] == configs.fingerprint(NETWORKS)
    assert [u["c_g"] for u in results["units"]] == [0.1, 1.0]
    assert {u["status"] for u in results["units"]} == {"done"}
    for name in ("fig2", "fig2_training", "fig2_images_shapes"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("fig2", "fig2_training"):
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


def probability_and_gradient(classifier, images, labels):
    with tf.GradientTape() as tape:
        tape.watch(images)
        of_label = tf.gather(classifier(images), labels, batch_dims=1)
    return of_label, tape.gradient(of_label, images)


def test_saved_generator_was_chosen_by_its_loss_on_the_validation_images(whole, config):
    split = data.load("shapes", train_size=100, validation_size=50, test_size=50).validation
    x = tf.constant(split.images / np.float32(255))
    classifier = keras.models.load_model(baseline_of(config))
    _, gradients = probability_and_gradient(classifier, x, split.labels)
    for name, unit in zip(UNITS, whole[1]["units"], strict=True):
        generator = keras.models.load_model(whole[0] / "units" / f"{name}.keras")
        perturbations = generator(gradients)
        probability, _ = probability_and_gradient(classifier, x + perturbations, split.labels)
        power = tf.reduce_sum(perturbations**2, axis=(1, 2, 3))
        loss = np.mean(probability + unit["c_g"] * power)  # eq. 9
        assert unit["validation_loss"] == pytest.approx(loss, rel=1e-4)


def test_saved_generator_has_the_recorded_power_and_accuracy(whole, config):
    folder, results = whole
    images, labels = images_tested()
    classifier = keras.models.load_model(baseline_of(config))
    x = tf.constant(images)
    gradients = probability_and_gradient(classifier, x, labels)[1]
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


def test_missing_baseline_is_trained_in_the_networks_folder(tmp_path, training_alone):
    folder = linear_networks.write(tmp_path / "networks")
    config = dataclasses.replace(TINY, networks_dir=str(folder), c_g=(1.0,), epochs=1)
    results = fig2.run(config, tmp_path / "fig2")
    baseline = files.read_json(path(folder, "baseline", 0, ".json"))
    assert (baseline["status"], baseline["epochs"]) == ("done", NETWORKS.epochs)
    assert [p.name for p in (folder / "units").glob("*.json")] == ["shapes-baseline-seed0.json"]
    (unit,) = results["units"]
    (clean_accuracy,) = unit["history"]["clean_accuracy"]  # on the training images
    classifier = keras.models.load_model(path(folder, "baseline", 0))
    train = data.load("shapes", train_size=100).train
    predicted = classifier.predict(train.images / np.float32(255), verbose=0).argmax(-1)
    assert clean_accuracy == pytest.approx((predicted == train.labels).mean(), abs=1e-5)


def write_trial(config, folder, rate, status, loss):
    """A trial of the search that is done."""
    trial = {
        "generator_learning_rate": rate,
        "classifiers": {"baseline": units.digest(baseline_of(config))},
        "status": status,
        "validation_loss": loss,
    }
    files.write_json(folder / "search" / f"shapes-generator_learning_rate={rate!r}.json", trial)


def bind(config, folder):
    """Makes a folder that of a configuration, as a run that was stopped at once does."""
    configs.bind_folder(fig2.NAME, config, folder, networks=NETWORKS)


def test_search_picks_the_rate_of_the_lowest_validation_loss(config, tmp_path, training_alone):
    grid = (1e-6, 1e-2, 0.5)
    config = dataclasses.replace(
        config, search=True, generator_learning_rate_grid=grid, c_g=(0.1,), epochs=1
    )
    bind(config, tmp_path)
    write_trial(config, tmp_path, 0.5, "failed", None)  # a trial that is there is not made again
    before = times(tmp_path / "search")
    results = fig2.run(config, tmp_path)
    assert times(tmp_path / "search").items() > before.items()
    found = units.Units(tmp_path / "search").read_all()
    trials = {trial["generator_learning_rate"]: trial for trial in found}
    assert len(found) == 3
    assert not list((tmp_path / "search").glob("*.keras"))
    assert trials.keys() == set(grid)
    losses = {}
    for rate in grid[:2]:
        assert (trials[rate]["seed"], trials[rate]["c_g"]) == (config.search_seed, 0.1)
        assert trials[rate]["epochs"] == config.search_epochs
        assert "accuracy" not in trials[rate]
        losses[rate] = min(trials[rate]["history"]["validation_loss"])
    (unit,) = results["units"]
    assert unit["generator_learning_rate"] == min(losses, key=losses.get)


@pytest.mark.slow
def test_search_in_which_everything_diverges_is_named(config, tmp_path):
    config = dataclasses.replace(config, search=True, generator_learning_rate_grid=(1e-3, 1e-2))
    bind(config, tmp_path)
    for rate in config.generator_learning_rate_grid:
        write_trial(config, tmp_path, rate, "failed", None)
    with pytest.raises(ConfigError, match="Every trial on shapes diverged"):
        fig2.run(config, tmp_path)


def test_diverging_unit_is_recorded_and_the_others_stay(whole, diverged):
    folder, results = diverged
    names = {p.name for p in times(folder / "units")}
    assert names - {p.name for p in times(whole[0] / "units")} == {"shapes-c_g=1e+300-seed0.json"}
    failed = strict_json(folder / "units" / "shapes-c_g=1e+300-seed0.json")
    assert failed["status"] == "failed"
    assert re.match(r"The loss became (nan|inf) in epoch 1", failed["reason"])
    assert "accuracy" not in failed
    for name in UNITS:
        ours, theirs = (path / "units" / f"{name}.json" for path in (folder, whole[0]))
        assert ours.read_bytes() == theirs.read_bytes()
    assert [row["c_g"] for row in results["summary"]["shapes"]] == [1.0, 0.1]
    assert len(results["units"]) == 3
    drawn = lab_results.figures(results)["fig2_training"]
    assert "c_g 1e+300" in [text.get_text() for text in drawn.legends[0].get_texts()]


def test_table_tells_what_diverged_beside_what_did_not(diverged):
    table = (diverged[0] / "fig2.md").read_text()
    assert "Left out: c_g 1e+300, seed 0 diverged: The loss became" in table


def test_results_without_a_finished_unit_say_so(diverged, config, tmp_path):
    name = "shapes-c_g=1e+300-seed0.json"
    config = dataclasses.replace(config, c_g=(1e300,))
    bind(config, tmp_path)
    (tmp_path / "units").mkdir()
    shutil.copy(diverged[0] / "units" / name, tmp_path / "units" / name)
    results = fig2.run(config, tmp_path)
    assert results["summary"] == {"shapes": []}
    assert {v["verdict"] for v in results["verdicts"]["shapes"]} == {"undecided"}
    assert "seed 0 diverged" in (tmp_path / "fig2.md").read_text()
    assert not (tmp_path / "fig2.png").exists()
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
    folder = linear_networks.write(tmp_path / "networks", baseline={0: 40})
    path(folder, "baseline", 0).unlink()
    config = dataclasses.replace(TINY, networks_dir=str(folder))
    with pytest.raises(ConfigError, match=r"seed0\.keras.*Put it back, or delete .*seed0\.json"):
        fig2.run(config, tmp_path / "fig2")


def test_diverged_baseline_is_named_with_what_to_do(tmp_path):
    folder = linear_networks.write(tmp_path / "networks", baseline={0: 40})
    unit = path(folder, "baseline", 0, ".json")
    failed = {"status": "failed", "reason": "The loss became nan in epoch 3."}
    files.write_json(unit, files.read_json(unit) | failed)
    config = dataclasses.replace(TINY, networks_dir=str(folder))
    with pytest.raises(ConfigError, match=r"seed0.*became nan in epoch 3\. Leave out its seed"):
        fig2.run(config, tmp_path / "fig2")


def test_folder_of_another_experiment_has_no_networks(config, whole, tmp_path):
    config = dataclasses.replace(config, networks_dir=str(whole[0]))
    with pytest.raises(ConfigError, match=r"config\.json\. Received: one of another experiment"):
        fig2.run(config, tmp_path)


@pytest.mark.parametrize("whose", ["results", "networks"])
def test_unwritable_folder_is_named(config, tmp_path, whose):
    (tmp_path / "file").write_text("")
    output_dir = tmp_path / "output"
    if whose == "results":
        output_dir = tmp_path / "file" / "results"
    else:
        config = dataclasses.replace(config, networks_dir=str(tmp_path / "file" / "networks"))
    with pytest.raises(ConfigError, match=rf"folder {tmp_path}/file/{whose} cannot be written"):
        fig2.run(config, output_dir)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("datasets", (), "at least one value in datasets"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("networks_preset", "half", "networks_preset to be one of paper, .*Received: half"),
        ("method", "gta", "method to be one of baseline, .*Received: gta"),
        ("precision", "half", "precision to be auto or a Keras dtype policy.*Received: half"),
        ("seeds", (), "at least one value in seeds"),
        ("seeds", (0, -1), "seeds to be a finite number.*Received: -1"),
        ("search_seed", -1, "search_seed to be a finite number.*Received: -1"),
        ("c_g", (), "at least one value in c_g"),
        ("c_g", (1.0, -1.0), "c_g to be a finite number.*Received: -1.0"),
        ("c_g", (float("nan"),), "c_g to be a finite number.*Received: nan"),
        ("c_g", (float("inf"),), "c_g to be a finite number.*Received: inf"),
        ("search_c_g", -0.5, "search_c_g to be a finite number.*Received: -0.5"),
        ("width", 0.0, "width to be a finite number.*Received: 0.0"),
        ("batch_size", 0, "batch_size to be a finite number.*Received: 0"),
        ("test_size", 0, "test_size to be a finite number.*Received: 0"),
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
    assert config.networks_preset == "paper"
    assert (config.generator_learning_rate, config.width, config.test_size) == (1e-6, 1.0, None)


@pytest.mark.slow
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
    results = generators.compare(dense_classifier(kernel, bias, shape), generator, dataset, 20)
    assert results["test_images"] == count
    assert results["clean_accuracy"] == pytest.approx((count - 5) / count)
    assert results["power"] == pytest.approx(mean, rel=1e-4)
    quantiles = dict(zip(("p10", "p50", "p90"), np.quantile(own**2, (0.1, 0.5, 0.9)), strict=True))
    assert results["power_quantiles"] == pytest.approx(quantiles, rel=1e-3)
    assert list(results["accuracy"]) == list(results["clipped_accuracy"]) == list(fig2.ATTACKS)
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


# By hand.

ENVIRONMENT = {"devices": ["some device"], "versions": {"tensorflow": "2.0", "keras": "3.0"}}


def generator(c_g, seed, power, gat, **rivals):
    """A unit; rivals that are not given fool nobody."""
    return {
        "dataset": "cifar10",
        "c_g": c_g,
        "seed": seed,
        "classifiers": {"baseline": "a digest"},
        "status": "done",
        "reason": None,
        "test_images": 10_000,
        "clean_accuracy": 0.7 + 0.1 * seed,
        "power": power,
        "accuracy": dict.fromkeys(fig2.ATTACKS, 0.7) | {"gat": gat} | rivals,
        "clipped_accuracy": dict.fromkeys(fig2.ATTACKS, 0.5) | {"fg_l2": 0.4},
        "history": {
            "validation_loss": [2.0, 1.0 / c_g],
            "validation_power": [power, None],
            "validation_adversarial_accuracy": [0.5, gat],
        },
        "environment": ENVIRONMENT,
    }


GENERATORS = [
    # Above the low powers: the verdicts must not see them.
    generator(1.0, 0, 4.0, 0.6, fg_l2=0.0, fg_linf=0.0),
    generator(1.0, 1, 6.0, 0.6, fg_l2=0.0, fg_linf=0.0),
    generator(10.0, 0, 0.09, 0.40, fg_l2=0.50, fg_linf=0.43, fg_l2_own=0.41, pgd_l2=0.3),
    generator(10.0, 1, 0.1, 0.42, fg_l2=0.50, fg_linf=0.45, fg_l2_own=0.41, pgd_l2=0.33),
    generator(30.0, 0, 0.01, 0.66, fg_l2=0.70, fg_linf=0.71, fg_l2_own=0.67, pgd_l2=0.46),
    generator(30.0, 1, 0.02, 0.70, fg_l2=0.72, fg_linf=0.75, fg_l2_own=0.69, pgd_l2=0.5),
]
FAILED = {"status": "failed", "reason": "The loss became nan in epoch 1."}
COLLAPSED = generator(100.0, 1, 1e-4, 0.799, fg_l2=0.3)  # fools a tenth of a point


def test_summary_by_hand():
    rows = fig2.summarise([*GENERATORS, generator(30.0, 2, 9.0, 0.1) | FAILED])["cifar10"]
    assert [row["c_g"] for row in rows] == [30.0, 10.0, 1.0]
    assert rows[0]["seeds"] == [0, 1]
    assert rows[0]["power"] == pytest.approx((0.015, 0.01 / 2**0.5))
    assert rows[0]["clean_accuracy"] == pytest.approx((75, 10 / 2**0.5))
    assert rows[1]["accuracy"]["gat"] == pytest.approx((41, 2**0.5))
    assert rows[1]["clipped_accuracy"]["fg_l2"] == pytest.approx((40, 0))
    of_one = fig2.summarise([generator(1.0, 0, 4.0, 0.6)])["cifar10"][0]
    assert of_one["accuracy"]["gat"] == (pytest.approx(60), None)


def of_rival(verdicts, text):
    (found,) = (v for v in verdicts if text in v["claim"])
    return found


def test_verdicts_are_of_the_means_at_low_powers():
    """(10 + 4) / 2 and (8 + 2) / 2 points for FG L2, and so on; 0.1 is still low."""
    assert fig2.LOW_POWER == 0.1
    verdicts = fig2.verdicts(GENERATORS)["cifar10"]
    assert all("at powers up to 0.1" in v["claim"] for v in verdicts)
    assert len(verdicts) == 6
    for rival, mean in (
        ("more than FG L2 at powers up to 0.1", 6),
        ("FG L∞ at", 4),
        ("FG L2, own", 0),
        ("PGD L2", -14.75),
        ("clipped to [0, 1]", -10),
    ):
        found = [v for v in verdicts if rival in v["claim"]]
        if rival.startswith("more"):
            found = [v for v in found if "clipped" not in v["claim"]]
        (found,) = found
        assert found["mean"] == pytest.approx(mean, abs=1e-3), rival
        assert found["seeds"] == 2
    assert [v["claim"] for v in verdicts if v["origin"] == "paper"] == [
        "GAT fools more than FG L2 at powers up to 0.1",
        "GAT fools more than FG L∞ at powers up to 0.1",
    ]


def test_a_claim_on_three_seeds_is_decided():
    """Of FG L2 10, 11 and 12 points, of FG L∞ the same seeds 1, -1 and 0."""
    found = [
        generator(10.0, seed, 0.05, 0.5, fg_l2=0.6 + 0.01 * seed, fg_linf=0.5 + linf)
        for seed, linf in enumerate((0.01, -0.01, 0.0))
    ]
    verdicts = fig2.verdicts(found)["cifar10"]
    assert of_rival(verdicts, "FG L∞ at")["verdict"] == "undecided"
    (over_l2, _) = (v for v in verdicts if "FG L2 at" in v["claim"])
    assert (over_l2["verdict"], over_l2["mean"]) == ("holds", pytest.approx(11))
    t = 11 * np.sqrt(3)
    # The whole test set is measured: images add no error. Holm: of the paper's two claims.
    assert over_l2["p_holm"] == pytest.approx(2 * (1 - t / np.sqrt(2 + t**2)), rel=1e-3)


def test_a_sample_of_the_test_images_adds_its_error():
    found = [generator(10.0, s, 0.05, 0.5, fg_l2=0.6 + 0.01 * s) for s in range(3)]
    few = [{**u, "test_images": 100} for u in found]
    of_all, of_few = (fig2.verdicts(units)["cifar10"][0] for units in (found, few))
    assert of_all["mean"] == of_few["mean"]
    width = [v["interval"][1] - v["interval"][0] for v in (of_all, of_few)]
    # ±1.96 √((0.5·0.5 + 0.61·0.39) / 100) is 13.6 points; that of the seeds is ±2.5.
    assert width[0] == pytest.approx(2 * 4.303 / np.sqrt(3), rel=1e-3)
    assert width[1] == pytest.approx(2 * np.hypot(2.48, 13.6), rel=0.03)


def test_collapsed_generators_are_left_out_and_named():
    assert fig2.collapsed(COLLAPSED)
    assert not any(map(fig2.collapsed, GENERATORS))
    units = [*GENERATORS, COLLAPSED]
    assert fig2.summarise(units) == fig2.summarise(GENERATORS)
    assert fig2.verdicts(units) == fig2.verdicts(GENERATORS)
    text = fig2.table(made(units))
    assert "c_g 100, seed 1 collapsed: at power 0.0001 it fools 0.1 points, FG L2 50.0" in text
    assert "| 100 |" not in text
    assert "Left out" not in fig2.table(made(GENERATORS))


def test_without_low_powers_nothing_is_decided():
    verdicts = fig2.verdicts(GENERATORS[:2])["cifar10"]
    assert {v["untested"] for v in verdicts} == {"fewer than 3 seeds"}
    assert {v["seeds"] for v in verdicts} == {0}
    assert [v["origin"] for v in verdicts].count("paper") == 2
    assert {v["verdict"] for v in verdicts} == {"undecided"}


def made(units, method="baseline"):
    units = [{**u, "classifiers": {method: "a digest"}} for u in units]
    return {
        "experiment": fig2.NAME,
        "config": {"method": method},
        "summary": fig2.summarise(units),
        "verdicts": fig2.verdicts(units),
        "units": units,
    }


def test_table():
    text = lab_results.table(made(GENERATORS))
    lines = text.splitlines()
    assert lines[0].startswith(
        "**cifar10**, accuracy in % of the baseline (75.0 ± 7.1 clean) on 10000 test images"
    )
    heads, row = (
        next(line for line in lines if line.startswith(start)).strip("| ").split(" | ")
        for start in ("| c_g |", "| 10 |")
    )
    cells = dict(zip(heads, row, strict=True))
    assert cells["power"] == "0.095"
    assert cells["GAT"] == "41.0 ± 1.4 (50.0)"
    assert cells["FG L2"] == "50.0 ± 0.0 (40.0)"
    assert cells["FG L∞"] == "44.0 ± 1.4 (50.0)"
    alone = lab_results.verdicts(made(GENERATORS))
    assert alone.startswith("**cifar10**\n\n| claim | origin | verdict")
    assert alone.partition("\n\n")[2].strip() in text
    assert "| GAT fools more than FG L∞ at powers up to 0.1 | paper | **undecided** | 2 |" in text


def test_against_another_method_is_no_claim_of_the_papers():
    found = made(GENERATORS, "gat")
    text = lab_results.table(found)
    assert text.startswith("**cifar10**, accuracy in % of networks of Adv. training (GAT) (75.0")
    assert {v["origin"] for v in found["verdicts"]["cifar10"]} == {"beyond"}
    drawn = lab_results.figures(found)["fig2"]
    assert "clean, the paper's baseline" not in lines_of(drawn.axes[0])


def lines_of(axes):
    """Label to the line that has it."""
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_figure_has_every_attack_in_both_panels():
    figure = lab_results.figures(made(GENERATORS))["fig2"]
    left, right = figure.axes
    rows = fig2.summarise(GENERATORS)["cifar10"]
    for axes, kind in ((left, "accuracy"), (right, "clipped_accuracy")):
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel().startswith("power P")
        drawn = lines_of(axes)
        for name, title in fig2.ATTACKS.items():
            np.testing.assert_allclose(drawn[title].get_xdata(), [0.015, 0.095, 5.0])
            np.testing.assert_allclose(drawn[title].get_ydata(), [r[kind][name][0] for r in rows])
    assert left.get_ylabel() == "accuracy, %"
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylim()[0] == 0
    assert left.get_title(loc="left") == "cifar10: x + η"
    assert lines_of(left)["clean, ours"].get_ydata()[0] == pytest.approx(75)
    assert lines_of(left)["clean, the paper's baseline"].get_ydata()[0] == 77.0
    assert legend_of(figure)[: len(fig2.ATTACKS)] == list(fig2.ATTACKS.values())
    assert len(left.collections) == 3  # bands of the paper's three curves
    of_gat = left.collections[0].get_paths()[0].get_extents().intervaly
    np.testing.assert_allclose(of_gat, [41 - 2**0.5, 68 + 8**0.5])


def test_figure_of_one_seed_and_of_a_data_set_without_a_paper():
    unit = generator(1.0, 0, 4.0, 0.5) | {"dataset": "shapes"}
    figure = lab_results.figures(made([unit]))["fig2"]
    assert len(figure.axes) == 2
    assert not figure.axes[0].collections
    assert "clean, the paper's baseline" not in lines_of(figure.axes[0])


def test_figure_of_nothing_is_not_drawn():
    assert lab_results.figures(made([])) == {}
    assert list(lab_results.figures(made([COLLAPSED]))) == ["fig2_training"]


def test_training_curves_are_those_of_the_first_seed():
    figure = lab_results.figures(made(GENERATORS))["fig2_training"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "validation loss (eq. 9)"
    assert len(titles) == 3
    assert legend_of(figure) == ["c_g 1", "c_g 10", "c_g 30"]
    np.testing.assert_allclose(lines_of(figure.axes[0])["c_g 10"].get_ydata(), [2.0, 0.1])
    scales = {axes.get_title(loc="left"): axes.get_yscale() for axes in figure.axes}
    assert [t for t, scale in scales.items() if scale == "log"] == ["power ‖G(Δ)‖₂²"]
