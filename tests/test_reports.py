"""Reports and figures of made-up results, small enough to be worked out by hand."""

import json

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color, to_hex

from gat_tf import plotting
from gat_tf.experiments import files, reports
from gat_tf.experiments.reports import attack_curves, common, fig2

GREEN, RED = "#007A5A", "#B3261E"


def decided(verdicts, word):
    """The one verdict whose claim has the words."""
    (found,) = (v for v in verdicts if word in v["claim"])
    return found


@pytest.mark.parametrize(
    ("differences", "verdict", "mean", "error"),
    [
        # Student's t of one degree of freedom is 12.706, of two 4.303, of ten 2.228.
        ([12.0, 14.0], "holds", 13, 1),
        ([-12.0, -14.0], "does not hold", -13, 1),
        ([11.5, 13.5], "undecided", 12.5, 1),
        ([-3.0, -5.0], "undecided", -4, 1),
        ([-1.0, 1.0], "undecided", 0, 1),
        ([2.0, 3.0, 4.0], "holds", 3, 0.577),
        ([1.0, 2.0, 3.0], "undecided", 2, 0.577),
        ([-0.3, 1.7] * 5 + [0.7], "holds", 0.7, 0.302),
        ([-0.35, 1.65] * 5 + [0.65], "undecided", 0.65, 0.302),
        ([2.0, 2.0], "holds", 2, 0),
        ([0.0, 0.0], "undecided", 0, 0),
    ],
)
def test_verdict_is_a_paired_t_test_at_95_percent(differences, verdict, mean, error):
    found = common.verdict("a claim", differences)
    assert found["claim"] == "a claim"
    assert found["verdict"] == verdict
    assert (found["mean"], found["standard_error"]) == pytest.approx((mean, error), abs=6e-4)
    assert found["seeds"] == len(differences)


def test_one_seed_decides_nothing():
    found = common.verdict("a claim", [50.0])
    assert (found["verdict"], found["standard_error"], found["seeds"]) == ("undecided", None, 1)


def test_verdicts_as_a_table():
    rows = [common.verdict("one", [12.0, 14.0]), common.verdict("two", [-2.0])]
    assert common.verdicts_markdown(rows).splitlines()[2:] == [
        "| one | **holds** | +13.0 ± 1.0 (2 seeds) |",
        "| two | **undecided** | -2.0 (one seed) |",
    ]


def test_mean_and_deviation_as_a_cell():
    assert common.plus_minus([3.0, 5.0]) == "4.0 ± 1.4"
    assert common.plus_minus([3.0, 5.0], digits=2) == "4.00 ± 1.41"
    assert common.plus_minus([3.04]) == "3.0"


ENVIRONMENT = {"devices": ["some device"], "versions": {"tensorflow": "2.0", "keras": "3.0"}}


def results(experiment="fig2", **fields):
    return {"experiment": experiment, "format": common.FORMAT, "units": [], **fields}


def test_written_results_are_complete_and_count_the_time_of_all_runs(tmp_path):
    def draw(given):
        assert given["units"] == [7]
        return plotting.training({"one": {"loss": [1.0]}}, {"loss": "loss"})

    for total in (1.5, 3.0):
        made = results(units=[7], wall_seconds=1.5)
        written = common.write(made, tmp_path, "| a table |\n", {"fig2": draw})
        assert written["wall_seconds"] == total
        assert reports.load(tmp_path, "fig2") == json.loads(json.dumps(written))
    assert written["format"] == common.FORMAT
    assert written["environment"]["versions"]["numpy"] == np.__version__
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.json",
        "fig2.md",
        "fig2.png",
        "fig2.pdf",
    }
    assert (tmp_path / "fig2.md").read_text() == "| a table |\n"


@pytest.mark.parametrize("of_folder", [True, False])
def test_results_are_read_back(tmp_path, of_folder):
    path = tmp_path / "results.json"
    files.write_json(path, results(units=[1.5]))
    assert reports.load(tmp_path if of_folder else path)["units"] == [1.5]
    assert reports.load(str(path), "fig2")["experiment"] == "fig2"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (results("fig3"), "Expected results of fig2 in .*Received: results of fig3"),
        (results(format=99), r"format 1 in .*Received: format 99"),
        ({"experiment": "fig2"}, r"format 1 in .*Received: format None"),
        ({"units": []}, "Received: results of none that is known"),
        ([], "Received: results of none that is known"),
    ],
)
def test_other_results_are_refused(tmp_path, written, message):
    files.write_json(tmp_path / "results.json", written)
    with pytest.raises(reports.ResultsError, match=message):
        reports.load(tmp_path, "fig2")


def test_missing_results_are_named_with_what_makes_them(tmp_path):
    with pytest.raises(reports.ResultsError, match=r"results\.json.*gat_tf\.experiments\.fig4`"):
        reports.load(tmp_path, "fig4")


def test_truncated_results_are_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results())[:20])
    with pytest.raises(files.BrokenFileError, match=r"results\.json.*truncated"):
        reports.load(tmp_path)


def test_what_a_record_was_made_with():
    unit = {"environment": ENVIRONMENT, "train_seconds": 5400.0}
    trial = {"environment": ENVIRONMENT, "train_seconds": 1800.0}
    sentence = reports.made_with({"units": [unit, unit], "trials": [trial]})
    assert sentence.startswith("2 unit")
    assert "and 1 trials of the search, 3.5 h of training time, on some device;" in sentence
    assert sentence.endswith("on some device; TensorFlow 2.0, Keras 3.0.")


def generator(c_g, seed, power, gat, **rivals):
    """A unit of Fig. 2; rivals that are not given fool nobody."""
    accuracy = dict.fromkeys(fig2.ATTACKS, 1.0) | {"gat": gat} | rivals
    return {
        "dataset": "cifar10",
        "c_g": c_g,
        "seed": seed,
        "classifiers": {"baseline": "a digest"},
        "status": "done",
        "reason": None,
        "test_images": 1000,
        "clean_accuracy": 0.7 + 0.1 * seed,
        "power": power,
        "accuracy": accuracy,
        "clipped_accuracy": dict.fromkeys(fig2.ATTACKS, 0.5) | {"fg_l2": 0.4},
        "history": {
            "validation_loss": [2.0, 1.0 / c_g],
            "validation_power": [power, None],
            "validation_adversarial_accuracy": [0.5, gat],
        },
        "environment": ENVIRONMENT,
    }


GENERATORS = [
    # The larger half of the powers: the verdicts must not see it.
    generator(1.0, 0, 4.0, 0.9, fg_l2=0.0, fg_linf=0.0),
    generator(1.0, 1, 6.0, 0.9, fg_l2=0.0, fg_linf=0.0),
    generator(10.0, 0, 1.0, 0.40, fg_l2=0.50, fg_linf=0.43, fg_l2_own=0.41, pgd_l2=0.3),
    generator(10.0, 1, 1.2, 0.42, fg_l2=0.50, fg_linf=0.45, fg_l2_own=0.41, pgd_l2=0.33),
    generator(30.0, 0, 0.1, 0.66, fg_l2=0.70, fg_linf=0.71, fg_l2_own=0.67, pgd_l2=0.46),
    generator(30.0, 1, 0.2, 0.70, fg_l2=0.72, fg_linf=0.75, fg_l2_own=0.69, pgd_l2=0.5),
]
FAILED = {"status": "failed", "reason": "The loss became nan in epoch 1."}


def test_fig2_summary_by_hand():
    units = [*GENERATORS, generator(30.0, 2, 9.0, 0.1) | FAILED]
    rows = fig2.summarise(units)["cifar10"]
    assert [row["c_g"] for row in rows] == [30.0, 10.0, 1.0]
    assert rows[0]["seeds"] == [0, 1]
    assert rows[0]["failed"] == {"2": "The loss became nan in epoch 1."}
    assert rows[1]["failed"] == {}
    assert rows[0]["power"] == pytest.approx((0.15, 0.1 / 2**0.5))
    assert rows[0]["clean_accuracy"] == pytest.approx((75, 10 / 2**0.5))
    assert rows[1]["accuracy"]["gat"] == pytest.approx((41, 2**0.5))
    assert rows[1]["clipped_accuracy"]["fg_l2"] == pytest.approx((40, 0))
    of_one = fig2.summarise([generator(1.0, 0, 4.0, 0.9)])["cifar10"][0]
    assert of_one["accuracy"]["gat"] == (pytest.approx(90), None)


def test_fig2_verdicts_by_hand():
    """At the two smaller powers: (4 + 10) / 2 and (2 + 8) / 2 points for FG L2, and so on."""
    verdicts = fig2.verdicts(GENERATORS)["cifar10"]
    by_rival = [
        ("FG L2 at powers up to 1.1 (paper)", "undecided", 6, 1),
        ("FG L∞ at", "holds", 4, 0),
        ("FG L2, own", "undecided", 0, 1),
        ("PGD L2", "does not hold", -14.75, 0.25),
        ("clipped to [0, 1]", "does not hold", -10, 0),
    ]
    for rival, word, mean, error in by_rival:
        found = decided(verdicts, rival)
        assert found["verdict"] == word, rival
        assert found["mean"] == pytest.approx(mean, abs=1e-3), rival
        assert found["standard_error"] == pytest.approx(error, abs=1e-3), rival
    assert all("at powers up to 1.1" in v["claim"] for v in verdicts)
    assert [v["claim"] for v in verdicts if v["claim"].endswith("(paper)")] == [
        "GAT fools more than FG L2 at powers up to 1.1 (paper)",
        "GAT fools more than FG L∞ at powers up to 1.1 (paper)",
    ]


def test_fig2_verdicts_of_one_seed_and_of_none():
    one = fig2.verdicts([u for u in GENERATORS if u["seed"] == 0])["cifar10"]
    assert {v["verdict"] for v in one} == {"undecided"}
    assert decided(one, "FG L2 at powers up to 1 (paper)")["mean"] == pytest.approx(7)
    assert fig2.verdicts([GENERATORS[0] | FAILED]) == {}


def fig2_results(method="baseline"):
    units = [{**u, "classifiers": {method: "a digest"}} for u in GENERATORS]
    return results(
        config={"method": method},
        summary=fig2.summarise(units),
        verdicts=fig2.verdicts(units),
        units=units,
    )


def test_fig2_table():
    lines = reports.markdown(fig2_results()).splitlines()
    assert lines[0].startswith(
        "**cifar10**, accuracy in % of the baseline (75.0 ± 7.1 clean) on 1000 test images"
    )
    heads, row = (
        next(line for line in lines if line.startswith(start)).strip("| ").split(" | ")
        for start in ("| c_g |", "| 10 |")
    )
    cells = dict(zip(heads, row, strict=True))
    assert cells["power"] == "1.1"
    assert cells["GAT"] == "41.0 ± 1.4 (50.0)"
    assert cells["FG L2"] == "50.0 ± 0.0 (40.0)"
    assert cells["FG L∞"] == "44.0 ± 1.4 (50.0)"
    alone = reports.verdicts_markdown(fig2_results())
    assert alone.startswith("**cifar10**\n\n| claim | verdict")
    assert alone.partition("\n\n")[2].strip() in "\n".join(lines)
    assert "| GAT fools more than FG L∞ at powers up to 1.1 (paper) | **holds** |" in "\n".join(
        lines
    )


def test_fig2_against_another_method_is_no_claim_of_the_papers():
    text = reports.markdown(fig2_results("gat"))
    assert text.startswith("**cifar10**, accuracy in % of classifiers of Adv. training (GAT) (75.0")
    assert "GAT fools more than FG L2 at powers up to 1.1 (beyond)" in text
    assert "(paper)" not in text


EPSILONS = [0.0, 0.5, 1.0, 3.0]


def curve(*accuracy):
    return {"epsilons": EPSILONS, "accuracy": list(accuracy)}


def attacked(seed, **curves):
    """A unit of Fig. 3 or 4: the same curve under the three attacks."""
    return {
        "dataset": "cifar10",
        "seed": seed,
        "test_images": 1000,
        "curves": {
            method: dict.fromkeys(("fg_l2", "pgd_l2", "pgd_linf"), ours)
            for method, ours in curves.items()
        },
        "environment": ENVIRONMENT,
    }


# Between 0 and 1, GAT's mean heights are 60 and 62, the baseline's 45 and 47, FG L2's 65 and 57.
ATTACKED = [
    attacked(
        0,
        gat=curve(0.8, 0.6, 0.4, 0.0),
        baseline=curve(0.75, 0.4, 0.25, 0.9),
        fg_l2=curve(0.9, 0.65, 0.4, 0.9),
    ),
    attacked(
        1,
        gat=curve(0.84, 0.6, 0.44, 0.0),
        baseline=curve(0.81, 0.4, 0.27, 0.9),
        fg_l2=curve(0.84, 0.5, 0.44, 0.9),
    ),
]


def test_curves_summary_by_hand():
    summary = attack_curves.summarise(ATTACKED)["cifar10"]
    assert list(summary) == ["fg_l2", "pgd_l2", "pgd_linf"]
    assert list(summary["fg_l2"]) == ["baseline", "fg_l2", "gat"]  # in Table 2's order
    row = summary["pgd_l2"]["gat"]
    assert row["epsilons"] == EPSILONS
    assert row["mean"] == pytest.approx([82, 60, 42, 0])
    assert row["std"] == pytest.approx([8**0.5, 0, 8**0.5, 0])
    assert row["seeds"] == [0, 1]
    assert attack_curves.summarise(ATTACKED[:1])["cifar10"]["fg_l2"]["gat"]["std"] is None


def test_units_of_one_method_merge_as_those_of_all():
    split = [
        u | {"method": method, "curves": {method: curves}}
        for u in ATTACKED
        for method, curves in u["curves"].items()
    ]
    assert attack_curves.summarise(split) == attack_curves.summarise(ATTACKED)
    assert attack_curves.verdicts("fig3", split) == attack_curves.verdicts("fig3", ATTACKED)


def test_fig3_verdicts_by_hand():
    verdicts = attack_curves.verdicts("fig3", ATTACKED)["cifar10"]
    clean = [v for v in verdicts if v["claim"].startswith("Clean accuracy")]
    assert [(v["verdict"], v["mean"], v["standard_error"]) for v in clean] == [
        ("undecided", 4.0, 1.0),  # 5 and 3 above the baseline
        ("undecided", -5.0, 5.0),  # -10 and 0 above FG L2
    ]
    robust = [v for v in verdicts if "fast gradient" in v["claim"]]
    assert [(v["verdict"], v["mean"], v["standard_error"]) for v in robust] == [
        ("holds", 15.0, 0.0),
        ("undecided", 0.0, 5.0),  # -5 and 5
    ]
    assert len(verdicts) == 2 + 3 * 2
    paper = [v["claim"] for v in verdicts if v["claim"].endswith("(paper)")]
    assert paper == [v["claim"] for v in [*clean, robust[0]]]  # its rival is FG sign training
    beyond = [v["claim"] for v in verdicts if v["claim"].endswith("(beyond)")]
    assert all("Direct PGD" in claim or "(FG, L2)" in claim for claim in beyond)


def test_fig4_verdicts_by_hand():
    """Falls between 0 and 1: the baseline's 50 and 54 points, 60 and 64 under direct attack."""
    units = json.loads(json.dumps(ATTACKED))
    for unit, last, gat in zip(units, (0.15, 0.17), (0.5, 0.42), strict=True):
        unit["curves"]["source"] = {"fg_l2": curve(0.7, 0.5, 0.3, 0.1)}
        curves = unit["curves"]
        curves["baseline"]["fg_l2_direct"] = curve(
            curves["baseline"]["fg_l2"]["accuracy"][0], 0.2, last, 0
        )
        curves["gat"]["fg_l2_direct"] = curve(curves["gat"]["fg_l2"]["accuracy"][0], 0.2, gat, 0)
    verdicts = attack_curves.verdicts("fig4", units)["cifar10"]
    assert not [v for v in verdicts if v["claim"].startswith("Clean")]
    assert len(verdicts) == 3 * 2 + 2
    baseline, gat = (v for v in verdicts if "falls more slowly" in v["claim"])
    assert baseline["claim"].startswith("Baseline:")
    assert (baseline["verdict"], baseline["mean"]) == ("holds", pytest.approx(10))
    assert baseline["standard_error"] == pytest.approx(0)
    # GAT: -10 and 2 points.
    assert (gat["verdict"], gat["mean"]) == ("undecided", pytest.approx(-4))
    summary = attack_curves.summarise(units)
    assert "source" not in summary["cifar10"]["fg_l2"]
    assert list(summary["cifar10"]["fg_l2_direct"]) == ["baseline", "gat"]
    table = reports.markdown(
        results("fig4", summary=summary, verdicts={"cifar10": verdicts}, units=units)
    )
    assert "70.0 ± 0.0 % clean, 10.0 ± 0.0 % under its own fast gradient at ε = 3." in table


def test_curves_without_gat_or_rivals_decide_nothing():
    for methods in (("gat",), ("baseline", "fg_l2")):
        units = [u | {"curves": {m: u["curves"][m] for m in methods}} for u in ATTACKED]
        assert attack_curves.verdicts("fig3", units) == {"cifar10": []}


def test_seeds_that_not_both_have_are_left_out():
    lonely = attacked(2, gat=curve(0.0, 0.0, 0.0, 0.0))
    assert attack_curves.verdicts("fig3", [*ATTACKED, lonely]) == attack_curves.verdicts(
        "fig3", ATTACKED
    )


@pytest.mark.parametrize("experiment", ["fig3", "fig4"])
def test_verdicts_of_curves_that_begin_beyond_one_are_numbers(experiment):
    units = json.loads(json.dumps(ATTACKED))
    for unit in units:
        for curves in unit["curves"].values():
            curves["fg_l2_direct"] = curves["fg_l2"]
            for ours in curves.values():
                ours["epsilons"] = [2.0, 3.0, 4.0, 5.0]
    for v in attack_curves.verdicts(experiment, units)["cifar10"]:
        assert np.isfinite(v["mean"]), v["claim"]


def curves_results(experiment="fig3", units=ATTACKED):
    return results(
        experiment,
        summary=attack_curves.summarise(units),
        verdicts=attack_curves.verdicts(experiment, units),
        units=units,
    )


def test_curves_table():
    text = reports.markdown(curves_results())
    lines = text.splitlines()
    assert lines[0].startswith("**cifar10**, direct: accuracy in % under fast gradient, L2")
    assert lines[2] == "| training | ε = 0 | ε = 0.5 | ε = 1 | ε = 3 |"
    assert lines[4] == "| Baseline | 78.0 ± 4.2 | 40.0 ± 0.0 | 26.0 ± 1.4 | 90.0 ± 0.0 |"
    assert "ε = 128/255" in text  # 0.5 in L∞
    assert text.count("| Adv. training (GAT) |") == 3
    assert "| **holds** | +15.0 ± 0.0 (2 seeds) |" in text


def test_table_of_a_long_curve_keeps_both_ends():
    epsilons = [n / 10 for n in range(21)]
    long = {"epsilons": epsilons, "accuracy": [1 - e / 4 for e in epsilons]}
    text = reports.markdown(curves_results(units=[attacked(0, gat=long, baseline=long)]))
    head = text.splitlines()[2].strip("| ").split(" | ")
    assert len(head) == 1 + 7
    assert (head[1], head[-1]) == ("ε = 0", "ε = 2")
    assert "| Baseline | 100.0 | " in text
    assert "undecided** | +0.0 (one seed) |" in text


# Figures


def lines_of(axes):
    """Label to the line that has it."""
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_power_draws_every_attack_in_both_panels():
    figure = reports.figures(fig2_results())["fig2"]
    left, right = figure.axes
    for axes, kind in ((left, "accuracy"), (right, "clipped_accuracy")):
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel().startswith("power P")
        drawn = lines_of(axes)
        for name, title in fig2.ATTACKS.items():
            rows = fig2.summarise(GENERATORS)["cifar10"]
            np.testing.assert_allclose(drawn[title].get_xdata(), [0.15, 1.1, 5.0])
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
    np.testing.assert_allclose(of_gat, [41 - 2**0.5, 90])


def test_power_of_one_seed_and_of_a_data_set_without_a_paper():
    unit = generator(1.0, 0, 4.0, 0.5) | {"dataset": "shapes"}
    figure = plotting.power(fig2.summarise([unit]) | {"none": []}, fig2.ATTACKS, {"cifar10": 77.0})
    assert len(figure.axes) == 2
    assert not figure.axes[0].collections
    assert "clean, the paper's baseline" not in lines_of(figure.axes[0])


@pytest.mark.parametrize("summary", [{}, {"cifar10": []}])
def test_power_of_nothing_is_an_error(summary):
    with pytest.raises(ValueError, match="finished units"):
        plotting.power(summary, fig2.ATTACKS, {})


def test_fig2_training_curves_are_those_of_the_first_seed():
    figure = reports.figures(fig2_results())["fig2_training"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "validation loss (eq. 9)"
    assert len(titles) == 3
    assert legend_of(figure) == ["c_g 1", "c_g 10", "c_g 30"]
    np.testing.assert_allclose(lines_of(figure.axes[0])["c_g 10"].get_ydata(), [2.0, 0.1])
    scales = {axes.get_title(loc="left"): axes.get_yscale() for axes in figure.axes}
    assert [t for t, scale in scales.items() if scale == "log"] == ["power ‖G(Δ)‖₂²"]


@pytest.mark.parametrize("experiment", ["fig3", "fig4"])
def test_robustness_draws_every_method_in_every_panel(experiment):
    (figure,) = reports.figures(curves_results(experiment)).values()
    fg_l2, pgd_l2, pgd_linf = figure.axes
    kind = {"fig3": "direct", "fig4": "indirect"}[experiment]
    assert fg_l2.get_title(loc="left").startswith(f"cifar10, {kind}:\nfast gradient, L2")
    assert fg_l2.get_ylabel() == "accuracy, %"
    assert fg_l2.get_xlabel().startswith("ε in L2")
    assert pgd_linf.get_xlabel() == "ε in L∞, of 255"
    assert pgd_linf.xaxis.get_major_formatter()(4 / 255, 0) == "4"
    expected = {
        "Baseline": [78, 40, 26, 90],
        "Adv. training (FG, L2)": [87, 57.5, 42, 90],
        "Adv. training (GAT)": [82, 60, 42, 0],
    }
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0
        assert len(axes.collections) == 3
        for title, mean in expected.items():
            line = lines_of(axes)[title]
            np.testing.assert_allclose(line.get_xdata(), EPSILONS)
            np.testing.assert_allclose(line.get_ydata(), mean)
    assert len({to_hex(lines_of(fg_l2)[title].get_color()) for title in expected}) == 3
    # Table 2's accuracies of the paper at ε = 0, in the paper's panel alone.
    marks = [line.get_ydata()[0] for line in fg_l2.get_lines() if len(line.get_xdata()) == 1]
    assert sorted(marks) == [77.48, 77.99, 80.33]
    assert all(len(line.get_xdata()) == 4 for line in pgd_l2.get_lines())
    assert set(legend_of(figure)) == {*expected, "clean, the paper's (full size)"}


def test_robustness_of_one_seed_has_no_bands():
    (figure,) = reports.figures(curves_results(units=ATTACKED[:1])).values()
    assert not any(axes.collections for axes in figure.axes)


def test_robustness_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="finished units"):
        plotting.robustness({}, {}, {"fg_l2": "FG"}, {}, "direct")


HISTORIES = {
    "one": {"loss": [3.0, 2.0, 1.0], "power": [0.1, None, 10.0]},
    "two": {"loss": [4.0, float("nan")], "accuracy": [0.5, 0.75]},
}
METRICS = {"loss": "the loss", "accuracy": "the accuracy", "power": "the power", "none": "absent"}


def test_training_draws_a_panel_for_each_metric_that_is_there():
    figure = plotting.training(HISTORIES, METRICS, log=("power",))
    assert [a.get_title(loc="left") for a in figure.axes] == [
        "the loss",
        "the accuracy",
        "the power",
    ]
    assert [a.get_yscale() for a in figure.axes] == ["linear", "linear", "log"]
    loss, accuracy, power = map(lines_of, figure.axes)
    np.testing.assert_array_equal(loss["one"].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(loss["one"].get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(loss["two"].get_ydata(), [4, np.nan])
    np.testing.assert_array_equal(power["one"].get_ydata(), [0.1, np.nan, 10])
    assert len(accuracy["one"].get_xdata()) == 0
    np.testing.assert_array_equal(accuracy["two"].get_ydata(), [0.5, 0.75])
    assert legend_of(figure) == ["one", "two"]
    assert not same_color(loss["one"].get_color(), loss["two"].get_color())


@pytest.mark.parametrize("number", [7, 12])
def test_training_tells_many_lines_apart(number):
    histories = {str(i): {"loss": [1.0, 2.0]} for i in range(number)}
    (axes,) = plotting.training(histories, {"loss": "the loss"}).axes
    assert len({to_hex(line.get_color()) for line in axes.get_lines()}) == number


def test_training_of_four_metrics_has_no_empty_panels():
    history = {name: [1.0, 2.0] for name in "abcd"}
    figure = plotting.training({"one": history}, {name: name for name in "abcd"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("abcd")


def test_training_of_one_epoch_is_visible():
    figure = plotting.training({"one": {"power": [0.5]}}, {"power": "power"}, log=("power",))
    assert lines_of(figure.axes[0])["one"].get_marker() == "."


def test_training_that_was_never_finite_is_drawn(tmp_path):
    figure = plotting.training({"one": {"power": [None]}}, {"power": "power"}, log=("power",))
    plotting.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("histories", [{}, {"one": {}}, {"one": {"other": [1.0]}}])
def test_training_without_the_metrics_is_an_error(histories):
    with pytest.raises(ValueError, match=r"Expected histories with some of \['loss'\]"):
        plotting.training(histories, {"loss": "loss"})


def trained(method, seed, accuracy, *validation):
    return {
        "dataset": "cifar10",
        "method": method,
        "seed": seed,
        "status": "done",
        "test_accuracy": accuracy,
        "history": {"validation_accuracy": list(validation)},
    }


def test_table2_draws_gains_over_the_baseline():
    units = [
        trained("baseline", 0, 0.50, 0.3, 0.5),
        trained("baseline", 1, 0.54, 0.4, 0.5, 0.6),
        trained("gat", 0, 0.55, 0.5),
        trained("gat", 1, 0.57, 0.7),
        trained("dropout", 0, None) | {"status": "failed"},
    ]
    titles = {m: m.upper() for m in ("baseline", "dropout", "random", "a", "b", "gat", "c")}
    paper = {"cifar10": {"baseline": (77.5, 0.5), "gat": (80.5, 0.25)}}
    figure = plotting.table2({"summary": {"cifar10": {"gat": {}}}, "units": units}, titles, paper)
    gains, curves = figure.axes
    names = [label.get_text() for label in gains.get_yticklabels()]
    assert names[0] == "BASELINE\nours: 52.0 %"
    assert names[5] == "GAT\nours: 56.0 %"
    assert names[1] == "DROPOUT"
    assert gains.get_xlabel() == "gain over the baseline, percentage points"
    assert gains.yaxis_inverted()
    points = {
        (round(float(x), 6), round(float(y)))
        for line in gains.get_lines()
        for x, y in zip(np.ravel(line.get_xdata()), np.ravel(line.get_ydata()), strict=True)
    }
    # Seeds at -2, 2 and 3, 5 points; means at 0 and 4; the paper's at 0 and 3.
    assert {(-2, 0), (2, 0), (0, 0), (3, 5), (5, 5), (4, 5)} <= points
    assert {y for x, y in points if x} == {0, 5}  # what failed or is not there has none
    baseline, gat = curves.get_lines()
    np.testing.assert_allclose(baseline.get_ydata(), [35, 50, 60])  # one seed goes on
    np.testing.assert_allclose(gat.get_ydata(), [60])
    assert (baseline.get_label(), gat.get_label()) == ("BASELINE", "GAT")


def test_table2_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="finished unit"):
        plotting.table2({"summary": {}, "units": []}, {}, {})


def images_and_probabilities():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (2, 4, 4, 3))
    perturbations = rng.uniform(-0.01, 0.01, (2, 4, 4, 3))
    perturbations[0, 0, 0, 0], perturbations[1, 0, 0, 0] = -0.025, 0.0125
    labels = np.array([0, 1])
    clean = np.array([[0.9, 0.1], [0.75, 0.25]])  # right, wrong
    perturbed = np.array([[0.2, 0.8], [0.4, 0.6]])  # wrong, right
    return images, perturbations, labels, clean, perturbed


def test_perturbed_images_tell_factors_and_who_is_right():
    images, perturbations, labels, clean, perturbed = images_and_probabilities()
    gradients = np.zeros_like(images)
    gradients[0, 1, 1, 1] = 0.25
    figure = plotting.perturbed_images(
        images,
        perturbations,
        labels,
        clean,
        perturbed,
        gradients=gradients,
        class_names=("cat", "dog"),
        perturbation_name="η",
    )
    panels = np.reshape(figure.axes, (2, 4))
    assert [axes.get_title() for axes in panels[0]] == ["image", "Δ", "η", "perturbed"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["true: cat", "true: dog"]
    factors = [[axes.get_xlabel().partition(",")[0] for axes in row[1:3]] for row in panels]
    assert factors == [["× 2", "× 20"], ["× 1", "× 40"]]  # the largest value becomes 0.5
    assert "‖·‖₂ 0.25" in panels[0, 1].get_xlabel()
    assert f"‖·‖₂ {np.sqrt((perturbations[1] ** 2).sum()):.2g}" in panels[1, 2].get_xlabel()
    expected = [
        (panels[0, 0], "cat 90 %", GREEN),
        (panels[0, 3], "dog 80 %", RED),
        (panels[1, 0], "cat 75 %", RED),
        (panels[1, 3], "dog 60 %", GREEN),
    ]
    for axes, text, colour in expected:
        assert axes.get_xlabel() == text
        assert same_color(axes.xaxis.label.get_color(), colour), text
    shown = [[axes.get_images()[0].get_array() for axes in row] for row in panels]
    np.testing.assert_allclose(shown[0][0], images[0])
    np.testing.assert_allclose(shown[0][1], 0.5 + 2 * gradients[0])
    np.testing.assert_allclose(shown[0][2], 0.5 + 20 * perturbations[0])
    np.testing.assert_allclose(shown[1][1], 0.5)
    np.testing.assert_allclose(shown[1][3], np.clip(images[1] + perturbations[1], 0, 1))


def test_perturbed_images_without_gradients_and_names():
    arrays = images_and_probabilities()
    grey = [a[..., :1] for a in arrays[:2]]
    figure = plotting.perturbed_images(*grey, *arrays[2:])
    assert len(figure.axes) == 2 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "G(Δ)", "perturbed"]
    assert figure.axes[0].get_ylabel() == "true: 0"
    assert figure.axes[2].get_xlabel() == "1 80 %"
    assert figure.axes[0].get_images()[0].get_array().shape == (4, 4)


@pytest.mark.parametrize("short", range(5))
def test_perturbed_images_of_unequal_numbers_are_an_error(short):
    arrays = list(images_and_probabilities())
    arrays[short] = arrays[short][:1]
    with pytest.raises(ValueError, match="as many of each array"):
        plotting.perturbed_images(*arrays)


def test_gradients_of_another_number_of_images_are_an_error():
    arrays = images_and_probabilities()
    with pytest.raises(ValueError, match="as many of each array"):
        plotting.perturbed_images(*arrays, gradients=np.concatenate([arrays[1], arrays[1]]))


def test_perturbed_images_of_nothing_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        plotting.perturbed_images(*(a[:0] for a in images_and_probabilities()))


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_saved_figure_is_the_same_every_time(tmp_path, suffix, start):
    written = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        plotting.save(plotting.training(HISTORIES, {"loss": "the loss"}), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(start)
    assert b"CreationDate" not in written[0]


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    reports.figures(fig2_results())
    assert dict(matplotlib.rcParams) == before


def test_attacked_gives_every_panel_the_same_lines():
    """Also where a classifier is missing from a panel."""
    balls = {
        "first": {m: {"clean": [50.0 + i], "worst": [20.0]} for i, m in enumerate("abc")},
        "second": {"b": {"clean": [51.0, 53.0], "worst": [10.0, 14.0]}},
    }
    figure = plotting.attacked(balls, ["clean", "worst"])
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["c", "b", "a"]
    assert left.get_ylim() == right.get_ylim()
    points = [line.get_xydata().tolist() for line in right.get_lines() if len(line.get_xdata())]
    assert [[52.0, 1.0]] in points
    assert [[12.0, 1.0]] in points
    with pytest.raises(ValueError, match="at least one ball"):
        plotting.attacked({}, ["clean"])


def test_epsilon_curves_draws_every_classifier():
    curve = {"epsilons": [0, 0.1, 0.2], "mean": [60.0, 30.0, 0.0], "std": [1.0, 1.0, 0.0]}
    figure = plotting.epsilon_curves({"L2": {"a": curve, "b": {**curve, "std": None}}})
    (axes,) = figure.axes
    drawn = [line.get_ydata().tolist() for line in axes.get_lines()]
    assert drawn == [[60.0, 30.0, 0.0]] * 2
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "0.1", "0.2"]
    with pytest.raises(ValueError, match="at least one panel"):
        plotting.epsilon_curves({})


@pytest.mark.parametrize("shape", [[16, 1, 1], [4, 4, 2], [1, 5, 1], [4, 4, 13], [4, 4, 3]])
def test_worst_images_of_any_shape_are_drawn(shape):
    import base64

    pixels = base64.b64encode(bytes(np.prod(shape))).decode()
    worst = [{"image": 0, "label": 1, "epsilon": 0.1, "shape": shape, "pixels": pixels}]
    made = {
        "config": {"hard_label_images": 1}, "norm": "L2", "epsilon": 0.1, "images": 1,
        "clean_accuracy": 1.0, "worst_case_accuracy": 0.0, "attacks": [], "curve": None,
        "worst": worst,
    }  # fmt: skip
    (axes,) = (a for a in plotting.evaluation(made).axes if a.images)
    assert axes.images[0].get_array().shape[:2] == tuple(shape[:2])
