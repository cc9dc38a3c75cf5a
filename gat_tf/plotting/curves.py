"""Lines with bands of one standard deviation, in a grid of panels with one legend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gat_tf.plotting.marks import Mark
from gat_tf.plotting.style import canvas, looks


@dataclasses.dataclass
class Line:
    """A line of a panel, such as one method's accuracy at each ε.

    Attributes:
        x: Abscissas, N of them.
        mean: Ordinates, N of them. The line has a gap where one is None or NaN.
        std: Half the height of the band around the line, N of them; None for no band.
        label: Label in the legend, which has every label once; without one the line is not in it.
        look: matplotlib's keywords for the line, such as `color`. What is missing comes from
            `looks` of the figure's labels.

    Raises:
        ValueError: x, mean and std do not have the same length.

    Examples:
        >>> line = plotting.Line([0, 1], mean=[0.9, 0.8], std=[0.01, 0.02], label="GAT")
    """

    x: Sequence[float]
    mean: Sequence[float | None]
    std: Sequence[float | None] | None = None
    label: str | None = None
    look: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        lengths = [len(v) for v in (self.x, self.mean, self.std) if v is not None]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"Expected as many values of x, mean and std in the line {self.label!r}. "
                f"Received: {lengths}."
            )


@dataclasses.dataclass
class Panel:
    """A panel of lines.

    Attributes:
        title: Title above the panel.
        lines: The lines, which may be none.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the vertical axis, with its unit.
        xscale: "linear", "log", or "epsilon": every ε of the longest line has a tick, and ε doubles
            from tick to tick as its values do, with 0 on the left.
        yscale: "linear" or "log".
        ylim_bottom: Where the vertical axis begins; None leaves that to the data.
        x_255: Whether the ticks of x, which is in [0, 1], are written as multiples of 1/255.
        integer_x: Whether x has ticks at whole numbers only, as epochs have.
        marks: Reference lines and points.

    Examples:
        >>> line = plotting.Line([0, 1 / 255, 2 / 255], [0.9, 0.6, 0.2], label="GAT")
        >>> panel = plotting.Panel("L∞", [line], xlabel="ε · 255", x_255=True)
    """

    title: str
    lines: list[Line]
    xlabel: str = ""
    ylabel: str = ""
    xscale: str = "linear"
    yscale: str = "linear"
    ylim_bottom: float | None = None
    x_255: bool = False
    integer_x: bool = False
    marks: list[Mark] = dataclasses.field(default_factory=list)


def curves(
    rows: list[list[Panel]],
    *,
    width: float = 7.2,
    height: float = 2.7,
    legend_columns: int = 3,
    sharey: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draws a grid of panels with one legend below them.

    Args:
        rows: The panels of each row; rows may differ in length.
        width: Width of the figure, in inches.
        height: Height of a row of panels, in inches; the legend comes on top of it.
        legend_columns: Columns of the legend.
        sharey: Whether the panels of a row share their vertical axis.
        figure: A part made by `parts` to draw in, instead of a new figure. The legend is then left
            to the caller.

    Returns:
        The figure, or the part.

    Raises:
        ValueError: No panel has a line.

    Examples:
        >>> line = plotting.Line(x=[0, 0.1, 0.2], mean=[0.9, 0.6, 0.2], label="my model")
        >>> panel = plotting.Panel("PGD-20, L2", [line], xlabel="ε", ylabel="accuracy")
        >>> figure = plotting.curves([[panel]])  # one row with one panel
    """
    panels = [panel for row in rows for panel in row]
    found = looks(line.label for panel in panels for line in panel.lines)
    if not found:
        raise ValueError("Expected panels with at least one line. Received: none.")
    columns = max(map(len, rows))
    labels = [*found, *(mark.label for panel in panels for mark in panel.marks)]
    with canvas(figure, width, height * len(rows), labels, legend_columns) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False, sharey="row" if sharey else False)
        drawn: list[tuple[Panel, Axes]] = []
        for row, all_axes in zip(rows, grid, strict=True):
            for axes in all_axes[len(row) :]:
                axes.remove()
            drawn += zip(row, all_axes, strict=False)
        for panel, axes in drawn:
            for line in panel.lines:
                _line(axes, line, found[line.label])
            for mark in panel.marks:
                mark.draw(axes)
            axes.set_title(panel.title, loc="left", fontsize=9 if columns < 3 else 7.5)
            axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        for panel, axes in drawn:  # limits last: panels may share an axis
            _scales(axes, panel)
    return figure


def _line(axes: Axes, line: Line, look: dict) -> None:
    mean = np.array(line.mean, np.float64)  # None becomes NaN
    look = {"linewidth": 1.1, "markersize": 3, **look, **line.look}
    if not look.get("marker"):
        # Without a marker, a point between two gaps would not be seen.
        finite = np.isfinite(np.pad(mean, 1, constant_values=np.nan))
        alone = np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])
        if len(alone):
            look |= {"marker": ".", "markevery": alone.tolist()}
    (drawn,) = axes.plot(line.x, mean, label=line.label, **look)
    if line.std is not None:
        std = np.array(line.std, np.float64)
        axes.fill_between(
            line.x, mean - std, mean + std, color=drawn.get_color(), alpha=0.2, linewidth=0
        )


def _scales(axes: Axes, panel: Panel) -> None:
    if panel.xscale == "epsilon":
        longest = max((line.x for line in panel.lines), key=len, default=())
        if len(longest):
            _epsilon_axis(axes, longest, of_255=panel.x_255)
    elif panel.xscale == "log":
        _log_axis(axes, "x")
    else:
        axes.set_xscale(panel.xscale)
        if panel.x_255:
            _axis_of_255(axes, max((x for line in panel.lines for x in line.x), default=0.0))
        if panel.integer_x:
            axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    if panel.yscale == "log":
        _log_axis(axes, "y")
    else:
        axes.set_yscale(panel.yscale)
    if panel.ylim_bottom is not None:
        axes.set_ylim(bottom=panel.ylim_bottom)


def _axis_of_255(axes: Axes, largest: float) -> None:
    """Ticks at multiples of 1/255 times a power of two, at most eight of them beside 0."""
    if largest > 0:
        step = 2.0 ** math.ceil(math.log2(255 * largest / 8) - 1e-9) / 255
        axes.xaxis.set_major_locator(ticker.MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda x, _: f"{255 * x:.3g}")


def _epsilon_axis(axes: Axes, epsilons: Sequence[float], *, of_255: bool) -> None:
    """An abscissa on which ε doubles, with 0 on its left and a tick at each ε."""
    smallest = next((e for e in epsilons if e), 1.0)
    names = [f"{255 * e if of_255 else e:.3g}" for e in epsilons]
    wide = len(names) * max(map(len, names)) > 30
    axes.set_xscale("symlog", linthresh=smallest, base=2)
    axes.set_xticks(epsilons, names, rotation=45 if wide else 0)
    axes.minorticks_off()
    # A little to the left of 0, where a marker is drawn whole.
    axes.set_xlim(-0.08 * smallest, 1.1 * max(epsilons) or 1.0)


def _log_axis(axes: Axes, which: str) -> None:
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
