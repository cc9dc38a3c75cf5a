"""An ordinary residual network with batch norm, trained in minutes, for the benchmarks here.

    python benchmarks/residual.py --data_dir=... --output=residual.keras

Trained as in Madry et al. (2018), but with one step of the attack: so briefly trained, a network
withstands hardly anything otherwise, and an attack that has nothing left to attack costs nothing.
"""

from __future__ import annotations

import math

import keras
from absl import app, flags
from keras import layers

from gat_tf import data, training
from gat_tf.attacks import PGD

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
_OUTPUT = flags.DEFINE_string("output", "residual.keras", "File that the network is written to.")
_EPOCHS = flags.DEFINE_integer("epochs", 4, "Passes over the 45,000 training images.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "mixed_bfloat16 where the hardware is fast at it.")

BATCH = 128


def residual_network(num_classes: int = 10, blocks: int = 2) -> keras.Model:
    """Three stages of 16, 32 and 64 filters (He et al. 2016), images in [0, 1] to probabilities."""
    images = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(_conv(16, 3)(images)))
    for filters in (16, 32, 64):
        for block in range(blocks):
            strides = 2 if block == 0 and filters > 16 else 1
            y = layers.ReLU()(layers.BatchNormalization()(_conv(filters, 3, strides)(x)))
            y = layers.BatchNormalization()(_conv(filters, 3)(y))
            if strides > 1:
                x = layers.BatchNormalization()(_conv(filters, 1, strides)(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    z = layers.Dense(num_classes, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Softmax(dtype="float32")(z))


def _conv(filters, size, strides=1):
    return layers.Conv2D(filters, size, strides, padding="same", use_bias=False)


def main(_):
    keras.utils.set_random_seed(0)
    split = data.load("cifar10", _DATA_DIR.value).train
    batches = data.shuffled_batches(split, BATCH, seed=0)
    keras.config.set_dtype_policy(_DTYPE.value)
    network = residual_network()
    one_step = PGD(4 / 255, math.inf, steps=1, step_size=5 / 255)
    scheme = training.AdversarialTraining(network, one_step, alpha=0.0)
    steps = _EPOCHS.value * data.steps_per_epoch(split, BATCH)
    scheme.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
    scheme.fit(
        batches, epochs=_EPOCHS.value, steps_per_epoch=data.steps_per_epoch(split, BATCH), verbose=2
    )
    keras.config.set_dtype_policy("float32")
    plain = residual_network()
    plain.set_weights(network.get_weights())
    plain.save(_OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
