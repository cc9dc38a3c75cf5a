"""Fig. 2 of the GAT paper: is a learned perturbation stronger than the fast gradient's?

    python -m gat_tf.experiments.fig2 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig2 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: at low power, a generator trained by eq. 9 against a baseline (77 % on CIFAR-10,
44 % on CIFAR-100) fools more images than the fast gradient of the same power. The power is the mean
of ‖η‖₂² over the test images; c_g sets it.

With `--method=gat` the generators are trained against GAT's finished networks, or those of any
other method: the adaptive attack that a defence with a learned adversary must withstand.

A unit of work is one data set, c_g and seed: a generator trained against Table 2's network of that
seed, and its results and those of other attacks on the test images.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import numpy as np

from gat_tf.experiments import measuring
from gat_tf.experiments.generators import Runner, trainings
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.config import option, run_option
from gat_tf.experiments.lab.tables import by_dataset, cell, mean_and_std
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import above
from gat_tf.experiments.methods import METHODS

NAME = "gat_tf.experiments.fig2"
PAPER_BASELINE = {"cifar10": 77.0, "cifar100": 44.0}  # "approximately", section 4.2
LOW_POWER = 0.1  # up to which the claims are checked (ours): an L2 norm of 0.32
# The attacks compared with the generator, and their names in the table's head.
ATTACKS = {
    "gat": "GAT",
    "fg_l2": "FG L2",
    "fg_linf": "FG L∞",
    "fg_l2_own": "FG L2, own power",
    "fg_linf_own": "FG L∞, own power",
    "pgd_l2": "PGD L2",
}


@dataclasses.dataclass(frozen=True)
class Config(measuring.Config):
    """Settings of Fig. 2; the defaults are the paper's, or ours where the paper has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks and data",
        "full": "the paper's networks and data, two days on two cores with bfloat16",
        "reduced": "Table 2's reduced baselines and generators as narrow, an hour on two cores",
        "quick": "built-in images and small networks, minutes on two cores",
    }

    c_g: tuple[float, ...] = run_option(
        (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30), "Weights of the power in eq. 9 (ours)."
    )
    method: str = option("baseline", "Method whose networks are attacked (paper).", choices=METHODS)
    width: float = option(
        1.0, "Factor on the filters of the generator; 1 is Table 1 (paper).", low=1e-9
    )
    batch_size: int = option(128, "Number of images in a step, over all devices (ours).")
    epochs: int = option(200, "Largest number of epochs (ours).", high=9999)
    patience: int = option(
        20, "Number of epochs without a lower validation loss after which training stops (ours)."
    )
    generator_learning_rate: float = option(
        1e-6, "Learning rate of the generator's Adam optimizer (paper)."
    )
    precision: str = option(
        "float32",
        "Keras dtype policy of the generator's training; auto means mixed_bfloat16 on a CPU that "
        "computes in bfloat16 and float32 elsewhere (ours).",
        check=configs.require_precision,
        before="float32",
    )
    search: bool = option(
        False, "Whether the learning rate is chosen by the validation loss at search_c_g (ours)."
    )
    search_epochs: int = option(200, "Largest number of epochs of a trial (ours).", high=9999)
    search_seed: int = option(1000, "Seed of a trial's generator (ours).", **configs.SEED)
    search_c_g: float = option(1.0, "c_g of the trials (ours).")
    generator_learning_rate_grid: tuple[float, ...] = option(
        (1e-6, 1e-5, 1e-4, 1e-3, 1e-2), "Learning rates that are tried (ours)."
    )
    pgd_steps: int = option(20, "Number of steps of PGD, which the paper does not use (ours).")


PRESETS = Config.presets(
    measuring.PRESETS,
    full={
        "c_g": (0.1, 0.3, 1, 3, 10),
        "test_size": 2_000,
        "epochs": 25,
        "patience": 5,
        # At the paper's 1e-6 as many epochs are too few for the generator to learn.
        "generator_learning_rate": 1e-4,
        "precision": "auto",
    },
    reduced={
        "c_g": (0.1, 0.3, 1, 3, 10, 30),
        "width": 1 / 3,
        "batch_size": 32,
        "epochs": 25,
        "patience": 5,
        "search": True,
        "search_epochs": 10,
    },
    quick={
        "c_g": (0.1, 0.3, 1, 3, 10),
        "width": 1 / 3,
        "batch_size": 25,
        "epochs": 10,
        "patience": 3,
        "generator_learning_rate": 1e-3,
        "search_epochs": 10,
    },
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of Fig. 2, and returns and writes the results.

    Arguments, results and errors are those of `gat_tf.experiments.fig3.run`; the data sets, c_g and
    seeds choose the units.
    """
    precision = configs.settled_precision(config.precision, pathlib.Path(output_dir))
    runner = Runner(NAME, dataclasses.replace(config, precision=precision), output_dir)
    for dataset in runner.datasets:
        runner.train(dataset)
    written = runner.write()
    for dataset in runner.datasets:
        runner.draw_images(dataset, [u for u in written["units"] if _counts(u)])
    return written


def collapsed(unit: dict) -> bool:
    """Whether a generator has collapsed: it fools hardly any image, less than half a point."""
    return unit["clean_accuracy"] - unit["accuracy"]["gat"] < 0.005


def _counts(unit: dict) -> bool:
    """Whether a unit is part of the curves and verdicts."""
    return unit["status"] == "done" and not collapsed(unit)


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds, excluding collapsed generators.

    Returns:
        data set -> a list, sorted by falling c_g, of c_g, seeds, clean_accuracy, power, and
        accuracy and clipped_accuracy by attack. Each is a [mean, std]; accuracies are in %.
    """
    return {
        dataset: [
            _row([u for u in counting if u["c_g"] == c_g])
            for c_g in sorted({u["c_g"] for u in counting}, reverse=True)
        ]
        for dataset, ours in by_dataset(units).items()
        for counting in [[u for u in ours if _counts(u)]]
    }


def _row(units):
    def percent(kind, name):
        return mean_and_std([100 * u[kind][name] for u in units])

    return {
        "c_g": units[0]["c_g"],
        "seeds": [u["seed"] for u in units],
        "test_images": units[0]["test_images"],
        "clean_accuracy": mean_and_std([100 * u["clean_accuracy"] for u in units]),
        "power": mean_and_std([u["power"] for u in units]),
        **{
            kind: {name: percent(kind, name) for name in ATTACKS}
            for kind in ("accuracy", "clipped_accuracy")
        },
    }


def verdicts(units: list[dict]) -> dict:
    """Whether the generator fools more images than other attacks at low power, by data set.

    A seed's difference is the mean over those c_g whose generators count for every seed and have a
    mean power of at most `LOW_POWER`: the same c_g for all seeds.
    """
    return {dataset: decide(_claims(ours)) for dataset, ours in by_dataset(units).items()}


def _claims(units: list[dict]) -> list[Claim]:
    low = _of_low_power(units)
    seeds = sorted({u["seed"] for u in low})
    of_paper = "paper" if "baseline" in units[0]["classifiers"] else "beyond"

    def accuracies(attack: str, kind: str) -> dict[int, float]:
        return {
            seed: float(np.mean([100 * u[kind][attack] for u in low if u["seed"] == seed]))
            for seed in seeds
        }

    asked = [
        ("fg_l2", "", "accuracy", of_paper),
        ("fg_linf", "", "accuracy", of_paper),
        *((name, "", "accuracy", "beyond") for name in ("fg_l2_own", "fg_linf_own", "pgd_l2")),
        ("fg_l2", ", clipped to [0, 1]", "clipped_accuracy", "beyond"),
    ]
    return [
        above(
            f"GAT fools more than {ATTACKS[rival]} at powers up to {LOW_POWER:g}{clipped}",
            low, accuracies(rival, kind), accuracies("gat", kind), origin,
        )
        for rival, clipped, kind, origin in asked
    ]  # fmt: skip


def _of_low_power(units: list[dict]) -> list[dict]:
    """The units of the c_g that the claims are about."""
    seeds = {u["seed"] for u in units}
    low = []
    for c_g in {u["c_g"] for u in units}:
        ours = [u for u in units if u["c_g"] == c_g]
        complete = all(map(_counts, ours)) and {u["seed"] for u in ours} == seeds
        if complete and np.mean([u["power"] for u in ours]) <= LOW_POWER:
            low += ours
    return low


def table(results: dict) -> str:
    """The curves' points and the verdicts as Markdown, by data set."""
    lines = []
    units = by_dataset(results["units"])
    for dataset, rows in results["summary"].items():
        if rows:
            most = max(rows, key=lambda row: len(row["seeds"]))
            lines += [
                f"**{dataset}**, accuracy in % of {_victims(results)} "
                f"({cell(*most['clean_accuracy'])} clean) on {most['test_images']} test "
                "images at equal mean power before clipping, mean ± standard deviation over "
                f"{len(most['seeds'])} seed(s); in brackets with all images clipped",
                "",
                *markdown(
                    ["c_g", "power", *ATTACKS.values()],
                    [_cells(row, len(most["seeds"])) for row in rows],
                ),
            ]
        left_out = _left_out(units[dataset])
        lines += ["", *left_out, verdicts_markdown(results["verdicts"][dataset])]
    return "\n".join(lines)


def _cells(row: dict, most_seeds: int) -> list[str]:
    seeds = len(row["seeds"])
    few = f" ({seeds} seed(s))" if seeds != most_seeds else ""
    accuracies = [
        f"{cell(*row['accuracy'][name])} ({row['clipped_accuracy'][name][0]:.1f})"
        for name in ATTACKS
    ]
    return [f"{row['c_g']:g}{few}", f"{row['power'][0]:.3g}", *accuracies]


def _left_out(units: list[dict]) -> list[str]:
    failed = [
        f"c_g {u['c_g']:g}, seed {u['seed']} diverged: {u['reason']}"
        for u in units
        if u["status"] != "done"
    ]
    gone = [
        f"c_g {u['c_g']:g}, seed {u['seed']} collapsed: at power {u['power']:.2g} it fools "
        f"{100 * (u['clean_accuracy'] - u['accuracy']['gat']):.1f} points, FG L2 "
        f"{100 * (u['clean_accuracy'] - u['accuracy']['fg_l2']):.1f}"
        for u in units
        if u["status"] == "done" and collapsed(u)
    ]
    return [f"Left out: {'; '.join([*failed, *gone])}.", ""] if failed or gone else []


def _victims(results: dict) -> str:
    """Describes the attacked networks."""
    method = results["config"]["method"]
    return "the baseline" if method == "baseline" else f"networks of {METHODS[method].title}"


def figures(results: dict) -> dict:
    """Returns accuracy against power, and the trainings, name to matplotlib figure."""
    found = {}
    if any(results["summary"].values()):
        found["fig2"] = _accuracy_against_power(results)
    if any(u["history"] for u in results["units"]):
        found["fig2_training"] = trainings(results["units"])
    return found


def _accuracy_against_power(results):
    from gat_tf.plotting import Line, Mark, Panel, curves

    # The paper's three curves are bold, what goes beyond it is thin.
    bold = {"linestyle": "-", "linewidth": 1.6, "markersize": 4, "zorder": 3}
    thin = {"linewidth": 0.8, "marker": ""}
    looks = {
        "gat": {"color": "#D55E00", "marker": "o", **bold},
        "fg_l2": {"color": "#0072B2", "marker": "s", **bold},
        "fg_linf": {"color": "#009E73", "marker": "^", **bold},
        "fg_l2_own": {"color": "#0072B2", "linestyle": "--", **thin},
        "fg_linf_own": {"color": "#009E73", "linestyle": "--", **thin},
        "pgd_l2": {"color": "#000000", "linestyle": "-.", **thin},
    }

    def line(name, rows, kind):
        mean, std = zip(*(row[kind][name] for row in rows), strict=True)
        banded = name in ("gat", "fg_l2", "fg_linf") and None not in std
        x = [row["power"][0] for row in rows]
        return Line(x, mean, std if banded else None, ATTACKS[name], looks[name])

    def row_of(dataset, rows):
        marks = [Mark(y=rows[0]["clean_accuracy"][0], label="clean, ours", look={"linestyle": ":"})]
        if dataset in PAPER_BASELINE and _victims(results) == "the baseline":
            marks.append(
                Mark(
                    y=PAPER_BASELINE[dataset],
                    label="clean, the paper's baseline",
                    look={"color": "#AAAAAA", "linestyle": "-"},
                )
            )
        return [
            Panel(
                f"{dataset}: {title}", [line(name, rows, kind) for name in ATTACKS],
                xlabel=xlabel, ylabel=ylabel, xscale="log", ylim_bottom=0, marks=beside,
            )
            for title, kind, xlabel, ylabel, beside in (
                ("x + η", "accuracy", "power P, mean of ‖η‖₂² (pixels in [0, 1])", "accuracy, %",
                 marks),
                ("x + η clipped to [0, 1]", "clipped_accuracy", "power P before clipping", "", []),
            )
        ]  # fmt: skip

    rows = [row_of(dataset, rows) for dataset, rows in results["summary"].items() if rows]
    return curves(rows, height=2.9, legend_columns=4, sharey=True)


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "fig2")
