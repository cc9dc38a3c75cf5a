"""Models that others have made and saved, through the command, each from its file."""

import dataclasses

import keras
import numpy as np
import pytest

from gat_tf import attacks
from gat_tf.evaluation.robustness import Budget
from gat_tf.experiments.lab import results as lab_results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.robustness import command

LAYERS = keras.layers
SMALL = Budget(
    pgd_steps=10, restarts=1, apgd_steps=10, targets=1, fab_steps=5, queries=20,
    hard_label_steps=1, hard_label_images=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    monkeypatch.setattr(lab_results, "draw", lambda *_: None)


def evaluated(model, images, labels, folder, **settings):
    """The command's results for a model and images in files."""
    np.savez(folder / "images.npz", images=images, labels=labels)
    model.save(folder / "stranger.keras")
    config = command.Config(
        model=str(folder / "stranger.keras"),
        dataset=str(folder / "images.npz"),
        **dataclasses.asdict(SMALL),
        **settings,
    )
    return command.run(config, folder / "out")


def byte_images(count, shape, rng):
    """Uint8 images away from both ends, which a perturbation of 8 does not reach."""
    return rng.integers(60, 196, (count, *shape), np.uint8)


def robust_share(x, labels, kernel, bias, epsilon):
    """The share of images that no L∞ perturbation makes a linear model misclassify."""
    z = x.reshape(len(x), -1) @ kernel + bias
    lead = z[np.arange(len(x)), labels][:, None] - z
    needed = np.abs(kernel.T[labels][:, None] - kernel.T[None]).sum(axis=-1)
    lead[np.arange(len(x)), labels] = np.inf
    return np.mean((lead > epsilon * needed).all(axis=1))


@pytest.mark.slow
def test_binary_classifier_with_one_sigmoid(tmp_path):
    rng = np.random.default_rng(0)
    images = byte_images(40, (4, 4, 1), rng)
    kernel = rng.normal(0, 1, (16, 1)).astype(np.float32)
    z = images.reshape(40, 16) / 255 @ kernel
    bias = np.float32([-np.median(z)])
    labels = (z[:, 0] + bias > 0).astype(np.int64)
    labels[:3] = 1 - labels[:3]  # which the model gets wrong
    model = keras.Sequential([keras.Input((4, 4, 1)), LAYERS.Flatten(), LAYERS.Dense(1, "sigmoid")])
    model.set_weights([kernel, bias])
    results = evaluated(model, images, labels, tmp_path, epsilon=0.01)
    both = np.hstack([np.zeros_like(kernel), kernel])
    expected = robust_share(images / 255, labels, both, np.append(0, bias), 0.01)
    assert results["clean_accuracy"] == pytest.approx(37 / 40)
    assert 0.1 < results["worst_case_accuracy"] < 0.9
    assert results["worst_case_accuracy"] == pytest.approx(expected)


@pytest.mark.slow
def test_model_of_grey_images_from_0_to_255(tmp_path):
    rng = np.random.default_rng(1)
    images = byte_images(60, (28, 28, 1), rng)
    kernel = rng.normal(0, 0.05, (784, 3)).astype(np.float32)
    mean = images.reshape(60, -1).mean(axis=0) / 255
    bias = -(mean @ kernel).astype(np.float32)
    labels = np.argmax(images.reshape(60, -1) / 255 @ kernel + bias, axis=1)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), LAYERS.Rescaling(1 / 255), LAYERS.Flatten(),
         LAYERS.Dense(3, "softmax")]
    )  # fmt: skip
    model.layers[-1].set_weights([kernel, bias])
    results = evaluated(model, images, labels, tmp_path, high=255.0, epsilon=1.0)
    expected = robust_share(images.astype(float), labels, kernel / 255, bias, 1.0)
    assert results["clean_accuracy"] == 1
    assert 0.1 < results["worst_case_accuracy"] < 0.9
    assert results["worst_case_accuracy"] == pytest.approx(expected)
    message = r"--low=0 --high=1,.* of 60 images right; with --low=0 --high=255 it gets 100%"
    with pytest.raises(ConfigError, match=message):
        evaluated(model, images, labels, tmp_path)


@pytest.mark.slow
def test_mobilenet_of_pixels_from_minus_1_to_1(tmp_path, monkeypatch):
    """A stranger's network that takes [-1, 1]: scaled images, ε of its range, its own logits."""
    model = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=4)
    rng = np.random.default_rng(2)
    images = byte_images(24, (1, 1, 3), rng) * rng.uniform(0.2, 1, (24, 32, 32, 3))
    images = images.astype(np.uint8)
    x = images / np.float32(127.5) - 1
    # Untrained, it hardly tells images apart.
    kernel, bias = model.layers[-1].get_weights()
    features = keras.Model(model.input, model.layers[-2].output)(x, training=False).numpy()
    kernel /= np.std(features @ kernel, axis=0)
    model.layers[-1].set_weights([kernel, bias - features.mean(axis=0) @ kernel])
    labels = np.argmax(model(x, training=False), axis=1)
    seen = []

    def measured(model, dataset, norm, epsilon, *, bounds, batch_size, from_logits, **_):
        evaluator = Evaluator(
            model, dataset, bounds=bounds, batch_size=batch_size, from_logits=from_logits
        )
        seen.append(evaluator.attack(attacks.FastGradient(epsilon, norm)))
        raise ConfigError("one attack is enough")

    from gat_tf.evaluation.evaluator import Evaluator

    monkeypatch.setattr(command.evaluation, "robustness", measured)
    with pytest.raises(ConfigError, match="one attack is enough"):
        evaluated(model, images, labels, tmp_path, low=-1.0)
    (found,) = seen
    eta = found.adversarial - x
    assert np.abs(eta).max() == pytest.approx(16 / 255, rel=1e-3)
    assert (np.abs(eta) > 0.9 * 16 / 255).mean() > 0.8  # the gradient is there, and followed
    assert (found.adversarial.min() >= -1) & (found.adversarial.max() <= 1)
    after = np.argmax(model(found.adversarial, training=False), axis=1)
    np.testing.assert_array_equal(found.robust, after == labels)
    assert found.robust.mean() < 1


@keras.saving.register_keras_serializable("strangers")
class Noise(LAYERS.Layer):
    """Adds noise in inference too, as some defences do."""

    def call(self, inputs):
        return inputs + 0.3 * keras.random.normal(keras.ops.shape(inputs))


def randomised():
    inputs = keras.Input((4, 4, 1))
    x = LAYERS.Flatten()(Noise()(inputs))
    model = keras.Model(inputs, LAYERS.Dense(2, "softmax")(x))
    kernel = np.tile(np.float32([[-0.5, 0.5]]), (16, 1))
    model.set_weights([kernel, -kernel.sum(axis=0) * np.float32(0.38)])
    return model


@pytest.mark.slow
def test_randomised_model_fails_its_check(tmp_path):
    rng = np.random.default_rng(3)
    images = byte_images(12, (4, 4, 1), rng)
    labels = np.arange(12) % 2
    images[labels == 0] //= 2
    results = evaluated(randomised(), images, labels, tmp_path, epsilon=0.05)
    checks = {c["check"]: c for c in results["checks"]}
    found = checks["the model gives the same logits twice"]
    assert not found["passed"]
    assert "`samples` of PGD and APGD" in found["evidence"]
    text = (tmp_path / "out" / "robustness.md").read_text(encoding="utf-8")
    assert "| the model gives the same logits twice | **failed** |" in text
    assert "the accuracies above may be too high" in text


def test_layer_that_only_the_stranger_has_is_named(tmp_path):
    randomised().save(tmp_path / "stranger.keras")
    known = dict(keras.saving.get_custom_objects())
    keras.saving.get_custom_objects().clear()
    try:
        with pytest.raises(ConfigError, match=r"no classes that are not registered[\s\S]*Noise"):
            command.load_model(str(tmp_path / "stranger.keras"))
    finally:
        keras.saving.get_custom_objects().update(known)


def test_multi_label_model_is_refused_by_name(tmp_path):
    rng = np.random.default_rng(4)
    images = byte_images(12, (4, 4, 1), rng)
    model = keras.Sequential([keras.Input((4, 4, 1)), LAYERS.Flatten(), LAYERS.Dense(3, "sigmoid")])
    for from_logits in (False, True):
        folder = tmp_path / str(from_logits)
        folder.mkdir()
        with pytest.raises(ConfigError, match=r"stranger\.keras on .*Multi-label classification"):
            evaluated(model, images, np.arange(12) % 3, folder, from_logits=from_logits)
    with pytest.raises(ConfigError, match=r"integer labels \[N\].*\(12, 3\)"):
        evaluated(model, images, rng.integers(0, 2, (12, 3)), tmp_path)


@pytest.mark.parametrize("name", ["old.h5", "old.hdf5", "folder"])
def test_files_that_can_hold_code_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x89HDF")
    with pytest.raises(ConfigError, match=r"\.keras file.*convert it: keras.models.load_model"):
        command.load_model(str(path))
