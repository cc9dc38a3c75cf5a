"""What the tests share: two logical CPUs, a seed for each test, and small classifiers."""

import collections
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests compile far longer than they compute. The same functions, without LLVM's optimisation.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import data, models
from gat_tf.training import gat

# Before anything starts TensorFlow: the tests of strategies need two devices.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Tests take a few steps of each graph: to rewrite it takes longer than it saves.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# GAT fills the buffer of its draws anew each epoch: 10,000 images are 500 passes over 19.
gat._DRAW_IMAGES = 1_200

gc.collect()
gc.freeze()  # what has been imported stays, and no collection need look through it


# Fixtures that run a whole experiment, train on two replicas or start processes.
RUNS = {"finished", "fork", "grey", "honest", "training_alone", "two_replicas", "whole"}


def pytest_collection_modifyitems(items):
    """Whatever needs one of these runs is slow; the files with most slow tests come first.

    At the end one worker would wait for the other.
    """
    for item in items:
        if RUNS & set(item.fixturenames):
            item.add_marker("slow")
    slow = collections.Counter(i.path for i in items if i.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _tidy():
    """Graphs go with their module, not when the collector gets to them."""
    yield
    gc.collect()
    gc.freeze()  # nor need the next collection look through what a module leaves for all


@pytest.fixture(scope="module")
def eagerly():
    """Runs a module's functions operation by operation: traces cost more than a few steps.

    For what is around the schemes and attacks; their own tests compile them.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled():
    """One test that compiles, in a module that runs `eagerly`."""
    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


@pytest.fixture
def uncompiled():
    """One test that runs operation by operation, in a module that compiles."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def shapes():
    """The built-in images at half their size: (images `[600, 16, 16, 3]`, labels `[600]`)."""
    split = data.draw_shapes(600, seed=0)
    images = split.images.astype(np.float32) / 255
    return images.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4)), split.labels


@pytest.fixture(scope="session")
def trained(shapes):
    """A small Table 1 classifier that has learnt some of the shapes; tests must not change it."""
    keras.utils.set_random_seed(1)
    model = models.classifier(width=1 / 6, input_shape=(16, 16, 3))
    return _fitted(model, shapes, epochs=12)


@pytest.fixture(scope="session")
def trained_logits(trained):
    """`trained` without its softmax."""
    return keras.Model(trained.input, trained.get_layer("logits").output)


@pytest.fixture(scope="session")
def trained_with_state(shapes):
    """A trained classifier with batch norm and dropout; tests must not change it."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(12, 3, 2, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Dropout(0.2),
            keras.layers.Conv2D(24, 3, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    return _fitted(model, shapes, epochs=6)


def _fitted(model, shapes, epochs):
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(*shapes, batch_size=50, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="session")
def dense_classifier():
    """Returns a function: (kernel `[D, K]`, bias, image shape, activation) -> a linear model."""

    def build(kernel, bias, input_shape, activation="softmax"):
        model = keras.Sequential(
            [
                keras.Input(input_shape),
                keras.layers.Flatten(),
                keras.layers.Dense(len(bias), activation=activation),
            ]
        )
        model.set_weights([kernel, bias])
        return model

    return build
