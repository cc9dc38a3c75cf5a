"""What every attack shares."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from gat_tf import checks
from gat_tf.attacks import compiled
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits, logits_of


@dataclasses.dataclass(frozen=True, eq=False)
class Attack(abc.ABC):
    """An attack on image classifiers.

    Args:
        clip: `(low, high)` that adversarial images are clipped to, or None for no clipping (as in
            eqs. 1 to 4, 9 and 10 of the GAT paper). The images attacked must lie within it, or
            within [0, 1] where it is None.
    """

    clip: tuple[float, float] | None = dataclasses.field(default=(0.0, 1.0), kw_only=True)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("gat_tf")(cls)

    def __post_init__(self):
        checks.clip(self.clip)

    def get_config(self) -> dict:
        """The hyperparameters, so that a training scheme with an attack in it can be saved."""
        return {
            f.name: keras.saving.serialize_keras_object(getattr(self, f.name))
            for f in dataclasses.fields(self)
        }

    @classmethod
    def from_config(cls, config: dict) -> Attack:
        """The attack that gave `config`."""
        return cls(**keras.saving.deserialize_keras_object(config))

    def perturbation(self, model, images, labels, *, from_logits=False, seed=None) -> tf.Tensor:
        """Returns the perturbation η of each image, before any clipping of the sum.

        Outside a `tf.function` the first call compiles the attack, for this model and batches of
        any size, and later ones run what was compiled, also with another ε.

        Args:
            model: Keras classifier from images to probabilities or logits `[B, K]`. It runs in
                inference mode and is not changed.
            images: `[B, H, W, C]` floats within `clip`, or [0, 1].
            labels: `[B]` integers in [0, K): the true labels, or the targets of a targeted attack.
            from_logits: Whether the model gives logits instead of probabilities.
            seed: `[2]` integers that fix every random choice. By default they are drawn from
                `tf.random`.

        Returns:
            `[B, H, W, C]` float32.

        Raises:
            ValueError: Images, labels or the model are not of the kinds above.
        """
        return self._checked_call(model, images, labels, from_logits, seed)[0]

    def __call__(self, model, images, labels, *, from_logits=False, seed=None) -> tf.Tensor:
        """Returns the adversarial images, `[B, H, W, C]`: images + η, clipped to `clip`.

        Arguments and errors are those of `perturbation`.
        """
        return self._checked_call(model, images, labels, from_logits, seed)[1]

    @abc.abstractmethod
    def perturb(self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed) -> tf.Tensor:
        """`perturbation` of tensors that are known to be good: what a compiled step calls."""

    def apply(self, images: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns images + perturbation, clipped to `clip`."""
        images = images + perturbation
        return images if self.clip is None else tf.clip_by_value(images, *self.clip)

    def for_accuracy(self) -> Attack:
        """The attack as it is cheapest where only the accuracy under it is wanted."""
        return self

    def checked_and_attacked(self, logits, images, labels, seed) -> tuple[tf.Tensor, tf.Tensor]:
        """`perturbation` and the adversarial images, where the model is known to be good."""
        images, labels = logits.checked(images, labels, self.clip or (0.0, 1.0))
        perturbation = self.perturb(logits, images, labels, seed)
        return perturbation, self.apply(images, perturbation)

    def _checked_call(self, model, images, labels, from_logits, seed):
        logits = logits_of(model, from_logits)
        # Nobody's function is around it, nor a strategy or logits of somebody's own.
        direct = tf.executing_eagerly() and not tf.distribute.has_strategy()
        if direct and not tf.config.functions_run_eagerly() and type(logits) is Logits:
            images, labels = checks.typed(images, labels, self.clip or (0.0, 1.0))
            return compiled.attacked(self, logits, images, labels, seed_or_random(seed))
        return self.checked_and_attacked(logits, images, labels, seed)


class GradientAttack(Attack):
    """An attack that is a function of one input gradient.

    A training step that has the gradient already hands it to `from_gradient` and saves a pass.

    Attributes:
        gradient_of: The quantity of `gat_tf.gradients.input_gradient` that the attack needs.
    """

    gradient_of: ClassVar[str]

    @abc.abstractmethod
    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the perturbations `[B, H, W, C]` for input gradients `[B, H, W, C]`."""

    def perturb(self, logits, images, labels, seed=None):
        del seed  # nothing is random
        _, gradient = logits_and_input_gradient(logits, images, labels, self.gradient_of)
        return self.from_gradient(gradient)


def seed_or_random(seed) -> tf.Tensor:
    """The seed given, or one drawn from `tf.random`: `[2]` int32."""
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    return tf.cast(seed, tf.int32)
