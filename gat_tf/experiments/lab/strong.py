"""What strong evaluations of several classifiers have in common: rows of tables and figures.

A unit is what `gat_tf.evaluation.robustness` returns, and which classifier and seed it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gat_tf.experiments.lab.tables import plus_minus, spread
from gat_tf.experiments.lab.tables import table as markdown


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
    accuracies = np.zeros([len(curves), len(epsilons)])
    for of_seed, c in zip(accuracies, curves, strict=True):
        of_seed[: len(c["accuracy"])] = 100 * np.array(c["accuracy"])
    return {"epsilons": epsilons, **spread(accuracies)}


def worst_case(row: dict) -> dict[int, float]:
    """The worst-case accuracies of a row in %, by seed."""
    return dict(zip(row["seeds"], row["accuracy"]["worst case"], strict=True))


def described(ball: str, images: int, hard_label_images: int, seeds: int) -> str:
    """The sentence above a table: what is in it."""
    return (
        f"{ball}: robust accuracy in % on {images} test images, mean ± standard deviation over "
        f"{seeds} seed(s); from APGD-CE to Square the composition, each on what withstood those "
        f"before; HopSkipJump on the first {min(hard_label_images, images)} images"
    )


def table(rows: Mapping[str, dict], titles: Mapping[str, str], heading: str) -> list[str]:
    """Rows under each attack, and the checks that failed, as lines of Markdown.

    Args:
        rows: Name of a classifier to its row.
        titles: Name to what the table calls it.
        heading: Of the column of titles.
    """
    seeds = most_seeds(rows)
    cells = []
    for name, found in rows.items():
        few = f" ({len(found['seeds'])} seed(s))" if len(found["seeds"]) != seeds else ""
        *others, worst = (plus_minus(values) for values in found["accuracy"].values())
        cells.append([f"{titles[name]}{few}", *others, f"**{worst}**"])
    head = [heading, *next(iter(rows.values()))["accuracy"]]
    return [*markdown(head, cells), "", _checks(rows, titles), ""]


def most_seeds(rows: Mapping[str, dict]) -> int:
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


def panel(title: str, rows: Mapping[str, dict], titles: Mapping[str, str], pgd_steps: int) -> Any:
    """A panel of a dot chart: each classifier clean, under some attacks and in the worst case.

    Args:
        title: Of the panel.
        rows: Name of a classifier to its row, empty where there is none.
        titles: Name to what the panel calls it.
        pgd_steps: Number of steps of the evaluation's longer PGD.
    """
    from gat_tf.plotting import Dots, Series

    few = f"PGD-{min(20, pgd_steps)}"
    series = [
        Series(
            attack,
            [found["accuracy"].get(attack, []) if found else [] for found in rows.values()],
            bars=attack == "worst case",
            look={"fillstyle": "none", "markersize": 6} if attack == "clean" else {},
        )
        for attack in ("clean", f"{few}, transferred", "fast gradient", few, "worst case")
    ]
    return Dots(title, [titles[n] for n in rows], series, xlabel="accuracy, %", xlim_left=0)
