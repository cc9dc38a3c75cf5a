"""Decides the claims of an experiment from paired differences over seeds.

```python
claims = [
    Claim("GAT above FG L2", differences=[2.1, 1.4, 1.9, 2.6]),
    Claim("GAT above PGD", [0.3, -0.8, 0.1, -0.2], origin="beyond"),
]
print(markdown(decide(claims)))
```

A difference is that of two methods trained from the same seed. The mean difference has Student's t
distribution with `seeds - 1` degrees of freedom, if the differences are normal. Tests are
two-sided. Their p-values are corrected by Holm's method for all the claims of a family, so that the
probability of one false verdict or more in it is at most 5 %, however the claims depend on each
other. Of the claims that are decided together the paper's are one family and those beyond it
another: what we ask in addition does not weaken the test of what the paper says.

**Seeds and images.** An accuracy on a sample of the test images also depends on the sample. All
seeds share it, so the spread over seeds does not show this error. `image_error` bounds it
from accuracies. With a standard error over seeds s and one over images e, the interval is

    mean ± √((t·s)² + (z·e)²)

with t and z the critical values of Student's t and of the normal distribution. It is exact if one
of s and e is zero. If neither is, it misses the true value at most as often as the level says, as
long as e is not too small: the probability that a squared normal variable exceeds a limit is convex
in the limit, so a weighted mean of two limits errs at most as often as the weighted mean of the two
error rates. The p-value is the level at which the interval reaches zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gat_tf._types import Numbers
from gat_tf.experiments.lab.significance import holm, t_critical, two_way_p_value
from gat_tf.experiments.lab.tables import table

MINIMUM_SEEDS = 3
_ROUNDING = 1e-9  # A smaller standard deviation over seeds is rounding error.


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that a difference is above zero, and what was measured.

    Attributes:
        text: The claim in words.
        differences: One per seed, positive where the claim holds.
        origin: "paper" if the paper claims it, else "beyond".
        kind: "above": the difference is above zero. "not below": it is above `-negligible`.
        negligible: The largest difference that does not matter, in the unit of `differences`. None
            if every difference matters.
        image_error: Standard error of the mean difference that comes from the sample of test
            images, in the unit of `differences`. 0 if the accuracies are of the whole test set.
        unit: Of the differences: "points", which are percentage points, or another such as "%"; ""
            for a score without one.

    Raises:
        ValueError: If `origin` or `kind` is none of the above, or `negligible` is negative.
    """

    text: str
    differences: Numbers
    origin: str = "paper"
    kind: str = "above"
    negligible: float | None = 0.5
    image_error: float = 0.0
    unit: str = "points"

    def __post_init__(self):
        for name, known in (("origin", ("paper", "beyond")), ("kind", ("above", "not below"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Expected `{name}` to be one of {known}. Received: {getattr(self, name)!r}."
                )
        if self.negligible is not None and not self.negligible >= 0:
            raise ValueError(
                f"Expected `negligible` to be 0 or more, or None. Received: {self.negligible}."
            )


def decide(claims: Sequence[Claim], confidence: float = 0.95) -> list[dict]:
    """Decides claims together, such as those of an experiment on one data set.

    Those of each origin are a family.

    The verdicts on a claim of kind "above":

    - "holds": the difference is above zero at the corrected level.
    - "does not hold": the difference is below zero at the corrected level.
    - "negligible": it is above or below zero at that level, but its mean is nearer to zero than
      `claim.negligible`.
    - "undecided": all else. This includes what cannot be tested: fewer than three seeds, a
      difference or an image error that is not finite, and differences that are the same for every
      seed. No spread does not mean certainty: a few seeds cannot show that the spread is zero.

    For "not below", the same test compares the difference with `-claim.negligible`. The claim holds
    if the difference is above that value, does not hold if it is below, and is never "negligible".

    A claim that cannot be tested counts as one with p = 1. The correction is then the same whatever
    was measured.

    Args:
        claims: All the claims. The more there are in a family, the stronger the evidence that each
            of them needs.
        confidence: Of the intervals. `1 - confidence` is the family-wise error rate.

    Returns:
        For each claim a dict that JSON can store. claim, origin, kind, negligible, unit; verdict;
        seeds; mean, None if it is not finite; interval, [low, high] of this claim alone, not
        corrected; p, two-sided, not corrected; p_holm, corrected; untested, why the claim could not
        be tested, else None. With a reason there, interval, p and p_holm are None. confidence.
    """
    measured = [_measure(claim, confidence) for claim in claims]
    corrected = [1.0] * len(claims)
    for origin in {claim.origin for claim in claims}:
        family = [i for i, claim in enumerate(claims) if claim.origin == origin]
        of_family = holm([1.0 if measured[i]["p"] is None else measured[i]["p"] for i in family])
        for i, p in zip(family, of_family, strict=True):
            corrected[i] = p
    return [
        {
            "claim": claim.text,
            "origin": claim.origin,
            "kind": claim.kind,
            "negligible": claim.negligible,
            "unit": claim.unit,
            "verdict": _verdict(claim, m, p, 1 - confidence),
            **m,
            "p_holm": None if m["p"] is None else p,
            "confidence": confidence,
        }
        for claim, m, p in zip(claims, measured, corrected, strict=True)
    ]


def _measure(claim: Claim, confidence: float) -> dict:
    """Everything about a claim that does not depend on the other claims."""
    differences = np.array(claim.differences, dtype=float)
    seeds = len(differences)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(differences.mean()) if seeds else math.nan
        std = float(differences.std(ddof=1)) if seeds > 1 else math.nan
    found = {
        "seeds": seeds,
        "mean": mean if math.isfinite(mean) else None,
        "interval": None,
        "p": None,
        "untested": None,
    }
    if seeds < MINIMUM_SEEDS:
        return found | {"untested": f"fewer than {MINIMUM_SEEDS} seeds"}
    if not (math.isfinite(std) and 0 <= claim.image_error < math.inf):
        return found | {"untested": "not a finite number"}
    if std < _ROUNDING:
        return found | {"untested": "no spread over seeds"}
    errors = (std / math.sqrt(seeds), claim.image_error)
    t = t_critical(confidence, seeds - 1)
    half = math.hypot(t * errors[0], t_critical(confidence, math.inf) * errors[1])
    against = -(claim.negligible or 0.0) if claim.kind == "not below" else 0.0
    return found | {
        "interval": [mean - half, mean + half],
        "p": two_way_p_value(mean - against, *errors, seeds - 1),
    }


def _verdict(claim: Claim, measured: dict, p: float, level: float) -> str:
    if measured["p"] is None or p >= level:
        return "undecided"
    margin = claim.negligible or 0.0
    if claim.kind == "not below":
        return "holds" if measured["mean"] > -margin else "does not hold"
    if abs(measured["mean"]) < margin:
        return "negligible"
    return "holds" if measured["mean"] > 0 else "does not hold"


def markdown(verdicts: Sequence[dict], digits: int = 1) -> str:
    """Renders what `decide` returned as a Markdown table.

    The interval is of each claim alone; p is corrected for its family, and decides. A claim may
    therefore be undecided though its interval does not contain zero. The head says so. It also
    names the unit of the differences; where the claims have several, each row names its own.

    Args:
        verdicts: Those that were decided together.
        digits: Decimals of mean and interval. A limit above zero never appears as -0.0, nor one
            below zero as +0.0.
    """
    if not verdicts:
        return ""
    percent = f"{100 * verdicts[0]['confidence']:g} %"
    units = [v.get("unit", "") for v in verdicts]  # older records do not say
    shared = units[0] if len(set(units)) == 1 else ""
    difference = f"mean difference in {shared}" if shared else "mean difference"
    origins = [v["origin"] for v in verdicts]
    families = " and ".join(
        f"{origins.count(origin)} {text}"
        for origin, text in (("paper", "of the paper"), ("beyond", "beyond it"))
        if origin in origins
    )
    rows = []
    for v, unit in zip(verdicts, units, strict=True):
        claim = v["claim"]
        if v["kind"] == "not below":
            claim += f" (margin {v['negligible'] or 0:g})"
        verdict = f"**{v['verdict']}**"
        if v["verdict"] == "negligible":
            verdict += f" (less than {v['negligible']:g})"
        own = f" {unit}" if unit and not shared else ""
        mean = "–" if v["mean"] is None else f"{v['mean']:+.{digits}f}"
        if v["untested"]:
            evidence, p = f"{mean}{own if v['mean'] is not None else ''} ({v['untested']})", "–"
        else:
            low, high = v["interval"]
            evidence = f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}]{own}"
            p = "< 0.001" if v["p_holm"] < 0.001 else f"{v['p_holm']:.3f}"
        rows.append([claim, v["origin"], verdict, str(v["seeds"]), evidence, p])
    evidence = f"{difference} [{percent} interval, uncorrected]"
    head = ["claim", "origin", "verdict", "seeds", evidence, f"p, corrected (Holm) for {families}"]
    return "\n".join(table(head, rows)) + "\n"
