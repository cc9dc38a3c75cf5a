"""The checks of an evaluation: signs of masked gradients, and an ε in the wrong units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

_TOLERANCE = 0.01  # one image in a hundred: less is noise
_ROUNDING = 1e-3  # of the largest logit, between two calls of a model without random numbers
_STARTS = 0.05  # of the images may fall to further random starts alone
_SMALLEST = {"Linf": 1 / 1000, "L2": 1 / 4000}  # ε that is no mistake, of the range or the diagonal


def sanity_checks(result: dict) -> Iterator[dict]:
    """Checks of a result of `robustness`, each with its evidence.

    Paper: [Carlini et al. 2019](https://arxiv.org/abs/1902.06705).
    """
    rows = {row["name"]: row for row in result["attacks"]}
    accuracy = {name: row["accuracy"] for name, row in rows.items()}

    def found(check, passed, evidence):
        return {"check": check, "passed": bool(passed), "evidence": evidence}

    def not_weaker(check, strong, weak):
        evidence = f"{strong}: {accuracy[strong]:.1%}, {weak}: {accuracy[weak]:.1%} withstand them"
        return found(check, accuracy[strong] <= accuracy[weak] + _TOLERANCE, evidence)

    yield found(
        "the model has input gradients",
        result["differentiable"],
        "gradient attacks run" if result["differentiable"] else "none: only attacks without them",
    )
    change = result["logits_change"]
    evidence = f"they change by {change:.1%} of the largest between two calls"
    if change > _ROUNDING:
        evidence += ": average gradients over calls, with the `samples` of PGD and APGD"
    yield found("the model gives the same logits twice", change <= _ROUNDING, evidence)
    if "image_shape" in result:  # results from before this check lack it
        yield found("ε fits the range of the pixels", *_epsilon_fits(result))
    if not result["differentiable"]:
        return
    budget = result["budget"]
    short, long = pgd_names(budget["pgd_steps"], budget["restarts"])
    yield not_weaker("a gradient is no weaker than noise", short, "random noise")
    yield not_weaker("iterative is no weaker than single-step", short, "fast gradient")
    yield not_weaker("more steps and starts are no weaker", long, short)
    gained = accuracy[short] - accuracy[long]
    yield found(
        "random starts and further steps do not matter too much",
        gained <= _STARTS,
        f"{gained:.1%} of the images fall to them alone",
    )
    if f"{short}, transferred" in rows:
        yield not_weaker("white-box is no weaker than transfer", short, f"{short}, transferred")
    white = [row for name, row in rows.items() if row["gradients"] and "transferred" not in name]
    robust = np.all([withstood(row) for row in white], axis=0)
    for name in ("Square", "HopSkipJump"):
        # Of the images that it was tried on: HopSkipJump sees the first few alone.
        tried = result["images"]
        if name == "HopSkipJump":
            tried = min(tried, budget["hard_label_images"])
        beyond = float(np.sum(robust & ~withstood(rows[name]))) / tried
        yield found(
            f"{name}, without gradients, is no stronger than all gradient attacks",
            beyond <= _TOLERANCE,
            f"{beyond:.1%} of the images fall to it alone",
        )
    curve = result["curve"]
    yield found(
        "accuracy reaches zero as ε grows",
        curve["accuracy"][-1] == 0 or result["epsilon"] == 0,
        f"{curve['accuracy'][-1]:.1%} at ε = {curve['epsilons'][-1]:.3g}",
    )
    rise = max(np.diff(curve["accuracy"]), default=0.0)
    yield found("accuracy does not rise with ε", rise <= _TOLERANCE, f"by {max(rise, 0):.1%}")
    share = result["zero_gradients"]
    yield found(
        "the loss's gradient does not vanish",
        share <= _TOLERANCE,
        f"it is exactly zero on {share:.1%} of the images",
    )


def _epsilon_fits(result: dict) -> tuple[bool, str]:
    """Whether ε is in the units of the pixels, and the evidence.

    It is not if nobody could see the whole perturbation, or if all images could become one grey: in
    L∞ below a thousandth of the range or from half of it on. In L2 the range is the diagonal, the
    range times the root of the number of values; usual radii are a smaller part of it, hence a
    four-thousandth. ε = 0 is meant.
    """
    (low, high), norm, epsilon = result["bounds"], result["norm"], result["epsilon"]
    extent = high - low
    usual = f"8/255 of this range would be {8 / 255 * extent:.4g}"
    if norm == "L2":
        usual = f"0.5 of this range, which is usual, would be {0.5 * extent:.4g}"
        extent *= math.sqrt(math.prod(result["image_shape"]))
    passed = epsilon == 0 or _SMALLEST[norm] * extent <= epsilon < extent / 2
    evidence = f"ε = {epsilon:.4g} on pixels from {low:g} to {high:g}; {usual}"
    return passed, evidence


def pgd_names(steps: int, restarts: int) -> tuple[str, str]:
    """What the shorter and the longer PGD of an evaluation are called."""
    return f"PGD-{min(20, steps)}", f"PGD-{steps}, {restarts} starts"


def withstood(row: dict) -> np.ndarray:
    """Which images withstood an attack, `[N]` booleans, from its row of the results."""
    return np.array([digit == "1" for digit in row["standing"]])


def worst_case(rows: Sequence[dict]) -> float:
    """The accuracy that is left where each image counts as its worst attack leaves it."""
    return float(np.all([withstood(row) for row in rows], axis=0).mean())
