"""The report of a robustness evaluation: tables, checks and figures."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np

from gat_tf.evaluation.robustness import Budget
from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import common

_WORST = 10  # images shown
_BUDGET = tuple(f.name for f in dataclasses.fields(Budget))


def write(config, result: dict, images, labels, output_dir, wall_seconds: float) -> dict:
    """Writes results, report and figures of an evaluation."""
    units = common.read_all(output_dir / "units")
    results = {
        "experiment": "robustness",
        "config": configs.identity(config),
        "wall_seconds": wall_seconds,
        **result,
        "worst": _worst(result, images, labels),
        "units": [{"environment": unit["environment"]} for unit in units[:1]],
    }
    return common.write(results, output_dir, markdown(results), figures())


def _worst(result, images, labels) -> list[dict]:
    """The images fooled at the smallest ε, of those that are right without an attack."""
    if result["curve"] is None:
        return []
    fooled_at = [(e, i) for i, e in enumerate(result["curve"]["fooled_at"]) if e]
    low, high = result["bounds"]
    found = []
    for epsilon, i in sorted(fooled_at)[:_WORST]:
        pixels = np.round(255 * (images[i] - low) / (high - low)).astype(np.uint8)
        found.append(
            {
                "image": i,
                "label": int(labels[i]),
                "epsilon": epsilon,
                "shape": list(pixels.shape),
                "pixels": base64.b64encode(pixels.tobytes()).decode(),
            }
        )
    return found


def markdown(results: dict) -> str:
    """The table of attacks and the checks, the worst first."""
    low, high = results["bounds"]
    lines = [
        f"**{results['config']['model']}** on {results['images']} images of "
        f"{results['config']['dataset']}, {results['norm']} ball of ε = {results['epsilon']:.4g} "
        f"on pixels in [{low:g}, {high:g}]: {results['clean_accuracy']:.1%} clean, "
        f"**{results['worst_case_accuracy']:.1%} in the worst case over all attacks**",
        "",
        "| attack | images attacked | stands | model evaluations | gradients | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["attacks"]:
        inside = " (on what stood the rest of AutoAttack so far)"
        if row["name"] not in results["composition"][1:]:
            inside = ""
        if row["name"] == "HopSkipJump":
            tried = min(results["config"]["hard_label_images"], results["images"])
            inside = f" (of the first {tried} images)"
        lines.append(
            f"| {row['name']}{inside} | {row['attacked']} | {row['accuracy']:.1%} | "
            f"{row['evaluations']:,} | {row['gradients']:,} | {row['seconds']:.1f} |"
        )
    config = results["config"]
    budget = ", ".join(f"{name} {config[name]}" for name in _BUDGET)
    lines += ["", f"Seed {config['seed']}; {budget}."]
    failed = [c for c in results["checks"] if not c["passed"]]
    lines += [
        "",
        f"{len(failed)} of {len(results['checks'])} checks for masked gradients failed: the "
        "accuracies above may be too high."
        if failed
        else f"All {len(results['checks'])} checks for masked gradients passed.",
        "",
        "| check | | evidence |",
        "|---|---|---|",
        *(
            f"| {c['check']} | {'passed' if c['passed'] else '**failed**'} | {c['evidence']} |"
            for c in sorted(results["checks"], key=lambda c: c["passed"])
        ),
        "",
    ]
    return "\n".join(lines)


def figures() -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    return {"robustness": plotting.evaluation}
