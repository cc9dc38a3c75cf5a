"""Random perturbations: the third row of Table 2 of the GAT paper."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gat_tf._types import Seed
from gat_tf.attacks import norms
from gat_tf.attacks.base import EpsilonAttack, seed_or_random
from gat_tf.logits import Logits


@dataclasses.dataclass(frozen=True, eq=False)
class RandomPerturbation(EpsilonAttack):
    """A random direction of size ε: the fast gradient's η without the gradient.

    ±ε at every pixel for L-infinity, a point on the sphere of radius ε for L2.

    Args:
        epsilon: Size of η in `norm`, in units of pixel values: one number, or a vector `[B]` with
            one per image.
        norm: 2 or `math.inf`.

    Raises:
        ValueError: ε is negative or not finite, or `norm` is neither 2 nor `math.inf`.

    Examples:
        >>> noise = attacks.RandomPerturbation(epsilon=8 / 255, norm=math.inf)
        >>> perturbation = noise.perturbation(model, images, labels, seed=(0, 1))
        >>> sorted({round(255 * float(value)) for value in np.unique(perturbation)})
        [-8, 8]
    """

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        del logits, labels
        random = norms.random_direction(tf.shape(images), self.norm, seed_or_random(seed))
        return norms.radius(self.epsilon, images) * random
