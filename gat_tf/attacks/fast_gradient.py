"""The fast gradient attack: eqs. 1 and 3 of the GAT paper."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from gat_tf.attacks import norms
from gat_tf.attacks.base import EpsilonAttack, GradientAttack


@dataclasses.dataclass(frozen=True, eq=False)
class FastGradient(EpsilonAttack, GradientAttack):
    """One step along the gradient of the loss (Goodfellow et al. 2015; Shaham et al. 2015).

    η = ε sign(grad J) for L-infinity (eq. 1), η = ε grad J / ||grad J||_2 for L2 (eq. 3).

    Papers: [Goodfellow et al. 2015](https://arxiv.org/abs/1412.6572) for L-infinity,
    [Shaham et al. 2015](https://arxiv.org/abs/1511.05432) for L2.

    Args:
        epsilon: Size of η in `norm`, in units of pixel values: one number, or a vector `[B]` with
            one per image.
        norm: 2 or `math.inf`.
        targeted: Whether the labels are targets to reach instead of true labels.

    Raises:
        ValueError: ε is negative or not finite, or `norm` is neither 2 nor `math.inf`.

    Examples:
        >>> attack = attacks.FastGradient(epsilon=8 / 255, norm=math.inf)
        >>> adversarial = attack(model, images, labels)  # images + η, clipped to [0, 1]
        >>> adversarial.shape
        TensorShape([8, 8, 8, 3])
        >>> bool(np.abs(adversarial - images).max() <= 8 / 255 + 1e-6)
        True
    """

    targeted: bool = dataclasses.field(default=False, kw_only=True)

    # Any positive multiple of grad J gives the same η; this one does not vanish.
    gradient_of: ClassVar[str] = "margin"

    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """η from any positive multiple of grad J, `[B, H, W, C]`."""
        step = norms.radius(self.epsilon, gradient) * norms.direction(gradient, self.norm)
        return -step if self.targeted else step
