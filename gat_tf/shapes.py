"""The built-in data set: images that are drawn from a seed, for experiments without a download."""

from __future__ import annotations

import numpy as np

from gat_tf.reading import Split

SHAPES = (
    "disk", "ring", "square", "frame", "triangle", "plus", "cross", "stripes", "bars", "checkers",
)  # fmt: skip


def draw_shapes(size: int, seed: int) -> Split:
    """Draws the built-in data set: 32x32 colour images of ten kinds of shape.

    Position, size, angle and colours vary, the background is shaded, and noise lies over all of
    it: learnable in a few epochs, and not by a linear model.

    Args:
        size: Number of images, at least 1; the classes take turns.
        seed: Seed of everything random.

    Returns:
        Images `[size, 32, 32, 3]` uint8 and labels `[size]`, in random order.

    Examples:
        >>> split = data.draw_shapes(size=20, seed=0)
        >>> np.bincount(split.labels).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1. Received: size={size}")
    rng = np.random.default_rng([size, seed])
    labels = rng.permutation(np.arange(size) % len(SHAPES))

    def uniform(low, high, *shape):
        return rng.uniform(low, high, (size, *shape)).astype(np.float32)

    # Each image's own coordinates: shifted, turned by up to 20 degrees, in units of its radius.
    ys, xs = np.mgrid[0:32, 0:32].astype(np.float32)
    x = xs - uniform(12, 20, 1, 1)
    y = ys - uniform(12, 20, 1, 1)
    angle, radius = uniform(-0.35, 0.35, 1, 1), uniform(6, 11, 1, 1)
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius
    v = (y * np.cos(angle) - x * np.sin(angle)) / radius
    distance, box = np.hypot(u, v), np.maximum(abs(u), abs(v))
    near_axis = np.minimum(abs(u), abs(v))
    near_diagonal = np.minimum(abs(u - v), abs(u + v)) / np.sqrt(2)
    wave = 1.5 * np.pi
    masks = {
        "disk": distance < 1,
        "ring": abs(distance - 0.8) < 0.22,
        "square": box < 0.85,
        "frame": abs(box - 0.75) < 0.18,
        "triangle": (v < 0.75) & (2 * abs(u) < v + 1.1),
        "plus": (near_axis < 0.25) & (box < 1),
        "cross": (near_diagonal < 0.25) & (distance < 1.1),
        "stripes": (np.sin(wave * v) > 0) & (distance < 1.2),
        "bars": (np.sin(wave * u) > 0) & (distance < 1.2),
        "checkers": (np.sin(wave * u) * np.sin(wave * v) > 0) & (distance < 1.2),
    }
    mask = np.select([(labels == i)[:, None, None] for i in range(10)], [masks[s] for s in SHAPES])

    # A bright shape on a dark ground: its colour says nothing, and none is invisible.
    colour, background = uniform(0.5, 1, 1, 1, 3), uniform(0, 0.5, 1, 1, 3)
    shade = (
        uniform(-0.15, 0.15, 1, 1, 1) * u[..., None] + uniform(-0.15, 0.15, 1, 1, 1) * v[..., None]
    )
    images = np.where(mask[..., None], colour, background + shade)
    images = images + rng.standard_normal(images.shape, dtype=np.float32) * 0.06
    return Split((np.clip(images, 0, 1) * 255).round().astype(np.uint8), labels.astype(np.int64))
