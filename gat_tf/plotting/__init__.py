"""Arrays in, matplotlib figures out. numpy and matplotlib alone."""

from gat_tf.plotting.curves import Line, Panel, curves
from gat_tf.plotting.dots import Dots, Series, dots
from gat_tf.plotting.images import grids, perturbed_images, strip
from gat_tf.plotting.marks import Mark
from gat_tf.plotting.style import legend, looks, parts, save
from gat_tf.plotting.training import training

__all__ = [
    "Dots",
    "Line",
    "Mark",
    "Panel",
    "Series",
    "curves",
    "dots",
    "grids",
    "legend",
    "looks",
    "parts",
    "perturbed_images",
    "save",
    "strip",
    "training",
]
