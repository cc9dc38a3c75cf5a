"""The runners of Figs. 3 and 4, end to end on tiny configurations."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import keras
import linear_table2
import numpy as np
import pytest
from gat_tf.experiments.config import ConfigError
from linear_table2 import TABLE2, images_tested, times, write_classifier

from gat_tf.experiments import attack_curves, fig3, fig4, files, table2, units
from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import common

TINY = dataclasses.replace(
    attack_curves.PRESETS["quick"],
    methods=("baseline", "gat"),
    test_size=None,
    fg_epsilons=(0.0, 0.5, 1.0, 3.0, 4.0),
    pgd_l2_epsilons=(0.0, 0.5, 1.0, 4.0),
    pgd_linf_epsilons=(0.0, 4 / 255, 24 / 255),
    pgd_steps=3,
    pgd_restarts=1,
    strategy="one_device",
)
EPSILONS = {
    "fg_l2": TINY.fg_epsilons,
    "pgd_l2": TINY.pgd_l2_epsilons,
    "pgd_linf": TINY.pgd_linf_epsilons,
}
RUNNERS = {"fig3": fig3, "fig4": fig4}
UNITS = {
    "fig3": ("shapes-baseline-seed0", "shapes-gat-seed0"),
    "fig4": ("shapes-seed0", "shapes-seed1"),
}
SEEDS = {"fig3": (0,), "fig4": (0, 1)}


def classifier(folder, method, seed):
    path = table2.unit_path(folder, "shapes", method, seed)
    return keras.models.load_model(path.with_suffix(".keras"))


def fast_gradient_curve(attacked, source, epsilons):
    """The accuracy of a linear classifier on x + ε ∇J/‖∇J‖₂, J that of another one, by hand."""
    images, labels = images_tested()
    x = images.reshape(50, -1).astype(np.float64)
    kernel, bias = (w.astype(np.float64) for w in source.get_weights())
    probabilities = np.exp(x @ kernel + bias)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gradients = (probabilities - np.eye(10)[labels]) @ kernel.T
    direction = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    kernel, bias = attacked.get_weights()
    return [((x + e * direction) @ kernel + bias).argmax(-1) == labels for e in epsilons]


def means(right):
    return pytest.approx([r.mean() for r in right])


def config_for(experiment, folder):
    return dataclasses.replace(TINY, table2_dir=str(folder), seeds=SEEDS[experiment])


@pytest.fixture(scope="module")
def table2_dir(tmp_path_factory):
    return linear_table2.write(
        tmp_path_factory.mktemp("table2"), baseline={0: 42, 1: 42}, gat={0: 46, 1: 46}
    )


@pytest.fixture(scope="module")
def finished(table2_dir, tmp_path_factory):
    """Experiment to its finished folder and results, of linear classifiers."""
    done = {}
    for name, module in RUNNERS.items():
        folder = tmp_path_factory.mktemp(name)
        if name == "fig4":
            for seed in SEEDS[name]:
                write_classifier(folder / "source", "baseline", seed + fig4.SOURCE_SEED, 38)
        done[name] = folder, module.run(config_for(name, table2_dir), folder)
    return done


@pytest.fixture(params=list(RUNNERS))
def experiment(request):
    return request.param


@pytest.fixture
def copy(finished, experiment, tmp_path):
    """A copy of the finished folder, to be changed."""
    return shutil.copytree(finished[experiment][0], tmp_path / "copy")


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(common, "save_figure", lambda *_: None)


def test_every_unit_and_file_is_there(finished, experiment):
    folder, results = finished[experiment]
    assert {p.name for p in (folder / "units").iterdir()} == {
        f"{name}.json" for name in UNITS[experiment]
    }
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(results))
    assert results["experiment"] == experiment
    assert results["table2_config"] == json.loads(json.dumps(configs.identity(TABLE2)))
    assert [u["test_images"] for u in results["units"]] == [50, 50]
    assert (folder / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / f"{experiment}.pdf").read_bytes().startswith(b"%PDF")
    table = (folder / f"{experiment}.md").read_text()
    tables = 3 if experiment == "fig3" else 4  # and the direct attack beside the indirect one
    assert len(re.findall(r"^\| Adv\. training \(GAT\) \|", table, re.MULTILINE)) == tables
    assert ("The other baseline" in table) == (experiment == "fig4")


def test_curves_have_the_configurations_epsilons(finished, experiment):
    for unit in finished[experiment][1]["units"]:
        for curves in unit["curves"].values():
            for attack, epsilons in EPSILONS.items():
                assert curves[attack]["epsilons"] == list(epsilons)
                assert len(curves[attack]["accuracy"]) == len(epsilons)


def test_curves_begin_at_the_clean_accuracy(finished, table2_dir, experiment):
    folder, results = finished[experiment]
    images, labels = images_tested()
    for unit in results["units"]:
        for method, curves in unit["curves"].items():
            where, seed = (table2_dir, unit["seed"])
            if method == "source":
                where, seed = (folder / "source", unit["seed"] + 100)
            model = classifier(where, "baseline" if method == "source" else method, seed)
            clean = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
            assert 0.7 < clean < 1
            for attack, curve in curves.items():
                assert curve["accuracy"][0] == pytest.approx(clean), (method, attack)


def test_direct_fast_gradient_curve_by_hand(finished, table2_dir):
    for unit in finished["fig3"][1]["units"]:
        model = classifier(table2_dir, unit["method"], 0)
        expected = fast_gradient_curve(model, model, TINY.fg_epsilons)
        ours = unit["curves"][unit["method"]]["fg_l2"]["accuracy"]
        assert ours == means(expected)
        assert ours[0] > ours[2] > ours[-1]


def test_indirect_fast_gradient_curves_by_hand(finished, table2_dir):
    folder, results = finished["fig4"]
    for unit in results["units"]:
        assert unit["source_seed"] == unit["seed"] + 100
        source = classifier(folder / "source", "baseline", unit["source_seed"])
        assert list(unit["curves"]) == ["baseline", "gat", "source"]
        for method, curves in unit["curves"].items():
            model = source if method == "source" else classifier(table2_dir, method, unit["seed"])
            expected = fast_gradient_curve(model, source, TINY.fg_epsilons)
            assert curves["fg_l2"]["accuracy"] == means(expected), method
            if method != "source":
                direct = fast_gradient_curve(model, model, TINY.fg_epsilons)
                assert curves["fg_l2_direct"]["accuracy"] == means(direct), method
                assert curves["fg_l2_direct"]["accuracy"][-1] < curves["fg_l2"]["accuracy"][-1]


def test_accuracy_under_pgd_never_rises(finished):
    for unit in finished["fig3"][1]["units"]:
        curves = unit["curves"][unit["method"]]
        for attack in ("pgd_l2", "pgd_linf"):
            accuracy = curves[attack]["accuracy"]
            assert (np.diff(accuracy) <= 0).all()
            assert accuracy[-1] < accuracy[0]


def test_running_again_computes_nothing(finished, table2_dir, experiment, no_figures):
    folder, results = finished[experiment]
    before = times(folder / "units") | times(table2_dir) | times(folder / "source")
    again = RUNNERS[experiment].run(config_for(experiment, table2_dir), folder)
    assert times(folder / "units") | times(table2_dir) | times(folder / "source") == before
    assert again["units"] == results["units"]


def test_deleted_unit_alone_is_computed_again(finished, table2_dir, experiment, copy, no_figures):
    before = times(copy / "units")
    deleted = copy / "units" / f"{UNITS[experiment][1]}.json"
    deleted.unlink()
    again = RUNNERS[experiment].run(config_for(experiment, table2_dir), copy)
    after = times(copy / "units")
    assert {p for p in after if after[p] != before[p]} == {deleted}
    theirs = finished[experiment][1]["units"]
    assert [u["curves"] for u in again["units"]] == [u["curves"] for u in theirs]


def test_missing_classifier_is_trained_in_table_2s_folder(tmp_path, no_figures):
    folder = linear_table2.write(tmp_path / "table2")
    config = dataclasses.replace(config_for("fig3", folder), methods=("fg_l2",))
    (unit,) = fig3.run(config, tmp_path / "fig3")["units"]
    assert {p.name for p in (folder / "units").iterdir()} == {
        "shapes-fg_l2-seed0.json",
        "shapes-fg_l2-seed0.keras",
    }
    theirs = files.read_json(table2.unit_path(folder, "shapes", "fg_l2", 0))
    assert theirs["epochs"] == TABLE2.epochs
    for curve in unit["curves"]["fg_l2"].values():
        assert curve["accuracy"][0] == pytest.approx(theirs["test_accuracy"])


def test_unlearnt_other_baseline_is_refused_and_trained_in_a_folder_of_its_own(
    table2_dir, tmp_path, no_figures
):
    """Two epochs of a tiny network teach it nothing."""
    before = times(table2_dir)
    config = dataclasses.replace(config_for("fig4", table2_dir), seeds=(1,))
    with pytest.raises(ConfigError, match=r"has learnt its task.*seed 101 on shapes.*train longer"):
        fig4.run(config, tmp_path)
    assert times(table2_dir) == before
    (trained,) = (tmp_path / "source" / "units").glob("*.json")
    assert trained.name == "shapes-baseline-seed101.json"
    written = files.read_json(tmp_path / "source" / "config.json")
    assert written == {"experiment": "table2", **configs.identity(TABLE2)}
    assert not (tmp_path / "units").exists()


def test_folder_of_another_configuration_is_left_alone(finished, table2_dir, experiment):
    folder, _ = finished[experiment]
    before = times(folder)
    config = dataclasses.replace(config_for(experiment, table2_dir), pgd_steps=4)
    with pytest.raises(ConfigError, match=r"another configuration.*pgd_steps: 3 there, 4 here"):
        RUNNERS[experiment].run(config, folder)
    assert times(folder) == before


def test_truncated_unit_is_named_and_loses_nothing(table2_dir, experiment, copy):
    name = UNITS[experiment][1]
    broken = copy / "units" / f"{name}.json"
    broken.write_text(broken.read_text()[:100])
    before = times(copy)
    with pytest.raises(files.BrokenFileError, match=rf"{name}\.json.*truncated.*Delete it"):
        RUNNERS[experiment].run(config_for(experiment, table2_dir), copy)
    assert times(copy) == before


def with_sources(experiment, folder):
    """Where Fig. 4 finds its other baselines, linear ones too."""
    if experiment == "fig4":
        for seed in SEEDS[experiment]:
            write_classifier(folder / "source", "baseline", seed + fig4.SOURCE_SEED, 38)
    return folder


def test_lost_classifier_is_named_with_what_to_do(table2_dir, experiment, tmp_path):
    folder = shutil.copytree(table2_dir, tmp_path / "table2")
    (folder / "units" / "shapes-gat-seed0.keras").unlink()
    output_dir = with_sources(experiment, tmp_path / "output")
    with pytest.raises(ConfigError, match=r"gat-seed0\.keras.*Put it back, or delete .*\.json"):
        RUNNERS[experiment].run(config_for(experiment, folder), output_dir)


def test_diverged_classifier_is_named_and_what_is_finished_stays(table2_dir, experiment, tmp_path):
    folder = shutil.copytree(table2_dir, tmp_path / "table2")
    seed = SEEDS[experiment][-1]
    failed = {"status": "failed", "reason": "The loss became nan in epoch 3."}
    files.write_json(folder / "units" / f"shapes-gat-seed{seed}.json", failed)
    output_dir = with_sources(experiment, tmp_path / "output")
    with pytest.raises(ConfigError, match=rf"gat-seed{seed}.*nan in epoch 3\. Leave out its seed"):
        RUNNERS[experiment].run(config_for(experiment, folder), output_dir)
    finished = {p.name for p in (output_dir / "units").iterdir()}
    assert finished == {f"{UNITS[experiment][0]}.json"}


def test_folder_of_another_experiment_is_no_table_2(finished, experiment, tmp_path):
    config = config_for(experiment, finished[experiment][0])
    with pytest.raises(ConfigError, match=r"config\.json\. Received: one of another experiment"):
        RUNNERS[experiment].run(config, tmp_path)


def test_unwritable_folder_is_named(table2_dir, experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RUNNERS[experiment].run(config_for(experiment, table2_dir), tmp_path / "file" / "results")


@pytest.mark.parametrize("field", ["fg_epsilons", "pgd_l2_epsilons", "pgd_linf_epsilons"])
@pytest.mark.parametrize(
    "epsilons",
    [
        (),
        (0.0, 0.2, 0.1),
        (0.0, 0.1, 0.1),
        (-0.1, 0.1),
        (0.0, float("nan")),
        (float("nan"), 0.1),
        (0.0, float("inf")),
    ],
)
def test_bad_epsilons_are_named_before_anything_runs(field, epsilons):
    with pytest.raises(ConfigError, match=f"Expected {field} as finite numbers of at least 0"):
        dataclasses.replace(TINY, **{field: epsilons})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("datasets", ("cifar",), "data set to be one of cifar10, .*Received: cifar"),
        ("methods", ("baseline", "gta"), "method to be one of baseline, .*Received: gta"),
        ("methods", (), "method to be one of baseline, .*Received: none at all"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("table2_preset", "full", "table2_preset to be one of paper, .*Received: full"),
        ("seeds", (), "seeds of at least 0"),
        ("seeds", (-1,), "seeds of at least 0"),
        ("pgd_steps", 0, "pgd_steps to be a finite number.*Received: 0"),
        ("pgd_restarts", 0, "pgd_restarts to be a finite number.*Received: 0"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_paper_preset_is_the_papers_setting():
    config = attack_curves.PRESETS["paper"]
    assert config == attack_curves.Config()
    assert set(attack_curves.PRESETS) == set(attack_curves.Config.PRESETS)
    assert config.datasets == ("cifar10", "cifar100")
    assert config.methods == ("baseline", "fg_linf", "fg_l2", "gat")
    attack, epsilons = config.attacks()["fg_l2"]
    assert (attack.norm, attack.clip) == (2, None)
    assert epsilons[0] == 0
    assert 1.0 in epsilons


def command_line(experiment, *arguments):
    command = [sys.executable, "-m", f"gat_tf.experiments.{experiment}", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_help_lists_presets_and_every_field():
    text = command_line("fig3", "--help").stdout
    for field in dataclasses.fields(attack_curves.Config):
        assert re.search(rf"^  --(\[no\])?{field.name}:", text, re.MULTILINE), field.name
    for meaning in attack_curves.Config.PRESETS.values():
        assert meaning.split(",")[0] in " ".join(text.split())


def test_command_line_errors_are_one_line(tmp_path):
    arguments = ("--preset=quick", "--fg_epsilons=1,0.5", f"--output_dir={tmp_path}")
    process = command_line("fig4", *arguments)
    assert process.returncode == 1
    assert process.stderr.strip().splitlines()[-1].startswith("Error: Expected fg_epsilons as")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())


def test_folder_of_the_other_figure_is_left_alone(table2_dir, experiment, copy):
    other = "fig4" if experiment == "fig3" else "fig3"
    before = times(copy)
    message = f"experiment: '{experiment}' there, '{other}' here"
    with pytest.raises(ConfigError, match=message):
        RUNNERS[other].run(config_for(experiment, table2_dir), copy)
    assert times(copy) == before


def test_results_whose_configuration_is_lost_are_left_alone(table2_dir, experiment, copy):
    (copy / "config.json").unlink()
    before = times(copy)
    with pytest.raises(ConfigError, match="no whole config"):
        RUNNERS[experiment].run(config_for(experiment, table2_dir), copy)
    assert times(copy) == before


def test_classifier_that_was_trained_anew_is_not_mixed_with_the_old_one(
    table2_dir, experiment, copy, tmp_path
):
    anew = shutil.copytree(table2_dir, tmp_path / "table2")
    write_classifier(anew, "gat", SEEDS[experiment][0], 30)
    before = times(copy)
    with pytest.raises(ConfigError, match=r"the gat that is there now.*another"):
        RUNNERS[experiment].run(config_for(experiment, anew), copy)
    assert times(copy) == before


def test_unit_that_lacks_a_method_is_named(finished):
    unit = next((finished["fig4"][0] / "units").glob("*.json"))
    with pytest.raises(ConfigError, match=r"the fg_l2 that .*Received: results of none"):
        units.require_same_networks(unit, {"fg_l2": "0"})


def test_truncated_classifier_is_named(table2_dir, experiment, tmp_path):
    broken = shutil.copytree(table2_dir, tmp_path / "table2")
    path = table2.unit_path(broken, "shapes", "gat", SEEDS[experiment][0]).with_suffix(".keras")
    path.write_bytes(path.read_bytes()[:1000])
    with_sources(experiment, tmp_path / "out")
    with pytest.raises(ConfigError, match="cannot open, truncated or changed"):
        RUNNERS[experiment].run(config_for(experiment, broken), tmp_path / "out")
