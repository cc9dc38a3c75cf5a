"""Accuracy under attack after every epoch, for any Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gat_tf._types import Data
from gat_tf.attacks import Attack
from gat_tf.evaluation.accuracy import correct_function, of_each_image, prepared
from gat_tf.training.classifier_base import ClassifierScheme


class RobustAccuracy(keras.callbacks.Callback):
    """Adds `val_robust_accuracy` to the logs of every epoch, for the callbacks after it.

        model.fit(
            images, labels, validation_data=validation, epochs=10,
            callbacks=[
                RobustAccuracy(validation, PGD(8 / 255, math.inf, steps=10)),
                ModelCheckpoint("best.keras", monitor="val_robust_accuracy", mode="max",
                                save_best_only=True),
            ],
        )

    The attacked model is the model in training, or the classifier of a scheme of `gat_tf.training`.
    The attack makes the same random choices after every epoch, so that epochs can be compared. It
    is compiled once.

    Args:
        data: (images, labels) batches as a `tf.data.Dataset`, or arrays (images, labels).
        attack: An untargeted attack.
        name: Name of the metric in the logs.
        batch_size: Batch size for arrays; 32 by default.
        from_logits: Whether the model gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels where the attack has no `clip`.
        seed: Seed of the attack's random choices.

    Raises:
        ValueError: After the first epoch, if `evaluation.accuracy` would raise it.

    Examples:
        >>> robust = training.RobustAccuracy(dataset, attacks.PGD(8 / 255, math.inf, steps=3))
        >>> model.compile("sgd", "sparse_categorical_crossentropy")
        >>> history = model.fit(images, labels, epochs=2, callbacks=[robust], verbose=0)
        >>> len(history.history["val_robust_accuracy"])
        2
    """

    def __init__(
        self,
        data: Data,
        attack: Attack,
        *,
        name: str = "val_robust_accuracy",
        batch_size: int | None = None,
        from_logits: bool = False,
        bounds: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ):
        super().__init__()
        self.data = data
        self.attack = attack
        self.name = name
        self.batch_size = batch_size
        self.from_logits = from_logits
        self.bounds = bounds
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._measure: Callable[[], float] | None = None  # the model may be another one, or changed

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._measure is None:
            self._measure = self._compiled()
        if logs is not None:
            logs[self.name] = self._measure()

    def _compiled(self):
        scheme = isinstance(self.model, ClassifierScheme)
        model = self.model.classifier if scheme else self.model
        logits, dataset = prepared(
            model, self.data, self.attack, self.from_logits, self.bounds, self.batch_size
        )
        # A training that diverges goes on: what is not finite is no success.
        correct = correct_function(logits, self.attack, dataset.element_spec, finite=False)
        return lambda: float(np.mean(of_each_image(correct, dataset, self.attack, self.seed)))
