"""Measurements of classifiers."""

from gat_tf.evaluation.accuracy import accuracy, correct_function

__all__ = ["accuracy", "correct_function"]
