"""How robust GAT is: the experiment, end to end on linear networks, and by hand."""

import dataclasses
import functools
import json
import math
import pathlib
import re
import shutil

import keras
import linear_networks
import numpy as np
import pytest
from linear_networks import NETWORKS, path, times

from gat_tf import attacks, data, models
from gat_tf.experiments import methods, robustness, strong
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab import results as lab_results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.networks import Network, Networks
from gat_tf.training.base import ADAM_EPSILON

pytestmark = pytest.mark.usefixtures("eagerly")
EPSILON = 1 / 255
TINY = dataclasses.replace(
    robustness.PRESETS["quick"],
    methods=("baseline", "gat"),
    seeds=(1,),
    strategy="one_device",
    test_size=None,
    linf_epsilons=(EPSILON,),
    l2_epsilons=(),
    pgd_steps=4,
    apgd_steps=4,
    targets=2,
    fab_steps=3,
    queries=10,
    hard_label_steps=1,
    hard_label_images=4,
)
UNITS = {f"shapes-{method}-seed1-Linf-0.00392157" for method in ("baseline", "gat")}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = linear_networks.write(
        tmp_path_factory.mktemp("networks"), baseline={0: 38, 1: 40}, gat={0: 46, 1: 46}
    )
    return dataclasses.replace(TINY, networks_dir=str(folder))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, robustness.run(config, folder)


def withstands_fast_gradient(network, epsilon):
    """Of a linear classifier, by hand: the sign of (p - e_y) Wᵀ, clipped to [0, 1]."""
    images, labels = linear_networks.images_tested()
    kernel, bias = keras.models.load_model(network).get_weights()
    x = images.reshape(50, -1).astype(np.float64)
    z = x @ kernel + bias
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    gradients = (probabilities - np.eye(10)[labels]) @ kernel.T
    attacked = np.clip(x + epsilon * np.sign(gradients), 0, 1)
    return np.mean(((attacked @ kernel + bias).argmax(1) == labels) & (z.argmax(1) == labels))


def test_every_unit_and_file_is_there(finished):
    folder, results = finished
    assert {p.stem for p in times(folder / "units")} == UNITS
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert {**written, "units": results["units"]} == json.loads(json.dumps(results))
    assert lab_results.load(folder, robustness.NAME)["units"] == json.loads(
        json.dumps(results["units"])
    )
    for name in ("robustness", "robustness_curves"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # What is of each image stays in the units.
    assert "standing" in files.read_json(folder / "units" / f"{min(UNITS)}.json")["attacks"][0]
    assert "standing" not in (folder / "results.json").read_text()


def test_clean_and_fast_gradient_accuracies_by_hand(finished, config):
    for unit in finished[1]["units"]:
        method, seed = unit["method"], unit["seed"]
        network = path(pathlib.Path(config.networks_dir), method, seed)
        known = {"baseline": 40, "gat": 46}[method]
        assert unit["clean_accuracy"] >= known / 50
        rows = {row["name"]: row["accuracy"] for row in unit["attacks"]}
        expected = withstands_fast_gradient(network, EPSILON)
        assert rows["fast gradient"] == pytest.approx(expected)
        assert unit["worst_case_accuracy"] <= min(
            accuracy for name, accuracy in rows.items() if name != "HopSkipJump"
        )


def test_attacks_are_transferred_from_another_seeds_baseline(finished):
    for unit in finished[1]["units"]:
        assert unit["source_seed"] == 1 - unit["seed"]
        assert "PGD-4, transferred" in [row["name"] for row in unit["attacks"]]


def in_another_ball(units):
    """The same results, as if they were of L2."""
    return [{**u, "norm": "L2", "epsilon": 0.05} for u in units]


def test_summary_has_the_units_accuracies_ball_by_ball(finished):
    units = finished[1]["units"]
    balls = robustness.summarise(in_another_ball(units) + units)["shapes"]
    assert list(balls) == ["Linf 0.00392157", "L2 0.05"]
    for rows in balls.values():
        for method in ("baseline", "gat"):
            ours = [100 * u["worst_case_accuracy"] for u in units if u["method"] == method]
            assert rows[method]["accuracy"]["worst case"] == ours
            assert rows[method]["seeds"] == [1]


def test_verdict_is_the_paired_difference_of_the_worst_cases(finished):
    units = finished[1]["units"]
    first, second = robustness.verdicts(units + in_another_ball(units))["shapes"]
    assert first["claim"] == "L∞, ε = 1/255, worst case: Adv. training (GAT) above Baseline"
    assert second["claim"].startswith("L2, ε = 0.05, worst case")
    rows = finished[1]["summary"]["shapes"]["Linf 0.00392157"]
    gat, baseline = (np.array(rows[m]["accuracy"]["worst case"]) for m in ("gat", "baseline"))
    assert first["mean"] == second["mean"] == pytest.approx((gat - baseline).mean(), abs=1e-3)
    assert first["seeds"] == 1


def test_markdown_has_a_row_for_each_method_in_each_ball(finished):
    folder, results = finished
    text = (folder / "robustness.md").read_text()
    assert text == lab_results.table(results)
    assert len(re.findall(r"^\| Baseline \| .*\| \*\*\d", text, re.MULTILINE)) == 1
    assert "L∞, ε = 1/255" in text
    failed = sum(not c["passed"] for u in results["units"] for c in u["checks"])
    assert ("these failed" in text) == bool(failed)


def test_curve_of_several_seeds_is_zero_where_one_has_ended():
    curves = [
        {"epsilons": [0, 1], "accuracy": [0.5, 0.0]},
        {"epsilons": [0, 1, 2], "accuracy": [0.7, 0.2, 0.0]},
    ]
    found = strong.mean_curve(curves)
    assert found["epsilons"] == [0, 1, 2]
    assert found["mean"] == pytest.approx([60, 10, 0])
    assert found["std"] == pytest.approx([100 * 0.2 / math.sqrt(2), 100 * 0.2 / math.sqrt(2), 0])


def test_killed_run_continues_with_the_attacks_that_are_done(
    finished, config, tmp_path, monkeypatch
):
    run_square = attacks.Square.perturb

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    one = dataclasses.replace(config, methods=("gat",), seeds=(1,))
    monkeypatch.setattr(attacks.Square, "perturb", killed)
    with pytest.raises(KeyboardInterrupt):
        robustness.run(one, tmp_path)
    (parts,) = (tmp_path / "units").glob("*.parts")
    assert {p.stem for p in times(parts)} >= {"apgd-ce", "apgd-t", "fab-t"}
    monkeypatch.setattr(attacks.Square, "perturb", run_square)
    for done in (attacks.APGD, attacks.FAB):  # are not run again
        monkeypatch.setattr(done, "perturb", killed)
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    (unit,) = robustness.run(one, tmp_path)["units"]
    (expected,) = (u for u in finished[1]["units"] if (u["method"], u["seed"]) == ("gat", 1))

    def accuracies(u):
        return [(row["name"], row["accuracy"]) for row in u["attacks"]]

    assert accuracies(unit) == accuracies(expected)
    assert not parts.exists()


def test_running_again_computes_nothing(finished, config, monkeypatch):
    folder, results = finished
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    before = times(folder / "units")
    again = robustness.run(config, folder)
    assert times(folder / "units") == before
    assert again["units"] == results["units"]


def test_network_trained_anew_is_not_mixed_in(finished, config, tmp_path):
    copied = shutil.copytree(finished[0], tmp_path / "finished")
    anew = shutil.copytree(pathlib.Path(config.networks_dir), tmp_path / "networks")
    linear_networks.write_network(anew, "gat", 1, 30)
    with pytest.raises(ConfigError, match="the gat that is there now"):
        robustness.run(dataclasses.replace(config, networks_dir=str(anew)), copied)


@pytest.mark.slow
def test_pgd_training_is_that_of_the_attacked_images_alone(tmp_path, monkeypatch):
    """Its weights are those of Keras's `fit` on images that it has attacked itself."""
    # From the image itself, so that the attack is the same here and there.
    monkeypatch.setattr(attacks, "PGD", functools.partial(attacks.PGD, random_start=False))
    attack = attacks.PGD(0.02, math.inf, 2)
    ours = dataclasses.replace(
        NETWORKS, epochs=1, strategy="one_device",
        hyperparameters={"pgd.epsilon": 0.02, "pgd.steps": 2},
    )  # fmt: skip
    networks, network = Networks(ours, tmp_path), Network("shapes", "pgd", 3)
    networks.train([network])
    unit = networks.units.read(network.name)
    assert (unit["status"], unit["epochs"], unit["seed"]) == ("done", 1, 3)
    assert unit["hyperparameters"] == {"epsilon": 0.02, "steps": 2}

    keras.utils.set_random_seed(3)
    model = models.classifier(10, width=1 / 12)
    adam = keras.optimizers.Adam(ours.learning_rate, epsilon=ADAM_EPSILON)
    model.compile(adam, "sparse_categorical_crossentropy")
    train = networks.splits("shapes").train
    batches = data.shuffled_batches(train, ours.batch_size, seed=3)
    for images, labels in batches.take(data.steps_per_epoch(train, ours.batch_size)):
        model.train_on_batch(attack(model, images, labels), labels)
    for a, b in zip(networks.load(network).weights, model.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.slow
def test_missing_networks_are_trained_once_those_to_attack_from_too(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "_classifier", linear_networks.linear_classifier)
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    monkeypatch.setattr(
        robustness.evaluation,
        "robustness",
        lambda *_, source, **__: {**BARE, "source": source.name},
    )
    folder = linear_networks.write(tmp_path / "networks", baseline={0: 40})
    config = dataclasses.replace(TINY, methods=("pgd",), seeds=(0, 1), networks_dir=str(folder))
    found = robustness.run(config, tmp_path / "out")["units"]
    assert [(u["method"], u["seed"], u["source_seed"]) for u in found] == [
        ("pgd", 0, 1), ("pgd", 1, 0),
    ]  # fmt: skip
    assert {p.stem for p in (folder / "units").glob("*.keras")} == {
        "shapes-baseline-seed0", "shapes-baseline-seed1", "shapes-pgd-seed0", "shapes-pgd-seed1",
    }  # fmt: skip
    before = times(folder)
    robustness.run(config, tmp_path / "out")
    assert times(folder) == before


@pytest.mark.slow
def test_chunks_of_images_are_units_and_merged_in_the_results(config, tmp_path, monkeypatch):
    """Accuracies by hand: what is fooled is every image whose first pixel is bright."""
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)
    calls = []

    def dark_ones(images):
        return "".join(str(int(x[0, 0, 0] < 0.5)) for x in images)

    def robust(model, batches, *_, first, **__):
        images = np.concatenate([x for x, _ in batches])
        calls.append((first, len(images)))
        standing = dark_ones(images)
        names = ("random noise", "fast gradient", "PGD-4", "PGD-4, 2 starts", "Square",
                 "HopSkipJump")  # fmt: skip
        row = {"attacked": len(images), "tried": len(images), "evaluations": 0, "gradients": 1,
               "seconds": 0.0, "standing": standing,
               "accuracy": standing.count("1") / len(images)}  # fmt: skip
        curve = {"epsilons": [0, 1], "accuracy": [1.0, 0.0], "fooled_at": [1] * len(images)}
        return {
            **BARE, "images": len(images), "clean_accuracy": 1.0, "differentiable": True,
            "attacks": [{"name": name, **row} for name in names], "curve": curve,
            "epsilon": EPSILON, "logits_change": 0.0, "zero_gradients": 0.0,
            "budget": dataclasses.asdict(config.budget()),
        }  # fmt: skip

    monkeypatch.setattr(robustness.evaluation, "robustness", robust)
    config = dataclasses.replace(config, methods=("gat",), chunk_size=20)
    found = robustness.run(config, tmp_path)
    assert calls == [(0, 20), (20, 20), (40, 10)]
    name = "shapes-gat-seed1-Linf-0.00392157"
    assert [p.stem for p in sorted(times(tmp_path / "units"))] == [
        f"{name}-images{first:06d}" for first in (0, 20, 40)
    ]
    images, _ = linear_networks.images_tested()
    dark = np.mean(images[:, 0, 0, 0] < 0.5)
    row = found["summary"]["shapes"]["Linf 0.00392157"]["gat"]
    assert row["seeds"] == [1]
    assert row["accuracy"]["worst case"] == [pytest.approx(100 * dark)]
    assert "on 50 test images" in lab_results.table(found)
    units = found["units"]
    assert robustness.summarise(units[::-1]) == found["summary"]
    assert robustness.summarise(units[:2]) == {}  # another process is at the third
    whole = robustness.whole(units[::-1])[0]["attacks"][0]["standing"]
    assert whole == dark_ones(images)


BARE = {
    "clean_accuracy": 0.5,
    "worst_case_accuracy": 0.25,
    "images": 50,
    "attacks": [{"name": "PGD-4", "accuracy": 0.25}],
    "curve": {"epsilons": [0.0, 0.1], "accuracy": [0.5, 0.0]},
    "checks": [{"check": "falls", "passed": True}],
}


def bare(method, seed, clean, worst, **more):
    return {
        "dataset": "cifar10", "method": method, "seed": seed, "norm": "Linf",
        "epsilon": 8 / 255, **BARE, "images": 10_000, "clean_accuracy": clean / 100,
        "worst_case_accuracy": worst / 100, **more,
    }  # fmt: skip


def test_verdicts_by_hand():
    """Worst cases: GAT above the baseline by 2, 3 and 4 points, PGD above GAT by 20, 21, 22."""
    units = [
        bare(method, seed, 80, worst)
        for method, of_seeds in (
            ("baseline", (1, 1, 1)), ("gat", (3, 4, 5)), ("pgd", (23, 25, 27)),
        )
        for seed, worst in enumerate(of_seeds)
    ]  # fmt: skip
    over_baseline, below_pgd = robustness.verdicts(units)["cifar10"]
    assert below_pgd["claim"].endswith("Adv. training (PGD) above Adv. training (GAT)")
    assert (over_baseline["mean"], below_pgd["mean"]) == pytest.approx((3, 21))
    assert {over_baseline["origin"], below_pgd["origin"]} == {"beyond"}
    t = 3 * np.sqrt(3)
    assert over_baseline["p_holm"] == pytest.approx(1 - t / np.sqrt(2 + t**2), rel=1e-4)
    assert (over_baseline["verdict"], below_pgd["verdict"]) == ("holds", "holds")
    # 98 of the 10,000 images: √((0.0492 · 0.9508 + 0.0198 · 0.9802) 0.9902 / 100) is 2.56 points.
    over_baseline, _ = robustness.verdicts([{**u, "images": 98} for u in units])["cifar10"]
    half = np.hypot(1.959964 * 2.56005, 4.302653 / np.sqrt(3))
    assert over_baseline["interval"] == pytest.approx([3 - half, 3 + half], rel=1e-4)


def test_epsilon_is_written_in_255ths_in_linf_alone():
    units = [bare("gat", 0, 80, 5), bare("gat", 0, 80, 5, norm="L2", epsilon=0.5)]
    figure = robustness._against_epsilon({"summary": robustness.summarise(units)})
    ticks = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["0", "25.5"], ["0", "0.1"]]  # of ε = 0 and 0.1
    assert ["of 255" in axes.get_xlabel() for axes in figure.axes] == [True, False]


def test_failed_checks_are_named_with_how_often():
    failing = {"checks": [{"check": "falls", "passed": False}, {"check": "rises", "passed": True}]}
    units = [
        bare("gat", 0, 80, 5, **failing),
        bare("gat", 1, 80, 5),
        bare("gat", 2, 80, 5, **failing),
    ]
    row = robustness.summarise(units)["cifar10"]["Linf 0.0313725"]["gat"]
    assert (row["checks"], row["failed"]) == (5, {"falls": 2})
    text = "\n".join(strong.table({"gat": row}, robustness._titles(), "training"))
    assert "Of 5 checks" in text
    assert "falls (Adv. training (GAT), 2 of 3 seeds)" in text


def test_attacks_begun_under_another_configuration_are_not_taken_over(config, tmp_path):
    """Of a run that was stopped before its first unit was done."""
    configs.bind_folder(robustness.NAME, config, tmp_path, networks=NETWORKS)
    files.write_json(tmp_path / "units" / "a.parts" / "square.json", {})
    other = dataclasses.replace(config, queries=5_000)
    with pytest.raises(ConfigError, match=r"another configuration.*queries: 10 there, 5000 here"):
        robustness.run(other, tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("methods", ("madry",), "methods to be one of baseline, .*pgd, .*Received: madry"),
        ("linf_epsilons", (-0.1,), "linf_epsilons to be a finite number"),
        ("l2_epsilons", (float("nan"),), "l2_epsilons to be a finite number"),
        ("apgd_steps", 0, "apgd_steps to be a finite number"),
        ("queries", 0, "queries to be a finite number"),
        ("seeds", (-1,), "seeds to be a finite number"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_paper_preset_has_the_standard_balls_and_budgets():
    config = robustness.PRESETS["paper"]
    assert config.balls() == [("Linf", 8 / 255), ("L2", 0.5)]
    assert (config.apgd_steps, config.fab_steps, config.targets) == (100, 100, 9)
    assert (config.queries, config.test_size) == (5_000, None)
