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

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        generator: Keras model from gradients `[B, H, W, C]` to perturbations `[B, H, W, C]`.

    Examples:
        >>> attack = attacks.GeneratorAttack(generator)  # trained by GAT or by GeneratorTraining
        >>> attack.perturbation(model, images, labels).shape
        TensorShape([8, 8, 8, 3])
    """

    generator: keras.Model

    gradient_of: ClassVar[str] = "probability"

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """G(Δ) in inference mode, from Δ `[B, H, W, C]`."""
        return tf.cast(self.generator(gradient, training=False), gradient.dtype)
