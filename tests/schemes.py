"""Every training scheme as the tests build it: small, and the same whenever it is built."""

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, training

SHAPE = (4, 4, 3)
CLASSES = 3
BATCH = 8


def arrays(size=19, seed=0):
    """19 images make batches of 8, 8 and 3."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(size, *SHAPE)).astype("float32")
    return images, rng.integers(0, CLASSES, size)


def dataset(size=19, batch=BATCH, seed=0):
    return tf.data.Dataset.from_tensor_slices(arrays(size, seed)).batch(batch)


def pairs(size=19, batch=BATCH, draws=1):
    """Minibatches of the classifier with the generator's, drawn by the user of GAT."""
    others = tuple(dataset(size, batch, seed=1 + i) for i in range(draws))
    return tf.data.Dataset.zip(dataset(size, batch), others)


def classifier(hidden=8, regularizer=None):
    layers = [keras.Input(SHAPE), keras.layers.Flatten()]
    if hidden:
        layers.append(keras.layers.Dense(hidden, "relu", kernel_initializer=_normal(0.5, 1)))
    layers.append(
        keras.layers.Dense(
            CLASSES,
            "softmax",
            kernel_initializer=_normal(0.5, 2),
            kernel_regularizer=regularizer,
            dtype="float32",
        )
    )
    return keras.Sequential(layers, name="classifier")


def generator(regularizer=None):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(
                3,
                1,
                activation="tanh",
                kernel_initializer=_normal(1.0, 3),
                bias_initializer=_normal(0.1, 4),
                kernel_regularizer=regularizer,
            ),
        ],
        name="generator",
    )


def _normal(stddev, seed):
    return keras.initializers.RandomNormal(stddev=stddev, seed=seed)


def adversarial_training(attack, **kwargs):
    return lambda f, **more: training.AdversarialTraining(f, attack(), **kwargs, **more)


def gat(**kwargs):
    return lambda f, **more: training.GAT(f, generator(), c_g=0.1, **kwargs, **more)


CASES = {
    "fast_gradient_l2": adversarial_training(lambda: attacks.FastGradient(0.5)),
    "fast_gradient_linf": adversarial_training(lambda: attacks.FastGradient(0.05, np.inf)),
    "random": adversarial_training(lambda: attacks.RandomPerturbation(0.5)),
    "pgd": adversarial_training(lambda: attacks.PGD(0.5, steps=3), alpha=0.0),
    "pgd_without_random_start": adversarial_training(
        lambda: attacks.PGD(0.5, steps=3, random_start=False)
    ),
    "generator_attack": adversarial_training(lambda: attacks.GeneratorAttack(generator())),
    "generator_training": lambda f, **more: training.GeneratorTraining(f, generator(), 0.1, **more),
    "gat_separate": gat(),
    "gat_shared": gat(minibatches="shared"),
}
WITH_GENERATOR = ("generator_training", "gat_separate", "gat_shared")
RANDOM = ("random", "pgd", "gat_separate")


def adam():
    return keras.optimizers.Adam(1e-2)


def sgd():
    return keras.optimizers.SGD(0.1)


def build(case, network=None, optimizer=adam, compiled=True, **kwargs):
    """A compiled scheme. The generator learns as fast as the classifier, to be seen to."""
    compile_arguments = {
        name: kwargs.pop(name)
        for name in ("jit_compile", "run_eagerly", "steps_per_execution")
        if name in kwargs
    }
    scheme = CASES[case](network or classifier(), **kwargs)
    if not compiled:
        return scheme
    if isinstance(scheme, training.GAT):
        scheme.compile(optimizer(), optimizer(), **compile_arguments)
    else:
        scheme.compile(optimizer(), **compile_arguments)
    return scheme


def weights(scheme):
    """The weights of all networks of a scheme in one vector."""
    networks = [scheme.classifier, *([scheme.generator] if hasattr(scheme, "generator") else [])]
    return vector(*networks)


def vector(*networks):
    return np.concatenate([w.ravel() for network in networks for w in network.get_weights()])
