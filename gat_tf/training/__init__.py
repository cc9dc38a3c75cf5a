"""Training schemes: Keras models around the networks they train, for `compile` and `fit`."""

from gat_tf.training.adversarial import AdversarialTraining
from gat_tf.training.awp import AWP
from gat_tf.training.finetuning import FineTuning
from gat_tf.training.gat import GAT
from gat_tf.training.generator import GeneratorTraining
from gat_tf.training.robgan import RobGAN
from gat_tf.training.robust_accuracy import RobustAccuracy
from gat_tf.training.schedules import LearningRateHalving, LearningRateStages, LinearDecay
from gat_tf.training.sngan import SNGAN
from gat_tf.training.trades import TRADES

__all__ = [
    "AWP",
    "GAT",
    "SNGAN",
    "TRADES",
    "AdversarialTraining",
    "FineTuning",
    "GeneratorTraining",
    "LearningRateHalving",
    "LearningRateStages",
    "LinearDecay",
    "RobGAN",
    "RobustAccuracy",
]
