"""Measurements of classifiers, of attacks and of generated images."""

from gat_tf.evaluation.accuracy import accuracy, correct_function, power
from gat_tf.evaluation.curves import accuracy_curve, transfer_curves
from gat_tf.evaluation.lipschitz import local_lipschitz_value
from gat_tf.evaluation.robustness import Budget, robustness
from gat_tf.evaluation.scores import (
    ScoreNetwork,
    class_diversity,
    frechet_distance,
    inception_score,
)

__all__ = [
    "Budget",
    "ScoreNetwork",
    "accuracy",
    "accuracy_curve",
    "class_diversity",
    "correct_function",
    "frechet_distance",
    "inception_score",
    "local_lipschitz_value",
    "power",
    "robustness",
    "transfer_curves",
]
