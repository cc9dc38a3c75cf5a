"""How every figure looks: readable at a column's width, in print and to colour-blind readers."""

from __future__ import annotations

import math
import pathlib

import matplotlib
from matplotlib import ticker
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; their yellow is lost on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
# A second sign beside the colour, for grey print.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "font.size": 8,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # text that stays text
}


def save(figure: Figure, path: str | pathlib.Path) -> None:
    """Writes a figure, in the format of the path's suffix, without a date that changes it."""
    path = pathlib.Path(path)
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=200, metadata=metadata)


def new_figure(rows: int, columns: int, width: float, height: float):
    """A figure and its axes `[rows, columns]`; width in inches, height that of a row."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def band(axes, x, mean, std, **line) -> None:
    """A line with the band of one standard deviation around it, if there is one."""
    (drawn,) = axes.plot(x, mean, **line)
    if std is not None:
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)


def legend(figure: Figure, panels, ncols: int) -> None:
    """One legend below all panels, with every label once."""
    entries = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=ncols)


def epsilon_axis(axes, epsilons) -> None:
    """An abscissa on which ε doubles, with 0 on its left and a tick at each ε."""
    axes.set_xscale("symlog", linthresh=next((e for e in epsilons if e), 1.0), base=2)
    axes.set_xticks(epsilons, [f"{e:.2g}" for e in epsilons], rotation=45)
    axes.minorticks_off()
    axes.set_xlim(0, 1.1 * max(epsilons) or 1.0)


def log_axis(axes, which: str) -> None:
    """A logarithmic axis with plain numbers, at 1 and 3 of every decade or at the powers of 10."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_data_interval()
    if not (math.isfinite(low) and math.isfinite(high)):
        return  # nothing is drawn
    few = low <= 0 or high / low > 300
    axis.set_major_locator(ticker.LogLocator(subs=(1,) if few else (1, 3)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(ticker.NullFormatter())
