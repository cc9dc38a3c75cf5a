"""Results in, matplotlib figures out. numpy and matplotlib alone.

The primitives know no experiment: `curves`, `dots`, `grids`, `strip`, `perturbed_images`, and
`training` on top of `curves`. `parts` divides a figure that holds several of them.
"""

from gat_tf.plotting.attacked import attacked, epsilon_curves
from gat_tf.plotting.curves import Line, Panel, curves
from gat_tf.plotting.dots import Dots, Series, dots
from gat_tf.plotting.evaluation import evaluation
from gat_tf.plotting.images import grids, perturbed_images, strip
from gat_tf.plotting.marks import Mark
from gat_tf.plotting.power import power
from gat_tf.plotting.robustness import robustness
from gat_tf.plotting.style import legend, looks, parts, save
from gat_tf.plotting.table2 import table2
from gat_tf.plotting.training import training

__all__ = [
    "Dots",
    "Line",
    "Mark",
    "Panel",
    "Series",
    "attacked",
    "curves",
    "dots",
    "epsilon_curves",
    "evaluation",
    "grids",
    "legend",
    "looks",
    "parts",
    "perturbed_images",
    "power",
    "robustness",
    "save",
    "strip",
    "table2",
    "training",
]
