"""Fig. 7 of the Rob-GAN paper: grids of generated images, side by side."""

from __future__ import annotations

import base64
import io

import matplotlib
import matplotlib.image
from matplotlib.figure import Figure

from gat_tf.plotting.style import STYLE, new_figure


def samples(units: list[dict], titles: dict[str, str]) -> Figure:
    """Draws each generator's grid of images, a class a row.

    Args:
        units: `units` of the results of `robgan_fig7.run`: a row of grids for the first seed of
            each data set, each grid a PNG in base64.
        titles: Generator to its name.

    Returns:
        The figure. Below each grid stands the diversity of its classes beside real images'.

    Raises:
        ValueError: There are no units.
    """
    if not units:
        raise ValueError("Expected results with finished units. Received: none.")
    firsts = {u["dataset"]: u for u in sorted(units, key=lambda u: -u["seed"])}
    columns = max(len(u["pictures"]) for u in firsts.values())
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = new_figure(len(firsts), columns, 3.6 * columns, 3.9)
        for (dataset, unit), row in zip(firsts.items(), panels, strict=True):
            means = {name: sum(d) / len(d) for name, d in unit["diversity"].items()}
            for (name, picture), axes in zip(unit["pictures"].items(), row, strict=True):
                grid = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)), "png")
                axes.imshow(grid, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                axes.set_title(f"{dataset}: {titles[name]}", loc="left")
                share = means[name] / means["real"]
                axes.set_xlabel(f"diversity {means[name]:.2f}, {share:.0%} of real images'")
            row[0].set_ylabel("a class a row")
    return figure
