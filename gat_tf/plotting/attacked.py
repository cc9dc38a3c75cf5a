"""What several classifiers stand: under each attack, and under PGD against ε."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, MARKERS, STYLE, band, epsilon_axis, legend, new_figure

_LOOKS = tuple(zip((*COLOURS, "#888888"), (*MARKERS, "<"), strict=True))
_HOLLOW = {"markerfacecolor": "none", "markersize": 6}  # seen behind the others


def attacked(balls: dict[str, dict[str, dict[str, list[float]]]], attacks: list[str]) -> Figure:
    """Draws a panel for each ball, a line in it for each classifier, a sign for each attack.

    Args:
        balls: Title -> classifier -> attack -> accuracies in %, one for each seed.
        attacks: Those to draw, at most seven, the weakest first: the first is drawn hollow, the
            last with bars of one standard deviation over seeds.

    Returns:
        The figure. Signs are means over seeds.

    Raises:
        ValueError: There is no ball.
    """
    if not balls:
        raise ValueError("Expected at least one ball. Received: none.")
    with matplotlib.rc_context(STYLE):
        names = list(dict.fromkeys(name for rows in balls.values() for name in rows))
        figure, panels = new_figure(1, len(balls), 7.2, 1.1 + 0.28 * len(names))
        for i, ((title, rows), axes) in enumerate(zip(balls.items(), panels.flat, strict=True)):
            places = [len(names) - 1 - names.index(name) for name in rows]
            for attack, (colour, marker) in zip(attacks, _LOOKS, strict=False):
                values = [row[attack] for row in rows.values()]
                spread = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
                axes.errorbar(
                    [np.mean(v) for v in values],
                    places,
                    xerr=spread if attack == attacks[-1] else None,
                    fmt=marker,
                    color=colour,
                    linewidth=0.8,
                    label=attack,
                    **(_HOLLOW if attack == attacks[0] else {"markersize": 4}),
                )
            labels = names[::-1] if i == 0 else [""] * len(names)
            axes.set_yticks(range(len(names)), labels)
            axes.set_ylim(-0.6, len(names) - 0.4)
            axes.set_xlim(0)
            axes.set_title(title, loc="left", fontsize=7.5)
            axes.set_xlabel("accuracy, %")
        legend(figure, ncols=len(attacks))
    return figure


def epsilon_curves(panels: dict[str, dict[str, dict]]) -> Figure:
    """Draws accuracy against ε until nothing stands, on an axis on which ε doubles.

    Args:
        panels: Title, with the norm -> classifier -> epsilons, rising from 0; mean and std of the
            accuracy in % at each, std None with one seed.

    Returns:
        The figure. Bands are one standard deviation over seeds.

    Raises:
        ValueError: There is no panel.
    """
    if not panels:
        raise ValueError("Expected at least one panel. Received: none.")
    with matplotlib.rc_context(STYLE):
        figure, grid = new_figure(1, len(panels), 7.2, 3.2)
        for (title, curves), axes in zip(panels.items(), grid.flat, strict=True):
            for (name, curve), (colour, marker) in zip(curves.items(), _LOOKS, strict=False):
                look = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1.1}
                mean = np.array(curve["mean"])
                band(axes, curve["epsilons"], mean, curve["std"], label=name, **look)
            longest = max((c["epsilons"] for c in curves.values()), key=len)
            epsilon_axis(axes, longest)
            axes.set_ylim(0)
            axes.set_title(title, loc="left", fontsize=7.5)
            axes.set_xlabel("ε of PGD (pixels in [0, 1])")
        grid.flat[0].set_ylabel("accuracy, %")
        legend(figure, ncols=4)
    return figure
