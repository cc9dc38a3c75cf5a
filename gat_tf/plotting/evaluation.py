"""A robustness evaluation at a glance: every attack, the curve against ε, and the worst images."""

from __future__ import annotations

import base64

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gat_tf.plotting.style import COLOURS, STYLE, epsilon_axis


def evaluation(results: dict) -> Figure:
    """Draws what stands each attack, accuracy against ε, and the images that fall first.

    Args:
        results: Of `gat_tf.experiments.robustness.run`.

    Returns:
        The figure; the last two parts are left out for a model without gradients.
    """
    curve, worst = results["curve"], results["worst"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6 if worst else 3.2), layout="constrained")
        heights = [3, 1] if worst else [1]
        rows = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
        panels = rows[0, 0].subplots(1, 2 if curve else 1, squeeze=False)[0]
        _bars(panels[0], results)
        if curve:
            axes = panels[1]
            axes.plot(curve["epsilons"], 100 * np.array(curve["accuracy"]), "o-", color=COLOURS[5],
                      markersize=3)  # fmt: skip
            axes.axvline(results["epsilon"], color=COLOURS[6], linewidth=0.8, linestyle="--")
            epsilon_axis(axes, curve["epsilons"])
            axes.set_xlabel(f"ε in {results['norm']} of PGD (dashed: the evaluation's)")
            axes.set_ylabel("accuracy, %")
            axes.set_ylim(0, 100)
        if worst:
            _images(rows[1, 0], worst)
    return figure


def _bars(axes, results):
    tried = {"HopSkipJump": min(results["config"]["hard_label_images"], results["images"])}
    attacks = [
        row["name"] + (f", first {tried[row['name']]}" if row["name"] in tried else "")
        for row in results["attacks"]
    ]
    names = ["clean", *attacks, "worst case"]
    accuracies = [
        results["clean_accuracy"],
        *(row["accuracy"] for row in results["attacks"]),
        results["worst_case_accuracy"],
    ]
    colours = [COLOURS[3], *[COLOURS[2]] * len(results["attacks"]), COLOURS[6]]
    places = np.arange(len(names))[::-1]
    bars = axes.barh(places, [100 * a for a in accuracies], color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=6.5)
    axes.set_yticks(places, names)
    axes.set_xlim(0, 110)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("accuracy, % (APGD to Square: one after the other)")


def _images(figure, worst):
    for axes, found in zip(figure.subplots(1, len(worst), squeeze=False)[0], worst, strict=True):
        pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
        pixels = pixels.reshape(found["shape"])
        if pixels.shape[-1] != 3:  # no colours: the first channel
            pixels = pixels[..., 0]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(f"class {found['label']}\nε {found['epsilon']:.3g}", fontsize=6)
    figure.supylabel("clean images\nthat fall first", fontsize=7)
