"""The robustness of Table 2's classifiers: methods against attacks, verdicts and figures."""

from __future__ import annotations

import time

import numpy as np

from gat_tf.experiments import config as configs
from gat_tf.experiments.methods import METHODS, PGD_TITLE
from gat_tf.experiments.reports import common

TITLES = {**{name: method.title for name, method in METHODS.items()}, "pgd": PGD_TITLE}
_LEFT_OUT = ("standing", "fooled_at")  # of the results: they stay in units/


def write(runner) -> dict:
    """Merges the units of a runner's folder into its results, tables and figures."""
    units = common.read_all(runner.output_dir / "units")
    results = {
        "experiment": "gat_robustness",
        "config": configs.identity(runner.config),
        "table2_config": configs.identity(runner.classifiers.config),
        "wall_seconds": time.time() - runner.started,
        "summary": summarise(units),
        "verdicts": verdicts(units),
        "units": [_without_images(u) for u in units],
    }
    return common.write(results, runner.output_dir, markdown(results), figures())


def _without_images(value):
    """A unit without what it holds of each image."""
    if isinstance(value, dict):
        return {k: _without_images(v) for k, v in value.items() if k not in _LEFT_OUT}
    return [_without_images(v) for v in value] if isinstance(value, list) else value


def summarise(units: list[dict]) -> dict:
    """Accuracies by data set, ball and method.

    Returns:
        data set -> ball, such as "Linf 0.0313725" -> method -> seeds; accuracies in %, a list over
        seeds for "clean", each attack and "worst case"; curve: epsilons, mean and std of the
        accuracy in % under PGD; checks; failed: those checks that failed, with how often.
    """
    summary = {}
    for dataset in dict.fromkeys(u["dataset"] for u in units):
        balls = {
            _ball(u): None for u in sorted(units, key=lambda u: (u["norm"] == "L2", u["epsilon"]))
        }
        summary[dataset] = {
            ball: {
                method: _row(ours)
                for method in TITLES
                if (ours := _of(units, dataset, ball, method))
            }
            for ball in balls
        }
    return summary


def _of(units, dataset, ball, method) -> list[dict]:
    found = [u for u in units if (u["dataset"], _ball(u), u["method"]) == (dataset, ball, method)]
    return sorted(found, key=lambda u: u["seed"])


def _ball(unit) -> str:
    return f"{unit['norm']} {unit['epsilon']:.6g}"


def _row(units: list[dict]) -> dict:
    failed = [c["check"] for u in units for c in u["checks"] if not c["passed"]]
    return {
        "seeds": [u["seed"] for u in units],
        "accuracy": {
            "clean": [100 * u["clean_accuracy"] for u in units],
            **{
                row["name"]: [100 * u["attacks"][i]["accuracy"] for u in units]
                for i, row in enumerate(units[0]["attacks"])
            },
            "worst case": [100 * u["worst_case_accuracy"] for u in units],
        },
        "curve": _curve([u["curve"] for u in units]),
        "checks": sum(len(u["checks"]) for u in units),
        "failed": {check: failed.count(check) for check in dict.fromkeys(failed)},
    }


def _curve(curves: list[dict]) -> dict:
    """Mean and deviation; beyond the ε at which nothing stands, nothing stands."""
    epsilons = max((c["epsilons"] for c in curves), key=len)
    accuracies = np.zeros([len(curves), len(epsilons)])
    for row, c in zip(accuracies, curves, strict=True):
        row[: len(c["accuracy"])] = 100 * np.array(c["accuracy"])
    several = len(curves) > 1
    return {
        "epsilons": epsilons,
        "mean": accuracies.mean(axis=0).tolist(),
        "std": accuracies.std(axis=0, ddof=1).tolist() if several else None,
    }


def verdicts(units: list[dict]) -> dict:
    """By data set: is GAT, in the worst case over all attacks, above each other method?"""
    return {
        dataset: [
            common.verdict(f"{_readable(ball)}, worst case: {TITLES[high]} above {TITLES[low]}", d)
            for ball, rows in balls.items()
            for high, low in _pairs(rows)
            if (d := _differences(units, dataset, ball, high, low))
        ]
        for dataset, balls in summarise(units).items()
    }


def _pairs(rows) -> list[tuple[str, str]]:
    pairs = [("gat", m) for m in ("baseline", "dropout", "random", "fg_linf", "fg_l2")]
    return [(a, b) for a, b in [*pairs, ("pgd", "gat")] if a in rows and b in rows]


def _differences(units, dataset, ball, high, low) -> list[float]:
    worst = [
        {u["seed"]: 100 * u["worst_case_accuracy"] for u in _of(units, dataset, ball, method)}
        for method in (high, low)
    ]
    return [worst[0][s] - worst[1][s] for s in sorted(worst[0].keys() & worst[1].keys())]


def _readable(ball: str) -> str:
    norm, epsilon = ball.split()
    if norm == "L2":
        return f"L2, ε = {epsilon}"
    return f"L∞, ε = {255 * float(epsilon):.3g}/255"


def markdown(results: dict) -> str:
    """For each ball methods against attacks; the checks that failed; the verdicts."""
    config = results["config"]
    lines = []
    for dataset, balls in results["summary"].items():
        ours = [u for u in results["units"] if u["dataset"] == dataset]
        for ball, rows in balls.items():
            columns = next(iter(rows.values()))["accuracy"]
            seeds = max(len(row["seeds"]) for row in rows.values())
            lines += [
                f"**{dataset}**, {_readable(ball)}: accuracy in % on {ours[0]['images']} test "
                f"images, mean ± standard deviation over {seeds} seed(s); from APGD-CE to Square "
                f"the composition, each on what stood those before; HopSkipJump on the first "
                f"{min(config['hard_label_images'], ours[0]['images'])} images",
                "",
                f"| training | {' | '.join(columns)} |",
                f"|{'---|' * (1 + len(columns))}",
            ]
            for method, row in rows.items():
                few = f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) != seeds else ""
                cells = [common.plus_minus(values) for values in row["accuracy"].values()]
                cells[-1] = f"**{cells[-1]}**"
                lines.append(f"| {TITLES[method]}{few} | {' | '.join(cells)} |")
            lines += ["", _checks(rows), ""]
        lines.append(common.verdicts_markdown(results["verdicts"][dataset]))
    return "\n".join(lines)


def _checks(rows: dict) -> str:
    count = sum(row["checks"] for row in rows.values())
    failed = [
        f"{check} ({TITLES[method]}, {times} of {len(row['seeds'])} seeds)"
        for method, row in rows.items()
        for check, times in row["failed"].items()
    ]
    if not failed:
        return f"None of {count} checks for masked gradients failed."
    return f"Of {count} checks for masked gradients these failed: {'; '.join(failed)}."


def figures() -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    def attacked(results):
        balls = {
            f"{dataset}, {_readable(ball)}": {
                TITLES[method]: row["accuracy"] for method, row in rows.items()
            }
            for dataset, balls in results["summary"].items()
            for ball, rows in balls.items()
        }
        few = f"PGD-{min(20, results['config']['pgd_steps'])}"
        shown = ["clean", f"{few}, transferred", "fast gradient", few, "worst case"]
        return plotting.attacked(balls, shown)

    def curves(results):
        panels = {}
        for dataset, balls in results["summary"].items():
            for ball, rows in balls.items():
                norm = _readable(ball).split(",")[0]
                # Of each norm the first ball: the others' curves are the same at other ε.
                panels.setdefault(
                    f"{dataset}, PGD in {norm}",
                    {TITLES[method]: row["curve"] for method, row in rows.items()},
                )
        return plotting.epsilon_curves(panels)

    return {"gat_robustness": attacked, "gat_robustness_curves": curves}
