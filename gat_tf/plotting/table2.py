"""Table 2 of the GAT paper as a figure."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, STYLE, new_figure


def table2(results: dict, titles: dict[str, str], paper: dict[str, dict]) -> Figure:
    """Draws Table 2: gain over the baseline by method, and validation accuracy by epoch.

    Args:
        results: What `gat_tf.experiments.table2.run` returns.
        titles: Method to its name in the paper, in the table's order.
        paper: Data set -> method -> (mean, standard deviation) of the paper's test accuracy in %.

    Returns:
        A figure with a row of two panels for each data set.

    Raises:
        ValueError: The results hold no finished unit.
    """
    datasets = [d for d, rows in results["summary"].items() if rows]
    if not datasets:
        raise ValueError("Expected results with finished units. Received: none.")
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(len(datasets), 2, 7.2, 3.1)
        for dataset, (left, right) in zip(datasets, axes, strict=True):
            units = [
                u for u in results["units"] if u["dataset"] == dataset and u["status"] == "done"
            ]
            _gains(left, units, titles, paper.get(dataset, {}))
            _curves(right, units, titles)
            left.set_title(f"{dataset}: test accuracy", loc="left")
            right.set_title(f"{dataset}: training", loc="left")
    return figure


def _gains(axes, units, titles, paper):
    by_method = {
        method: np.array([100 * u["test_accuracy"] for u in units if u["method"] == method])
        for method in titles
    }
    baseline = by_method["baseline"].mean() if len(by_method["baseline"]) else 0.0
    paper_baseline = paper.get("baseline", (0.0, 0.0))[0]
    for row, (method, accuracies) in enumerate(by_method.items()):
        if method in paper:
            mean, std = paper[method]
            axes.errorbar(
                mean - paper_baseline,
                row - 0.17,
                xerr=std,
                fmt="D",
                color="#999999",
                markersize=4,
                capsize=2,
                label="paper, mean ± std of 50 seeds",
            )
        if not len(accuracies):
            continue
        gains = accuracies - baseline
        axes.plot(gains, np.full(len(gains), row + 0.17), "o", color="#56B4E9", markersize=2.5)
        axes.errorbar(
            gains.mean(),
            row + 0.17,
            xerr=gains.std(ddof=1) if len(gains) > 1 else None,
            fmt="o",
            color="#0072B2",
            markersize=4.5,
            capsize=2,
            label="ours, each seed and mean ± std",
        )
    axes.axvline(0, color="#000000", linewidth=0.8)
    names = [
        f"{title}\nours: {by_method[m].mean():.1f} %" if len(by_method[m]) else title
        for m, title in titles.items()
    ]
    axes.set_yticks(range(len(titles)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        "gain over the baseline, percentage points"
        if len(by_method["baseline"])
        else "test accuracy, %"
    )
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(
            once.values(),
            once.keys(),
            loc="lower left",
            bbox_to_anchor=(-0.5, -0.34),
            ncols=2,
            borderaxespad=0,
        )


def _curves(axes, units, titles):
    for colour, (method, title) in zip(COLOURS, titles.items(), strict=True):
        curves = [
            100 * np.array(u["history"]["validation_accuracy"])
            for u in units
            if u["method"] == method
        ]
        if not curves:
            continue
        # Seeds stop at different epochs: the mean is over those that are still running.
        table = np.full((len(curves), max(map(len, curves))), np.nan)
        for row, curve in zip(table, curves, strict=True):
            row[: len(curve)] = curve
        epochs = np.arange(1, table.shape[1] + 1)
        axes.plot(epochs, np.nanmean(table, axis=0), color=colour, linewidth=1.1, label=title)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.legend(loc="lower right", ncols=1)
