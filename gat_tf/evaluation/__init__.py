"""Measurements of classifiers and of attacks."""

from gat_tf.evaluation.accuracy import accuracy, correct_function, power
from gat_tf.evaluation.curves import accuracy_curve, transfer_curves

__all__ = ["accuracy", "accuracy_curve", "correct_function", "power", "transfer_curves"]
