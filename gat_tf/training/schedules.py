"""The learning rates of Rob-GAN, of its fine-tuning and of SN-GAN."""

from __future__ import annotations

import abc

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import reset_moments


class _Restarts(keras.callbacks.Callback, abc.ABC):
    """Sets the learning rate of every optimiser, and restarts their moments, at some epochs.

    As where the Rob-GAN paper's code makes new optimisers: Adam's moments and its step count begin
    again at zero. Both are functions of the epoch, so that a run may be resumed with
    `initial_epoch`.
    """

    @abc.abstractmethod
    def _rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""

    @abc.abstractmethod
    def _restarts(self, epoch: int) -> bool:
        """Whether the optimisers are new at an epoch that is not the first."""

    def on_epoch_begin(self, epoch, logs=None):
        for optimizer in (self.model.optimizer, getattr(self.model, "generator_optimizer", None)):
            if optimizer is None:
                continue
            optimizer.learning_rate = self._rate(epoch)
            if epoch and self._restarts(epoch):
                reset_moments(optimizer)


class LearningRateHalving(_Restarts):
    """Halves the learning rates of both optimisers every so many epochs, and restarts the moments.

    The schedule of Rob-GAN's joint training.

    Args:
        epochs: Epochs between two halvings. 50 in the paper.
        learning_rate: That of the first epochs, of both optimisers. 2e-4 in the paper.
    """

    def __init__(self, epochs: int = 50, learning_rate: float = 2e-4):
        super().__init__()
        self.epochs = checks.count("epochs", epochs)
        self.learning_rate = checks.number("learning_rate", learning_rate, low=0)

    def on_train_begin(self, logs=None):
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
    """Divides the learning rate by ten after each stage, and restarts the moments.

    The schedule of Rob-GAN's fine-tuning, which makes a new Adam at each stage.

        scheme.fit(dataset, epochs=60, callbacks=[LearningRateStages((20, 20, 10, 10))])

    Args:
        epochs: Epochs of each stage. The last goes on for as long as the training does.
        learning_rate: That of the first stage. 1e-3 in the paper's code.
    """

    def __init__(self, epochs=(20, 20, 10, 10), learning_rate: float = 1e-3):
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
    """A learning rate that stays for a while and then falls in a straight line to zero.

    The schedule of SN-GAN, of each of its optimisers:

        discriminator_optimizer = training.gan.adam(LinearDecay(updates=5))
        generator_optimizer = training.gan.adam(LinearDecay())

    Args:
        learning_rate: That of the first iterations. 2e-4 in the SN-GAN paper.
        iterations: Iterations of the training, at the end of which the rate is 0. 250,000 for 64
            pixels.
        decay: The number of them, at the end, over which the rate falls. 50,000 for 64 pixels.
        updates: Updates of the optimiser in an iteration: n_dis for the discriminator's.

    Raises:
        ValueError: An argument is outside its range, or `decay` is more than all iterations.
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

    def __call__(self, step):
        left = self.iterations - tf.cast(step, tf.int64) // self.updates
        return self.learning_rate * tf.clip_by_value(tf.cast(left, tf.float32) / self.decay, 0, 1)

    def get_config(self):
        names = ("learning_rate", "iterations", "decay", "updates")
        return {name: getattr(self, name) for name in names}
