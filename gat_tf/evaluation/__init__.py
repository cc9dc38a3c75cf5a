"""Measurements of classifiers, of attacks and of generated images."""

from gat_tf.evaluation.accuracy import accuracy, correct_function, of_each_image, power
from gat_tf.evaluation.curves import accuracy_curve, transfer_curves
from gat_tf.evaluation.lipschitz import lipschitz_function, local_lipschitz_value
from gat_tf.evaluation.robustness import Budget, merged, robustness
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
    "lipschitz_function",
    "local_lipschitz_value",
    "merged",
    "of_each_image",
    "power",
    "robustness",
    "transfer_curves",
]
