"""Fig. 2 of the GAT paper: accuracy against the power of the perturbation."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from gat_tf.plotting.style import STYLE, band, legend, log_axis, new_figure

# The paper's three curves are bold, what goes beyond it is thin.
_LINES = {
    "gat": {"color": "#D55E00", "marker": "o"},
    "fg_l2": {"color": "#0072B2", "marker": "s"},
    "fg_linf": {"color": "#009E73", "marker": "^"},
    "fg_l2_own": {"color": "#0072B2", "linestyle": "--"},
    "fg_linf_own": {"color": "#009E73", "linestyle": "--"},
    "pgd_l2": {"color": "#000000", "linestyle": "-."},
}
_BOLD = ("gat", "fg_l2", "fg_linf")


def power(
    summary: dict[str, list[dict]], titles: dict[str, str], paper_baseline: dict[str, float]
) -> Figure:
    """Draws Fig. 2: on the left as in the paper, on the right with images clipped to [0, 1].

    Args:
        summary: `summary` of the results of `gat_tf.experiments.fig2.run`.
        titles: Attack to its name, in the legend's order.
        paper_baseline: Data set to the clean accuracy of the paper's baseline, in %.

    Returns:
        A figure with a row of two panels for each data set.

    Raises:
        ValueError: The summary holds no finished unit.
    """
    summary = {dataset: rows for dataset, rows in summary.items() if rows}
    if not summary:
        raise ValueError("Expected results with finished units. Received: none.")
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(summary), 2, 7.2, 2.9)
        for (dataset, rows), (left, right) in zip(summary.items(), panels, strict=True):
            _curves(left, rows, titles, "accuracy")
            _curves(right, rows, titles, "clipped_accuracy")
            left.set_title(f"{dataset}: x + η", loc="left")
            right.set_title(f"{dataset}: x + η clipped to [0, 1]", loc="left")
            right.set_xlabel("power P before clipping")
            _baseline(left, rows, paper_baseline.get(dataset))
            right.sharey(left)
            left.set_ylabel("accuracy, %")
            left.set_ylim(bottom=0)
        legend(figure, ncols=4)
    return figure


def _curves(axes, rows, titles, kind):
    x = [row["power"][0] for row in rows]
    for name, title in titles.items():
        mean, std = zip(*(row[kind][name] for row in rows), strict=True)
        bold = name in _BOLD
        band(
            axes,
            x,
            mean,
            std if bold and None not in std else None,
            label=title,
            linewidth=1.6 if bold else 0.8,
            markersize=4,
            zorder=3 if bold else 2,
            **_LINES.get(name, {}),
        )
    log_axis(axes, "x")
    axes.set_xlabel("power P, mean of ‖η‖₂² (pixels in [0, 1])")


def _baseline(axes, rows, paper):
    mean, _ = rows[0]["clean_accuracy"]
    axes.axhline(mean, color="#777777", linewidth=0.8, linestyle=":", label="clean, ours")
    if paper is not None:
        axes.axhline(paper, color="#AAAAAA", linewidth=0.8, label="clean, the paper's baseline")
