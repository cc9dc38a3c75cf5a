"""Training curves, from the metrics of every epoch."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, STYLE, legend, log_axis, new_figure


def training(
    histories: dict[str, dict[str, list[float | None]]],
    metrics: dict[str, str],
    log: tuple[str, ...] = (),
) -> Figure:
    """Draws metrics against the epoch, a panel a metric and a line a training.

    Args:
        histories: Name of a training to its history, metric to a value for each epoch; None
            where it was not finite. What a history does not have is left out.
        metrics: Metric to the label of its axis.
        log: The metrics whose axis is logarithmic.

    Returns:
        A figure with a panel for each metric, up to three in a row.

    Raises:
        ValueError: No history has any of the metrics.
    """
    shown = {m: title for m, title in metrics.items() if any(m in h for h in histories.values())}
    if not shown:
        raise ValueError(f"Expected histories with some of {list(metrics)}. Received: none of them")
    with matplotlib.rc_context(STYLE):
        columns = min(3, len(shown))
        figure, panels = new_figure(-(-len(shown) // columns), columns, 7.2, 2.4)
        colours = COLOURS[: len(histories)]
        if len(histories) > len(COLOURS):
            colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(histories)))
        flat = list(panels.flat)
        for axes, (metric, title) in zip(flat, shown.items(), strict=False):
            for colour, (name, history) in zip(colours, histories.items(), strict=True):
                values = np.array(history.get(metric, []), np.float64)  # None becomes NaN
                epochs = np.arange(1, len(values) + 1)
                marker = "." if len(values) == 1 else ""
                axes.plot(epochs, values, color=colour, linewidth=1.1, label=name, marker=marker)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
            axes.set_title(title, loc="left", fontsize=8)
            if metric in log:
                log_axis(axes, "y")
        for axes in flat[len(shown) :]:
            axes.remove()
        legend(figure, panels, ncols=4)
    return figure
