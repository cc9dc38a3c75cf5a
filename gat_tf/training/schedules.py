"""The learning rates of Rob-GAN, of its fine-tuning and of SN-GAN."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import reset_moments


class _Restarts(keras.callbacks.Callback, abc.ABC):
    """Sets the learning rate of every optimiser, and resets their moments at certain epochs.

    The Rob-GAN paper's code makes new optimisers at these epochs, so Adam's moments and step count
    start again at zero. Both depend only on the epoch, so that a run can be resumed with
    `initial_epoch`.
    """

    @abc.abstractmethod
    def _rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""

    @abc.abstractmethod
    def _restarts(self, epoch: int) -> bool:
        """Whether the optimisers are reset at an epoch after the first."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for optimizer in (self.model.optimizer, getattr(self.model, "generator_optimizer", None)):
            if optimizer is None:
                continue
            optimizer.learning_rate = self._rate(epoch)
            if epoch and self._restarts(epoch):
                reset_moments(optimizer)


class LearningRateHalving(_Restarts):
    """Halves the learning rates of both optimisers every few epochs, and resets the moments.

    The schedule of Rob-GAN's joint training.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        epochs: Number of epochs between two halvings. 50 in the paper.
        learning_rate: Initial learning rate of both optimisers. 2e-4 in the paper.

    Examples:
        >>> halving = training.LearningRateHalving(epochs=50, learning_rate=2e-4)
        >>> scheme = training.RobGAN(discriminator, image_generator)
        >>> scheme.compile()
        >>> history = scheme.fit(centred_dataset, steps_per_epoch=1, callbacks=[halving], verbose=0)
    """

    def __init__(self, epochs: int = 50, learning_rate: float = 2e-4):
        super().__init__()
        self.epochs = checks.count("epochs", epochs)
        self.learning_rate = checks.number("learning_rate", learning_rate, low=0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not hasattr(self.model, "generator_optimizer"):
            raise ValueError(
                "Expected a scheme with two optimisers, such as RobGAN. "
                f"Received: {type(self.model).__name__}"
            )

    def _rate(self, epoch):
        return self.learning_rate * 0.5 ** (epoch // self.epochs)

    def _restarts(self, epoch):
        return epoch % self.epochs == 0


class LearningRateStages(_Restarts):
    """Divides the learning rate by ten after each stage, and resets the moments.

    The schedule of Rob-GAN's fine-tuning, which makes a new Adam at each stage.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        epochs: Number of epochs of each stage. The last stage lasts until the end of the training.
        learning_rate: Learning rate of the first stage. 1e-3 in the paper's code.

    Examples:
        >>> stages = training.LearningRateStages(epochs=(1, 1), learning_rate=1e-3)
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> history = model.fit(images, labels, epochs=2, callbacks=[stages], verbose=0)
        >>> round(float(model.optimizer.learning_rate), 6)
        0.0001
    """

    def __init__(self, epochs: Sequence[int] = (20, 20, 10, 10), learning_rate: float = 1e-3):
        super().__init__()
        ends = np.cumsum([checks.count("epochs", n, low=0) for n in epochs])
        if not len(ends):
            raise ValueError(f"Expected epochs of at least one stage. Received: epochs={epochs!r}")
        self._ends = ends[:-1]
        self.learning_rate = checks.number("learning_rate", learning_rate, low=0)

    def _rate(self, epoch):
        return self.learning_rate * 0.1 ** int(np.searchsorted(self._ends, epoch, side="right"))

    def _restarts(self, epoch):
        return epoch in self._ends


@keras.saving.register_keras_serializable("gat_tf")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is constant at first and then falls linearly to zero.

    The schedule of both optimisers of SN-GAN:

        discriminator_optimizer = training.gan.adam(LinearDecay(updates=5))
        generator_optimizer = training.gan.adam(LinearDecay())

    Paper: [Miyato et al. 2018](https://arxiv.org/abs/1802.05957).

    Args:
        learning_rate: Initial learning rate. 2e-4 in the SN-GAN paper.
        iterations: Number of iterations after which the rate is 0. 250,000 for 64 pixels.
        decay: Number of final iterations over which the rate falls. 50,000 for 64 pixels.
        updates: Number of updates of the optimiser per iteration: n_dis for the discriminator's.

    Raises:
        ValueError: An argument is outside its range, or `decay` is more than all iterations.

    Examples:
        >>> schedule = training.LinearDecay(learning_rate=2e-4, iterations=100, decay=50)
        >>> [round(float(schedule(step)), 6) for step in (0, 50, 75, 100)]
        [0.0002, 0.0002, 0.0001, 0.0]
    """

    def __init__(
        self,
        learning_rate: float = 2e-4,
        iterations: int = 250_000,
        decay: int = 50_000,
        updates: int = 1,
    ):
        self.learning_rate = checks.number("learning_rate", learning_rate, low=0)
        self.iterations = checks.count("iterations", iterations)
        self.decay = checks.count("decay", decay)
        self.updates = checks.count("updates", updates)
        if decay > iterations:
            raise ValueError(
                "Expected `decay` to be a part of `iterations`. "
                f"Received: decay={decay} of iterations={iterations}"
            )

    def __call__(self, step: tf.Tensor | keras.Variable | int) -> tf.Tensor:
        left = self.iterations - tf.cast(step, tf.int64) // self.updates
        return self.learning_rate * tf.clip_by_value(tf.cast(left, tf.float32) / self.decay, 0, 1)

    def get_config(self) -> dict[str, Any]:
        names = ("learning_rate", "iterations", "decay", "updates")
        return {name: getattr(self, name) for name in names}
