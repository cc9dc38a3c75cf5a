"""Rob-GAN's Table 1 and Figs. 2 and 6: accuracy on training and test images against δmax."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, MARKERS, STYLE, band, legend, new_figure

_LINES = {"test": "-", "train": "--"}


def gaps(
    summary: dict[str, dict],
    titles: dict[str, str],
    paper: dict[str, dict],
    *,
    lipschitz: bool = False,
) -> Figure:
    """Draws a row a data set: accuracy under PGD, and beside it the Lipschitz value if wanted.

    Args:
        summary: `summary` of the results of `robgan_table1.run`, `robgan_fig2.run` or
            `robgan_fig6.run`.
        titles: Classifier to its name.
        paper: Data set -> "epsilons" and classifier to the paper's test accuracies in %, drawn as
            open markers; may be empty.
        lipschitz: Whether to draw the local Lipschitz value against the epoch, Fig. 2's right.

    Returns:
        The figure: solid lines are test images, dashed ones training images, bands one standard
        deviation over seeds.

    Raises:
        ValueError: The summary holds no finished unit.
    """
    if not summary:
        raise ValueError("Expected results with finished units. Received: none.")
    columns = 2 if lipschitz else 1
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(summary), columns, 7.2 if lipschitz else 5.6, 2.9)
        for (dataset, found), row in zip(summary.items(), panels, strict=True):
            _accuracy(row[0], found["curves"], titles, paper.get(dataset, {}))
            row[0].set_title(f"{dataset}: accuracy under PGD", loc="left")
            if lipschitz:
                _lipschitz(row[1], found["lipschitz"], titles)
                row[1].set_title(f"{dataset}: local Lipschitz value", loc="left")
        legend(figure, ncols=2)
    return figure


def _accuracy(axes, curves, titles, paper):
    for name, by_split in curves.items():
        for split, curve in by_split.items():
            label = f"{titles[name]}, {split} images"
            band(axes, curve["epsilons"], curve["mean"], curve["std"], **_look(name, titles, split),
                 label=label)  # fmt: skip
        if name in paper:
            axes.plot(
                paper["epsilons"],
                paper[name],
                linestyle="none",
                marker=_marker(name, titles),
                fillstyle="none",
                color=_colour(name, titles),
                label=f"{titles[name]}, the paper's (full size)",
            )
    axes.set_xlabel("δmax in L∞ (pixels in [-1, 1])")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(bottom=0)


def _lipschitz(axes, by_name, titles):
    for name, by_split in by_name.items():
        for split, curve in by_split.items():
            epochs = np.arange(1, len(curve["mean"]) + 1)
            band(axes, epochs, curve["mean"], curve["std"], **_look(name, titles, split),
                 label=f"{titles[name]}, {split} images")  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean of ‖∂ℓ/∂x‖₂")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0)


def _look(name, titles, split) -> dict:
    return {
        "color": _colour(name, titles),
        "linestyle": _LINES[split],
        "marker": _marker(name, titles),
        "markersize": 3,
        "linewidth": 1.1,
    }


def _colour(name, titles):
    return COLOURS[list(titles).index(name) % len(COLOURS)]


def _marker(name, titles):
    return MARKERS[list(titles).index(name) % len(MARKERS)]
