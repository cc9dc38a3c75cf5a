"""Results in, matplotlib figures out. numpy and matplotlib alone."""

from gat_tf.plotting.power import power
from gat_tf.plotting.style import save
from gat_tf.plotting.table2 import table2
from gat_tf.plotting.training import training

__all__ = ["power", "save", "table2", "training"]
