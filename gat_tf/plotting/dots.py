"""Dot charts: a row per name, and in it the mean and the spread of each series."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gat_tf.plotting.marks import Mark
from gat_tf.plotting.style import canvas, looks


@dataclasses.dataclass
class Series:
    """One kind of dot, such as the accuracy under one attack, with a dot in every row.

    Attributes:
        label: Label in the legend, which has every label once; without one the series is not in it.
        values: For each row the values of its seeds, whose mean is drawn. Where there are none,
            the row has no dot.
        std: For each row half the length of its bar, None for no bar. By default it is the
            standard deviation of the row's values; a single value has none.
        bars: Whether the bars are drawn.
        seeds: Whether each seed's value is drawn too, as a small dot.
        printed: The format in which a mean is printed beside its dot, such as "{:.1f}"; by default
            it is not printed.
        look: matplotlib's keywords for the dots, such as `color` and `marker`. What is missing
            comes from `looks` of the figure's labels.

    Raises:
        ValueError: values and std do not have the same length.

    Examples:
        >>> clean = plotting.Series("clean", values=[[0.77, 0.78], [0.80]], printed="{:.2f}")
    """

    label: str | None
    values: Sequence[Sequence[float]]
    std: Sequence[float | None] | None = None
    bars: bool = True
    seeds: bool = False
    printed: str = ""
    look: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.std is not None and len(self.std) != len(self.values):
            raise ValueError(
                f"Expected as many rows of std as of values in the series {self.label!r}. "
                f"Received: {len(self.std)} and {len(self.values)}."
            )


@dataclasses.dataclass
class Dots:
    """A panel of a dot chart.

    Attributes:
        title: Title above the panel.
        rows: The rows' names, from the top. They are not repeated in a panel whose left neighbour
            has the same.
        series: The series, each with as many rows.
        xlabel: Label of the horizontal axis, with its unit.
        xlim_left: Where the horizontal axis begins; None leaves that to the data.
        xlim_right: Where it ends.
        beside: Whether the series of a row are drawn one below the other instead of on one line.
        marks: Reference lines and points.

    Raises:
        ValueError: A series has another number of rows than there are names.

    Examples:
        >>> clean = plotting.Series("clean", values=[[0.77], [0.80]])
        >>> chart = plotting.Dots("CIFAR-10", ["baseline", "GAT"], [clean], xlabel="accuracy")
    """

    title: str
    rows: Sequence[str]
    series: list[Series]
    xlabel: str = ""
    xlim_left: float | None = None
    xlim_right: float | None = None
    beside: bool = False
    marks: list[Mark] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        for series in self.series:
            if len(series.values) != len(self.rows):
                raise ValueError(
                    f"Expected {len(self.rows)} rows, as there are names, in the series "
                    f"{series.label!r}. Received: {len(series.values)}."
                )


def dots(
    panels: list[Dots],
    *,
    legend_columns: int = 3,
    figure: Figure | None = None,
) -> Figure:
    """Draws dot charts side by side, as high as they need, with one legend below them.

    Args:
        panels: The panels, from the left.
        legend_columns: Columns of the legend.
        figure: A part made by `parts` to draw in, instead of a new figure. The legend is then left
            to the caller.

    Returns:
        The figure, or the part.

    Raises:
        ValueError: No panel has a row and a series.

    Examples:
        >>> clean = plotting.Series("clean", values=[[0.77, 0.78], [0.80, 0.79]], seeds=True)
        >>> chart = plotting.Dots("CIFAR-10", rows=["baseline", "GAT"], series=[clean])
        >>> figure = plotting.dots([chart])
    """
    found = looks(series.label for panel in panels for series in panel.series if panel.rows)
    if not found:
        raise ValueError("Expected panels with at least one row and one series. Received: none.")
    labels = [*found, *(mark.label for panel in panels for mark in panel.marks)]
    with canvas(figure, 7.2, max(map(_height, panels)), labels, legend_columns) as figure:
        before = None
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, all_axes, strict=True):
            _panel(axes, panel, found)
            axes.set_title(panel.title, loc="left", fontsize=9 if len(panels) < 3 else 7.5)
            if before == list(panel.rows):
                axes.tick_params(labelleft=False)
            before = list(panel.rows)
    return figure


def _height(panel: Dots) -> float:
    lines = max((1 + name.count("\n") for name in panel.rows), default=1)
    return 0.8 + (0.16 + 0.12 * lines) * len(panel.rows)


def _panel(axes: Axes, panel: Dots, found: dict) -> None:
    for mark in panel.marks:
        mark.draw(axes)
    count = len(panel.series)
    for i, series in enumerate(panel.series):
        shift = 0.68 * ((i + 0.5) / count - 0.5) if panel.beside else 0.0
        _series(axes, series, shift, found[series.label])
    axes.set_yticks(range(len(panel.rows)), panel.rows)
    axes.set_ylim(len(panel.rows) - 0.4, -0.6)  # the first row on top
    if any(series.printed for series in panel.series):
        axes.margins(x=0.12)  # room for the numbers
    axes.set_xlim(panel.xlim_left, panel.xlim_right)
    if panel.beside:
        axes.grid(visible=False, axis="y")
    axes.set_xlabel(panel.xlabel)


def _series(axes: Axes, series: Series, shift: float, look: dict) -> None:
    rows = [i for i, values in enumerate(series.values) if len(values)]
    means = np.array([np.mean(series.values[i]) for i in rows])
    spread = np.array([_std(series, i) for i in rows], np.float64)
    places = np.array(rows) + shift
    look = {"markersize": 4.5, **look, **series.look, "linestyle": "none"}
    if series.seeds:
        for i, place in zip(rows, places, strict=True):
            values = series.values[i]
            axes.plot(values, [place] * len(values), "o", color=look["color"], markersize=3.5,
                      markeredgewidth=0, alpha=0.4)  # fmt: skip
    axes.errorbar(
        means,
        places,
        xerr=spread if series.bars else None,
        elinewidth=0.9,
        capsize=2,
        label=series.label,
        **look,
    )
    if series.printed:
        ends = means + (np.nan_to_num(spread) if series.bars else 0.0)
        for mean, end, place in zip(means, ends, places, strict=True):
            axes.annotate(
                series.printed.format(mean),
                (end, place),
                xytext=(5, 0),
                textcoords="offset points",
                verticalalignment="center",
                fontsize=6.5,
            )


def _std(series: Series, row: int) -> float:
    """NaN, which draws no bar, where there is none."""
    if series.std is not None:
        std = series.std[row]
        return np.nan if std is None else std
    values = series.values[row]
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
