"""gat_tf: adversarial training with learned adversaries, in TensorFlow 2 and Keras 3.

* `gat_tf.models`: the networks of the papers, as plain Keras models.
* `gat_tf.gradients`: gradients with respect to images.
* `gat_tf.attacks`: fast gradient, PGD, random perturbations, trained generators.
* `gat_tf.training`: adversarial training and the Generative Adversarial Trainer (GAT).
* `gat_tf.evaluation`: accuracy, clean and under attack.

`gat_tf.data`, `gat_tf.plotting` and `gat_tf.experiments` are imported on their own: they need
tensorflow-datasets and matplotlib.
"""

import keras

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "gat_tf needs Keras with the TensorFlow backend. Received: the "
        f"{keras.config.backend()} backend. Set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported."
    )

from gat_tf import attacks, evaluation, gradients, models, training
from gat_tf.version import __version__

__all__ = ["__version__", "attacks", "evaluation", "gradients", "models", "training"]
