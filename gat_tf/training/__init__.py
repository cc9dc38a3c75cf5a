"""Training schemes: Keras models around a classifier, for `compile` and `fit`."""

from gat_tf.training.adversarial import AdversarialTraining
from gat_tf.training.gat import GAT

__all__ = ["GAT", "AdversarialTraining"]
