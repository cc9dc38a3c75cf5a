"""Every training scheme as the tests build it: small, and the same whenever it is built."""

import functools

import keras
import numpy as np
import tensorflow as tf

from gat_tf import attacks, training

SHAPE = (4, 4, 3)
CLASSES = 3
BATCH = 8


def arrays(size=19, seed=0, low=0.0):
    """19 images make batches of 8, 8 and 3."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(low, 1.0, (size, *SHAPE)).astype("float32")
    return images, rng.integers(0, CLASSES, size)


def dataset(size=19, batch=BATCH, seed=0, low=0.0):
    return tf.data.Dataset.from_tensor_slices(arrays(size, seed, low)).batch(batch)


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


def image_generator(bounds=(0, 1), normalised=False):
    """From noise of 5 and a class to images of either range; no batch norm unless asked for."""
    noise, labels = keras.Input((5,)), keras.Input((), dtype="int32")
    embedded = keras.layers.Embedding(CLASSES, 4, embeddings_initializer=_normal(1.0, 5))(labels)
    x = keras.layers.Concatenate()([noise, embedded])
    x = keras.layers.Dense(4 * 4 * 3, kernel_initializer=_normal(0.3, 6))(x)
    if normalised:
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.Activation("sigmoid" if bounds == (0, 1) else "tanh")(x)
    return keras.Model([noise, labels], keras.layers.Reshape(SHAPE)(x), name="image_generator")


def discriminator(normalised=False):
    """Of images in [-1, 1]; no batch norm unless asked for."""
    images = keras.Input(SHAPE)
    x = keras.layers.Flatten()(images)
    x = keras.layers.Dense(8, kernel_initializer=_normal(0.5, 7))(x)
    if normalised:
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.LeakyReLU(0.2)(x)
    heads = {
        name: keras.layers.Dense(
            units, kernel_initializer=_normal(0.5, 8 + i), dtype="float32", name=name
        )(x)
        for i, (name, units) in enumerate((("real", 1), ("classes", CLASSES)))
    }
    return keras.Model(images, heads, name="discriminator")


def projecting_discriminator():
    """SN-GAN's: from images in [-1, 1] and classes to one logit."""
    images, labels = keras.Input(SHAPE), keras.Input((), dtype="int32")
    x = keras.layers.Flatten()(images)
    x = keras.layers.Dense(8, "relu", kernel_initializer=_normal(0.5, 7))(x)
    embedded = keras.layers.Embedding(CLASSES, 8, embeddings_initializer=_normal(0.5, 9))(labels)
    judged = keras.layers.Dense(1, kernel_initializer=_normal(0.5, 8))(x)
    judged = keras.layers.Add(dtype="float32")([judged, keras.layers.Dot(-1)([x, embedded])])
    return keras.Model([images, labels], judged, name="projecting_discriminator")


def _normal(stddev, seed):
    return keras.initializers.RandomNormal(stddev=stddev, seed=seed)


def adversarial_training(attack, **kwargs):
    return lambda f, **more: training.AdversarialTraining(f, attack(), **kwargs, **more)


def gat(**kwargs):
    return lambda f, **more: training.GAT(f, generator(), c_g=0.1, **kwargs, **more)


def pgd(**kwargs):
    """The attack of the GANs' tests, on images in [-1, 1]."""
    return attacks.PGD(
        **{
            "epsilon": 0.1,
            "norm": np.inf,
            "steps": 3,
            "step_size": 0.05,
            "random_start": False,
            "clip": (-1, 1),
            **kwargs,
        }
    )


def fine_tuning(f, **more):
    attack = attacks.PGD(0.05, np.inf, steps=3, random_start=False)
    return training.FineTuning(f, image_generator(), attack, 0.3, **{"from_logits": False, **more})


CASES = {
    "fast_gradient_l2": adversarial_training(lambda: attacks.FastGradient(0.5)),
    "fast_gradient_linf": adversarial_training(lambda: attacks.FastGradient(0.05, np.inf)),
    "random": adversarial_training(lambda: attacks.RandomPerturbation(0.5)),
    "pgd": adversarial_training(lambda: attacks.PGD(0.5, steps=3), alpha=0.0),
    "pgd_without_random_start": adversarial_training(
        lambda: attacks.PGD(0.5, steps=3, random_start=False)
    ),
    "generator_attack": adversarial_training(lambda: attacks.GeneratorAttack(generator())),
    "trades": lambda f, **more: training.TRADES(f, attacks.PGD(0.5, steps=3), 2.0, **more),
    "awp": lambda f, **more: training.AWP(
        f, attacks.PGD(0.5, steps=3, random_start=False), 0.1, **more
    ),
    "fine_tuning": fine_tuning,
    "generator_training": lambda f, **more: training.GeneratorTraining(f, generator(), 0.1, **more),
    "gat_separate": gat(),
    "gat_shared": gat(minibatches="shared"),
}
WITH_GENERATOR = ("generator_training", "gat_separate", "gat_shared")
RANDOM = ("random", "pgd", "trades", "fine_tuning", "gat_separate")


def two_replicas():
    """On two logical CPUs, reduced by copies: collectives count in every strategy from one."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")[:2]]
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def adam():
    return keras.optimizers.Adam(1e-2)


def sgd():
    return keras.optimizers.SGD(0.1)


def momentum():
    """It has slots, as Adam has, and does not hide how long gradients are."""
    return keras.optimizers.SGD(0.1, momentum=0.9)


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


def traced(case, **kwargs):
    """The scheme of a case as `build` makes it, whose step is traced once for all tests.

    Each call puts every variable back to its first value: weights, optimizers with their counts,
    metrics. For tests that look at what is trained: they must change nothing but variables, and
    keep one such scheme of a case at a time. There is one for each strategy. Its list `traces` has
    an item for each trace of a step.
    """
    scheme, values, settings = _new(tf.distribute.get_strategy(), case, **kwargs)
    for variable, value in zip(_variables(scheme), values, strict=True):
        variable.assign(value)
    now = vars(scheme)
    changed = {name for name in settings if _plain(now[name]) and now[name] != settings[name]}
    of_use = {"stop_training", "_called", "_parent_path"}  # which tell nothing to a later `fit`
    assert changed <= of_use, f"a test has changed {changed}"
    return scheme


@functools.cache
def _new(strategy, case, **kwargs):
    scheme = build(case, **kwargs)
    step, scheme.traces = scheme.train_step, []
    scheme.train_step = lambda data: scheme.traces.append(case) or step(data)
    settings = {name: value for name, value in vars(scheme).items() if _plain(value)}
    return scheme, [variable.numpy() for variable in _variables(scheme)], settings


def _plain(value):
    return isinstance(value, (bool, int, float, str, type(None)))


def _variables(scheme):
    optimizers = [getattr(scheme, attribute) for attribute in scheme._optimizers.values()]
    parts = [scheme.variables, scheme.metrics_variables, *(o.variables for o in optimizers)]
    return list({id(variable): variable for part in parts for variable in part}.values())


def weights(scheme):
    """The weights of all networks of a scheme in one vector."""
    networks = (
        getattr(scheme, name, None) for name in ("classifier", "discriminator", "generator")
    )
    return vector(*(network for network in networks if network is not None))


def vector(*networks):
    return np.concatenate([w.ravel() for network in networks for w in network.get_weights()])
