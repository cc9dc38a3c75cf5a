"""The verdict's runner, end to end on linear classifiers of Table 2, and PGD training."""

import dataclasses
import functools
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import linear_table2
import numpy as np
import pytest
from gat_tf.experiments.config import ConfigError
from linear_table2 import times

from gat_tf import attacks, data, models
from gat_tf.experiments import classifiers, files, gat_robustness, pgd_training, reports, table2
from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import gat_robustness as report
from gat_tf.training.scheme import ADAM_EPSILON

EPSILON = 1 / 255
TINY = dataclasses.replace(
    gat_robustness.PRESETS["quick"],
    methods=("baseline", "gat"),
    seeds=(0, 1),
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
UNITS = {
    f"shapes-{method}-seed{seed}-Linf-0.00392157"
    for method in ("baseline", "gat")
    for seed in (0, 1)
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = linear_table2.write(
        tmp_path_factory.mktemp("table2"), baseline={0: 38, 1: 40}, gat={0: 46, 1: 46}
    )
    return dataclasses.replace(TINY, table2_dir=str(folder))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verdict")
    return folder, gat_robustness.run(config, folder)


def stands_fast_gradient(path, epsilon):
    """Of a linear classifier, by hand: the sign of (p - e_y) Wᵀ, clipped to [0, 1]."""
    images, labels = linear_table2.images_tested()
    kernel, bias = keras.models.load_model(path).get_weights()
    x = images.reshape(50, -1).astype(np.float64)
    z = x @ kernel + bias
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    gradients = (probabilities - np.eye(10)[labels]) @ kernel.T
    attacked = np.clip(x + epsilon * np.sign(gradients), 0, 1)
    return np.mean(((attacked @ kernel + bias).argmax(1) == labels) & (z.argmax(1) == labels))


def test_every_unit_and_file_is_there(finished):
    folder, results = finished
    assert {p.stem for p in (folder / "units").iterdir()} == UNITS
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(results))
    assert reports.load(folder, "gat_robustness")
    for name in ("gat_robustness", "gat_robustness_curves"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # What is of each image stays in the units.
    assert "standing" in files.read_json(folder / "units" / f"{min(UNITS)}.json")["attacks"][0]
    assert "standing" not in written["units"][0]["attacks"][0]
    assert "fooled_at" not in written["units"][0]["curve"]


def test_clean_and_fast_gradient_accuracies_by_hand(finished, config):
    for unit in finished[1]["units"]:
        method, seed = unit["method"], unit["seed"]
        path = table2.unit_path(pathlib.Path(config.table2_dir), "shapes", method, seed)
        known = {("baseline", 0): 38, ("baseline", 1): 40}.get((method, seed), 46)
        assert unit["clean_accuracy"] >= known / 50
        rows = {row["name"]: row["accuracy"] for row in unit["attacks"]}
        expected = stands_fast_gradient(path.with_suffix(".keras"), EPSILON)
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
    balls = report.summarise(in_another_ball(units) + units)["shapes"]
    assert list(balls) == ["Linf 0.00392157", "L2 0.05"]
    for rows in balls.values():
        for method in ("baseline", "gat"):
            ours = [100 * u["worst_case_accuracy"] for u in units if u["method"] == method]
            assert rows[method]["accuracy"]["worst case"] == ours
            assert rows[method]["seeds"] == [0, 1]


def test_verdict_is_the_paired_difference_of_the_worst_cases(finished):
    units = finished[1]["units"]
    first, second = report.verdicts(units + in_another_ball(units))["shapes"]
    assert first["claim"] == "L∞, ε = 1/255, worst case: Adv. training (GAT) above Baseline"
    assert second["claim"].startswith("L2, ε = 0.05, worst case")
    rows = finished[1]["summary"]["shapes"]["Linf 0.00392157"]
    gat, baseline = (np.array(rows[m]["accuracy"]["worst case"]) for m in ("gat", "baseline"))
    assert first["mean"] == second["mean"] == pytest.approx((gat - baseline).mean(), abs=1e-3)
    assert first["seeds"] == 2


def test_markdown_has_a_row_for_each_method_in_each_ball(finished):
    folder, results = finished
    text = (folder / "gat_robustness.md").read_text()
    assert text == reports.markdown(results)
    assert len(re.findall(r"^\| Baseline \| .*\| \*\*\d", text, re.MULTILINE)) == 1
    assert "L∞, ε = 1/255" in text
    failed = sum(not c["passed"] for u in results["units"] for c in u["checks"])
    assert ("these failed" in text) == bool(failed)


def test_curve_of_several_seeds_is_zero_where_one_has_ended():
    curves = [
        {"epsilons": [0, 1], "accuracy": [0.5, 0.0]},
        {"epsilons": [0, 1, 2], "accuracy": [0.7, 0.2, 0.0]},
    ]
    found = report._curve(curves)
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
        gat_robustness.run(one, tmp_path)
    (parts,) = (tmp_path / "units").iterdir()
    assert {p.stem for p in parts.iterdir()} >= {"apgd-ce", "apgd-t", "fab-t"}
    monkeypatch.setattr(attacks.Square, "perturb", run_square)
    for done in (attacks.APGD, attacks.FAB):  # are not run again
        monkeypatch.setattr(done, "perturb", killed)
    monkeypatch.setattr(reports.common, "save_figure", lambda *_: None)
    (unit,) = gat_robustness.run(one, tmp_path)["units"]
    (expected,) = (u for u in finished[1]["units"] if (u["method"], u["seed"]) == ("gat", 1))

    def accuracies(u):
        return [(row["name"], row["accuracy"]) for row in u["attacks"]]

    assert accuracies(unit) == accuracies(expected)
    assert not parts.exists()


def test_running_again_computes_nothing(finished, config, monkeypatch):
    folder, results = finished
    monkeypatch.setattr(reports.common, "save_figure", lambda *_: None)
    before = times(folder / "units")
    again = gat_robustness.run(config, folder)
    assert times(folder / "units") == before
    assert again["units"] == results["units"]


def test_classifier_trained_anew_is_not_mixed_in(finished, config, tmp_path):
    copied = shutil.copytree(finished[0], tmp_path / "verdict")
    anew = shutil.copytree(pathlib.Path(config.table2_dir), tmp_path / "table2")
    linear_table2.write_classifier(anew, "gat", 0, 30)
    with pytest.raises(ConfigError, match="the gat that is there now"):
        gat_robustness.run(dataclasses.replace(config, table2_dir=str(anew)), copied)


def test_pgd_training_is_that_of_the_attacked_images_alone(tmp_path, monkeypatch):
    """Its weights are those of Keras's `fit` on images that it has attacked itself."""
    folder = linear_table2.write(tmp_path / "table2")
    like = classifiers.Classifiers(dataclasses.replace(TINY, table2_dir=str(folder)))
    one = like.config = dataclasses.replace(like.config, epochs=1)
    splits = like.splits("shapes")
    # From the image itself, so that the attack is the same here and there.
    monkeypatch.setattr(attacks, "PGD", functools.partial(attacks.PGD, random_start=False))
    attack = attacks.PGD(0.02, math.inf, 2)
    config = pgd_training.Config(0.02, 2)
    pgd_training.train_missing(tmp_path / "pgd", config, like, "shapes", (3,))
    path = table2.unit_path(tmp_path / "pgd", "shapes", "pgd", 3)
    written = files.read_json(path)
    assert (written["status"], written["epochs"], written["seed"]) == ("done", 1, 3)
    assert not path.with_suffix(".checkpoints").exists()
    ours = keras.models.load_model(path.with_suffix(".keras"))

    keras.utils.set_random_seed(3)
    model = models.classifier(10, width=1 / 12)
    adam = keras.optimizers.Adam(one.learning_rate, epsilon=ADAM_EPSILON)
    model.compile(adam, "sparse_categorical_crossentropy")
    batches = data.shuffled_batches(splits.train, one.batch_size, seed=3)
    for images, labels in batches.take(data.steps_per_epoch(splits.train, one.batch_size)):
        model.train_on_batch(attack(model, images, labels), labels)
    for a, b in zip(ours.weights, model.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)

    before = times(tmp_path)
    pgd_training.train_missing(tmp_path / "pgd", config, like, "shapes", (3,))
    assert times(tmp_path) == before


def test_pgd_classifier_is_trained_once_and_evaluated(tmp_path, monkeypatch):
    folder = linear_table2.write(tmp_path / "table2", baseline={0: 40, 1: 40})
    config = dataclasses.replace(TINY, methods=("pgd",), seeds=(0,), table2_dir=str(folder))
    monkeypatch.setattr(reports.common, "save_figure", lambda *_: None)
    (unit,) = gat_robustness.run(config, tmp_path / "out")["units"]
    assert unit["method"] == "pgd"
    before = times(tmp_path / "out/pgd")
    gat_robustness.run(config, tmp_path / "out")
    assert times(tmp_path / "out/pgd") == before
    training = files.read_json(tmp_path / "out/pgd/units/shapes-pgd-seed0.json")
    assert training["attack"] == {"epsilon": TINY.training_epsilon, "steps": 7}
    assert unit["clean_accuracy"] == pytest.approx(training["test_accuracy"])


def test_attacks_begun_under_another_configuration_are_not_taken_over(config, tmp_path):
    """Of a run that was stopped before its first unit was done."""
    configs.claim_folder("gat_robustness", config, tmp_path)
    files.write_json(tmp_path / "units" / "a.parts" / "square.json", {})
    other = dataclasses.replace(config, queries=5_000)
    with pytest.raises(ConfigError, match=r"another configuration.*queries: 10 there, 5000 here"):
        gat_robustness.run(other, tmp_path)


def test_trainings_on_another_attack_are_not_taken_over(config, tmp_path):
    table2_classifiers = classifiers.Classifiers(config)
    begun = tmp_path / "units" / "shapes-pgd-seed0.json"

    def train(epsilon):
        attack = pgd_training.Config(epsilon)
        pgd_training.train_missing(tmp_path, attack, table2_classifiers, "shapes", (0,))

    identity = configs.identity(table2_classifiers.config)
    configs.claim_folder("pgd_training", pgd_training.Config(0.1), tmp_path, table2=identity)
    files.write_json(begun, {"status": "done"})
    train(0.1)  # is there
    with pytest.raises(ConfigError, match=r"epsilon: 0\.1 there, 0\.2 here"):
        train(0.2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("methods", ("madry",), "method to be one of baseline, .*pgd. Received: madry"),
        ("linf_epsilons", (-0.1,), "linf_epsilons to be a finite number"),
        ("l2_epsilons", (float("nan"),), "l2_epsilons to be a finite number"),
        ("training_steps", 0, "training_steps to be a finite number"),
        ("queries", 0, "queries to be a finite number"),
        ("seeds", (-1,), "seeds of at least 0"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_paper_preset_has_the_standard_balls_and_budgets():
    config = gat_robustness.PRESETS["paper"]
    assert config.balls() == [("Linf", 8 / 255), ("L2", 0.5)]
    assert (config.apgd_steps, config.fab_steps, config.targets) == (100, 100, 9)
    assert (config.queries, config.training_steps, config.test_size) == (5_000, 7, None)


def test_command_line_names_what_is_wrong():
    command = [sys.executable, "-m", "gat_tf.experiments.gat_robustness", "--methods=madry"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Error: Expected method to be one of" in result.stderr
    assert "Traceback" not in result.stderr
