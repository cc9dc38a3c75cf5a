"""Training schemes: Keras models around a classifier, for `compile` and `fit`."""

from gat_tf.training.adversarial import AdversarialTraining
from gat_tf.training.gat import GAT
from gat_tf.training.generator import GeneratorTraining

__all__ = ["GAT", "AdversarialTraining", "GeneratorTraining"]
