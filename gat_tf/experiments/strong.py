"""What strong evaluations of several classifiers have in common: summary, claims, tables, figure.

A unit is what `gat_tf.evaluation.robustness` returns, and which classifier and seed it is of.
`titles` is what tables and figures call each classifier, in their order; `readable` gives a ball
the name that people read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from gat_tf.experiments.lab.tables import by_dataset, plus_minus, spread
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import Claim
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import above

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rows(
    units: list[dict], ball: Callable[[dict], str], key: str, names: Iterable[str]
) -> dict[str, dict[str, dict]]:
    """The summary of a data set: ball -> name of a classifier -> its `row`.

    Args:
        units: Of the data set, in the order of their balls.
        ball: Unit to the name of its ball.
        key: That of the classifier's name in a unit.
        names: Of the classifiers, in the order of the rows.
    """
    return {
        where: {
            name: row(sorted(found, key=lambda u: u["seed"]))
            for name in names
            if (found := [u for u in units if (ball(u), u[key]) == (where, name)])
        }
        for where in dict.fromkeys(map(ball, units))
    }


def row(units: list[dict]) -> dict:
    """The units of a classifier, one for each seed, as a row of a summary.

    Returns:
        seeds; accuracy: "clean", each attack and "worst case" to a list over seeds, in %; curve:
        epsilons, mean and std of the accuracy in % under PGD; checks: how many; failed: those that
        failed, with how often.
    """
    failed = [c["check"] for u in units for c in u["checks"] if not c["passed"]]
    return {
        "seeds": [u["seed"] for u in units],
        "accuracy": {
            "clean": [100 * u["clean_accuracy"] for u in units],
            **{
                attack["name"]: [100 * u["attacks"][i]["accuracy"] for u in units]
                for i, attack in enumerate(units[0]["attacks"])
            },
            "worst case": [100 * u["worst_case_accuracy"] for u in units],
        },
        "curve": mean_curve([u["curve"] for u in units]),
        "checks": sum(len(u["checks"]) for u in units),
        "failed": {check: failed.count(check) for check in dict.fromkeys(failed)},
    }


def mean_curve(curves: list[dict]) -> dict:
    """Mean and deviation; beyond the ε at which no image withstands PGD, none does."""
    epsilons = max((c["epsilons"] for c in curves), key=len)
    by_epsilon = itertools.zip_longest(*(c["accuracy"] for c in curves), fillvalue=0.0)
    return {"epsilons": epsilons, **spread(100 * np.transpose(list(by_epsilon)))}


def worst_case(row: dict) -> dict[int, float]:
    """The worst-case accuracies of a row in %, by seed."""
    return dict(zip(row["seeds"], row["accuracy"]["worst case"], strict=True))


def claims(
    units: list[dict],
    balls: Mapping[str, Mapping[str, dict]],
    titles: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
    readable: Callable[[str], str],
) -> list[Claim]:
    """The claims that the first of a pair is above the second in the worst case over all attacks.

    Args:
        units: Of one data set.
        balls: Their `rows`.
        titles: See above.
        pairs: Of classifiers.
        readable: See above.
    """
    tested = [{**u, "test_images": u["images"]} for u in units]
    return [
        above(
            f"{readable(ball)}, worst case: {titles[better]} above {titles[worse]}",
            tested, worst_case(found[better]), worst_case(found[worse]), "beyond",
        )
        for ball, found in balls.items()
        for better, worse in pairs
        if better in found and worse in found
    ]  # fmt: skip


def tables(
    results: dict,
    units: list[dict],
    titles: Mapping[str, str],
    heading: str,
    readable: Callable[[str], str],
) -> str:
    """A table for each ball, and the verdicts on each data set, as Markdown."""
    lines = []
    for dataset, balls in results["summary"].items():
        images = by_dataset(units)[dataset][0]["images"]
        tried = min(results["config"]["hard_label_images"], images)
        for ball, found in balls.items():
            lines += [
                f"**{dataset}**, {readable(ball)}: robust accuracy in % on {images} test images, "
                f"mean ± standard deviation over {_most_seeds(found)} seed(s); from APGD-CE to "
                "Square the composition, each on what withstood those before; HopSkipJump on the "
                f"first {tried} images",
                "",
                *table(found, titles, heading),
            ]
        lines.append(verdicts_markdown(results["verdicts"][dataset]))
    return "\n".join(lines)


def table(rows: Mapping[str, dict], titles: Mapping[str, str], heading: str) -> list[str]:
    """Rows under each attack, and the checks that failed, as lines of Markdown."""
    seeds = _most_seeds(rows)
    cells = []
    for name, found in rows.items():
        few = f" ({len(found['seeds'])} seed(s))" if len(found["seeds"]) != seeds else ""
        *others, worst = (plus_minus(values) for values in found["accuracy"].values())
        cells.append([f"{titles[name]}{few}", *others, f"**{worst}**"])
    head = [heading, *next(iter(rows.values()))["accuracy"]]
    return [*markdown(head, cells), "", _checks(rows, titles), ""]


def _most_seeds(rows: Mapping[str, dict]) -> int:
    return max(len(found["seeds"]) for found in rows.values())


def _checks(rows: Mapping[str, dict], titles: Mapping[str, str]) -> str:
    count = sum(found["checks"] for found in rows.values())
    failed = [
        f"{check} ({titles[name]}, {times} of {len(found['seeds'])} seeds)"
        for name, found in rows.items()
        for check, times in found["failed"].items()
    ]
    if not failed:
        return f"None of {count} checks for masked gradients failed."
    return f"Of {count} checks for masked gradients these failed: {'; '.join(failed)}."


def figure(results: dict, titles: Mapping[str, str], readable: Callable[[str], str]) -> Figure:
    """Draws a panel for each ball: every classifier clean, under attacks and in the worst case."""
    from gat_tf.plotting import Dots, Series, dots

    few = f"PGD-{min(20, results['config']['pgd_steps'])}"
    panels = []
    for dataset, balls in results["summary"].items():
        names = [name for name in titles if any(name in rows for rows in balls.values())]
        for ball, rows in balls.items():
            found = [rows[name]["accuracy"] if name in rows else {} for name in names]
            series = [
                Series(
                    attack,
                    [accuracy.get(attack, []) for accuracy in found],
                    bars=attack == "worst case",
                    look={"fillstyle": "none", "markersize": 6} if attack == "clean" else {},
                )
                for attack in ("clean", f"{few}, transferred", "fast gradient", few, "worst case")
            ]
            title = f"{dataset}, {readable(ball)}"
            shown = [titles[name] for name in names]
            panels.append(Dots(title, shown, series, xlabel="accuracy, %", xlim_left=0))
    return dots(panels, legend_columns=5)
