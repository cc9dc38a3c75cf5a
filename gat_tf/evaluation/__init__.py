"""Measurements of classifiers, of attacks and of generated images."""

from gat_tf.evaluation.accuracy import accuracy, power
from gat_tf.evaluation.accuracy import correct_function as correct_function
from gat_tf.evaluation.accuracy import of_each_image as of_each_image
from gat_tf.evaluation.curves import accuracy_curve, transfer_curves
from gat_tf.evaluation.lipschitz import lipschitz_function as lipschitz_function
from gat_tf.evaluation.lipschitz import local_lipschitz_value
from gat_tf.evaluation.merging import merged
from gat_tf.evaluation.robustness import Budget, robustness
from gat_tf.evaluation.scores import (
    ScoreNetwork,
    class_diversity,
    frechet_distance,
    inception_score,
)

# The compiled functions serve training, which measures after every epoch: no part of the API.
__all__ = [
    "Budget",
    "ScoreNetwork",
    "accuracy",
    "accuracy_curve",
    "class_diversity",
    "frechet_distance",
    "inception_score",
    "local_lipschitz_value",
    "merged",
    "power",
    "robustness",
    "transfer_curves",
]
