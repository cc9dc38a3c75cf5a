"""Results in, matplotlib figures out. numpy and matplotlib alone."""

from gat_tf.plotting.attacked import attacked, epsilon_curves
from gat_tf.plotting.evaluation import evaluation
from gat_tf.plotting.gaps import gaps
from gat_tf.plotting.images import perturbed_images
from gat_tf.plotting.power import power
from gat_tf.plotting.robustness import robustness
from gat_tf.plotting.samples import samples
from gat_tf.plotting.scores import scores
from gat_tf.plotting.style import save
from gat_tf.plotting.table2 import table2
from gat_tf.plotting.training import training

__all__ = [
    "attacked",
    "epsilon_curves",
    "evaluation",
    "gaps",
    "perturbed_images",
    "power",
    "robustness",
    "samples",
    "save",
    "scores",
    "table2",
    "training",
]
