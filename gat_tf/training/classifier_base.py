"""The base of schemes that train a classifier, or a generator against one."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from gat_tf import checks
from gat_tf._types import Bounds
from gat_tf.attacks import Attack
from gat_tf.logits import Logits
from gat_tf.training.base import ADAM_EPSILON, Scheme, require_built
from gat_tf.training.metrics import Quantiles


class ClassifierScheme(Scheme):
    """A scheme around a classifier; called, it is the classifier.

    Args:
        classifier: Keras model from images `[B, H, W, C]` to `[B, K]`.
        bounds: `(low, high)` of the pixels.
        from_logits: Whether the classifier gives logits instead of probabilities.
        seed: Seed of the attack's random choices. Each step's are derived from it and from the
            optimiser's step count, so that a run that is resumed goes on as if never stopped.
    """

    _recorded: tuple[str, ...] = (
        "loss",  # the objective of eqs. 2, 4 and 10 of the GAT paper
        "clean_loss",
        "adversarial_loss",
        "clean_accuracy",
        "adversarial_accuracy",
        "power",  # ||η||_2^2
    )

    def __init__(
        self,
        classifier: keras.Model,
        bounds: Bounds = (0.0, 1.0),
        *,
        from_logits: bool = False,
        seed: int = 0,
        name: str | None = None,
    ):
        logits = Logits(classifier, from_logits)
        require_built(classifier)
        bounds = checks.bounds(bounds)
        super().__init__(logits.num_classes, bounds, self._recorded, seed=seed, name=name)
        self._logits = logits
        self.classifier = classifier
        self.results["power_quantiles"] = Quantiles("power")

    @property
    def _learner(self):
        return self.classifier

    def _default_optimizer(self):
        """Adam with the GAT paper's learning rate of a classifier."""
        return keras.optimizers.Adam(1e-3, epsilon=ADAM_EPSILON)

    def call(self, images: tf.Tensor, training: bool = False) -> Any:
        return self.classifier(images, training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "from_logits": self._logits.from_logits,
            **super().get_config(),
        }

    def _step_seed(self) -> tf.Tensor:
        return self._seed_of(self.optimizer.iterations.value)

    def _seed_of(self, step: Any) -> tf.Tensor:
        seed = tf.stack([self.seed, tf.cast(tf.convert_to_tensor(step), tf.int32)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.fold_in(seed, replica)

    def _record(self, **values):
        return super()._record(power_quantiles=values["power"], **values)


def bounds_with(attack: Attack, bounds: Bounds | None) -> tuple[float, float]:
    """The pixel range of a scheme: the attack's `clip`, or `bounds` if it has none.

    Raises:
        ValueError: There are both, and they differ.
    """
    if attack.clip is None:
        return (0.0, 1.0) if bounds is None else bounds
    if bounds is not None and tuple(checks.bounds(bounds)) != tuple(attack.clip):
        raise ValueError(
            "Expected the `clip` of the attack to be the range of the images. "
            f"Received: bounds={bounds!r} and clip={attack.clip!r}. Pass clip={bounds!r} to the "
            "attack, or None for no clipping."
        )
    return attack.clip


def mixed(clean: Any, adversarial: Any, alpha: float) -> Any:
    """α·clean + (1 - α)·adversarial: eqs. 2, 4 and 10, for losses and for their gradients."""
    return alpha * clean + (1 - alpha) * adversarial


def mixed_gradients(clean: Any, adversarial: Any, alpha: float) -> list:
    """`mixed` for lists of gradients; None counts as zero."""
    if alpha == 0:  # the clean loss's backward pass, which nothing needs, falls out of the graph
        return adversarial
    return [
        a if c is None else c if a is None else mixed(c, a, alpha)
        for c, a in zip(clean, adversarial, strict=True)
    ]
