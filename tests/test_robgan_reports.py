"""What Rob-GAN's experiments make of their units: summaries, claims, tables and figures."""

import math

import numpy as np
import pytest

from gat_tf.experiments.robgan import fig2, fig6, fig7, fig8, robustness, table1

EPSILONS = [0, 0.02, 0.04, 0.08]


def classifiers(seed, dataset="cifar10", **accuracies):
    """A unit of Table 1, Fig. 2 or Fig. 6."""
    history = {"train_lipschitz": [1.0, 2.0], "test_lipschitz": [1.0, 3.0]}
    return {
        "dataset": dataset,
        "seed": seed,
        "image_size": 32,
        "images": {"train": 100, "test": 100},
        "curves": {
            name: {k: {"epsilons": EPSILONS, "accuracy": v} for k, v in by_split.items()}
            for name, by_split in accuracies.items()
        },
        "trainings": {name: {"history": history, "train_images": 400} for name in accuracies},
    }


def results_of(module, units):
    summary, verdicts = module.summarise(units), module.verdicts(units)
    return {"summary": summary, "verdicts": verdicts, "units": units}


def of_table1(seed, dataset="cifar10", gain=0.0):
    return classifiers(
        seed,
        dataset,
        adversarial_training={"test": [0.8, 0.6, 0.5, 0.2]},
        fine_tuned={"test": [0.7, 0.6, 0.6, 0.4 + gain]},
    )


def test_table_1_says_what_the_paper_says_of_cifar():
    results = results_of(table1, [of_table1(0)])
    found = results["verdicts"]["cifar10"]
    assert [v["mean"] for v in found] == pytest.approx([-10, 0, 10, 20])
    assert [(v["kind"], v["negligible"]) for v in found] == [("not below", 0.5)] + 3 * [
        ("above", 0.5)
    ]
    assert {v["verdict"] for v in found} == {"undecided"}  # one seed
    text = table1.table(results)
    assert "| Rob-GAN, fine-tuned, the paper's | test | 81.10 | 70.41 | 57.43 | 30.25 |" in text
    assert "| Adv. training | test | 80.0 | 60.0 | 50.0 | 20.0 |" in text


def test_table_1_claims_more_of_other_data():
    results = results_of(table1, [of_table1(0, "shapes")])
    assert results["verdicts"]["shapes"][0]["kind"] == "above"
    assert "the paper's" not in table1.table(results)


def test_interval_of_table_1_holds_the_error_of_the_sample_of_images():
    units = [of_table1(s, gain=g) for s, g in enumerate((0.00, 0.02, 0.04))]
    low, high = table1.verdicts(units)["cifar10"][3]["interval"]
    p, q = (100 * 0.42 + 1) / 102, (100 * 0.2 + 1) / 102
    images = 100 * math.sqrt((1 - 100 / 10_000) * (p * (1 - p) + q * (1 - q)) / 102)
    half = math.hypot(4.302653 * 2 / math.sqrt(3), 1.959964 * images)
    assert (low, high) == pytest.approx((22 - half, 22 + half), rel=1e-5)


def test_figure_of_table_1_shows_the_papers_points():
    figure = table1.figures(results_of(table1, [of_table1(0)]))["table1"]
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines() if len(line.get_xdata()) > 1}
    np.testing.assert_allclose(
        lines["Rob-GAN, fine-tuned, test images"].get_ydata(), [70, 60, 60, 40]
    )
    points = {
        tuple(line.get_xydata()[0])
        for line in axes.get_lines()
        if line.get_label() == "Rob-GAN, fine-tuned, the paper's (full size)"
    }
    assert points == {(0, 81.1), (0.02, 70.41), (0.04, 57.43), (0.08, 30.25)}


def test_controls_of_table_1_are_beyond_the_paper():
    units = []
    for seed in (0, 1):
        units.append(of_table1(seed))
        units.append(classifiers(seed, fine_tuned_real={"test": [0.7, 0.5, 0.5, 0.3]}))
    units.append(classifiers(0, fixed_fakes={"test": [0.9, 0.7, 0.6, 0.3 + 0.1]}))
    results = results_of(table1, units)
    claims = results["verdicts"]["cifar10"]
    assert [v["origin"] for v in claims] == ["paper"] * 4 + ["beyond"] * 3
    tuned, fakes, rob_gan = claims[4:]
    assert (tuned["mean"], tuned["seeds"]) == (pytest.approx((0 + 10 + 10 + 10) / 4), 2)
    assert (fakes["mean"], fakes["seeds"]) == (pytest.approx((10 + 10 + 10 + 20) / 4), 1)
    assert rob_gan["mean"] == pytest.approx(-(20 + 10 + 0 + 0) / 4)
    text = table1.table(results)
    assert "| Adv. training with fixed fakes | test | 90.0 | 70.0 | 60.0 | 40.0 |" in text
    assert "over 2 seed(s)" in text
    labels = [line.get_label() for line in table1.figures(results)["table1"].axes[0].get_lines()]
    assert "Rob-GAN, fine-tuned on real images, test images" in labels


def test_units_of_single_classifiers_are_what_units_of_several_were():
    together = [of_table1(seed, gain=0.01 * seed) for seed in (0, 1, 2)]
    apart = [
        {**unit, **{key: {name: unit[key][name]} for key in ("curves", "trainings")}}
        for name in ("fine_tuned", "adversarial_training")
        for unit in together
    ]
    for of in (table1.summarise, table1.verdicts):
        assert of(apart) == of(together)


def test_a_classifier_that_is_still_missing_leaves_out_its_claims():
    half = [classifiers(0, adversarial_training={"test": [0.8, 0.6, 0.5, 0.2]})]
    results = results_of(table1, half)
    assert results["verdicts"] == {"cifar10": []}
    assert "fine-tuned" not in table1.table(results)
    assert table1.figures(results)["table1"]


GAPS = [
    classifiers(
        seed,
        adversarial_training={"train": [0.9, 0.8, 0.7, 0.6], "test": [0.5, 0.4, 0.3, 0.2]},
        robgan={"train": [0.5, 0.4, 0.3, 0.2], "test": [0.5, 0.4, 0.3, 0.2]},
        fine_tuned={"train": [0.7, 0.6, 0.5, 0.4], "test": [0.6, 0.5, 0.4, 0.3 + seed / 25]},
    )
    for seed in (0, 1, 2)
]


def test_gaps_by_hand():
    gap, lipschitz = fig2.verdicts(GAPS)["cifar10"]
    assert (gap["mean"], lipschitz["mean"]) == pytest.approx((40, 50))
    assert lipschitz["negligible"] is None
    gain, closer = fig6.verdicts(GAPS)["cifar10"]
    assert (gain["mean"], closer["mean"]) == pytest.approx((11, 31))


def test_interval_of_a_gap_holds_the_errors_of_both_samples():
    _, closer = fig6.verdicts(GAPS)["cifar10"]

    def variance(population, *accuracies):
        shares = [(100 * a + 1) / 102 for a in accuracies]
        return (1 - 100 / population) * sum(p * (1 - p) for p in shares) / 102

    # Of training images there are 400, of test images 10,000.
    images = 100 * math.sqrt(variance(400, 0.75, 0.55) + variance(10_000, 0.35, 0.46))
    half = math.hypot(4.302653 * 1 / math.sqrt(3), 1.959964 * images)
    assert closer["interval"] == pytest.approx([31 - half, 31 + half], rel=1e-5)


def test_fig_2_draws_accuracy_and_lipschitz_value_of_both_splits():
    results = results_of(fig2, GAPS)
    assert results["summary"]["cifar10"]["lipschitz"] == {
        "train": {"mean": [1, 2], "std": [0, 0]},
        "test": {"mean": [1, 3], "std": [0, 0]},
    }
    left, right = fig2.figures(results)["fig2"].axes
    for axes in (left, right):
        styles = {line.get_label(): line.get_linestyle() for line in axes.get_lines()}
        assert styles["Adv. training, test images"] == "-"
        assert styles["Adv. training, train images"] == "--"
    assert [line.get_ydata()[-1] for line in right.get_lines()] == [2, 3]
    assert right.get_lines()[0].get_xdata().tolist() == [1, 2]
    text = fig2.table(results)
    assert "+40.0 [" not in text  # no spread over seeds
    assert "+40.0 points (no spread over seeds)" in text
    assert "+50.0 % (no spread over seeds)" in text


def test_fig_7_compares_shares_of_the_real_diversity():
    def unit(seed, robgan):
        diversity = {"real": [0.4, 0.6], "robgan": [robgan, 0.4], "acgan_attack": [0.1, 0.1],
                     "split": [0.0, 0.3], "acgan": [0.1, 0.4]}  # fmt: skip
        return {"dataset": "cifar10", "seed": seed, "diversity": diversity,
                "images_of_each_class": 5}  # fmt: skip

    units = [unit(0, 0.2), unit(1, 0.4)]
    attacked, plain = fig7.verdicts(units)["cifar10"]
    assert attacked["mean"] == pytest.approx(100 * (0.35 - 0.1) / 0.5)
    assert plain["mean"] == pytest.approx(100 * (0.15 - 0.25) / 0.5)
    assert attacked["negligible"] is None
    text = fig7.table(results_of(fig7, units))
    assert "| Rob-GAN: split loss, attack | 0.350 ± 0.071 | 0.300 ± 0.141 |" in text
    assert "mean difference in % [" in text
    for unit in units:
        unit["diversity"]["split_equal"] = [0.3, 0.3]
    control = fig7.verdicts(units)["cifar10"][2]
    assert (control["origin"], control["mean"]) == ("beyond", pytest.approx(100 * 0.2 / 0.5))
    assert "| real test images | 0.500 ± 0.000 | 0.400 ± 0.000 |" in text


def scored(name, seed, *scores):
    """A unit of Fig. 8 with a snapshot after each epoch of 7 updates."""
    return {
        "dataset": "shapes",
        "gan": name,
        "seed": seed,
        "scores": [
            {"epoch": e, "inception_score": s, "frechet_distance": 10 - s}
            for e, s in enumerate(scores, 1)
        ],
        "steps_per_epoch": 7,
        "score_images": 50,
        "score_network": "a network",
        "real": {"inception_score": 8.0, "images": 20},
        "history": {"discriminator_loss": [2.0, 1.0]},
    }


@pytest.mark.parametrize(
    ("score", "updates"),
    [(2, 15), (3, 20), (0.5, 10), (1, 10), (5, 30)],
    ids=["between", "at a snapshot", "below the first", "the first", "never"],
)
def test_updates_needed_by_hand(score, updates):
    assert fig8.updates_needed([10, 20, 30], [1, 3, 2], score) == updates


def test_claims_of_fig_8_by_hand():
    units = [scored("robgan", 0, 2, 5), scored("split", 0, 1, 4), scored("sngan", 0, 1, 6)]
    units.append(scored("split", 1, 1, 9))  # a seed that Rob-GAN does not have
    higher, above_sngan, sooner = fig8.verdicts(units)["shapes"]
    assert (higher["mean"], above_sngan["mean"]) == (1, -1)
    # Rob-GAN scores 4 after 7 + 7 · (4 - 2)/(5 - 2) updates, its rival after 14.
    assert sooner["mean"] == pytest.approx(100 * (1 - (7 + 14 / 3) / 14))
    assert "Updates needed" in sooner["claim"]
    assert {v["seeds"] for v in (higher, above_sngan, sooner)} == {1}


def test_fig_8_draws_scores_against_updates():
    units = [scored("robgan", s, 2, 5 + s) for s in (0, 2)] + [scored("sngan", 0, 1, 6)]
    results = results_of(fig8, units)
    row = results["summary"]["shapes"]["robgan"]
    assert (row["updates"], row["seeds"]) == ([7, 14], [0, 2])
    assert row["inception_score"] == {"mean": [2, 6], "std": [0, pytest.approx(math.sqrt(2))]}
    assert results["summary"]["shapes"]["sngan"]["inception_score"]["std"] is None
    text = fig8.table(results)
    assert "| Rob-GAN: split loss, attack | 2 | 14 | 6.00 ± 1.41 | 4.00 ± 1.41 |" in text
    assert "| SN-GAN | 1 | 14 | 6.00 | 4.00 |" in text
    figures = fig8.figures(results)
    inception, frechet = figures["fig8"].axes
    lines = {line.get_label(): line for line in frechet.get_lines()}
    np.testing.assert_allclose(lines["SN-GAN"].get_xydata(), [[7, 9], [14, 4]])
    assert len(inception.collections) == 1  # a band where there are several seeds
    assert (inception.get_ylim()[0], frechet.get_ylim()[0]) == (1, 0)
    (loss,) = figures["fig8_training"].axes
    trainings = {line.get_label(): line for line in loss.get_lines()}
    assert set(trainings) == {"Rob-GAN: split loss, attack", "SN-GAN"}
    assert all(line.get_color() == lines[name].get_color() for name, line in trainings.items())


def test_fig_8_shows_the_lipschitz_value_of_the_discriminators():
    units = [scored("robgan", 0, 2, 5), scored("split", 0, 1, 4), scored("sngan", 0, 1, 6)]
    units.append(scored("split_equal", 0, 1, 4))
    for unit, values in zip(units, ([1.0, 2.0], [2.0, 4.0]), strict=False):
        unit["history"]["lipschitz"] = values
    results = results_of(fig8, units)
    assert results["summary"]["shapes"]["robgan"]["lipschitz"]["mean"] == [1, 2]
    assert "lipschitz" not in results["summary"]["shapes"]["sngan"]
    claim = results["verdicts"]["shapes"][-1]
    assert (claim["mean"], claim["origin"], claim["unit"]) == (50, "beyond", "%")
    assert "lower for Rob-GAN: split loss, attack than for split loss, no attack" in claim["claim"]
    axes = fig8.figures(results)["fig8"].axes[2]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines == {
        "Rob-GAN: split loss, attack": [[7, 1], [14, 2]],
        "split loss, no attack": [[7, 2], [14, 4]],
    }


def test_split_loss_at_equal_weight_is_compared_beyond_the_paper():
    units = [scored("split_equal", 0, 2, 5), scored("acgan_attack", 0, 1, 4)]
    (claim,) = fig8.verdicts(units)["shapes"]
    assert (claim["origin"], claim["mean"], claim["unit"]) == ("beyond", 1, "")


@pytest.mark.parametrize("module", [table1, fig2, fig6, fig7, fig8, robustness])
def test_no_units_give_no_rows(module):
    assert module.summarise([]) == module.verdicts([]) == {}


def evaluated(classifier, seed, worst, epsilon=0.04):
    """A unit of the strong evaluation."""
    return {
        "dataset": "cifar10",
        "classifier": classifier,
        "seed": seed,
        "epsilon": epsilon,
        "images": 100,
        "clean_accuracy": 0.8,
        "worst_case_accuracy": worst,
        "attacks": [{"name": "fast gradient", "accuracy": 0.5}],
        "curve": {"epsilons": [0, 0.04], "accuracy": [0.8, 0.4]},
        "checks": [{"check": "more steps are no weaker", "passed": worst < 0.45}],
    }


def test_strong_evaluation_compares_the_worst_cases():
    units = [
        evaluated(name, seed, worst + 0.01 * seed, epsilon)
        for epsilon in (0.08, 0.04)
        for name, worst in (("fine_tuned", 0.45), ("robgan", 0.3), ("adversarial_training", 0.41))
        for seed in (0, 1)
    ]
    units = [u for u in units if (u["classifier"], u["seed"]) != ("adversarial_training", 1)]
    found = results_of(robustness, units) | {"config": {"hard_label_images": 50, "pgd_steps": 2}}
    assert list(found["summary"]["cifar10"]) == ["0.04", "0.08"]
    claims = found["verdicts"]["cifar10"]
    assert [v["origin"] for v in claims] == ["beyond"] * 4
    assert [v["claim"].split(",")[0] for v in claims] == 2 * ["δmax = 0.04"] + 2 * ["δmax = 0.08"]
    assert [v["mean"] for v in claims] == pytest.approx([4, 15, 4, 15])
    assert [v["seeds"] for v in claims] == [1, 2, 1, 2]
    text = robustness.table(found)
    assert "**cifar10**, L∞, δmax = 0.04 (pixels in [-1, 1]): robust accuracy" in text
    assert "| Rob-GAN, fine-tuned | 80.0 ± 0.0 | 50.0 ± 0.0 | **45.5 ± 0.7** |" in text
    assert "| Adv. training (1 seed(s)) | 80.0 | 50.0 | **41.0** |" in text
    assert "these failed: more steps are no weaker (Rob-GAN, fine-tuned, 2 of 2 seeds)" in text
    axes = robustness.figures(found)["robustness"].axes
    assert [a.get_title(loc="left") for a in axes] == [
        f"cifar10, L∞, δmax = {epsilon}" for epsilon in (0.04, 0.08)
    ]
