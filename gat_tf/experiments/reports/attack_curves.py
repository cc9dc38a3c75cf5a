"""Figs. 3 and 4: tables, verdicts and figures."""

from __future__ import annotations

import time

import numpy as np

from gat_tf.experiments import config as configs
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.reports import common

ATTACKS = {
    "fg_l2": "fast gradient, L2, not clipped (the paper's attack)",
    "pgd_l2": "PGD, L2, clipped to [0, 1]",
    "pgd_linf": "PGD, L∞, clipped to [0, 1]",
    "fg_l2_direct": "fast gradient, L2, direct",
}
_KIND = {"fig3": "direct", "fig4": "indirect"}
_COLUMNS = 7  # of a table, of the curve's points


def write(runner) -> dict:
    """Merges the units of a runner's folder into its results, table and figures."""
    experiment, units = runner.experiment, common.read_all(runner.output_dir / "units")
    results = {
        "experiment": experiment,
        "config": configs.identity(runner.config),
        "table2_config": configs.identity(runner.classifiers.config),
        "wall_seconds": time.time() - runner.started,
        "summary": summarise(units),
        "verdicts": verdicts(experiment, units),
        "units": units,
    }
    return common.write(results, runner.output_dir, markdown(results), figures(experiment))


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> attack -> method -> epsilons; mean and std of the accuracy in % at each, std
        None with one seed; seeds.
    """
    summary = {}
    for dataset in dict.fromkeys(u["dataset"] for u in units):
        ours = [u for u in units if u["dataset"] == dataset]
        summary[dataset] = {
            attack: {
                method: _spread(found)
                for method in METHODS
                if (found := _curves(ours, method, attack))
            }
            for attack in ATTACKS
            if any(attack in curves for u in ours for curves in u["curves"].values())
        }
    return summary


def _curves(units, method, attack) -> dict[int, dict]:
    """Seed to curve."""
    return {
        u["seed"]: u["curves"][method][attack]
        for u in units
        if attack in u["curves"].get(method, {})
    }


def _spread(curves: dict[int, dict]) -> dict:
    accuracies = np.array([100 * np.array(c["accuracy"]) for c in curves.values()])
    return {
        "epsilons": next(iter(curves.values()))["epsilons"],
        "mean": accuracies.mean(axis=0).tolist(),
        "std": accuracies.std(axis=0, ddof=1).tolist() if len(accuracies) > 1 else None,
        "seeds": sorted(curves),
    }


def verdicts(experiment: str, units: list[dict]) -> dict:
    """The paper's claims, and the same under PGD, by data set; computed from the curves.

    The robustness to an attack is the mean of its curve from its first ε to 1, or to its last ε if
    that is smaller. Differences are taken seed by seed.
    """
    return {
        dataset: _claims(experiment, [u for u in units if u["dataset"] == dataset])
        for dataset in dict.fromkeys(u["dataset"] for u in units)
    }


def _claims(experiment, units) -> list[dict]:
    titles = {name: method.title for name, method in METHODS.items()}
    rivals = [method for method in ("baseline", "fg_l2", "fg_linf") if _seeds(units, method)]

    def gains(attack, value, rival):
        """value(curve) of GAT less that of the rival, seed by seed."""
        gat, others = (_curves(units, method, attack) for method in ("gat", rival))
        return [value(gat[s]) - value(others[s]) for s in sorted(gat.keys() & others.keys())]

    claims = []
    begins = {curve["epsilons"][0] for curve in _curves(units, "gat", "fg_l2").values()}
    if experiment == "fig3" and begins == {0}:
        claims += [
            (f"Clean accuracy: GAT above {titles[rival]} (paper)", gains("fg_l2", _clean, rival))
            for rival in rivals
        ]
    for attack, about in list(ATTACKS.items())[:3]:
        name = f"{_KIND[experiment].capitalize()} {about.partition(' (')[0]}"
        claims += [
            (
                f"{name}: GAT above {titles[rival]} ({_origin(attack, rival)})",
                gains(attack, _mean_height, rival),
            )
            for rival in rivals
        ]
    for method in ("baseline", "gat"):
        direct, indirect = (_curves(units, method, name) for name in ("fg_l2_direct", "fg_l2"))
        claim = f"{titles[method]}: accuracy falls more slowly than under the direct attack"
        claims.append((claim, [_fall(direct[s]) - _fall(indirect[s]) for s in sorted(direct)]))
    return [common.verdict(claim, values) for claim, values in claims if values]


def _origin(attack, rival) -> str:
    """Whether the claim is the paper's, whose rivals are the baseline and FG sign training."""
    return "paper" if attack == "fg_l2" and rival != "fg_l2" else "beyond"


def _seeds(units, method) -> list[int]:
    return sorted(_curves(units, method, "fg_l2"))


def _clean(curve) -> float:
    """Accuracy in % at the first ε."""
    return 100 * curve["accuracy"][0]


def _up_to_one(curve) -> tuple[np.ndarray, np.ndarray]:
    epsilons = np.array(curve["epsilons"])
    within = (epsilons <= 1) | (epsilons[0] > 1)  # all of a curve that begins beyond
    return epsilons[within], 100 * np.array(curve["accuracy"])[within]


def _mean_height(curve) -> float:
    """Mean accuracy in % between the first ε and 1, by the trapezoidal rule."""
    epsilons, accuracies = _up_to_one(curve)
    if len(epsilons) < 2:
        return float(accuracies.mean())
    return float(np.trapezoid(accuracies, epsilons) / (epsilons[-1] - epsilons[0]))


def _fall(curve) -> float:
    """Points lost between the first ε and 1."""
    _, accuracies = _up_to_one(curve)
    return float(accuracies[0] - accuracies[-1])


def markdown(results: dict) -> str:
    """Points of the curves and the verdicts as Markdown, by data set."""
    kind = _KIND[results["experiment"]]
    lines = []
    for dataset, by_attack in results["summary"].items():
        images = next(u["test_images"] for u in results["units"] if u["dataset"] == dataset)
        for attack, by_method in by_attack.items():
            first = next(iter(by_method.values()))
            chosen = _chosen(len(first["epsilons"]))
            names = [_epsilon(first["epsilons"][i], attack) for i in chosen]
            lines += [
                f"**{dataset}**, {kind if attack != 'fg_l2_direct' else 'for comparison'}: "
                f"accuracy in % under {ATTACKS[attack]}, on {images} test images, mean ± "
                f"standard deviation over {len(first['seeds'])} seed(s)",
                "",
                f"| training | {' | '.join(f'ε = {name}' for name in names)} |",
                f"|{'---|' * (1 + len(names))}",
            ]
            for method, row in by_method.items():
                cells = [
                    f"{row['mean'][i]:.1f}" + (f" ± {row['std'][i]:.1f}" if row["std"] else "")
                    for i in chosen
                ]
                seeds = len(row["seeds"])
                few = f" ({seeds} seeds)" if seeds != len(first["seeds"]) else ""
                lines.append(f"| {METHODS[method].title}{few} | {' | '.join(cells)} |")
            lines.append("")
        lines += _source(results, dataset)
        lines += [common.verdicts_markdown(results["verdicts"][dataset])]
    return "\n".join(lines)


def _source(results, dataset) -> list[str]:
    """What the attacked baseline of Fig. 4 can do."""
    curves = _curves([u for u in results["units"] if u["dataset"] == dataset], "source", "fg_l2")
    if not curves:
        return []
    clean = common.plus_minus([_clean(curve) for curve in curves.values()])
    last = common.plus_minus([100 * curve["accuracy"][-1] for curve in curves.values()])
    epsilon = next(iter(curves.values()))["epsilons"][-1]
    return [
        f"The other baseline, whose gradients these are: {clean} % clean, {last} % under its own "
        f"fast gradient at ε = {epsilon:g}.",
        "",
    ]


def _chosen(length: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, length - 1, min(_COLUMNS, length))})


def _epsilon(value: float, attack: str) -> str:
    return f"{255 * value:.3g}/255" if attack.endswith("linf") and value else f"{value:.3g}"


def figures(experiment: str) -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    titles = {name: method.title for name, method in METHODS.items()}
    panels = {name: about.partition(" (")[0] for name, about in list(ATTACKS.items())[:3]}

    def draw(results):
        paper = {
            dataset: {m: method.paper[dataset][0] for m, method in METHODS.items()}
            for dataset in results["summary"]
            if dataset in METHODS["baseline"].paper
        }
        return plotting.robustness(results["summary"], titles, panels, paper, _KIND[experiment])

    return {experiment: draw}
