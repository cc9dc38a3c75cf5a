"""How every figure looks: readable at a column's width, in print and to colour-blind readers."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; their yellow is lost on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
# A second sign beside the colour, for grey print.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
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
    "legend.handlelength": 2.6,  # long enough to show a dash on both sides of a marker
    "pdf.fonttype": 42,  # text that stays text
}


def looks(names: Iterable[str | None]) -> dict[str | None, dict]:
    """Gives every name a look of its own: matplotlib's `color`, `marker` and `linestyle`.

    A look depends on the place of its name alone, so figures that pass the same names in the same
    order use the same looks. The first seven names differ in colour and marker. From the eighth on
    the colours repeat with another marker and line style; 196 looks are different.

    Args:
        names: Names of lines or of series of dots. Repeated names are ignored.

    Returns:
        Name to look, in the order of the names.

    Examples:
        >>> looks = plotting.looks(["baseline", "GAT"])
        >>> looks["baseline"]["color"] == looks["GAT"]["color"]
        False
    """
    found = {}
    for i, name in enumerate(dict.fromkeys(names)):
        again, place = divmod(i, len(COLOURS))
        found[name] = {
            "color": COLOURS[place],
            "marker": MARKERS[(place + again) % len(MARKERS)],
            "linestyle": LINE_STYLES[again % len(LINE_STYLES)],
        }
    return found


def save(figure: Figure, path: str | pathlib.Path) -> None:
    """Writes a figure, in the format of the path's suffix, without a date that changes it.

    Examples:
        >>> line = plotting.Line([0, 1], [0.9, 0.2], label="GAT")
        >>> figure = plotting.curves([[plotting.Panel("PGD", [line])]])
        >>> plotting.save(figure, "curve.png")
    """
    path = pathlib.Path(path)
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=200, metadata=metadata)


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure and its axes `[rows, columns]`; width in inches, height that of a row."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


@contextlib.contextmanager
def canvas(
    figure: Figure | None, width: float, height: float, labels: Iterable[str | None], ncols: int
) -> Iterator[Figure]:
    """Yields a part to draw in, or a new figure, which then has a legend of these labels.

    Args:
        figure: The part; None for a new figure.
        width: Width of a new figure, in inches.
        height: Its height, in inches, without the legend.
        labels: Those of the legend.
        ncols: Columns of the legend.
    """
    with matplotlib.rc_context(STYLE):
        if figure is not None:
            yield figure
            return
        rows = math.ceil(len({label for label in labels if label}) / ncols)
        figure = Figure(figsize=(width, height + 0.15 * rows), layout="constrained")
        yield figure
        legend(figure, ncols)


def parts(
    width: float, height: float, *, heights: Sequence[float] = (1,), widths: Sequence[float] = (1,)
) -> tuple[Figure, np.ndarray]:
    """Divides a new figure into parts, for a figure of several kinds of panels.

    `curves`, `dots` and `strip` draw in a part that is passed to them as `figure`. `legend` then
    adds one legend for the whole figure.

    Args:
        width: Width of the whole figure, in inches.
        height: Height of the whole figure, in inches.
        heights: The relative height of each row of parts.
        widths: The relative width of each column of parts.

    Returns:
        The figure, and its parts as an array `[rows, columns]`.

    Examples:
        >>> figure, parts = plotting.parts(7.2, 5.0, heights=(2, 1))
        >>> line = plotting.Line([0, 1], [0.9, 0.2], label="GAT")
        >>> upper = plotting.curves([[plotting.Panel("PGD", [line])]], figure=parts[0, 0])
        >>> lower = plotting.strip(list(images[:2]), ["first", "second"], figure=parts[1, 0])
        >>> plotting.legend(figure)
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    shape = len(heights), len(widths)
    ratios: dict[str, Any] = {"height_ratios": heights, "width_ratios": widths}
    return figure, figure.subfigures(*shape, squeeze=False, **ratios)


def legend(figure: Figure, ncols: int = 3) -> None:
    """Adds one legend below all panels of a figure, with every label once.

    Examples:
        >>> figure, parts = plotting.parts(7.2, 3.0)
        >>> line = plotting.Line([0, 1], [0.9, 0.2], label="GAT")
        >>> panel = plotting.curves([[plotting.Panel("PGD", [line])]], figure=parts[0, 0])
        >>> plotting.legend(figure)
    """
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        with matplotlib.rc_context(STYLE):
            figure.legend(
                list(entries.values()), list(entries), loc="outside lower center", ncols=ncols
            )
