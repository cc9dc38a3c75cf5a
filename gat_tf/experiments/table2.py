"""Table 2 of the GAT paper: does adversarial training with GAT regularise best?

    python -m gat_tf.experiments.table2 --preset=quick              # built-in images, minutes
    python -m gat_tf.experiments.table2 --dataset=cifar10 --data_dir=...      # the paper's

The paper's claims: over 50 initialisations, GAT raises the test accuracy of a small network from
77.48 to 80.33 % on CIFAR-10 and from 44.32 to 50.44 % on CIFAR-100, more than dropout, random
perturbation and fast-gradient adversarial training; and dropout adds to the gain of GAT.

A unit of work is one data set, method and seed: a network. Any number of processes may run the same
command on one folder, and an interrupted run can continue.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import statistics
import time
from typing import ClassVar

import numpy as np

from gat_tf.experiments import settings
from gat_tf.experiments.lab import flags, results
from gat_tf.experiments.lab.config import SEED, run_option
from gat_tf.experiments.lab.tables import by_dataset, cell, mean_and_std, of_first_seed
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.units import say, shared
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import above
from gat_tf.experiments.methods import METHODS, PAPER_METHODS
from gat_tf.experiments.networks import SOURCE_SEED, Network, Networks

NAME = "gat_tf.experiments.table2"
_HEAD = (
    "method", "paper (50 seeds)", "ours", "seeds", "power", "time / FG", "best epoch / trained",
    "hyperparameters",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(settings.Config):
    """Settings of Table 2; the defaults are the paper's, or ours where the paper has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the paper's networks, data and length",
        "full": "the paper's networks and data with three seeds, days on two cores with bfloat16",
        "reduced": "5,000 training images and networks of a third of the width, hours on two cores",
        "quick": "built-in images and small networks, minutes on two cores",
    }

    datasets: tuple[str, ...] = settings.datasets_option()
    methods: tuple[str, ...] = run_option(
        PAPER_METHODS, "Methods of training, one in each row (paper).", choices=METHODS
    )
    seeds: tuple[int, ...] = run_option(
        tuple(range(50)), "Seeds, as in 0,1,2 or 0:50 (paper: 50 seeds).",
        **SEED,
    )  # fmt: skip


PRESETS = Config.presets(
    settings.PRESETS,
    full={"seeds": (0, 1, 2)},
    reduced={"datasets": ("cifar10",), "seeds": (0, 1, 2)},
    quick={"datasets": ("shapes",), "seeds": (0,)},
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Trains the networks that are missing, and returns and writes the table.

    Args:
        config: Settings. Its methods, data sets and seeds choose the networks to train; the
            results are those of all networks in the folder.
        output_dir: Folder for the networks and results of this configuration only.

    Returns:
        What `results.json` holds, and the units.

    Raises:
        ConfigError: The folder holds results of another configuration or of other images, or cannot
            be written; or there is no such data set.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is not whole.
        FullDiskError: The disk is full.
    """
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    folder = Networks(config, output_dir)

    def show(name):
        say(f"{name}: done\n{table({'units': folder.units.read_all()})}")

    def steps(dataset):
        wanted = [Network(dataset, m, seed) for seed in config.seeds for m in config.methods]
        return folder.steps(wanted, show)

    shared([step for dataset in folder.require(config.datasets) for step in steps(dataset)])
    units = folder.units.read_all()
    return results.write(NAME, folder.config, output_dir, units, time.time() - started)


def summarise(units: list[dict]) -> dict:
    """Mean and standard deviation over seeds.

    Returns:
        data set -> method -> seeds, failed, mean and std of the test accuracy in %, mean power of
        the perturbations at the best epoch, epochs, training time of an epoch over that of FG (L2)
        with the same data.
    """
    summary = {}
    for dataset, reported in by_dataset(_reported(units)).items():
        rows = {
            method: _row(ours)
            for method in METHODS
            if (ours := [u for u in reported if u["method"] == method])
        }
        reference = rows.get("fg_l2", {}).get("seconds_per_epoch")
        for row in rows.values():
            seconds = row["seconds_per_epoch"]
            row["time_over_fg"] = seconds / reference if seconds and reference else None
        summary[dataset] = rows
    return summary


def _reported(units: list[dict]) -> list[dict]:
    """The networks of the table; those of higher seeds are only sources of transfer attacks."""
    return [u for u in units if u["seed"] < SOURCE_SEED]


def _row(units: list[dict]) -> dict:
    done = [u for u in units if u["status"] == "done"]
    mean, std = mean_and_std([100 * u["test_accuracy"] for u in done]) if done else (None, None)
    powers = [u["history"]["power"][u["best_epoch"] - 1] for u in done if "power" in u["history"]]

    def typical(average, field):
        return average(u[field] for u in done) if done else None

    return {
        "seeds": sorted(u["seed"] for u in done),
        "failed": {str(u["seed"]): u["reason"] for u in units if u not in done},
        "accuracy_mean": mean,
        "accuracy_std": std,
        "power_mean": statistics.mean(powers) if powers else None,
        "best_epoch_mean": typical(statistics.mean, "best_epoch"),
        "epochs_mean": typical(statistics.mean, "epochs"),
        "seconds_per_epoch": typical(statistics.median, "seconds_per_epoch"),
        "hyperparameters": units[0]["hyperparameters"],
    }


def verdicts(units: list[dict]) -> dict:
    """The claims of section 4.4, by data set: GAT above all others, dropout + GAT above GAT."""
    return {
        dataset: decide(claims)
        for dataset, ours in by_dataset(_reported(units)).items()
        if (claims := _claims(ours))
    }


def _claims(units: list[dict]) -> list[Claim]:
    done = [u for u in units if u["status"] == "done"]
    accuracy: dict[str, dict[int, float]] = {}
    for u in done:
        accuracy.setdefault(u["method"], {})[u["seed"]] = 100 * u["test_accuracy"]
    rivals = ("baseline", "dropout", "random", "fg_linf", "fg_l2")
    pairs = [("gat", rival, "paper") for rival in rivals]
    pairs += [("dropout_gat", "gat", "paper"), ("dropout_gat", "dropout", "paper")]
    pairs += [("gat", m, "beyond") for m in METHODS if m not in ("gat", "dropout_gat", *rivals)]
    # Older units do not say; they were tested on all images of CIFAR.
    tested = [{**u, "test_images": u.get("test_images", 10_000)} for u in done]
    tested.sort(key=lambda u: u["test_images"])
    return [
        above(
            f"Test accuracy: {METHODS[high].title} above {METHODS[low].title}",
            tested, accuracy[high], accuracy[low], origin,
        )
        for high, low, origin in pairs
        if accuracy.get(high, {}).keys() & accuracy.get(low, {}).keys()
    ]  # fmt: skip


def table(results: dict) -> str:
    """Table 2, paper against ours, and the verdicts, as Markdown."""
    lines = []
    found = verdicts(results["units"])
    for dataset, rows in summarise(results["units"]).items():
        cells = [
            [
                method.title,
                cell(*method.paper[dataset], 2) if dataset in method.paper else "–",
                *(_cells(rows[key]) if key in rows else ["", "0", "", "", "", ""]),
            ]
            for key, method in METHODS.items()
            if key in rows or method.paper
        ]
        lines += [
            f"**{dataset}**, test accuracy in %, mean ± standard deviation over seeds; power, the "
            "mean ‖η‖₂² of the perturbations at the best epoch; time of an epoch as a multiple of "
            "FG L2's; best epoch of those trained, mean over seeds",
            "",
            *markdown(_HEAD, cells),
            "",
            verdicts_markdown(found[dataset]) if dataset in found else "",
        ]
    return "\n".join(lines)


def _cells(row: dict) -> list[str]:
    hyperparameters = ", ".join(f"{k} {v:.3g}" for k, v in row["hyperparameters"].items())
    failed = f" ({len(row['failed'])} failed)" if row["failed"] else ""
    if row["accuracy_mean"] is None:
        return ["diverged", f"0{failed}", "", "", "", hyperparameters]
    return [
        cell(row["accuracy_mean"], row["accuracy_std"], 2),
        f"{len(row['seeds'])}{failed}",
        "" if row["power_mean"] is None else f"{row['power_mean']:.3g}",
        "" if row["time_over_fg"] is None else f"{row['time_over_fg']:.1f}",
        f"{row['best_epoch_mean']:.0f} / {row['epochs_mean']:.0f}",
        hyperparameters,
    ]


def figures(results: dict) -> dict:
    """Returns the table and the trainings as figures, name to matplotlib figure."""
    done = [u for u in _reported(results["units"]) if u["status"] == "done"]
    if not done:
        return {}
    return {"table2": _gains_and_curves(done), "table2_training": _trainings(done)}


def _shown(units):
    """The methods of the figures, with the paper's that have no unit yet, so that looks stay."""
    return [m for m in METHODS if METHODS[m].paper or any(u["method"] == m for u in units)]


def _gains_and_curves(units):
    """Per data set: the gain over the baseline, the paper's beside ours, and the validation."""
    from gat_tf.plotting import curves, dots, legend, looks, parts

    methods = _shown(units)
    found = looks([METHODS[m].title for m in methods])
    datasets = list(dict.fromkeys(u["dataset"] for u in units))
    height = 0.8 + 0.4 * len(methods)
    figure, rows = parts(7.2, height * len(datasets), heights=[1] * len(datasets), widths=(5, 4))
    for dataset, (left, right) in zip(datasets, rows, strict=True):
        ours = {
            m: [u for u in units if (u["dataset"], u["method"]) == (dataset, m)] for m in methods
        }
        dots([_gains(dataset, ours)], figure=left)
        validation = _validation(dataset, ours, found)
        if validation.lines:
            curves([[validation]], figure=right)
    legend(figure, ncols=3)
    return figure


def _gains(dataset, ours):
    from gat_tf.plotting import Dots, Mark, Series

    accuracies = {m: {u["seed"]: 100 * u["test_accuracy"] for u in us} for m, us in ours.items()}
    paper = {m: METHODS[m].paper.get(dataset) for m in ours}
    baseline = accuracies.get("baseline", {})
    names = [
        METHODS[m].title + (f"\nours: {statistics.mean(a.values()):.1f} %" if a else "")
        for m, a in accuracies.items()
    ]
    reference = Series(
        "paper (50 seeds, mean ± std)" if any(paper.values()) else None,
        [[p[0] - (paper["baseline"][0] if baseline else 0)] if p else [] for p in paper.values()],
        std=[p[1] if p else None for p in paper.values()],
        look={"color": "#999999", "marker": "D"},
    )
    gains = Series(
        "ours, mean ± std over seeds",
        [_gain(a, baseline) for a in accuracies.values()],
        seeds=True,
        look={"color": "#D55E00", "marker": "o"},
    )
    return Dots(
        f"{dataset}: test accuracy",
        names,
        [reference, gains],
        xlabel="gain over the same seeds' baseline, points" if baseline else "test accuracy, %",
        beside=True,
        marks=[Mark(x=0, look={"color": "#000000", "linestyle": "-"})],
    )


def _gain(accuracy, baseline):
    """What a method gains over the baseline in each seed that both have."""
    if not baseline:
        return list(accuracy.values())
    if accuracy is baseline:
        mean = statistics.mean(baseline.values())
        return [a - mean for a in baseline.values()]
    return [accuracy[seed] - baseline[seed] for seed in accuracy if seed in baseline]


def _validation(dataset, ours, looks):
    from gat_tf.plotting import Line, Panel

    lines = []
    for method, units in ours.items():
        if not units or METHODS[method].validation_attack:  # which is not clean accuracy
            continue
        curves = [100 * np.array(u["history"]["validation_accuracy"], float) for u in units]
        # Seeds stop at different epochs: the mean is over those that still run.
        mean = np.nanmean(list(itertools.zip_longest(*curves, fillvalue=np.nan)), axis=1)
        title = METHODS[method].title
        look = {**looks[title], "marker": ""}
        lines.append(Line(range(1, len(mean) + 1), mean, None, title, look))
    return Panel(f"{dataset}: training", lines, "epoch", "validation accuracy, %", integer_x=True)


def _trainings(units):
    """The first seed's metrics of every epoch, for each method."""
    from gat_tf import plotting

    ours = {u["method"]: u["history"] for u in of_first_seed(units)}
    metrics = {
        "validation_accuracy": "validation accuracy",
        "clean_accuracy": "training accuracy",
        "adversarial_accuracy": "training accuracy, perturbed",
        "loss": "training loss (eqs. 2, 4, 10)",
        "power": "power ‖η‖₂²",
        "generator_loss": "generator's loss (eq. 9)",
    }
    histories = {METHODS[method].title: ours.get(method, {}) for method in _shown(units)}
    return plotting.training(histories, metrics, log=("power",))


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "table2")
