"""The networks of Table 1 of the GAT paper, layer by layer and as files."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from gat_tf import models

# Table 1: (filters, size of the kernel, stride, activation).
CLASSIFIER = [
    (48, 3, 1, "relu"),
    (48, 3, 2, "relu"),
    (96, 3, 1, "relu"),
    (96, 3, 2, "relu"),
    (96, 3, 1, "relu"),
    (96, 1, 1, "relu"),
    (10, 1, 1, "linear"),
]
GENERATOR = [(48, 3, 1, "relu")] * 6 + [(48, 1, 1, "relu"), (3, 1, 1, "linear")]
SMALL = {"width": 1 / 12, "input_shape": (8, 8, 3)}


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 8, 8, 3), dtype=np.float32)


def _convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def _rows(model):
    return [
        (c.filters, c.kernel_size, c.strides, c.activation.__name__) for c in _convolutions(model)
    ]


def _twice(table):
    return [(n, (size, size), (stride, stride), name) for n, size, stride, name in table]


def _kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def _with_biases(model):
    """Fresh biases are zero, which would hide where they are added."""
    rng = np.random.default_rng(1)
    for layer in _convolutions(model):
        layer.bias.assign(rng.normal(size=layer.bias.shape) / 10)
    return model


def _numpy_convolutions(table, weights, x):
    """SAME convolutions as TensorFlow defines them, one output pixel at a time."""
    for (_, size, stride, activation), kernel, bias in zip(
        table, weights[::2], weights[1::2], strict=True
    ):
        out = -(-x.shape[1] // stride)
        padding = max((out - 1) * stride + size - x.shape[1], 0)
        sides = (padding // 2, padding - padding // 2)
        x = np.pad(x, [(0, 0), sides, sides, (0, 0)])
        y = np.empty((len(x), out, out, kernel.shape[-1]))
        for i in range(out):
            for j in range(out):
                patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
                y[:, i, j] = np.tensordot(patch, kernel, 3) + bias
        x = np.maximum(y, 0) if activation == "relu" else y
    return x


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_classifier_is_table_1():
    model = models.classifier()
    assert _rows(model) == _twice(CLASSIFIER)
    assert _kinds(model) == [
        "InputLayer", *["Conv2D"] * 7, "GlobalAveragePooling2D", "Softmax",
    ]  # fmt: skip
    assert model.input_shape == (None, 32, 32, 3)
    assert model.get_layer("classes").output.shape == (None, 8, 8, 10)
    assert model.output_shape == (None, 10)


def test_generator_is_table_1():
    model = models.perturbation_generator()
    assert _rows(model) == _twice(GENERATOR)
    assert _kinds(model) == ["InputLayer", *["Conv2D"] * 8, "Activation"]
    assert model.layers[-1].activation is keras.activations.tanh
    assert model.input_shape == model.output_shape == (None, 32, 32, 3)


@pytest.mark.parametrize("build", [models.classifier, models.perturbation_generator])
def test_every_convolution_is_same_glorot_uniform_and_unregularised(build):
    for layer in _convolutions(build()):
        assert layer.padding == "same"
        assert layer.dilation_rate == (1, 1)
        assert layer.groups == 1
        assert layer.use_bias
        assert type(layer.kernel_initializer) is keras.initializers.GlorotUniform
        assert layer.kernel_regularizer is layer.bias_regularizer is None
        np.testing.assert_array_equal(layer.bias, 0)
        size, _, inputs, outputs = layer.kernel.shape
        limit = np.sqrt(6 / (size * size * (inputs + outputs)))
        assert np.abs(layer.kernel).max() <= limit
        # The standard deviation of a uniform distribution, within 5 standard errors.
        tolerance = 5 / np.sqrt(np.prod(layer.kernel.shape))
        np.testing.assert_allclose(np.std(layer.kernel), limit / np.sqrt(3), rtol=tolerance)


def test_numbers_of_parameters():
    assert models.classifier().count_params() == 240_058
    assert models.classifier(100).count_params() == 248_788
    assert models.perturbation_generator().count_params() == 107_763


def test_width_scales_the_hidden_layers_alone():
    third = [round(n / 3) for n, *_ in CLASSIFIER[:-1]]
    assert [c.filters for c in _convolutions(models.classifier(7, width=1 / 3))] == [*third, 7]
    generator = models.perturbation_generator(width=1 / 3)
    assert [c.filters for c in _convolutions(generator)] == [16] * 7 + [3]
    assert [c.filters for c in _convolutions(models.classifier(width=1e-6))] == [1] * 6 + [10]


def test_classifier_is_the_formula_of_table_1(images):
    model = _with_biases(models.classifier(**SMALL))
    maps = _numpy_convolutions(CLASSIFIER, model.get_weights(), images)
    assert maps.shape == (5, 2, 2, 10)
    np.testing.assert_allclose(model(images), _softmax(maps.mean(axis=(1, 2))), atol=1e-6)


def test_generator_is_the_formula_of_table_1(images):
    model = _with_biases(models.perturbation_generator(**SMALL))
    expected = np.tanh(_numpy_convolutions(GENERATOR, model.get_weights(), images))
    np.testing.assert_allclose(model(images), expected, atol=1e-6)


def test_logits_are_the_average_before_the_softmax(images):
    model = models.classifier(classifier_activation=None, **SMALL)
    assert _kinds(model)[-1] == "GlobalAveragePooling2D"
    softmax = models.classifier(**SMALL)
    softmax.set_weights(model.get_weights())
    np.testing.assert_allclose(softmax(images), _softmax(model(images).numpy()), atol=1e-6)


def test_any_size_and_number_of_channels():
    model = models.classifier(3, width=1 / 12, input_shape=(12, 10, 1))
    assert model.get_layer("classes").output.shape == (None, 3, 3, 3)
    assert model.output_shape == (None, 3)
    generator = models.perturbation_generator((12, 10, 1), width=1 / 12)
    assert generator.output_shape == (None, 12, 10, 1)


def test_dropout_stands_on_the_images_and_after_each_stride():
    model = models.classifier(dropout=0.5, input_dropout=0.2, **SMALL)
    assert [layer.name for layer in model.layers] == [
        "images", "input_dropout", "conv1", "conv2", "dropout1", "conv3", "conv4", "dropout2",
        "conv5", "conv6", "classes", "logits", "probabilities",
    ]  # fmt: skip
    rates = {x.name: x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)}
    assert rates == {"input_dropout": 0.2, "dropout1": 0.5, "dropout2": 0.5}


def test_outputs_stay_float32_in_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        classifier = models.classifier(**SMALL)
        generator = models.perturbation_generator(**SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    for model in (classifier, generator):
        assert model.layers[1].compute_dtype == "float16"
        assert model(images).dtype == "float32"
    assert classifier.get_layer("logits").compute_dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be at least 2.*num_classes=1"),
        ({"classifier_activation": "relu"}, "'softmax'.* or None.*classifier_activation='relu'"),
        ({"dropout": -0.1}, r"`dropout` must be a rate in \[0, 1\).*dropout=-0.1"),
        ({"dropout": 1}, r"`dropout` must be a rate in \[0, 1\).*dropout=1"),
        ({"input_dropout": float("nan")}, r"`input_dropout` must be a rate.*input_dropout=nan"),
        ({"width": 0}, "`width` must be a positive number.*width=0"),
        ({"width": float("nan")}, "`width` must be a positive number.*width=nan"),
    ],
)
def test_bad_argument_of_the_classifier_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.classifier(**arguments)


def test_bad_width_of_the_generator_is_named():
    with pytest.raises(ValueError, match=r"`width` must be a positive number.*width=-1"):
        models.perturbation_generator(width=-1)


_ELSEWHERE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gat_tf":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import keras, numpy as np, tensorflow as tf

images = np.load("images.npy")
for name in ("classifier", "generator"):
    np.save(f"{name}_keras.npy", keras.saving.load_model(f"{name}.keras")(images))
    exported = tf.saved_model.load(name)
    np.save(f"{name}_export.npy", exported.serve(images))
try:
    import gat_tf
except ModuleNotFoundError:
    print("without gat_tf")
"""


@pytest.mark.slow
def test_saved_and_exported_models_open_in_a_project_without_gat_tf(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    built = {
        "classifier": models.classifier(dropout=0.5, input_dropout=0.1, **SMALL),
        "generator": models.perturbation_generator(**SMALL),
    }
    for name, model in built.items():
        _with_biases(model)
        model.save(tmp_path / f"{name}.keras")
        model.export(tmp_path / name, verbose=False)
    result = subprocess.run(
        [sys.executable, "-I", "-c", _ELSEWHERE],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "without gat_tf" in result.stdout
    for name, model in built.items():
        expected = model(images)
        for kind in ("keras", "export"):
            np.testing.assert_allclose(np.load(tmp_path / f"{name}_{kind}.npy"), expected, 1e-5)


def test_backbone_of_somebody_elses_model(images):
    backbone = models.classifier(**SMALL)
    inputs = keras.Input((8, 8, 3))
    flipped = keras.layers.Rescaling(-1, offset=1)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(backbone(flipped)))
    head = model.get_layer("head")
    expected = backbone(1 - images).numpy() @ head.kernel + head.bias
    np.testing.assert_allclose(model(images), expected, atol=1e-6)
    assert len(model.trainable_variables) == len(backbone.trainable_variables) + 2


def test_inner_features_are_to_be_had(images):
    model = _with_biases(models.classifier(**SMALL))
    features = keras.Model(model.input, model.get_layer("conv4").output)
    expected = _numpy_convolutions(CLASSIFIER[:4], model.get_weights()[:8], images)
    np.testing.assert_allclose(features(images), expected, atol=1e-6)
