"""Fig. 8 of the Rob-GAN paper: scores of generated images against training."""

from __future__ import annotations

from itertools import cycle

import matplotlib
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, MARKERS, STYLE, band, legend, new_figure


def scores(summary: dict[str, dict], titles: dict[str, str], metrics: dict[str, str]) -> Figure:
    """Draws a row a data set and a panel a score, a line for each way of training.

    Args:
        summary: `summary` of the results of `robgan_fig8.run`.
        titles: Way of training to its name.
        metrics: Score to its name.

    Returns:
        The figure. Bands are one standard deviation over seeds.

    Raises:
        ValueError: The summary holds no finished unit.
    """
    if not summary:
        raise ValueError("Expected results with finished units. Received: none.")
    looks = dict(zip(titles, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(summary), len(metrics), 7.2, 2.9)
        for (dataset, by_name), row in zip(summary.items(), panels, strict=True):
            for (metric, title), axes in zip(metrics.items(), row, strict=True):
                for name, curve in by_name.items():
                    colour, marker = looks[name]
                    band(
                        axes,
                        curve["updates"],
                        curve[metric]["mean"],
                        curve[metric]["std"],
                        color=colour,
                        marker=marker,
                        markersize=3,
                        linewidth=1.1,
                        label=titles[name],
                    )
                axes.set_title(f"{dataset}: {title}", loc="left")
                axes.set_xlabel("updates of the generator")
        legend(figure, ncols=3)
    return figure
