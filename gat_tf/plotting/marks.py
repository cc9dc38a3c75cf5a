"""Reference lines and single points beside the data of a panel."""

from __future__ import annotations

import dataclasses

from matplotlib.axes import Axes

_LINE = {"color": "#777777", "linewidth": 0.8, "linestyle": "--"}
_POINT = {
    "color": "#777777",
    "marker": "D",
    "markersize": 4.5,
    "fillstyle": "none",
    "linestyle": "none",
    "clip_on": False,  # a point on an axis is drawn whole
}


@dataclasses.dataclass
class Mark:
    """A reference line across a panel, or a point in it.

    Attributes:
        x: Place of a vertical line or of a point; None for a horizontal line.
        y: Place of a horizontal line or of a point; None for a vertical line.
        label: Label in the legend; without one the mark is not in it.
        look: matplotlib's keywords for the line, such as `color`. By default a line is dashed and
            grey, and a point an open grey diamond.

    Raises:
        ValueError: Neither x nor y is given.

    Examples:
        >>> chance = plotting.Mark(y=0.1, label="chance")
        >>> line = plotting.Line([0, 1], [0.9, 0.2], label="my model")
        >>> panel = plotting.Panel("PGD", [line], marks=[chance])
    """

    x: float | None = None
    y: float | None = None
    label: str | None = None
    look: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.x is None and self.y is None:
            raise ValueError(
                "Expected a mark with x for a vertical line, y for a horizontal line, or both for "
                "a point. Received: neither."
            )

    def draw(self, axes: Axes) -> None:
        """Adds the mark to matplotlib's axes."""
        if self.x is not None and self.y is not None:
            axes.plot([self.x], [self.y], label=self.label, **{**_POINT, **self.look})
        elif self.x is not None:
            axes.axvline(self.x, label=self.label, **{**_LINE, **self.look})
        elif self.y is not None:
            axes.axhline(self.y, label=self.label, **{**_LINE, **self.look})
