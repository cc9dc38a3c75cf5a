"""What of several classifiers stands which attack."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, MARKERS, STYLE, legend, new_figure

_SHOWN = 7  # as many as there are colours and signs


def attacked(balls: dict[str, dict[str, dict[str, list[float]]]]) -> Figure:
    """Draws a panel for each ball, a line in it for each classifier, a sign for each attack.

    Args:
        balls: Title -> classifier -> attack -> accuracies in %, one for each seed. The attacks of
            the first classifier are drawn: "clean", "worst case" and, of the others, as many as
            can be told apart.

    Returns:
        The figure. Signs are means over seeds, bars of the worst case one standard deviation.

    Raises:
        ValueError: There is no ball.
    """
    if not balls:
        raise ValueError("Expected at least one ball. Received: none.")
    first = next(iter(next(iter(balls.values())).values()))
    # The composition's are close to one another; what is left of them is the worst case.
    wanted = [
        a for a in first if a not in ("clean", "worst case", "APGD-T", "FAB-T", "HopSkipJump")
    ]
    shown = ["clean", *wanted[: _SHOWN - 2], "worst case"]
    with matplotlib.rc_context(STYLE):
        tallest = max(len(rows) for rows in balls.values())
        figure, panels = new_figure(1, len(balls), 7.2, 1.1 + 0.28 * tallest)
        for i, ((title, rows), axes) in enumerate(zip(balls.items(), panels.flat, strict=True)):
            places = np.arange(len(rows))[::-1]
            for attack, colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
                values = [row[attack] for row in rows.values()]
                means = [np.mean(v) for v in values]
                deviations = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
                worst = attack == "worst case"
                axes.errorbar(
                    means,
                    places,
                    xerr=deviations if worst else None,
                    fmt=marker,
                    color=colour,
                    markersize=5 if worst else 3.5,
                    linewidth=0.8,
                    label=attack,
                )
            axes.set_yticks(places, rows if i == 0 else [""] * len(rows))
            axes.set_xlim(left=0)
            axes.set_title(title, loc="left", fontsize=7.5)
            axes.set_xlabel("accuracy, %")
        legend(figure, panels, ncols=len(shown))
    return figure
