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
        units: `units` of the results of `robgan_fig7.run`: the grids of the first seed of each
            data set are drawn, each a PNG in base64.
        titles: Generator to its name.

    Returns:
        The figure. Below each grid stands the diversity of its classes beside real images'.

    Raises:
        ValueError: There are no units.
    """
    if not units:
        raise ValueError("Expected results with finished units. Received: none.")
    firsts = {u["dataset"]: u for u in sorted(units, key=lambda u: -u["seed"])}
    shown = [
        (dataset, name, unit)
        for dataset, unit in sorted(firsts.items())
        for name in unit["pictures"]
    ]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = new_figure(-(-len(shown) // 2), 2, 7.2, 3.9)
        for (dataset, name, unit), axes in zip(shown, panels.flat, strict=False):
            means = {who: sum(d) / len(d) for who, d in unit["diversity"].items()}
            picture = io.BytesIO(base64.b64decode(unit["pictures"][name]))
            axes.imshow(matplotlib.image.imread(picture, "png"), interpolation="nearest")
            axes.set(xticks=[], yticks=[], ylabel="a class a row")
            axes.spines[:].set_visible(False)
            axes.set_title(f"{dataset}: {titles[name]}", loc="left")
            share = means[name] / means["real"]
            axes.set_xlabel(f"diversity {means[name]:.2f}, {share:.0%} of real images'")
        for axes in list(panels.flat)[len(shown) :]:
            axes.remove()
    return figure
