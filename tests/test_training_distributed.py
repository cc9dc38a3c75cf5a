"""One replica, two replicas and two processes train the same weights."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, models, training

DETERMINISTIC = ("fast_gradient_l2", "fast_gradient_linf", "pgd_without_random_start", "awp")
EVEN, UNEVEN, EMPTY_SHARE = 16, 19, 18  # in batches of 8: the last has 8, 3 and 2 images


@pytest.fixture(scope="module")
def two_replicas():
    # Reduced by copies. Collectives count from the same number in every strategy of a process,
    # and two strategies' get in each other's way.
    devices = [device.name for device in tf.config.list_logical_devices("CPU")[:2]]
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def trained(strategy, case, *data, epochs=1, optimizer=schemes.momentum, **kwargs):
    """(Weights, history) of epochs of one data set after the other."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        scheme = schemes.traced(case, optimizer=optimizer, **kwargs)
    history = {}
    for part in data:
        for name, values in scheme.fit(part, epochs=epochs, verbose=0).history.items():
            history.setdefault(name, []).extend(values)
    return schemes.weights(scheme), history


def assert_same(got, expected):
    np.testing.assert_allclose(got[0], expected[0], atol=1e-6)
    assert set(got[1]) == set(expected[1])
    for name, values in expected[1].items():
        np.testing.assert_allclose(got[1][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", [*DETERMINISTIC, *schemes.WITH_GENERATOR])
def test_two_replicas_are_one(case, two_replicas):
    """GAT's separate minibatches are drawn by `fit` for both."""
    data = [schemes.dataset(size, batch=8) for size in (UNEVEN, EMPTY_SHARE)]
    one = trained(tf.distribute.get_strategy(), case, *data)
    assert_same(trained(two_replicas, case, *data), one)


@pytest.mark.parametrize(
    ("draws", "settings"), [(1, {}), (2, {"optimizer": schemes.adam, "generator_steps": 2})]
)
def test_two_replicas_are_one_with_minibatches_drawn_by_the_user(draws, settings, two_replicas):
    data = schemes.pairs(UNEVEN, draws=draws)
    one = trained(tf.distribute.get_strategy(), "gat_separate", data, epochs=2, **settings)
    assert_same(trained(two_replicas, "gat_separate", data, epochs=2, **settings), one)


def test_two_replicas_are_one_for_batches_that_do_not_divide_by_two(two_replicas):
    data = schemes.dataset(17, batch=7)
    one = trained(tf.distribute.get_strategy(), "gat_shared", data, epochs=2)
    assert_same(trained(two_replicas, "gat_shared", data, epochs=2), one)


def test_two_replicas_are_one_for_convolutions(two_replicas):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(11, 8, 8, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, rng.integers(0, 3, 11))).batch(6)
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            f = models.classifier(3, width=1 / 12, input_shape=(8, 8, 3))
            g = models.perturbation_generator((8, 8, 3), width=1 / 12)
            scheme = training.GAT(f, g, 0.1, minibatches="shared")
            scheme.compile(schemes.adam(), schemes.adam())
        scheme.fit(data, verbose=0)
        results.append(schemes.vector(f, g))
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)


def test_two_replicas_penalise_the_weights_as_one_does(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            f = schemes.classifier(regularizer=keras.regularizers.L2(0.1))
            scheme = schemes.build("gat_shared", f, optimizer=schemes.sgd)
        scheme.fit(schemes.dataset(UNEVEN), verbose=0)
        results.append(schemes.weights(scheme))
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)


@pytest.mark.parametrize("case", ["fast_gradient_l2", *schemes.WITH_GENERATOR])
def test_two_replicas_evaluate_and_predict_as_one(case, two_replicas):
    results, predictions = [], []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            scheme = schemes.traced(case, optimizer=schemes.momentum)
        data = schemes.dataset(UNEVEN)
        results.append(scheme.evaluate(data, verbose=0, return_dict=True))
        images, _ = schemes.arrays(UNEVEN)
        predictions.append(scheme.predict(images, verbose=0))
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(predictions[1], predictions[0], atol=1e-6)


class Recording(attacks.RandomPerturbation):
    """Hands what each replica has drawn to a list."""

    def perturb(self, logits, images, labels, seed=None):
        eta = super().perturb(logits, images, labels, seed)
        with tf.control_dependencies(
            [tf.py_function(lambda e: self.drawn.append(e.numpy()), [eta], [])]
        ):
            return tf.identity(eta)


def test_replicas_draw_noise_of_their_own_and_the_same_again(two_replicas):
    runs = []
    for _ in range(2):
        drawn = []
        attack = Recording(0.5)
        object.__setattr__(attack, "drawn", drawn)
        with two_replicas.scope():
            scheme = training.AdversarialTraining(schemes.classifier(), attack)
            scheme.compile(schemes.adam())
        scheme.fit(schemes.dataset(EVEN), verbose=0)
        assert len(drawn) == 4  # two steps on two replicas
        noise = {eta.tobytes() for eta in drawn}
        assert len(noise) == 4
        runs.append((noise, schemes.weights(scheme)))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


# Two processes. Each runs this file, below.

WORKER = pathlib.Path(__file__)
CASES_OF_WORKERS = ("fast_gradient_l2", "gat_separate", "gat_shared")


def train_all(strategy):
    results = {}
    for case in CASES_OF_WORKERS:
        weights, history = trained(strategy, case, schemes.dataset(UNEVEN), epochs=2)
        results[f"{case} weights"] = weights
        for name, values in history.items():
            results[f"{case} {name}"] = np.asarray(values)
    return results


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    root = str(WORKER.parent.parent)
    path = os.pathsep.join([root, str(WORKER.parent), os.environ.get("PYTHONPATH", "")])
    processes = []
    try:
        for index in range(2):
            config = {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
            environment = {
                **os.environ,
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": path,
                "TF_CONFIG": json.dumps(config),
                "TF_CPP_MIN_LOG_LEVEL": "2",
            }
            with open(tmp_path / f"{index}.log", "w") as log:
                command = [sys.executable, str(WORKER), str(tmp_path / f"{index}.npz")]
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        for index, process in enumerate(processes):
            code = process.wait(timeout=240)
            assert code == 0, (tmp_path / f"{index}.log").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    expected = train_all(tf.distribute.get_strategy())
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz") as got:
            assert set(got) == set(expected)
            for name, values in expected.items():
                tolerance = 1e-6 if name.endswith("weights") else 1e-5
                np.testing.assert_allclose(
                    got[name], values, atol=tolerance, rtol=tolerance, err_msg=name
                )


if __name__ == "__main__":
    import conftest  # noqa: F401 -- the settings of the tests, which the order of draws depends on

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    np.savez(sys.argv[1], **train_all(strategy))
