"""Figs. 3 and 4, end to end on tiny configurations, and by hand."""

import dataclasses
import json
import re
import shutil

import keras
import linear_networks
import numpy as np
import pytest
from linear_networks import NETWORKS, images_tested, path, times, write_network
from matplotlib.colors import to_hex

from gat_tf.experiments import curves, fig3, fig4, methods
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab import results as lab_results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.networks import SOURCE_SEED

pytestmark = pytest.mark.usefixtures("eagerly")
TINY = dataclasses.replace(
    curves.PRESETS["quick"],
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
    return keras.models.load_model(path(folder, method, seed))


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
    return dataclasses.replace(TINY, networks_dir=str(folder), seeds=SEEDS[experiment])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The networks, with the other baselines of Fig. 4."""
    return linear_networks.write(
        tmp_path_factory.mktemp("networks"),
        baseline={0: 42, 1: 42, SOURCE_SEED: 38, SOURCE_SEED + 1: 38},
        gat={0: 46, 1: 46},
    )


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """Experiment to its finished folder and results."""
    done = {}
    for name, module in RUNNERS.items():
        output = tmp_path_factory.mktemp(name)
        done[name] = output, module.run(config_for(name, folder), output)
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
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)


def test_every_unit_and_file_is_there(finished, experiment):
    output, results = finished[experiment]
    assert {p.name for p in times(output / "units")} == {
        f"{name}.json" for name in UNITS[experiment]
    }
    written = json.loads((output / "results.json").read_text(), parse_constant=pytest.fail)
    assert {**written, "units": results["units"]} == json.loads(json.dumps(results))
    assert results["experiment"] == f"gat_tf.experiments.{experiment}"
    assert results["networks_config"] == configs.fingerprint(NETWORKS)
    assert [u["test_images"] for u in results["units"]] == [50, 50]
    assert (output / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    assert (output / f"{experiment}.pdf").read_bytes().startswith(b"%PDF")
    table = (output / f"{experiment}.md").read_text()
    tables = 3 if experiment == "fig3" else 4  # and the direct attack beside the indirect one
    assert len(re.findall(r"^\| Adv\. training \(GAT\) \|", table, re.MULTILINE)) == tables
    assert ("The other baseline" in table) == (experiment == "fig4")


def test_curves_have_the_configurations_epsilons(finished, experiment):
    for unit in finished[experiment][1]["units"]:
        for found in unit["curves"].values():
            for attack, epsilons in EPSILONS.items():
                assert found[attack]["epsilons"] == list(epsilons)
                assert len(found[attack]["accuracy"]) == len(epsilons)


def test_curves_begin_at_the_clean_accuracy(finished, folder, experiment):
    images, labels = images_tested()
    for unit in finished[experiment][1]["units"]:
        for method, found in unit["curves"].items():
            network = (method, unit["seed"])
            if method == "source":
                network = ("baseline", unit["seed"] + 100)
            model = classifier(folder, *network)
            clean = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
            assert 0.7 < clean < 1
            for attack, curve in found.items():
                assert curve["accuracy"][0] == pytest.approx(clean), (method, attack)


def test_direct_fast_gradient_curve_by_hand(finished, folder):
    for unit in finished["fig3"][1]["units"]:
        model = classifier(folder, unit["method"], 0)
        expected = fast_gradient_curve(model, model, TINY.fg_epsilons)
        ours = unit["curves"][unit["method"]]["fg_l2"]["accuracy"]
        assert ours == means(expected)
        assert ours[0] > ours[2] > ours[-1]


def test_indirect_fast_gradient_curves_by_hand(finished, folder):
    for unit in finished["fig4"][1]["units"]:
        assert unit["source_seed"] == unit["seed"] + 100
        source = classifier(folder, "baseline", unit["source_seed"])
        assert list(unit["curves"]) == ["baseline", "gat", "source"]
        for method, found in unit["curves"].items():
            model = source if method == "source" else classifier(folder, method, unit["seed"])
            expected = fast_gradient_curve(model, source, TINY.fg_epsilons)
            assert found["fg_l2"]["accuracy"] == means(expected), method
            if method != "source":
                direct = fast_gradient_curve(model, model, TINY.fg_epsilons)
                assert found["fg_l2_direct"]["accuracy"] == means(direct), method
                assert found["fg_l2_direct"]["accuracy"][-1] < found["fg_l2"]["accuracy"][-1]


def test_accuracy_under_pgd_never_rises(finished):
    for unit in finished["fig3"][1]["units"]:
        found = unit["curves"][unit["method"]]
        for attack in ("pgd_l2", "pgd_linf"):
            accuracy = found[attack]["accuracy"]
            assert (np.diff(accuracy) <= 0).all()
            assert accuracy[-1] < accuracy[0]


def test_running_again_computes_nothing(finished, folder, experiment, no_figures):
    output, results = finished[experiment]
    before = times(output / "units") | times(folder)
    again = RUNNERS[experiment].run(config_for(experiment, folder), output)
    assert times(output / "units") | times(folder) == before
    assert again["units"] == results["units"]


def test_deleted_unit_alone_is_computed_again(finished, folder, experiment, copy, no_figures):
    before = times(copy / "units")
    deleted = copy / "units" / f"{UNITS[experiment][1]}.json"
    deleted.unlink()
    again = RUNNERS[experiment].run(config_for(experiment, folder), copy)
    after = times(copy / "units")
    assert {p for p in after if after[p] != before[p]} == {deleted}
    theirs = finished[experiment][1]["units"]
    assert [u["curves"] for u in again["units"]] == [u["curves"] for u in theirs]


@pytest.fixture
def linear(monkeypatch):
    """Networks that are trained are linear ones."""
    monkeypatch.setattr(methods, "_classifier", linear_networks.linear_classifier)


@pytest.mark.slow
def test_missing_network_is_trained_in_the_networks_folder(tmp_path, no_figures, linear):
    folder = linear_networks.write(tmp_path / "networks")
    config = dataclasses.replace(config_for("fig3", folder), methods=("fg_l2",))
    (unit,) = fig3.run(config, tmp_path / "fig3")["units"]
    assert {p.name for p in times(folder / "units")} == {
        "shapes-fg_l2-seed0.json",
        "shapes-fg_l2-seed0.keras",
    }
    theirs = files.read_json(path(folder, "fg_l2", 0, ".json"))
    assert theirs["epochs"] == NETWORKS.epochs
    for curve in unit["curves"]["fg_l2"].values():
        assert curve["accuracy"][0] == pytest.approx(theirs["test_accuracy"])


@pytest.mark.slow
def test_missing_other_baseline_is_trained_and_refused_if_it_has_learnt_nothing(
    folder, tmp_path, no_figures, linear, monkeypatch
):
    own = shutil.copytree(folder, tmp_path / "networks")
    for suffix in (".json", ".keras"):
        path(own, "baseline", SOURCE_SEED + 1, suffix).unlink()
    monkeypatch.setattr(methods, "_optimizer", lambda _: keras.optimizers.SGD(0.0))
    config = dataclasses.replace(config_for("fig4", own), seeds=(1,))
    with pytest.raises(ConfigError, match=r"has learnt its task.*seed 101, .*train longer"):
        fig4.run(config, tmp_path / "fig4")
    trained = files.read_json(path(own, "baseline", 101, ".json"))
    assert (trained["seed"], trained["epochs"]) == (101, NETWORKS.epochs)
    assert not times(tmp_path / "fig4" / "units")


def test_folder_of_another_configuration_is_left_alone(finished, folder, experiment):
    output, _ = finished[experiment]
    before = times(output)
    config = dataclasses.replace(config_for(experiment, folder), pgd_steps=4)
    with pytest.raises(ConfigError, match=r"another configuration.*pgd_steps: 3 there, 4 here"):
        RUNNERS[experiment].run(config, output)
    assert times(output) == before


def test_truncated_unit_is_named_and_loses_nothing(folder, experiment, copy):
    name = UNITS[experiment][1]
    broken = copy / "units" / f"{name}.json"
    broken.write_text(broken.read_text()[:100])
    before = times(copy)
    with pytest.raises(files.BrokenFileError, match=rf"{name}\.json.*truncated.*Delete it"):
        RUNNERS[experiment].run(config_for(experiment, folder), copy)
    assert times(copy) == before


def test_lost_classifier_is_named_with_what_to_do(folder, experiment, tmp_path):
    own = shutil.copytree(folder, tmp_path / "networks")
    path(own, "gat", 0).unlink()
    config = dataclasses.replace(config_for(experiment, own), methods=("gat",))
    with pytest.raises(ConfigError, match=r"gat-seed0\.keras.*Put it back, or delete .*\.json"):
        RUNNERS[experiment].run(config, tmp_path / "output")


@pytest.mark.slow
def test_diverged_classifier_is_named_and_what_is_finished_stays(folder, experiment, tmp_path):
    own = shutil.copytree(folder, tmp_path / "networks")
    seed = SEEDS[experiment][-1]
    unit = path(own, "gat", seed, ".json")
    failed = {"status": "failed", "reason": "The loss became nan in epoch 3."}
    files.write_json(unit, files.read_json(unit) | failed)
    output_dir = tmp_path / "output"
    with pytest.raises(ConfigError, match=rf"gat-seed{seed}.*nan in epoch 3\. Leave out its seed"):
        RUNNERS[experiment].run(config_for(experiment, own), output_dir)
    finished = {p.name for p in times(output_dir / "units")}
    assert finished == {f"{UNITS[experiment][0]}.json"}


def test_folder_of_another_experiment_has_no_networks(finished, experiment, tmp_path):
    config = config_for(experiment, finished[experiment][0])
    with pytest.raises(ConfigError, match=r"config\.json\. Received: one of another experiment"):
        RUNNERS[experiment].run(config, tmp_path)


def test_unwritable_folder_is_named(folder, experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RUNNERS[experiment].run(config_for(experiment, folder), tmp_path / "file" / "results")


@pytest.mark.parametrize("field", ["fg_epsilons", "pgd_l2_epsilons", "pgd_linf_epsilons"])
@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ((), "at least one value in {}"),
        ((0.0, 0.2, 0.1), "{} to rise from one to the next"),
        ((0.0, 0.1, 0.1), "{} to rise from one to the next"),
        ((-0.1, 0.1), "{} to be a finite number.*Received: -0.1"),
        ((0.0, float("nan")), "{} to be a finite number.*Received: nan"),
        ((float("nan"), 0.1), "{} to be a finite number.*Received: nan"),
        ((0.0, float("inf")), "{} to be a finite number.*Received: inf"),
    ],
)
def test_bad_epsilons_are_named_before_anything_runs(field, epsilons, message):
    with pytest.raises(ConfigError, match=message.format(field)):
        dataclasses.replace(TINY, **{field: epsilons})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("methods", ("baseline", "gta"), "methods to be one of baseline, .*Received: gta"),
        ("methods", (), "at least one value in methods"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("networks_preset", "half", "networks_preset to be one of paper, .*Received: half"),
        ("seeds", (), "at least one value in seeds"),
        ("seeds", (-1,), "seeds to be a finite number.*Received: -1"),
        ("pgd_steps", 0, "pgd_steps to be a finite number.*Received: 0"),
        ("pgd_restarts", 0, "pgd_restarts to be a finite number.*Received: 0"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_paper_preset_is_the_papers_setting():
    config = curves.PRESETS["paper"]
    assert config == curves.Config()
    assert set(curves.PRESETS) == set(curves.Config.PRESETS)
    assert config.datasets == ("cifar10", "cifar100")
    assert config.methods == ("baseline", "fg_linf", "fg_l2", "gat")
    attack, epsilons = config.attacks()["fg_l2"]
    assert (attack.norm, attack.clip) == (2, None)
    assert epsilons[0] == 0
    assert 1.0 in epsilons


def test_folder_of_the_other_figure_is_left_alone(folder, experiment, copy):
    other = "fig4" if experiment == "fig3" else "fig3"
    before = times(copy)
    message = rf"experiment: '.*{experiment}' there, '.*{other}' here"
    with pytest.raises(ConfigError, match=message):
        RUNNERS[other].run(config_for(experiment, folder), copy)
    assert times(copy) == before


def test_results_whose_configuration_is_lost_are_left_alone(folder, experiment, copy):
    (copy / "config.json").unlink()
    before = times(copy)
    with pytest.raises(ConfigError, match=r"no config\.json to tell"):
        RUNNERS[experiment].run(config_for(experiment, folder), copy)
    assert times(copy) == before


def test_network_that_was_trained_anew_is_not_mixed_with_the_old_one(
    folder, experiment, copy, tmp_path
):
    anew = shutil.copytree(folder, tmp_path / "networks")
    write_network(anew, "gat", SEEDS[experiment][0], 30)
    before = times(copy)
    with pytest.raises(ConfigError, match=r"the gat that is there now.*another"):
        RUNNERS[experiment].run(config_for(experiment, anew), copy)
    assert times(copy) == before


def test_unit_that_lacks_a_method_is_named(finished, folder, copy, experiment, tmp_path):
    if experiment == "fig3":
        return  # where a method is a unit of its own
    more = shutil.copytree(folder, tmp_path / "networks")
    for seed in (0, 1):
        write_network(more, "fg_l2", seed, 40)
    config = config_for(experiment, more)
    config = dataclasses.replace(config, methods=(*config.methods, "fg_l2"))
    with pytest.raises(ConfigError, match=r"the fg_l2 that .*Received: results of none"):
        fig4.run(config, copy)


def test_truncated_network_is_named(folder, experiment, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "networks")
    file = path(broken, "gat", SEEDS[experiment][0])
    file.write_bytes(file.read_bytes()[:1000])
    config = dataclasses.replace(config_for(experiment, broken), methods=("gat",))
    with pytest.raises(ConfigError, match="cannot open, truncated or changed"):
        RUNNERS[experiment].run(config, tmp_path / "out")


# By hand.

ENVIRONMENT = {"devices": ["some device"], "versions": {"tensorflow": "2.0", "keras": "3.0"}}
POINTS = [0.0, 0.5, 1.0, 3.0]


def curve(*accuracy, epsilons=POINTS):
    return {"epsilons": list(epsilons), "accuracy": list(accuracy)}


def test_mean_height_leaves_out_what_is_clean_and_beyond_one():
    # From 0.5 to 1 the mean of 0.4 and 0.2.
    assert curves.mean_height(curve(0.9, 0.4, 0.2, 0.0)) == pytest.approx(30)
    # Trapezoids of width 0.25 and 0.5: (0.25 · 0.5 + 0.5 · 0.3) / 0.75.
    uneven = curve(0.9, 0.6, 0.4, 0.2, epsilons=(0, 0.25, 0.5, 1))
    assert curves.mean_height(uneven) == pytest.approx(100 * (0.25 * 0.5 + 0.5 * 0.3) / 0.75)
    assert curves.mean_height(curve(0.6, 0.4, epsilons=(0.5, 1))) == pytest.approx(50)
    assert curves.mean_height(curve(0.9, 0.4, 0.1, epsilons=(0, 1, 2))) == pytest.approx(40)
    assert curves.mean_height(curve(0.6, 0.4, epsilons=(2, 3))) == pytest.approx(50)
    assert curves.mean_height(curve(0.9, 0.6, 0.4, epsilons=(0, 2, 3))) == pytest.approx(50)


def test_fall_is_from_the_first_epsilon_to_one():
    assert curves.fall(curve(0.9, 0.4, 0.25, 0.0)) == pytest.approx(65)
    assert curves.fall(curve(0.9, 0.4, epsilons=(2, 3))) == pytest.approx(50)


def attacked(seed, **ours):
    """A unit: the same curve under the three attacks, all 10,000 images tested."""
    return {
        "dataset": "cifar10",
        "seed": seed,
        "test_images": 10_000,
        "curves": {
            method: dict.fromkeys(("fg_l2", "pgd_l2", "pgd_linf"), of_method)
            for method, of_method in ours.items()
        },
        "environment": ENVIRONMENT,
    }


# From 0.5 to 1, GAT's mean heights are 50, 52 and 51; the baseline's 32, 34 and 32, which is 18,
# 18 and 19 below; FG L2's 52, 47 and 54.
ATTACKED = [
    attacked(
        0,
        gat=curve(0.80, 0.6, 0.40, 0.0),
        baseline=curve(0.75, 0.4, 0.24, 0.9),
        fg_l2=curve(0.90, 0.65, 0.39, 0.9),
    ),
    attacked(
        1,
        gat=curve(0.84, 0.6, 0.44, 0.0),
        baseline=curve(0.81, 0.4, 0.28, 0.9),
        fg_l2=curve(0.84, 0.5, 0.44, 0.9),
    ),
    attacked(
        2,
        gat=curve(0.82, 0.6, 0.42, 0.0),
        baseline=curve(0.78, 0.4, 0.24, 0.9),
        fg_l2=curve(0.86, 0.6, 0.48, 0.9),
    ),
]


def test_summary_by_hand():
    summary = curves.summarise(ATTACKED)["cifar10"]
    assert list(summary) == ["fg_l2", "pgd_l2", "pgd_linf"]
    assert list(summary["fg_l2"]) == ["baseline", "fg_l2", "gat"]  # in Table 2's order
    row = summary["pgd_l2"]["gat"]
    assert row["epsilons"] == POINTS
    assert row["mean"] == pytest.approx([82, 60, 42, 0])
    assert row["std"] == pytest.approx([2, 0, 2, 0])
    assert row["seeds"] == [0, 1, 2]
    assert curves.summarise(ATTACKED[:1])["cifar10"]["fg_l2"]["gat"]["std"] is None


def test_units_of_one_method_merge_as_those_of_all():
    split = [
        u | {"method": method, "curves": {method: of_method}}
        for u in ATTACKED
        for method, of_method in u["curves"].items()
    ]
    assert curves.summarise(split) == curves.summarise(ATTACKED)
    assert fig3.verdicts(split) == fig3.verdicts(ATTACKED)


def p_value(mean, std):
    """Of three seeds: Student's t with two degrees of freedom."""
    t = abs(mean) / (std / np.sqrt(3))
    return 1 - t / np.sqrt(2 + t**2)


def test_fig3_verdicts_by_hand():
    verdicts = fig3.verdicts(ATTACKED)["cifar10"]
    assert len(verdicts) == 2 + 3 * 2
    clean = [v for v in verdicts if v["claim"].startswith("Clean accuracy")]
    # 5, 3 and 4 above the baseline; -10, 0 and -4 above FG L2.
    assert [v["mean"] for v in clean] == pytest.approx([4, -14 / 3])
    over_baseline, over_fg = (v for v in verdicts if "fast gradient" in v["claim"])
    assert over_baseline["mean"] == pytest.approx(55 / 3)  # 18, 18 and 19
    assert over_fg["mean"] == pytest.approx(0)  # -2, 5 and -3
    paper = [v for v in verdicts if v["origin"] == "paper"]
    assert paper == [clean[0], over_baseline]  # its rivals are the baseline and FG by the sign
    # Holm, of the paper's two claims.
    p = p_value(55 / 3, 1 / np.sqrt(3))
    assert over_baseline["p_holm"] == pytest.approx(2 * p, rel=1e-3)
    assert clean[0]["p_holm"] == pytest.approx(p_value(4, 1), rel=1e-3)
    assert [v["verdict"] for v in paper] == ["holds", "holds"]
    beyond = [v["claim"] for v in verdicts if v["origin"] == "beyond"]
    assert all("Direct PGD" in claim or "(FG, L2)" in claim for claim in beyond)


def units_of_fig4():
    """Points that the baseline loses by 1: 51, 53 and 54; under direct attack 60, 64 and 64."""
    units = json.loads(json.dumps(ATTACKED))
    losses = zip(units, (0.60, 0.64, 0.64), (0.30, 0.42, 0.45), strict=True)
    for unit, of_baseline, of_gat in losses:
        ours = unit["curves"]
        ours["source"] = {"fg_l2": curve(0.7, 0.5, 0.3, 0.1)}
        for method, lost in (("baseline", of_baseline), ("gat", of_gat)):
            first = ours[method]["fg_l2"]["accuracy"][0]
            ours[method]["fg_l2_direct"] = curve(first, 0.2, first - lost, 0)
    return units


def test_fig4_verdicts_by_hand():
    units = units_of_fig4()
    verdicts = fig4.verdicts(units)["cifar10"]
    assert not [v for v in verdicts if v["claim"].startswith("Clean")]
    assert len(verdicts) == 3 * 2 + 2
    baseline, gat = (v for v in verdicts if "falls more slowly" in v["claim"])
    assert baseline["claim"].startswith("Baseline:")
    assert (baseline["verdict"], baseline["mean"]) == ("holds", pytest.approx(10))  # 9, 11, 10
    assert baseline["origin"] == gat["origin"] == "paper"
    # GAT loses 40 points: -10, 2 and 5.
    assert (gat["verdict"], gat["mean"]) == ("undecided", pytest.approx(-1))
    summary = curves.summarise(units)
    assert "source" not in summary["cifar10"]["fg_l2"]
    assert list(summary["cifar10"]["fg_l2_direct"]) == ["baseline", "gat"]
    table = lab_results.table(made("fig4", units))
    assert "70.0 ± 0.0 % clean, 10.0 ± 0.0 % under its own fast gradient at ε = 3." in table


def half_width(verdict):
    return (verdict["interval"][1] - verdict["interval"][0]) / 2


def test_a_sample_of_the_test_images_adds_its_error():
    """The error is √((p(1 - p) + q(1 - q)) (1 - 98/10,000) / 100) with p = (98 accuracy + 1)/100.

    Of accuracies 51 and 32.67 (differences 18, 18, 19) 6.83 points, of 62.67 and 52.67 (9, 11, 10)
    6.92. With those of the seeds as squares: 1.96² 6.83² + 4.303² 0.333², 1.96² 6.92² + 2.484².
    """
    of_fig3, of_fig4 = (
        [{**u, "test_images": 98} for u in of] for of in (ATTACKED, units_of_fig4())
    )
    over_baseline = fig3.verdicts(of_fig3)["cifar10"][2]
    assert over_baseline["mean"] == pytest.approx(55 / 3)
    assert half_width(over_baseline) == pytest.approx(13.4626, rel=1e-4)
    slower = next(v for v in fig4.verdicts(of_fig4)["cifar10"] if "more slowly" in v["claim"])
    assert half_width(slower) == pytest.approx(13.7928, rel=1e-4)


def test_curves_without_gat_or_rivals_decide_nothing():
    for methods_there in (("gat",), ("baseline", "fg_l2")):
        units = [u | {"curves": {m: u["curves"][m] for m in methods_there}} for u in ATTACKED]
        assert fig3.verdicts(units) == {"cifar10": []}


def test_seeds_that_not_both_have_are_left_out():
    lonely = attacked(3, gat=curve(0.0, 0.0, 0.0, 0.0))
    assert fig3.verdicts([*ATTACKED, lonely]) == fig3.verdicts(ATTACKED)


def test_verdicts_of_curves_that_begin_beyond_one_are_numbers(experiment):
    units = json.loads(json.dumps(ATTACKED))
    for unit in units:
        for of_method in unit["curves"].values():
            of_method["fg_l2_direct"] = of_method["fg_l2"]
            for ours in of_method.values():
                ours["epsilons"] = [2.0, 3.0, 4.0, 5.0]
    found = RUNNERS[experiment].verdicts(units)["cifar10"]
    assert all(np.isfinite(v["mean"]) for v in found)
    over_baseline = next(v for v in found if v["claim"].endswith("GAT above Baseline")
                         and "fast gradient" in v["claim"])  # fmt: skip
    # Trapezoids over all of the curve: 140 - 146.5, 146 - 153.5 and 143 - 148, each over 3.
    assert over_baseline["mean"] == pytest.approx(-19 / 9)


def made(experiment="fig3", units=ATTACKED):
    return {
        "experiment": f"gat_tf.experiments.{experiment}",
        "summary": curves.summarise(units),
        "verdicts": RUNNERS[experiment].verdicts(units),
        "units": units,
    }


def test_table():
    text = lab_results.table(made())
    lines = text.splitlines()
    assert lines[0].startswith("**cifar10**, direct: accuracy in % under fast gradient, L2")
    assert lines[2] == "| training | ε = 0 | ε = 0.5 | ε = 1 | ε = 3 |"
    assert lines[4] == "| Baseline | 78.0 ± 3.0 | 40.0 ± 0.0 | 25.3 ± 2.3 | 90.0 ± 0.0 |"
    assert "ε = 128/255" in text  # 0.5 in L∞
    assert text.count("| Adv. training (GAT) |") == 3
    assert "| paper | **holds** | 3 | +18.3 [" in text


def test_table_of_a_long_curve_keeps_both_ends():
    epsilons = [n / 10 for n in range(21)]
    long = curve(*(1 - e / 4 for e in epsilons), epsilons=epsilons)
    text = lab_results.table(made(units=[attacked(0, gat=long, baseline=long)]))
    head = text.splitlines()[2].strip("| ").split(" | ")
    assert len(head) == 1 + 7
    assert (head[1], head[-1]) == ("ε = 0", "ε = 2")
    assert "| Baseline | 100.0 | " in text
    assert "**undecided** | 1 | +0.0 (fewer than 3 seeds) |" in text


def lines_of(axes):
    """Label to the line that has it."""
    return {line.get_label(): line for line in axes.get_lines()}


def test_figure_has_every_method_in_every_panel(experiment):
    (figure,) = lab_results.figures(made(experiment)).values()
    fg_l2, pgd_l2, pgd_linf = figure.axes
    kind = {"fig3": "direct", "fig4": "indirect"}[experiment]
    assert fg_l2.get_title(loc="left").startswith(f"cifar10, {kind}:\nfast gradient, L2")
    assert fg_l2.get_ylabel() == "accuracy, %"
    assert fg_l2.get_xlabel().startswith("ε in L2")
    assert pgd_linf.get_xlabel() == "ε in L∞, of 255"
    assert pgd_linf.xaxis.get_major_formatter()(4 / 255, 0) == "4"
    expected = {
        "Baseline": [78, 40, 76 / 3, 90],
        "Adv. training (FG, L2)": [260 / 3, 175 / 3, 131 / 3, 90],
        "Adv. training (GAT)": [82, 60, 42, 0],
    }
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0
        assert len(axes.collections) == 3
        for title, mean in expected.items():
            line = lines_of(axes)[title]
            np.testing.assert_allclose(line.get_xdata(), POINTS)
            np.testing.assert_allclose(line.get_ydata(), mean)
    assert len({to_hex(lines_of(fg_l2)[title].get_color()) for title in expected}) == 3
    # Table 2's accuracies of the paper at ε = 0, in the paper's panel alone.
    marks = [line.get_ydata()[0] for line in fg_l2.get_lines() if len(line.get_xdata()) == 1]
    assert sorted(marks) == [77.48, 77.99, 80.33]
    assert all(len(line.get_xdata()) == 4 for line in pgd_l2.get_lines())
    (legend,) = figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert names == {*expected, "clean, the paper's (full size)"}


def test_figure_of_one_seed_has_no_bands():
    (figure,) = lab_results.figures(made(units=ATTACKED[:1])).values()
    assert not any(axes.collections for axes in figure.axes)
