"""What Figs. 3 and 4 share: classifiers under attacks of growing size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gat_tf import attacks
from gat_tf.experiments import measuring
from gat_tf.experiments.lab.config import option, run_option
from gat_tf.experiments.lab.tables import by_dataset, cell, plus_minus, spread
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import Claim
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INF = float("inf")
ATTACKS = {
    "fg_l2": "fast gradient, L2, not clipped (the paper's attack)",
    "pgd_l2": "PGD, L2, clipped to [0, 1]",
    "pgd_linf": "PGD, L∞, clipped to [0, 1]",
    "fg_l2_direct": "fast gradient, L2, direct",
}
PAPER_RIVALS = ("baseline", "fg_linf")  # FG training by the sign, as section 4.3 has it
_COLUMNS = 7  # of a table, of the curve's points


@dataclasses.dataclass(frozen=True)
class Config(measuring.Config):
    """Settings of Figs. 3 and 4; the defaults are the paper's, or ours where it has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the networks of Table 2's paper preset",
        "full": "those of its full preset, 2,000 test images, hours on two cores",
        "reduced": "those of its reduced preset, 2,000 test images, an hour on two cores",
        "quick": "those of its quick preset, built-in images, minutes on two cores",
    }

    methods: tuple[str, ...] = run_option(
        ("baseline", "fg_linf", "fg_l2", "gat"), "Methods of training (ours).", choices=METHODS
    )
    fg_epsilons: tuple[float, ...] = option(
        (*(n / 20 for n in range(11)), 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 2.5, 3.0),
        "Sizes ε of the fast gradient in L2, rising (ours).",
        rising=True,
    )
    pgd_l2_epsilons: tuple[float, ...] = option(
        (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5),
        "Radii ε of PGD in L2, rising (ours).",
        rising=True,
    )
    pgd_linf_epsilons: tuple[float, ...] = option(
        tuple(n / 255 for n in (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)),
        "Radii ε of PGD in L∞, rising (ours).",
        rising=True,
    )
    pgd_steps: int = option(20, "Number of PGD steps (ours).")
    pgd_restarts: int = option(5, "Number of random starts of PGD (ours).")

    def attacks(self) -> dict[str, tuple[attacks.Attack, tuple[float, ...]]]:
        """Name to attack and ε. Images are clipped under PGD, and not under the paper's attack."""
        steps, restarts = self.pgd_steps, self.pgd_restarts
        return {
            "fg_l2": (attacks.FastGradient(1.0, 2, clip=None), self.fg_epsilons),
            "pgd_l2": (attacks.PGD(1.0, 2, steps, restarts=restarts), self.pgd_l2_epsilons),
            "pgd_linf": (attacks.PGD(1.0, INF, steps, restarts=restarts), self.pgd_linf_epsilons),
        }


_FEW: dict[str, Any] = {
    "test_size": 2_000,
    "pgd_l2_epsilons": (0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    "pgd_linf_epsilons": tuple(n / 255 for n in (0, 0.5, 1, 2, 3, 4, 6)),
}
PRESETS = Config.presets(
    measuring.PRESETS,
    full=_FEW,
    reduced=_FEW,
    quick={
        "test_size": 200,
        "pgd_l2_epsilons": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5),
        "pgd_linf_epsilons": tuple(n / 255 for n in (0, 1, 2, 3, 4, 6, 8)),
        "pgd_restarts": 2,
    },
)


def as_curve(epsilons: Sequence[float], accuracies: Sequence[float] | np.ndarray) -> dict:
    """A curve in the form stored in the results."""
    return {"epsilons": list(epsilons), "accuracy": [float(a) for a in accuracies]}


def of(units: list[dict], method: str, attack: str) -> dict[int, dict]:
    """Seed to curve."""
    return {
        u["seed"]: u["curves"][method][attack]
        for u in units
        if attack in u["curves"].get(method, {})
    }


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> attack -> method -> epsilons; mean and std of the accuracy in % at each, std
        None with one seed; seeds.
    """
    return {
        dataset: {
            attack: {
                method: _mean_curve(found)
                for method in METHODS
                if (found := of(ours, method, attack))
            }
            for attack in ATTACKS
            if any(attack in curves for u in ours for curves in u["curves"].values())
        }
        for dataset, ours in by_dataset(units).items()
    }


def _mean_curve(curves: dict[int, dict]) -> dict:
    return {
        "epsilons": next(iter(curves.values()))["epsilons"],
        **spread([100 * np.array(c["accuracy"]) for c in curves.values()]),
        "seeds": sorted(curves),
    }


def rivals(units: list[dict]) -> list[str]:
    """The methods that GAT is compared with."""
    return [m for m in METHODS if m not in ("gat", "dropout_gat") and of(units, m, "fg_l2")]


def claim(
    text: str, units: list[dict], attack: str, rival: str, value: Callable, origin: str
) -> Claim:
    """The claim that GAT's value of a curve is above another method's, seed by seed.

    Args:
        text: The claim.
        units: Of one data set.
        attack: A key of `ATTACKS`.
        rival: The other method.
        value: Curve to accuracy in %.
        origin: "paper" or "beyond".
    """
    ours, theirs = ({s: value(c) for s, c in of(units, m, attack).items()} for m in ("gat", rival))
    return measuring.above(text, units, ours, theirs, origin)


def robustness_claims(kind: str, units: list[dict]) -> list[Claim]:
    """The claims that GAT is more robust than each other method under each attack.

    Robustness is the mean height of the curve from its first ε above 0 to 1, so that the clean
    accuracy does not count.
    """
    if not of(units, "gat", "fg_l2"):
        return []
    return [
        claim(
            f"{kind} {about.partition(' (')[0]}: GAT above {METHODS[rival].title}",
            units, attack, rival, mean_height,
            "paper" if attack == "fg_l2" and rival in PAPER_RIVALS else "beyond",
        )
        for attack, about in list(ATTACKS.items())[:3]
        for rival in rivals(units)
        if of(units, rival, attack) and of(units, "gat", attack)
    ]  # fmt: skip


def clean(curve: dict) -> float:
    """Accuracy in % at the first ε."""
    return 100 * curve["accuracy"][0]


def mean_height(curve: dict) -> float:
    """Mean accuracy in % from the first ε above 0 to 1, by the trapezoidal rule.

    If no ε is up to 1, the mean is over all ε above 0; without any it is NaN.
    """
    begin = int(curve["epsilons"][0] == 0)
    if begin == len(curve["epsilons"]):
        return np.nan
    epsilons, accuracies = _up_to_one({name: values[begin:] for name, values in curve.items()})
    if len(epsilons) < 2:
        return float(accuracies.mean())
    return float(np.trapezoid(accuracies, epsilons) / (epsilons[-1] - epsilons[0]))


def fall(curve: dict) -> float:
    """Points lost between the first ε and 1."""
    _, accuracies = _up_to_one(curve)
    return float(accuracies[0] - accuracies[-1])


def _up_to_one(curve: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    epsilons = np.array(curve["epsilons"])
    within = (epsilons <= 1) | (epsilons[0] > 1)  # all of a curve that begins beyond
    return epsilons[within], 100 * np.array(curve["accuracy"])[within]


def table(results: dict, kind: str) -> str:
    """Points of the curves and the verdicts as Markdown, by data set.

    Args:
        results: Of Fig. 3 or 4.
        kind: "direct" or "indirect".
    """
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
                *markdown(
                    ["training", *(f"ε = {name}" for name in names)],
                    [_cells(m, row, chosen, len(first["seeds"])) for m, row in by_method.items()],
                ),
                "",
            ]
        lines += _source(results, dataset)
        lines += [verdicts_markdown(results["verdicts"][dataset])]
    return "\n".join(lines)


def _cells(method: str, row: dict, chosen: list[int], most_seeds: int) -> list[str]:
    seeds, std = len(row["seeds"]), row["std"]
    few = f" ({seeds} seeds)" if seeds != most_seeds else ""
    accuracies = [cell(row["mean"][i], std[i] if std else None) for i in chosen]
    return [f"{METHODS[method].title}{few}", *accuracies]


def _source(results: dict, dataset: str) -> list[str]:
    """The accuracy of the attacked baseline of Fig. 4."""
    curves = of([u for u in results["units"] if u["dataset"] == dataset], "source", "fg_l2")
    if not curves:
        return []
    without = plus_minus([clean(curve) for curve in curves.values()])
    last = plus_minus([100 * curve["accuracy"][-1] for curve in curves.values()])
    epsilon = next(iter(curves.values()))["epsilons"][-1]
    return [
        f"The other baseline, whose gradients these are: {without} % clean, {last} % under its own "
        f"fast gradient at ε = {epsilon:g}.",
        "",
    ]


def _chosen(length: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, length - 1, min(_COLUMNS, length))})


def _epsilon(value: float, attack: str) -> str:
    return f"{255 * value:.3g}/255" if attack.endswith("linf") and value else f"{value:.3g}"


def figure(results: dict, kind: str) -> Figure:
    """Draws one panel per attack, one line per method and one row per data set."""
    from gat_tf.plotting import Line, Mark, Panel, curves, looks

    titles = {name: METHODS[name].title for name in METHODS}
    found = looks(titles.values())

    def panel(dataset, attack, by_method):
        linf = attack.endswith("linf")
        marks = [
            Mark(x=0, y=METHODS[m].paper[dataset][0], look={"color": found[titles[m]]["color"]},
                 label="clean, the paper's (full size)" if m == "baseline" else None)
            for m in by_method
            if attack == "fg_l2" and dataset in METHODS[m].paper
        ]  # fmt: skip
        return Panel(
            f"{dataset}, {kind}:\n{ATTACKS[attack].partition(' (')[0]}",
            [
                Line(c["epsilons"], c["mean"], c["std"], titles[m], found[titles[m]])
                for m, c in by_method.items()
            ],
            xlabel="ε in L∞, of 255" if linf else "ε in L2 (pixels in [0, 1])",
            ylabel="accuracy, %" if attack == "fg_l2" else "",
            ylim_bottom=0,
            x_255=linf,
            marks=marks,
        )

    rows = [
        [panel(dataset, attack, by_attack[attack]) for attack in list(ATTACKS)[:3]]
        for dataset, by_attack in results["summary"].items()
    ]
    return curves(rows)
