"""What every attack shares."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, TypeVar

import keras
import tensorflow as tf

from gat_tf import checks
from gat_tf._types import Array, Seed
from gat_tf.attacks import compiled
from gat_tf.gradients import logits_and_input_gradient
from gat_tf.logits import Logits, logits_of

AnyAttack = TypeVar("AnyAttack", bound="Attack")


@dataclasses.dataclass(frozen=True, eq=False)
class Attack(abc.ABC):
    """An attack on image classifiers.

    Args:
        clip: `(low, high)` that adversarial images are clipped to, or None for no clipping (as in
            eqs. 1 to 4, 9 and 10 of the GAT paper). The images attacked must lie within it, or
            within [0, 1] where it is None.

    Examples:
        >>> attack = attacks.PGD(epsilon=8 / 255, norm=math.inf)
        >>> isinstance(attack, attacks.Attack)
        True
        >>> attack.get_config()["steps"]
        20
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

    def perturbation(
        self,
        model: keras.Model,
        images: Array,
        labels: Array,
        *,
        from_logits: bool = False,
        seed: Seed = None,
    ) -> tf.Tensor:
        """Returns the perturbation η per image, before images + η is clipped.

        Outside a `tf.function`, the first call compiles the attack for this model and for batches
        of any size. Later calls reuse the compiled function, also with another ε.

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
            ValueError: Images, labels or the model are not as described above.
        """
        return self._checked_call(model, images, labels, from_logits, seed)[0]

    def __call__(
        self,
        model: keras.Model,
        images: Array,
        labels: Array,
        *,
        from_logits: bool = False,
        seed: Seed = None,
    ) -> tf.Tensor:
        """Returns the adversarial images, `[B, H, W, C]`: images + η, clipped to `clip`.

        Arguments and errors are those of `perturbation`.
        """
        return self._checked_call(model, images, labels, from_logits, seed)[1]

    @abc.abstractmethod
    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed
    ) -> tf.Tensor:
        """`perturbation` without the checks, for use inside a compiled step."""

    def apply(self, images: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns images + perturbation, clipped to `clip`."""
        images = images + perturbation
        return images if self.clip is None else tf.clip_by_value(images, *self.clip)

    def _clipped(self, images: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """The perturbation that is left after images + perturbation is clipped."""
        return perturbation if self.clip is None else self.apply(images, perturbation) - images

    def for_accuracy(self: AnyAttack) -> AnyAttack:
        """The cheapest form of the attack that gives the same accuracy."""
        return self

    def checked_and_attacked(
        self, logits: Logits, images: Array, labels: Array, seed: Seed
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`perturbation` and the adversarial images, for a model that has been checked."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class EpsilonAttack(Attack):
    """An attack of size ε in a norm. The subclasses describe the arguments."""

    epsilon: float
    norm: float = 2

    def __post_init__(self):
        super().__post_init__()
        checks.epsilon(self.epsilon)
        checks.norm(self.norm)


class GradientAttack(Attack):
    """An attack that is a function of one input gradient.

    A training step that already has the gradient passes it to `from_gradient` and saves one pass.

    Attributes:
        gradient_of: The quantity of `gat_tf.gradients.input_gradient` that the attack needs.

    Examples:
        >>> attack = attacks.FastGradient(epsilon=0.5, norm=2)
        >>> gradient = gradients.input_gradient(model, images, labels, of=attack.gradient_of)
        >>> attack.from_gradient(gradient).shape
        TensorShape([8, 8, 8, 3])
    """

    gradient_of: ClassVar[str]

    @abc.abstractmethod
    def from_gradient(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the perturbations `[B, H, W, C]` for input gradients `[B, H, W, C]`."""

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        del seed  # nothing is random
        _, gradient = logits_and_input_gradient(logits, images, labels, self.gradient_of)
        return self.from_gradient(gradient)


def require_untargeted(attack: Attack | None) -> None:
    """Raises ValueError if the labels that the attack takes are targets."""
    if getattr(attack, "targeted", False):
        raise ValueError(
            "Expected an untargeted attack: images are attacked with their true labels. "
            f"Received: {attack!r}"
        )


def seed_or_random(seed: Seed) -> tf.Tensor:
    """The seed given, or one drawn from `tf.random`: `[2]` int32."""
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    return tf.cast(seed, tf.int32)
