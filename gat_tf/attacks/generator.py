"""The trained generator of GAT as an attack like any other."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from gat_tf.attacks.base import GradientAttack


@dataclasses.dataclass(frozen=True, eq=False)
class GeneratorAttack(GradientAttack):
    """η = G(Δ), Δ = dF(x)_y/dx (section 3.2 of the GAT paper).

    Its strength is that of the generator; there is no ε.

    Args:
        generator: Keras model from gradients `[B, H, W, C]` to perturbations `[B, H, W, C]`.
    """

    generator: keras.Model

    gradient_of: ClassVar[str] = "probability"

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """G(Δ) in inference mode, from Δ `[B, H, W, C]`."""
        return tf.cast(self.generator(gradient, training=False), gradient.dtype)
