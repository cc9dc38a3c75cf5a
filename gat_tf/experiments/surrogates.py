"""Perturbations that replace the generator's, to find out where GAT's gain comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf.attacks import GradientAttack, norms


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledGradient(GradientAttack):
    """η = -s·Δ, where Δ = ∂F(x)_y/∂x is what the generator is given: no generator at all.

    Like the generator, it perturbs an image less if the classifier is confident about it.

    Args:
        scale: s, at least 0.
    """

    scale: float

    gradient_of: ClassVar[str] = "probability"

    def __post_init__(self):
        super().__post_init__()
        checks.number("scale", self.scale, 0)

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """η from Δ, `[B, H, W, C]`."""
        return -self.scale * gradient


@dataclasses.dataclass(frozen=True, eq=False)
class SharedPower(GradientAttack):
    """η = -s·Δ with s such that the mean of ‖η‖₂² over the batch is `power`, from the first step.

    It is the fast gradient in L2 with ε ∝ ‖Δ‖₂ for each image.

    Args:
        power: Mean of ‖η‖₂² over the batch (over each replica's share of it), at least 0.
    """

    power: float

    gradient_of: ClassVar[str] = "probability"

    def __post_init__(self):
        super().__post_init__()
        checks.number("power", self.power, 0)

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """η from Δ, `[B, H, W, C]`; zero where all of Δ is."""
        mean = tf.reduce_mean(norms.power(gradient))
        return -tf.math.sqrt(tf.math.divide_no_nan(self.power, mean)) * gradient


@dataclasses.dataclass(frozen=True, eq=False)
class ScheduledFastGradient(GradientAttack):
    """The fast gradient in L2 (eq. 3), with an ε that a `PowerSchedule` changes by the epoch.

    Args:
        epsilon: A scalar `tf.Variable`.
    """

    epsilon: tf.Variable

    gradient_of: ClassVar[str] = "margin"

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """η from any positive multiple of grad J, `[B, H, W, C]`."""
        return self.epsilon * norms.direction(gradient, 2)


class PowerSchedule(keras.callbacks.Callback):
    """Sets ε at the beginning of each epoch, so that the power ε² is a function of the epoch.

    Args:
        epsilon: The variable to set.
        epochs: Epochs at which the power is known, rising from 0; in between it is interpolated.
        powers: The power at each of them; it stays at the last.
    """

    def __init__(self, epsilon: tf.Variable, epochs: Sequence[float], powers: Sequence[float]):
        super().__init__()
        self.epsilon = epsilon
        self.epochs = epochs
        self.powers = powers

    def on_epoch_begin(self, epoch, logs=None):
        self.epsilon.assign(np.sqrt(np.interp(epoch, self.epochs, self.powers)))
