"""Verdicts against published tables, hand-worked examples and simulations."""

import json
import math

import numpy as np
import pytest

from gat_tf.experiments.lab import significance, tables
from gat_tf.experiments.lab.significance import holm
from gat_tf.experiments.lab.verdicts import Claim, decide, markdown

# Student's t as printed in textbooks: two-sided confidence, then degrees of freedom.
CONFIDENCES = (0.80, 0.90, 0.95, 0.98, 0.99, 0.999)
TABLE = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657, 636.619),
    2: (1.886, 2.920, 4.303, 6.965, 9.925, 31.599),
    3: (1.638, 2.353, 3.182, 4.541, 5.841, 12.924),
    4: (1.533, 2.132, 2.776, 3.747, 4.604, 8.610),
    5: (1.476, 2.015, 2.571, 3.365, 4.032, 6.869),
    9: (1.383, 1.833, 2.262, 2.821, 3.250, 4.781),
    10: (1.372, 1.812, 2.228, 2.764, 3.169, 4.587),
    20: (1.325, 1.725, 2.086, 2.528, 2.845, 3.850),
    30: (1.310, 1.697, 2.042, 2.457, 2.750, 3.646),
    60: (1.296, 1.671, 2.000, 2.390, 2.660, 3.460),
    120: (1.289, 1.658, 1.980, 2.358, 2.617, 3.373),
    math.inf: (1.282, 1.645, 1.960, 2.326, 2.576, 3.291),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_critical_values_are_those_of_the_published_table(freedom):
    found = [significance.t_critical(confidence, freedom) for confidence in CONFIDENCES]
    np.testing.assert_allclose(found, TABLE[freedom], rtol=0, atol=5.1e-4)


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.7, 1.0, 3.0, 40.0, -3.0])
def test_p_values_are_those_of_the_closed_forms(t):
    size = abs(t)
    one, two = 1 - 2 / math.pi * math.atan(size), 1 - size / math.sqrt(2 + size**2)
    assert significance.t_p_value(t, 1) == pytest.approx(one, rel=1e-9)
    assert significance.t_p_value(t, 2) == pytest.approx(two, rel=1e-9)


def test_many_degrees_of_freedom_approach_the_normal_distribution():
    for freedom in (1e5, 9e5, 2e6):
        assert significance.t_critical(0.95, freedom) == pytest.approx(1.959964, abs=3e-5)
    assert significance.t_critical(0.1, math.inf) == pytest.approx(0.125661, abs=1e-6)


def test_confidence_must_be_a_probability():
    with pytest.raises(ValueError, match=r"between 0 and 1. Received: 95"):
        significance.t_critical(95, 3)


def sound(differences, **about):
    """The one verdict on a claim that stands alone, which JSON can store."""
    (found,) = decide([Claim("a claim", differences, **about)])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_published_paired_t_test():
    # The sleep data of Student (1908): t = 4.0621, p = 0.002833.
    found = sound([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert found["verdict"] == "holds"
    assert found["seeds"] == 10
    assert found["mean"] == pytest.approx(1.58)
    assert found["interval"] == pytest.approx([0.7001142, 2.4598858], abs=1e-6)
    assert found["p"] == pytest.approx(0.002833, abs=1e-6)
    assert found["p_holm"] == found["p"]


@pytest.mark.parametrize(
    ("differences", "verdict", "p"),
    [
        # The standard deviation is 1, so t = √3 · mean and p = 1 - t/√(2 + t²).
        ([3.0, 4.0, 5.0], "holds", 1 - math.sqrt(48 / 50)),
        ([-3.0, -4.0, -5.0], "does not hold", 1 - math.sqrt(48 / 50)),
        ([1.5, 2.5, 3.5], "holds", 1 - math.sqrt(18.75 / 20.75)),  # 0.0494
        ([1.4, 2.4, 3.4], "undecided", 1 - math.sqrt(17.28 / 19.28)),  # 0.0533
        ([-1.0, 0.0, 1.0], "undecided", 1.0),
    ],
)
def test_verdicts_worked_out_by_hand(differences, verdict, p):
    found = sound(differences)
    assert (found["verdict"], found["untested"]) == (verdict, None)
    assert found["p"] == pytest.approx(p)
    half = 4.302653 / math.sqrt(3)
    interval = [differences[1] - half, differences[1] + half]
    assert found["interval"] == pytest.approx(interval, abs=1e-6)
    assert (found["interval"][0] > 0 or found["interval"][1] < 0) == (verdict != "undecided")


def test_confidence_sets_interval_and_level():
    claims = [Claim("a claim", [3.0, 4.0, 5.0])]  # p = 0.0202
    assert decide(claims, confidence=0.97)[0]["verdict"] == "holds"
    (found,) = decide(claims, confidence=0.99)
    assert found["verdict"] == "undecided"
    half = 9.924843 / math.sqrt(3)
    assert found["interval"] == pytest.approx([4 - half, 4 + half])


@pytest.mark.parametrize(
    ("differences", "mean", "untested"),
    [
        ([], None, "fewer than 3 seeds"),
        ([50.0], 50.0, "fewer than 3 seeds"),
        ([50.0, 50.1], 50.05, "fewer than 3 seeds"),
        ([1.0, math.nan, 1.1], None, "not a finite number"),
        ([1.0, None, 1.1], None, "not a finite number"),
        ([1.0, math.inf, 1.1], None, "not a finite number"),
        ([1e308, 1e308, -1e308], 1e308 / 3, "not a finite number"),
        ([2.0, 2.0, 2.0], 2.0, "no spread over seeds"),
        ([0.0, 0.0, 0.0], 0.0, "no spread over seeds"),
        ([0.1 + 0.2, 0.3, 0.3], 0.3, "no spread over seeds"),  # but for rounding
    ],
)
def test_what_cannot_be_tested_is_undecided(differences, mean, untested):
    for image_error in (0.0, 0.1):
        found = sound(differences, image_error=image_error)
        assert (found["verdict"], found["untested"]) == ("undecided", untested)
        assert (found["interval"], found["p"], found["p_holm"]) == (None, None, None)
        assert found["seeds"] == len(differences)
        if mean is not None and mean < 1e300:
            assert found["mean"] == pytest.approx(mean)


def test_an_unknown_image_error_leaves_the_claim_undecided():
    found = sound([10.0, 11.0, 12.0], image_error=math.nan)
    assert (found["verdict"], found["untested"]) == ("undecided", "not a finite number")


@pytest.mark.parametrize(
    ("differences", "negligible", "verdict"),
    [
        ([0.30, 0.31, 0.32], 0.5, "negligible"),
        ([-0.30, -0.31, -0.32], 0.5, "negligible"),
        ([0.30, 0.31, 0.32], None, "holds"),
        ([0.30, 0.31, 0.32], 0.25, "holds"),
        ([-0.30, -0.31, -0.32], 0.25, "does not hold"),
        ([0.375, 0.5, 0.625], 0.5, "holds"),  # 0.5 is not below 0.5
        ([-0.6, 0.4, 1.4], 0.5, "undecided"),  # too small, but not shown to be there either
    ],
)
def test_what_is_there_but_too_small_is_negligible(differences, negligible, verdict):
    assert sound(differences, negligible=negligible)["verdict"] == verdict


def test_half_a_point_is_negligible_unless_told_otherwise():
    assert Claim("a claim", []).negligible == 0.5


@pytest.mark.parametrize(
    ("differences", "margin", "verdict", "p"),
    [
        # The standard error is the step over √3; t = (mean + margin) over it.
        ([-0.2, -0.1, 0.0], 0.5, "holds", 1 - math.sqrt(48 / 50)),
        ([-0.3, -0.29, -0.28], 0.5, "holds", 1 - math.sqrt(1323 / 1325)),  # below 0, above -0.5
        ([-0.6, -0.1, 0.4], 0.5, "undecided", 1 - math.sqrt(1.92 / 3.92)),
        ([-2.1, -2.0, -1.9], 0.5, "does not hold", 1 - math.sqrt(675 / 677)),
        ([-0.2, -0.1, 0.0], 0.0, "undecided", 1 - math.sqrt(3 / 5)),
        ([0.1, 0.2, 0.3], None, "undecided", 1 - math.sqrt(12 / 14)),
        ([0.3, 0.4, 0.5], None, "holds", 1 - math.sqrt(48 / 50)),
    ],
)
def test_not_below_compares_with_minus_the_margin(differences, margin, verdict, p):
    found = sound(differences, kind="not below", negligible=margin)
    assert found["verdict"] == verdict
    assert found["p"] == pytest.approx(p)
    above = found["interval"][0] > -(margin or 0)
    assert above == (verdict == "holds")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"origin": "papers"}, "`origin` to be one of .*Received: 'papers'"),
        ({"kind": "below"}, "`kind` to be one of .*Received: 'below'"),
        ({"negligible": -1.0}, "0 or more, or None. Received: -1.0"),
    ],
)
def test_a_misspelt_claim_is_refused(about, message):
    with pytest.raises(ValueError, match=message):
        Claim("a claim", [1.0, 2.0, 3.0], **about)


def test_holm_worked_out_by_hand():
    # In order: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


CLEAR, CLOSE, NONE = [9.0, 10.0, 11.0], [1.6, 2.6, 3.6], [-1.0, 0.0, 1.0]  # p 0.003, 0.046, 1


@pytest.mark.parametrize(
    ("family", "factors"),
    [
        # Bonferroni would double the second p of the first family.
        ([CLOSE, CLEAR], [1, 2]),
        ([CLOSE, CLEAR, NONE], [2, 3, 1]),
        ([CLOSE, CLEAR, [math.nan] * 3], [2, 3, None]),
        ([CLOSE, CLEAR, [50.0]], [2, 3, None]),
    ],
)
def test_all_claims_of_a_family_count_in_the_correction(family, factors):
    found = decide([Claim(str(i), d) for i, d in enumerate(family)])
    assert [v["claim"] for v in found] == [str(i) for i in range(len(family))]
    for v, factor in zip(found, factors, strict=True):
        assert v["p_holm"] == (None if factor is None else pytest.approx(factor * v["p"]))
    close = "holds" if factors[0] == 1 else "undecided"
    assert [v["verdict"] for v in found] == [close, "holds", "undecided"][: len(family)]


def test_no_claims_no_verdicts():
    assert decide([]) == []
    assert markdown([]) == ""


SIMULATIONS = 2000
TOLERANCE = 3 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def rejected(effects, seeds, shared, seed):
    """`[simulations, claims]`: which claims get a verdict; deviation over seeds 1 in each."""
    draw = np.random.default_rng(seed).normal
    own = draw(size=[SIMULATIONS, len(effects), seeds])
    common = draw(size=[SIMULATIONS, 1, seeds])
    differences = effects[:, None] + math.sqrt(1 - shared) * own + math.sqrt(shared) * common
    return np.array(
        [
            [
                v["verdict"] != "undecided"
                for v in decide([Claim("", d, negligible=None) for d in family])
            ]
            for family in differences
        ]
    )


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_no_effects_give_a_false_verdict_in_at_most_5_percent(shared):
    # Differences from one shared rival are correlated by a half.
    rate = rejected(np.zeros(6), seeds=5, shared=shared, seed=1).any(axis=1).mean()
    assert rate <= 0.05 + TOLERANCE
    assert rate >= (0.05 - TOLERANCE if shared == 0 else 0.02)


def test_claims_without_an_effect_get_the_level_that_found_effects_leave():
    # Three effects are always found; Holm then tests the rest at 0.05 / 3, Bonferroni at 0.05 / 6.
    found = rejected(np.array([99.0, 0, 99, 0, 99, 0]), seeds=4, shared=0, seed=2)
    assert found[:, ::2].all()
    assert found[:, 1::2].any(axis=1).mean() == pytest.approx(0.05, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("seeds", "claims", "power"), [(10, 1, 0.803), (9, 1, 0.748), (16, 6, 0.813)]
)
def test_the_power_is_that_of_theory(seeds, claims, power):
    # The power is that of the noncentral t distribution.
    effects = np.zeros(claims)
    effects[0] = 1.0
    found = rejected(effects, seeds, shared=0, seed=3)[:, 0].mean()
    assert found == pytest.approx(power, abs=3 * math.sqrt(0.16 / SIMULATIONS))


def test_errors_over_seeds_and_images_add_as_squares():
    found = sound([3.0, 4.0, 5.0], image_error=2.0)
    half = math.hypot(4.302653 / math.sqrt(3), 1.959964 * 2)
    assert found["interval"] == pytest.approx([4 - half, 4 + half])
    # The interval at the level p reaches zero.
    t, z = (significance.t_critical(1 - found["p"], f) for f in (2, math.inf))
    assert math.hypot(t / math.sqrt(3), 2 * z) == pytest.approx(4)
    assert sound([-3.0, -4.0, -5.0], image_error=2.0)["p"] == pytest.approx(found["p"])
    (found,) = decide([Claim("", [3.0, 4.0, 5.0], image_error=2.0)], confidence=0.99)
    half = math.hypot(9.924843 / math.sqrt(3), 2.575829 * 2)
    assert found["interval"] == pytest.approx([4 - half, 4 + half])
    # With hardly any spread over seeds the test is that of a normal variable.
    found = sound([3.99, 4.0, 4.01], image_error=2.0)
    assert found["p"] == pytest.approx(math.erfc(2 / math.sqrt(2)), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed_spread", "image_error", "least"), [(1.0, 0.2, 0.02), (1.0, 0.5, 0.02), (0.2, 1.0, 0.03)]
)
def test_intervals_over_seeds_and_images_miss_in_at_most_5_percent(seed_spread, image_error, least):
    draw = np.random.default_rng(4).normal
    differences = seed_spread * draw(size=[SIMULATIONS, 4])
    differences += image_error * draw(size=[SIMULATIONS, 1])
    missed = 0
    for d in differences:
        (found,) = decide([Claim("", d, image_error=image_error, negligible=None)])
        low, high = found["interval"]
        missed += not low < 0 < high
        assert (found["verdict"] != "undecided") == (not low < 0 < high)
    assert least <= missed / SIMULATIONS <= 0.05 + TOLERANCE


def test_image_error_worked_out_by_hand():
    error = significance.image_error
    # 49 of 98 right, one success and one failure added: 50 of 100, variance 0.25 / 100.
    half = {"images": 98, "population": 196}
    assert error([50.0], [50.0], **half) == pytest.approx(5.0)
    assert error([40.0, 60.0], [55.0, 45.0], **half) == pytest.approx(5.0)
    assert error([50.0], **half) == pytest.approx(5 / math.sqrt(2))
    # None right: 1 of 100, variance 0.0099 / 100 each; 1 - 98/9800 = 0.99.
    none = 100 * math.sqrt(2 * 0.000099 * 0.99)
    assert error([0.0], [0.0], images=98, population=9800) == pytest.approx(none)
    assert error([40.0], [60.0], images=98, population=98) == 0
    assert math.isnan(error([math.nan], [60.0], **half))


@pytest.mark.parametrize("images", [0, 101])
def test_more_images_than_there_are_or_none_are_refused(images):
    with pytest.raises(ValueError, match=f"1 to 100 images, the population. Received: {images}"):
        significance.image_error([50.0], [60.0], images=images, population=100)


@pytest.mark.parametrize("dependent", [False, True])
def test_image_error_bounds_the_error_of_a_sample(dependent):
    rng = np.random.default_rng(5)
    population, images, seeds = 1000, 300, 3
    if dependent:  # easy images are easy for both methods; seeds differ
        easiness = rng.random(population)
        first, second = (rng.random([2, seeds, population]) < easiness).astype(float)
    else:  # what the bound assumes
        first = np.tile(rng.random(population) < 0.7, [seeds, 1])
        second = np.tile(rng.random(population) < 0.4, [seeds, 1])
    differences = 100 * (first.astype(float) - second).mean(axis=0)
    samples = rng.permuted(np.tile(differences, [4000, 1]), axis=1)[:, :images]
    bound = significance.image_error(
        100 * first.mean(axis=1), 100 * second.mean(axis=1), images=images, population=population
    )
    ratio = samples.mean(axis=1).std() / bound
    assert ratio < 0.9 if dependent else ratio == pytest.approx(1, abs=0.07)


def test_each_origin_is_a_family_of_its_own():
    paper, beyond = [3.0, 4.0, 5.0], [2.0, 4.0, 7.0]
    both = decide([Claim("", paper), Claim("", beyond, "beyond"), Claim("", beyond, "beyond")])
    assert both[0]["p_holm"] == both[0]["p"]
    assert both[1]["p_holm"] == pytest.approx(2 * both[1]["p"])


def test_verdicts_as_a_table():
    # p: of the first 1 - √(48/50) = 0.0202, of the second and the fourth 1 - √(1323/1325) = 0.0008.
    rows = decide(
        [
            Claim("one", [3.0, 4.0, 5.0]),
            Claim("two", [0.2, 0.21, 0.22], origin="beyond"),
            Claim("three", [50.0]),
            Claim("four", [-0.3, -0.29, -0.28], kind="not below"),
            Claim("five", [math.nan] * 3, negligible=None),
        ]
    )
    assert markdown(rows) == (
        "| claim | origin | verdict | seeds | mean difference in points [95 % interval, "
        "uncorrected] | p, corrected (Holm) for 4 of the paper and 1 beyond it |\n"
        "|---|---|---|---|---|---|\n"
        "| one | paper | **undecided** | 3 | +4.0 [+1.5, +6.5] | 0.061 |\n"
        "| two | beyond | **negligible** (less than 0.5) | 3 | +0.2 [+0.2, +0.2] | < 0.001 |\n"
        "| three | paper | **undecided** | 1 | +50.0 (fewer than 3 seeds) | – |\n"
        "| four (margin 0.5) | paper | **holds** | 3 | -0.3 [-0.3, -0.3] | 0.003 |\n"
        "| five | paper | **undecided** | 3 | – (not a finite number) | – |\n"
    )


def test_a_table_of_a_score_with_more_digits():
    claim = Claim("one", [900.0, 900.1, 900.2], negligible=None, unit="")
    rows = decide([claim], confidence=0.9)
    head, _, row = markdown(rows, digits=2).splitlines()
    assert "| mean difference [90 % interval, uncorrected] |" in head
    assert row == "| one | paper | **holds** | 3 | +900.10 [+899.93, +900.27] | < 0.001 |"


def test_claims_of_several_units_name_their_own():
    rows = decide(
        [
            Claim("one", [2.0]),
            Claim("two", [3.0, 4.0, 5.0], unit="%"),
            Claim("three", [1.0], unit=""),
            Claim("four", [], unit="%"),
        ]
    )
    assert [row["unit"] for row in rows] == ["points", "%", "", "%"]
    head, _, one, two, three, four = markdown(rows).splitlines()
    assert "| mean difference [95 % interval, uncorrected] |" in head
    assert "| +2.0 points (fewer than 3 seeds) |" in one
    assert "| +4.0 [+1.5, +6.5] % |" in two
    assert "| +1.0 (fewer than 3 seeds) |" in three
    assert "| – (fewer than 3 seeds) |" in four
    assert "| mean difference in % [95 % interval" in markdown(rows[1:2])
    # Records from before claims had a unit: none is better than a wrong one.
    older = [{k: v for k, v in row.items() if k != "unit"} for row in rows]
    assert "| mean difference [95 % interval" in markdown(older)


def test_a_limit_keeps_its_sign_when_it_is_rounded():
    step = 0.5
    low = 4.302653 * step / math.sqrt(3)
    held, open_ = (
        markdown(decide([Claim("", [m - step, m, m + step])])).splitlines()[2]
        for m in (low + 0.01, low - 0.01)
    )
    assert "**holds**" in held
    assert "[+0.0, " in held
    assert "**undecided**" in open_
    assert "[-0.0, " in open_


def test_mean_and_deviation_as_a_cell():
    assert tables.mean_and_std([3.0, 5.0]) == pytest.approx((4, math.sqrt(2)))
    assert tables.mean_and_std([3.0]) == (3, None)
    assert tables.plus_minus([3.0, 5.0]) == "4.0 ± 1.4"
    assert tables.plus_minus([3.0, 5.0], digits=2) == "4.00 ± 1.41"
    assert tables.plus_minus([3.04]) == "3.0"
