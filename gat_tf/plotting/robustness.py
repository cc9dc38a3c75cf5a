"""Figs. 3 and 4 of the GAT paper: accuracy against the size of an attack."""

from __future__ import annotations

from itertools import cycle

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, MARKERS, STYLE, band, legend, new_figure


def robustness(
    summary: dict[str, dict],
    titles: dict[str, str],
    attacks: dict[str, str],
    paper: dict[str, dict[str, float]],
    kind: str,
) -> Figure:
    """Draws Fig. 3 or 4: a panel for each attack, a line for each training, a row a data set.

    Args:
        summary: `summary` of the results of `gat_tf.experiments.fig3.run` or `fig4.run`.
        titles: Method to its name, in Table 2's order.
        attacks: Attack to its panel's title.
        paper: Data set -> method -> the paper's clean accuracy in % (Table 2), marked at ε = 0.
        kind: "direct" or "indirect", for the titles.

    Returns:
        The figure. Bands are one standard deviation over seeds.

    Raises:
        ValueError: The summary holds no finished unit.
    """
    if not summary:
        raise ValueError("Expected results with finished units. Received: none.")
    looks = {
        method: {"color": colour, "marker": marker}
        for method, colour, marker in zip(titles, cycle(COLOURS), cycle(MARKERS), strict=False)
    }
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(summary), len(attacks), 7.2, 2.7)
        for (dataset, by_attack), row in zip(summary.items(), panels, strict=True):
            for (attack, title), axes in zip(attacks.items(), row, strict=True):
                clean = paper.get(dataset, {}) if attack == "fg_l2" else {}
                _panel(axes, by_attack.get(attack, {}), titles, looks, clean)
                axes.set_title(f"{dataset}, {kind}:\n{title}", loc="left", fontsize=7.5)
                linf = attack.endswith("linf")
                axes.set_xlabel("ε in L∞, of 255" if linf else "ε in L2 (pixels in [0, 1])")
                if linf:
                    axes.xaxis.set_major_formatter(lambda x, _: f"{255 * x:g}")
                    axes.xaxis.set_major_locator(ticker.MultipleLocator(2 / 255))
                axes.set_ylim(bottom=0)
            row[0].set_ylabel("accuracy, %")
        legend(figure, ncols=3)
    return figure


def _panel(axes, by_method, titles, looks, paper):
    for method, curve in by_method.items():
        mean, std = np.array(curve["mean"]), curve["std"]
        look = looks[method]
        band(
            axes,
            curve["epsilons"],
            mean,
            std,
            label=titles[method],
            linewidth=1.1,
            markersize=2.5,
            **look,
        )
        if method in paper:
            axes.plot(
                0,
                paper[method],
                color=look["color"],
                marker="D",
                fillstyle="none",
                markersize=4.5,
                linestyle="none",
                clip_on=False,
                label="clean, the paper's (full size)" if method == "baseline" else None,
            )
