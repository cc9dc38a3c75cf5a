"""Table 2: tables, paper against ours, and figures."""

from __future__ import annotations

import statistics

from gat_tf.experiments.methods import METHODS


def summarise(units: list[dict]) -> dict:
    """Mean and standard deviation over seeds, by data set and method.

    Returns:
        data set -> method -> seeds, failed, mean and std of the test accuracy in %, epochs,
        training time of an epoch over that of FG (L2) with the same data.
    """
    summary = {}
    for dataset in dict.fromkeys(unit["dataset"] for unit in units):
        rows = {}
        for method in METHODS:
            ours = [u for u in units if (u["dataset"], u["method"]) == (dataset, method)]
            done = [u for u in ours if u["status"] == "done"]
            if not ours:
                continue
            accuracies = [100 * u["test_accuracy"] for u in done]
            seconds = [u["seconds_per_epoch"] for u in done]
            rows[method] = {
                "seeds": sorted(u["seed"] for u in done),
                "failed": {str(u["seed"]): u["reason"] for u in ours if u not in done},
                "accuracy_mean": statistics.mean(accuracies) if done else None,
                "accuracy_std": statistics.stdev(accuracies) if len(done) > 1 else None,
                "best_epoch_mean": statistics.mean(u["best_epoch"] for u in done) if done else None,
                "epochs_mean": statistics.mean(u["epochs"] for u in done) if done else None,
                "seconds_per_epoch": statistics.median(seconds) if done else None,
                "hyperparameters": ours[0]["hyperparameters"],
            }
        reference = rows.get("fg_l2", {}).get("seconds_per_epoch")
        for row in rows.values():
            seconds = row["seconds_per_epoch"]
            row["time_over_fg"] = seconds / reference if seconds and reference else None
        summary[dataset] = rows
    return summary


def markdown(units: list[dict]) -> str:
    """Table 2, paper against ours, as Markdown: one table a data set."""
    lines = []
    for dataset, rows in summarise(units).items():
        lines += [
            f"**{dataset}**, test accuracy in %, mean ± standard deviation over seeds",
            "",
            "| method | paper (50 seeds) | ours | seeds | time / FG | best epoch / trained "
            "| hyperparameters |",
            "|---|---|---|---|---|---|---|",
        ]
        for key, method in METHODS.items():
            paper = method.paper.get(dataset)
            row = rows.get(key)
            cells = [
                method.title,
                f"{paper[0]:.2f} ± {paper[1]:.2f}" if paper else "–",
                *(_ours(row) if row else ["", "0", "", "", ""]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _ours(row: dict) -> list[str]:
    hyperparameters = ", ".join(f"{k} {v:.3g}" for k, v in row["hyperparameters"].items())
    failed = f" ({len(row['failed'])} failed)" if row["failed"] else ""
    if row["accuracy_mean"] is None:
        return ["diverged", f"0{failed}", "", "", hyperparameters]
    spread = "" if row["accuracy_std"] is None else f" ± {row['accuracy_std']:.2f}"
    return [
        f"{row['accuracy_mean']:.2f}{spread}",
        f"{len(row['seeds'])}{failed}",
        "" if row["time_over_fg"] is None else f"{row['time_over_fg']:.1f}",
        f"{row['best_epoch_mean']:.0f} / {row['epochs_mean']:.0f}",
        hyperparameters,
    ]


def figures() -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    titles = {key: method.title for key, method in METHODS.items()}

    def table(results):
        paper = {
            dataset: {key: m.paper[dataset] for key, m in METHODS.items() if dataset in m.paper}
            for dataset in results["summary"]
        }
        return plotting.table2(results, titles, paper)

    def training(results):
        done = [u for u in results["units"] if u["status"] == "done"]
        first = min((u["dataset"], u["seed"]) for u in done)
        ours = {u["method"]: u["history"] for u in done if (u["dataset"], u["seed"]) == first}
        metrics = {
            "validation_accuracy": "validation accuracy",
            "clean_accuracy": "training accuracy",
            "adversarial_accuracy": "training accuracy, perturbed",
            "loss": "training loss (eqs. 2, 4, 10)",
            "power": "power ‖η‖₂²",
            "generator_loss": "generator's loss (eq. 9)",
        }
        histories = {titles[method]: ours[method] for method in METHODS if method in ours}
        return plotting.training(histories, metrics, log=("power",))

    return {"table2": table, "table2_training": training}
