"""Images beside what an attack has made of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gat_tf.plotting.style import STYLE, new_figure


def perturbed_images(
    images: np.ndarray,
    perturbations: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    perturbed_probabilities: np.ndarray,
    *,
    gradients: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    perturbation_name: str = "G(Δ)",
) -> Figure:
    """Draws a row for each image: image, Δ, perturbation, perturbed image.

    Gradient and perturbation are amplified, each image's by the factor written beside it, about
    grey for zero. The perturbed image is clipped to [0, 1] to be drawn. Labels are green where the
    classifier is right and red where it is wrong.

    Args:
        images: `[N, H, W, C]` in [0, 1], C 1 or 3.
        perturbations: η, `[N, H, W, C]`.
        labels: `[N]` integers, the true ones.
        probabilities: Of the images, `[N, K]`.
        perturbed_probabilities: Of images + η, `[N, K]`.
        gradients: Δ, `[N, H, W, C]`; without them there is no such column.
        class_names: Of the K classes; by default their numbers.
        perturbation_name: Of η, over its column.

    Returns:
        The figure.

    Raises:
        ValueError: The arrays do not have the same number of images, or there are none.
    """
    arrays = [images, perturbations, labels, probabilities, perturbed_probabilities, gradients]
    lengths = {len(array) for array in arrays if array is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Expected as many of each array, at least one. Received: {lengths}")

    def name(k):
        return class_names[k] if class_names is not None else str(k)

    columns = ["image"] + ["Δ"] * (gradients is not None) + [perturbation_name, "perturbed"]
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "font.size": 7}):
        width = 1.5 * len(columns)
        figure, panels = new_figure(len(images), len(columns), width, 1.35)
        for i, row in enumerate(panels):
            amplified = (
                [perturbations[i]] if gradients is None else [gradients[i], perturbations[i]]
            )
            shown = [images[i], *map(_amplified, amplified), images[i] + perturbations[i]]
            for axes, image in zip(row, shown, strict=True):
                axes.imshow(np.clip(image, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            for axes, array in zip(row[1:-1], amplified, strict=True):
                axes.set_xlabel(f"× {_factor(array):.3g},  ‖·‖₂ {np.linalg.norm(array):.2g}")
            for axes, p in ((row[0], probabilities[i]), (row[-1], perturbed_probabilities[i])):
                k = int(np.argmax(p))
                right = k == int(labels[i])
                axes.set_xlabel(
                    f"{name(k)} {100 * p[k]:.0f} %", color="#007A5A" if right else "#B3261E"
                )
            row[0].set_ylabel(f"true: {name(int(labels[i]))}")
        for axes, title in zip(panels[0], columns, strict=True):
            axes.set_title(title)
    return figure


def _factor(array: np.ndarray) -> float:
    """What makes the largest value 0.5."""
    largest = np.abs(array).max()
    return 0.5 / largest if largest > 0 else 1.0


def _amplified(array: np.ndarray) -> np.ndarray:
    return 0.5 + array * _factor(array)
