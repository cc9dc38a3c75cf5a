"""The Rob-GAN paper's schedule of the learning rate."""

from __future__ import annotations

import keras

from gat_tf import checks


class LearningRateHalving(keras.callbacks.Callback):
    """Halves the learning rates of both optimisers every so many epochs, and restarts the moments.

    As in the Rob-GAN paper's code, which makes new optimisers then: Adam's moments and its step
    count begin again at zero. The rate is a function of the epoch, so that a run may be resumed
    with `initial_epoch`.

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

    def on_epoch_begin(self, epoch, logs=None):
        for optimizer in (self.model.optimizer, self.model.generator_optimizer):
            optimizer.learning_rate = self.learning_rate * 0.5 ** (epoch // self.epochs)
            if epoch and epoch % self.epochs == 0:
                # Of float16's LossScaleOptimizer, what is inside: the scale goes on.
                inner = getattr(optimizer, "inner_optimizer", optimizer)
                for variable in inner.variables:
                    if variable is not inner._learning_rate:
                        variable.assign(keras.ops.zeros_like(variable))
