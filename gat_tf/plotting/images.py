"""Images: beside what an attack has made of them, in grids, and in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gat_tf.plotting.style import STYLE, new_figure

_STYLE = {**STYLE, "axes.grid": False}


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
    notes: Sequence[str] | None = None,
) -> Figure:
    """Draws a row for each image: image, Δ, perturbation, perturbed image.

    Gradient and perturbation are amplified, each image's by the factor written beside it, about
    grey for zero. The perturbed image is clipped to [0, 1] to be drawn. Labels are green where the
    classifier is right and red where it is wrong.

    Args:
        images: `[N, H, W, C]` in [0, 1], C 1 or 3.
        perturbations: η, `[N, H, W, C]`.
        labels: `[N]` integers, the true ones.
        probabilities: Probabilities of the images, `[N, K]`.
        perturbed_probabilities: Probabilities of images + η, `[N, K]`.
        gradients: Δ, `[N, H, W, C]`; without them there is no such column.
        class_names: Names of the K classes; by default their numbers.
        perturbation_name: Name of η, over its column.
        notes: `[N]` notes on the left of the images, such as the attack; by default none.

    Returns:
        The figure.

    Raises:
        ValueError: The arrays do not have the same number of images, or there are none.

    Examples:
        >>> attack = attacks.PGD(8 / 255, math.inf)
        >>> perturbations = attack.perturbation(model, images[:2], labels[:2]).numpy()
        >>> figure = plotting.perturbed_images(
        ...     images[:2], perturbations, labels[:2],
        ...     model(images[:2]).numpy(), model(images[:2] + perturbations).numpy(),
        ...     perturbation_name="η",
        ... )
    """
    arrays = [
        images, perturbations, labels, probabilities, perturbed_probabilities, gradients, notes
    ]  # fmt: skip
    lengths = {len(array) for array in arrays if array is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Expected as many of each array, at least one. Received: {lengths}")

    def name(k):
        return class_names[k] if class_names is not None else str(k)

    columns = ["image"] + ["Δ"] * (gradients is not None) + [perturbation_name, "perturbed"]
    with matplotlib.rc_context({**_STYLE, "font.size": 7}):
        width = 1.5 * len(columns)
        figure, panels = new_figure(len(images), len(columns), width, 1.35)
        for i, row in enumerate(panels):
            amplified = (
                [perturbations[i]] if gradients is None else [gradients[i], perturbations[i]]
            )
            shown = [images[i], *map(_amplified, amplified), images[i] + perturbations[i]]
            for axes, image in zip(row, shown, strict=True):
                _show(axes, np.clip(image, 0, 1))
            for axes, array in zip(row[1:-1], amplified, strict=True):
                axes.set_xlabel(f"× {_factor(array):.3g},  ‖·‖₂ {np.linalg.norm(array):.2g}")
            for axes, p in ((row[0], probabilities[i]), (row[-1], perturbed_probabilities[i])):
                k = int(np.argmax(p))
                right = k == int(labels[i])
                axes.set_xlabel(
                    f"{name(k)}, {100 * p[k]:.0f} %", color="#007A5A" if right else "#B3261E"
                )
            note = "" if notes is None else f"\n{notes[i]}"
            row[0].set_ylabel(f"true: {name(int(labels[i]))}{note}")
        for axes, title in zip(panels[0], columns, strict=True):
            axes.set_title(title)
    return figure


def grids(
    grids: Sequence[tuple[str, str, np.ndarray]], *, columns: int = 2, ylabel: str = ""
) -> Figure:
    """Draws grids of images, such as generated ones with a class in each row.

    Args:
        grids: Title, caption and images `[rows, columns, H, W, C]` in [0, 1] of each grid, C 1
            or 3. The title is above the grid and the caption below it.
        columns: Number of grids side by side.
        ylabel: Label on the left of each grid, which says what a row is.

    Returns:
        The figure.

    Raises:
        ValueError: There is no grid, or the images do not have five axes.

    Examples:
        >>> made = np.random.default_rng(0).random((2, 3, 8, 8, 3))  # 2 rows of 3 images
        >>> figure = plotting.grids([("noise", "uniform", made)], ylabel="class")
    """
    if not grids:
        raise ValueError("Expected at least one grid of images. Received: none.")
    with matplotlib.rc_context(_STYLE):
        columns = min(columns, len(grids))
        figure, panels = new_figure(-(-len(grids) // columns), columns, 3.6 * columns, 3.9)
        flat = list(panels.flat)
        for axes, (title, caption, images) in zip(flat, grids, strict=False):
            images = np.asarray(images)
            if images.ndim != 5:
                raise ValueError(
                    f"Expected images [rows, columns, H, W, C] in the grid {title!r}. "
                    f"Received: shape {images.shape}."
                )
            rows, across, height, width, channels = images.shape
            whole = images.swapaxes(1, 2).reshape(rows * height, across * width, channels)
            _show(axes, whole, interpolation="nearest")
            axes.set_title(title, loc="left")
            axes.set(xlabel=caption, ylabel=ylabel)
        for axes in flat[len(grids) :]:
            axes.remove()
    return figure


def strip(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    label: str = "",
    width: float = 7.2,
    figure: Figure | None = None,
) -> Figure:
    """Draws a row of images, each with its title.

    Args:
        images: `[H, W, C]` in [0, 1] each. With another number of channels than three, the first
            is drawn in grey.
        titles: One for each image.
        label: Label on the left of the row.
        width: Width of the figure, in inches.
        figure: A part made by `parts` to draw in, instead of a new figure.

    Returns:
        The figure, or the part.

    Raises:
        ValueError: There is no image, or another number of titles.

    Examples:
        >>> figure = plotting.strip(list(images[:3]), titles=["first", "second", "third"])
    """
    if len(images) == 0 or len(images) != len(titles):
        raise ValueError(
            f"Expected at least one image and as many titles. "
            f"Received: {len(images)} images and {len(titles)} titles."
        )
    with matplotlib.rc_context(_STYLE):
        if figure is None:
            figure = Figure(figsize=(width, 0.5 + 0.9 * width / len(images)), layout="constrained")
        all_axes = figure.subplots(1, len(images), squeeze=False)[0]
        for axes, image, title in zip(all_axes, images, titles, strict=True):
            _show(axes, image)
            axes.set_title(title, fontsize=6)
        figure.supylabel(label, fontsize=7)
    return figure


def _show(axes: Axes, image: np.ndarray, **how: Any) -> None:
    """Draws `[H, W, C]` in [0, 1] without axes; the first channel in grey unless C is 3."""
    image = image if image.shape[-1] == 3 else image[..., 0]
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **how)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _factor(array: np.ndarray) -> float:
    """What makes the largest value 0.5."""
    largest = np.abs(array).max()
    return 0.5 / largest if largest > 0 else 1.0


def _amplified(array: np.ndarray) -> np.ndarray:
    return 0.5 + array * _factor(array)
