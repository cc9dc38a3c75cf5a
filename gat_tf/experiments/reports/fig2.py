"""Fig. 2: tables, verdicts and figures."""

from __future__ import annotations

from gat_tf.experiments import config as configs
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.reports import common

# What stands beside the generator, and how a table's head calls it.
ATTACKS = {
    "gat": "GAT",
    "fg_l2": "FG L2",
    "fg_linf": "FG L∞",
    "fg_l2_own": "FG L2, own power",
    "fg_linf_own": "FG L∞, own power",
    "pgd_l2": "PGD L2",
}
_PAPER = "the baseline"
PAPER_BASELINE = {"cifar10": 77.0, "cifar100": 44.0}  # "approximately", section 4.2


def write(runner, wall_seconds: float) -> dict:
    """Merges the units of a runner's folder into its results, table and figures."""
    output_dir = runner.output_dir
    units = common.read_all(output_dir / "units")
    results = {
        "experiment": "fig2",
        "config": configs.identity(runner.config),
        "table2_config": configs.identity(runner.classifiers.config),
        "wall_seconds": wall_seconds,
        "summary": summarise(units),
        "verdicts": verdicts(units),
        "units": units,
        "trials": common.read_all(output_dir / "search"),
    }
    drawn = figures() if any(results["summary"].values()) else {}
    return common.write(results, output_dir, markdown(results), drawn)


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> list by falling c_g of c_g, seeds, failed, clean_accuracy, power, accuracy and
        clipped_accuracy by attack: each a [mean, std], accuracies in %.
    """
    summary = {}
    for dataset in dict.fromkeys(u["dataset"] for u in units):
        ours = [u for u in units if u["dataset"] == dataset]
        summary[dataset] = [
            _row([u for u in ours if u["c_g"] == c_g])
            for c_g in sorted({u["c_g"] for u in ours if u["status"] == "done"}, reverse=True)
        ]
    return summary


def _row(units):
    done = [u for u in units if u["status"] == "done"]

    def percent(kind, name):
        return common.mean_and_std([100 * u[kind][name] for u in done])

    return {
        "c_g": done[0]["c_g"],
        "seeds": [u["seed"] for u in done],
        "failed": {str(u["seed"]): u["reason"] for u in units if u not in done},
        "test_images": done[0]["test_images"],
        "clean_accuracy": common.mean_and_std([100 * u["clean_accuracy"] for u in done]),
        "power": common.mean_and_std([u["power"] for u in done]),
        **{
            kind: {name: percent(kind, name) for name in ATTACKS}
            for kind in ("accuracy", "clipped_accuracy")
        },
    }


def verdicts(units: list[dict]) -> dict:
    """Whether the generator fools more images than its rivals at low power, by data set.

    Low are the smaller half of the powers. A seed's difference is the mean over them.
    """
    found = {}
    for dataset, rows in summarise(units).items():
        if not rows:
            continue
        by_power = sorted(rows, key=lambda row: row["power"][0])
        low = {row["c_g"] for row in by_power[: (len(rows) + 1) // 2]}
        top = by_power[(len(rows) + 1) // 2 - 1]["power"][0]
        chosen = [
            u
            for u in units
            if u["dataset"] == dataset and u["status"] == "done" and u["c_g"] in low
        ]
        seeds = sorted({u["seed"] for u in chosen})

        def against(rival, kind="accuracy", chosen=chosen, seeds=seeds):
            return [
                common.mean_and_std(
                    [100 * (u[kind][rival] - u[kind]["gat"]) for u in chosen if u["seed"] == seed]
                )[0]
                for seed in seeds
            ]

        origin = "paper" if "baseline" in chosen[0]["classifiers"] else "beyond"
        claim = f"GAT fools more than {{}} at powers up to {top:.2g}"
        found[dataset] = [
            common.verdict(f"{claim.format('FG L2')} ({origin})", against("fg_l2")),
            common.verdict(f"{claim.format('FG L∞')} ({origin})", against("fg_linf")),
            *(
                common.verdict(f"{claim.format(ATTACKS[name])} (beyond)", against(name))
                for name in ("fg_l2_own", "fg_linf_own", "pgd_l2")
            ),
            common.verdict(
                f"{claim.format('FG L2')}, clipped to [0, 1] (beyond)",
                against("fg_l2", "clipped_accuracy"),
            ),
        ]
    return found


def markdown(results: dict) -> str:
    """The curves' points and the verdicts as Markdown, by data set."""
    lines = []
    for dataset, rows in results["summary"].items():
        if not rows:
            lines += [f"**{dataset}**: every generator diverged.", ""]
            continue
        images = rows[0]["test_images"]
        lines += [
            f"**{dataset}**, accuracy in % of {_of(results)} ({_cell(rows[0]['clean_accuracy'])} "
            f"clean) on {images} test images at equal mean power before clipping, mean ± standard "
            f"deviation over {len(rows[0]['seeds'])} seed(s); in brackets with all images clipped",
            "",
            f"| c_g | power | {' | '.join(ATTACKS.values())} |",
            f"|{'---|' * (2 + len(ATTACKS))}",
        ]
        for row in rows:
            cells = [
                f"{_cell(row['accuracy'][name])} ({row['clipped_accuracy'][name][0]:.1f})"
                for name in ATTACKS
            ]
            lines.append(f"| {row['c_g']:g} | {row['power'][0]:.3g} | {' | '.join(cells)} |")
        empty = " |" * (len(ATTACKS) - 1)
        lines += [
            f"| {u['c_g']:g} | | seed {u['seed']} diverged: {u['reason']} |{empty}"
            for u in results["units"]
            if u["dataset"] == dataset and u["status"] != "done"
        ]
        lines += ["", common.verdicts_markdown(results["verdicts"][dataset])]
    return "\n".join(lines)


def _of(results) -> str:
    """Whose classifiers are attacked."""
    method = results["config"]["method"]
    return _PAPER if method == "baseline" else f"classifiers of {METHODS[method].title}"


def _cell(mean_and_std) -> str:
    mean, std = mean_and_std
    return f"{mean:.1f}" + ("" if std is None else f" ± {std:.1f}")


def figures() -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    def training(results):
        curves = {
            f"c_g {u['c_g']:g}": u["history"]
            for u in sorted(results["units"], key=lambda u: u["c_g"])
            if (u["dataset"], u["seed"]) == _first(results["units"])
        }
        metrics = {
            "validation_loss": "validation loss (eq. 9)",
            "validation_adversarial_accuracy": "validation accuracy of x + G(Δ)",
            "validation_power": "power ‖G(Δ)‖₂²",
        }
        return plotting.training(curves, metrics, log=("validation_power",))

    return {
        "fig2": lambda results: plotting.power(
            results["summary"], ATTACKS, PAPER_BASELINE if _of(results) == _PAPER else {}
        ),
        "fig2_training": training,
    }


def _first(units):
    return min((u["dataset"], u["seed"]) for u in units)
