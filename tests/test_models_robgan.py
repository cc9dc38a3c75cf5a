"""The networks of Rob-GAN and SN-GAN, against counts by hand and a NumPy reference."""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import attacks, models
from gat_tf.training.robgan import attacked

NARROW = 1 / 32
BUILT = {
    **{f"generator {s}": (models.image_generator, s) for s in (32, 64, 128)},
    **{f"discriminator {s}": (models.discriminator, s) for s in (32, 64, 128)},
    **{f"projection {s}": (models.projection_discriminator, s) for s in (32, 64, 128)},
}


def conv(inputs, outputs, size, bias=True):
    return inputs * outputs * size**2 + outputs * bias


def generator_parameters(channels, classes, latent=128):
    total = latent * 16 * channels[0] + 16 * channels[0]
    for a, b in itertools.pairwise(channels):
        total += conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1)
        total += 2 * (a + b) * (classes + 1)  # scale, shift of each class; mean, variance
    return total + 4 * channels[-1] + conv(channels[-1], 3, 3)


def preactivation_parameters(classes):
    """ResNet-18 without batch norm and without bias."""
    total = conv(3, 64, 3, bias=False)
    for a, b in ((64, 64), (64, 128), (128, 256), (256, 512)):
        total += conv(a, b, 3, bias=False) + 3 * conv(b, b, 3, bias=False)
        total += conv(a, b, 1, bias=False) * (a != b)
    return total + 513 * (1 + classes)


def residual_parameters(channels, classes, last_shortcut=True):
    """Without bias but in the heads."""
    total, before = 0, 3
    for i, c in enumerate(channels):
        hidden = c if i == 0 else before
        total += conv(before, hidden, 3, bias=False) + conv(hidden, c, 3, bias=False)
        total += conv(before, c, 1, bias=False) * (last_shortcut or i < len(channels) - 1)
        before = c
    return total + (before + 1) * (1 + classes)


def projection_parameters_of_32_pixels(classes):
    """Four blocks of 128 channels, two of which halve; a spectral vector beside each kernel."""
    layers = [(3, 128, 3), (128, 128, 3), (3, 128, 1)]  # halves, from other channels
    layers += [(128, 128, 3), (128, 128, 3), (128, 128, 1)]  # halves
    layers += 2 * [(128, 128, 3), (128, 128, 3)]  # the same size and channels: no convolution
    total = sum(conv(*layer) + layer[1] for layer in layers)
    return total + (128 + 1 + 1) + (classes * 128 + 128)  # the head and the embedding


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            lambda: models.image_generator(10, 32),
            generator_parameters((1024, 512, 256, 128, 64), 10),
        ),
        (
            lambda: models.image_generator(143, 128),
            generator_parameters((512, 512, 256, 256, 128, 64), 143),
        ),
        (lambda: models.discriminator(10, 32), preactivation_parameters(10)),
        (
            lambda: models.discriminator(143, 64),
            residual_parameters((64, 128, 256, 512, 1024), 143),
        ),
        (
            lambda: models.discriminator(143, 128),
            residual_parameters((64, 128, 256, 256, 512, 512), 143, last_shortcut=False),
        ),
        (
            lambda: models.projection_discriminator(10, 32),
            projection_parameters_of_32_pixels(10),
        ),
    ],
)
def test_parameters_are_those_counted_by_hand(model, expected):
    assert model().count_params() == expected


def inputs_for(model, size, rng, count=3):
    images = rng.uniform(-1, 1, (count, size, size, 3)).astype("float32")
    labels = np.arange(count, dtype="int32")
    noise = rng.normal(size=(count, 128)).astype("float32")
    by_name = {"images": images, "labels": labels, "noise": noise}
    return [by_name[tensor.name] for tensor in model.inputs]


@pytest.mark.parametrize("name", BUILT)
def test_shapes_and_ranges(name):
    build, size = BUILT[name]
    model = build(10, size, width=NARROW)
    given = inputs_for(model, size, np.random.default_rng(0))
    outputs = model(given if len(given) > 1 else given[0])
    if name.startswith("generator"):
        assert outputs.shape == (3, size, size, 3)
        assert np.abs(outputs).max() <= 1
        assert np.std(outputs) > 0.01
    elif name.startswith("discriminator"):
        assert {k: tuple(v.shape) for k, v in outputs.items()} == {
            "real": (3, 1),
            "classes": (3, 10),
        }
    else:
        assert outputs.shape == (3, 1)


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def torch_conv(x, kernel, stride=1):
    """A convolution with PyTorch's padding of half the kernel on every side."""
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    size = (x.shape[1] - kernel.shape[0]) // stride + 1
    rows = [
        [
            np.einsum(
                "bhwi,hwio->bo",
                x[:, i * stride :, j * stride :][:, : kernel.shape[0], : kernel.shape[1]],
                kernel,
            )
            for j in range(size)
        ]
        for i in range(size)
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


def test_cifar_discriminator_is_the_preactivation_resnet_of_pytorch():
    keras.utils.set_random_seed(3)
    model = models.discriminator(5, width=1 / 64)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")

    def weights(name):
        return model.get_layer(name).get_weights()

    x = torch_conv(images, *weights("conv1"))
    for i, stride in enumerate((1, 1, 2, 1, 2, 1, 2, 1), start=1):
        active = leaky(x)
        names = [layer.name for layer in model.layers]
        if f"block{i}_shortcut" in names:
            x = active[:, ::stride, ::stride] @ weights(f"block{i}_shortcut")[0][0, 0]
        h = torch_conv(active, *weights(f"block{i}a_conv"), stride)
        x = x + torch_conv(leaky(h), *weights(f"block{i}b_conv"))
    features = x.mean((1, 2))
    outputs = model(images)
    for head in ("real", "classes"):
        kernel, bias = weights(head)
        np.testing.assert_allclose(outputs[head], features @ kernel + bias, rtol=1e-3, atol=1e-5)


def test_residual_features_are_the_sum_over_the_image():
    model = models.discriminator(5, 64, width=NARROW)
    features = keras.Model(
        model.input, [model.get_layer("relu").output, model.get_layer("features").output]
    )
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    before, after = features(images)
    assert before.shape[1:3] == (2, 2)
    np.testing.assert_allclose(after, np.sum(before, (1, 2)), rtol=1e-4)


@pytest.mark.slow
def test_class_head_is_the_classifier_in_the_discriminator(tmp_path):
    d = models.discriminator(5, width=NARROW)
    classifier = models.class_head(d)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(
        classifier.predict(images, verbose=0), d.predict(images, verbose=0)["classes"]
    )
    assert classifier.count_params() == d.count_params() - d.get_layer("real").count_params()
    d.get_layer("conv1").kernel.assign_add(0.1 * np.ones((3, 3, 3, 2), "float32"))
    d.get_layer("classes").bias.assign(np.arange(5, dtype="float32"))
    expected = d.predict(images, verbose=0)["classes"]
    np.testing.assert_array_equal(classifier.predict(images, verbose=0), expected)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, rtol=1e-6)


def test_each_class_scales_and_shifts_by_its_own_numbers():
    model = models.image_generator(3, width=NARROW)
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.normal(size=(1, 128)), 3, axis=0).astype("float32")
    same = model([noise, np.arange(3)]).numpy()
    np.testing.assert_allclose(same[1:], same[:2], atol=1e-6)  # scales of 1, shifts of 0
    embedding = model.get_layer("block1a_scale")
    values = np.ones((3, embedding.output_dim), "float32")
    values[2] = 0.5
    embedding.set_weights([values])
    images = model([noise, np.arange(3)]).numpy()
    np.testing.assert_allclose(images[1], images[0], atol=1e-6)
    assert np.abs(images[2] - images[0]).max() > 1e-3


def test_moving_statistics_are_those_of_many_batches():
    """SN-GAN's 0.9. With the 0.1 that the authors' code comes to, the last batch is 90 %."""
    model = models.image_generator(width=NARROW)
    assert model.get_layer("norm").momentum == 0.9
    norm = model.get_layer("block1a_norm")
    assert (norm.momentum, norm.epsilon) == (0.9, 2e-5)
    assert not norm.center
    assert not norm.scale


def fans(kernel):
    size = np.prod(kernel.shape[:-2], dtype=int)
    return size * kernel.shape[-2], size * kernel.shape[-1]


def assert_uniform(values, limit):
    assert limit * 0.98 < np.abs(values).max() <= limit
    assert np.std(values) == pytest.approx(limit / 3**0.5, rel=0.05)


def test_cifar_discriminator_starts_as_in_pytorch():
    """Kaiming normal with fan-out in the blocks, PyTorch's defaults elsewhere."""
    model = models.discriminator(10, 32)
    kernels = {x.name: x.kernel.numpy() for x in model.layers if hasattr(x, "kernel")}
    in_blocks = {n for n in kernels if n.startswith("block") and n.endswith("_conv")}
    assert len(in_blocks) == 16
    for name in in_blocks:
        std = (2 / fans(kernels[name])[1]) ** 0.5
        assert np.std(kernels[name]) == pytest.approx(std, rel=0.02), name
        assert np.abs(kernels[name]).max() > 3.5 * std  # neither uniform nor truncated
    others = set(kernels) - in_blocks
    assert len(others) == 1 + 3 + 2
    for name in others - {"real"}:
        assert_uniform(kernels[name], fans(kernels[name])[0] ** -0.5)
    biases = np.concatenate([model.get_layer(name).bias.numpy() for name in ("real", "classes")])
    assert 0.5 * 512**-0.5 < np.abs(biases).max() <= 512**-0.5


@pytest.mark.parametrize("size", [64, 128])
def test_residual_convolutions_start_with_gain_sqrt_2_and_shortcuts_with_1(size):
    model = models.discriminator(10, size, width=1 / 2)
    for name, gain in (("block5a_conv", 2**0.5), ("block5_shortcut", 1), ("classes", 1)):
        kernel = model.get_layer(name).kernel.numpy()
        assert_uniform(kernel, gain * (6 / sum(fans(kernel))) ** 0.5)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_convolutions_have_biases_in_sngans_discriminator_alone(size):
    for build, biased in ((models.discriminator, False), (models.projection_discriminator, True)):
        layers = (getattr(x, "layer", x) for x in build(10, size, width=NARROW).layers)
        convolutions = [x for x in layers if isinstance(x, keras.layers.Conv2D)]
        assert len(convolutions) >= 10
        assert all(x.use_bias == biased for x in convolutions)


# Precision.


@pytest.fixture
def bfloat16():
    """Builds a network under the policy `mixed_bfloat16`."""

    def built(build, *args, **kwargs):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            return build(*args, **kwargs)
        finally:
            keras.config.set_dtype_policy("float32")

    return built


@pytest.mark.parametrize("name", BUILT)
def test_bfloat16_gives_nearly_the_same_in_float32(name, bfloat16):
    build, size = BUILT[name]
    full = build(10, size, width=1 / 8)
    half = bfloat16(build, 10, size, width=1 / 8)
    half.set_weights(full.get_weights())
    given = inputs_for(full, size, np.random.default_rng(0), count=8)
    given = given if len(given) > 1 else given[0]
    expected, got = (tf.nest.flatten(model(given, training=True)) for model in (full, half))
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == "float32"
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert 0 < error < 0.05  # not 0: the policy is in use
    assert {v.dtype for v in half.weights} == {"float32"}
    computing = {getattr(x, "layer", x).compute_dtype for x in half.layers if x.weights}
    assert computing == {"bfloat16", "float32"}


@pytest.mark.parametrize("build", [models.discriminator, models.projection_discriminator])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_bfloat16_does_not_round_the_image(build, size, bfloat16):
    """Or a perturbation of a pixel near 1 would be lost below 1/256."""
    model = bfloat16(build, 10, size, width=NARROW)
    image = model.inputs[0]
    first = [
        layer
        for layer in model.layers
        if any(image is tensor for node in layer._inbound_nodes for tensor in node.input_tensors)
    ]
    assert first
    assert {getattr(layer, "layer", layer).compute_dtype for layer in first} == {"float32"}


def test_bfloat16_attacks_in_nearly_the_direction_of_float32(bfloat16):
    full = models.discriminator(10, width=1 / 4)
    half = bfloat16(models.discriminator, 10, width=1 / 4)
    half.set_weights(full.get_weights())
    images = tf.constant(inputs_for(full, 32, np.random.default_rng(0), count=8)[0])
    labels = tf.range(8)
    attack = attacks.PGD(1 / 32, np.inf, 1, 1 / 160, random_start=False, clip=(-1, 1))
    got, expected = (attacked(model, attack, images, labels) - images for model in (half, full))
    assert got.dtype == "float32"
    assert np.mean(np.sign(got) == np.sign(expected)) > 0.9


# Spectral normalisation.


def spectral_dense(kernel):
    dense = keras.layers.Dense(kernel.shape[1])
    layer = models.SpectralNorm(dense)
    layer.build((None, kernel.shape[0]))
    dense.set_weights([kernel, np.ones(kernel.shape[1], "float32")])
    return layer


def test_kernel_stays_and_is_divided_by_its_norm_in_use():
    rng = np.random.default_rng(0)
    kernel, x = (rng.normal(size=s).astype("float32") for s in ((6, 4), (5, 6)))
    layer = spectral_dense(kernel)
    for _ in range(100):
        layer(x, training=True)
    np.testing.assert_array_equal(layer.layer.kernel, kernel)
    expected = x @ kernel / np.linalg.norm(kernel, 2) + 1
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_gradient_goes_through_the_norm():
    """(G - <G, W / σ> v uᵀ) / σ, with G the gradient at W / σ: eq. 12 of the SN-GAN paper."""
    rng = np.random.default_rng(0)
    shapes = (6, 4), (5, 6), (5, 4)
    kernel, x, upstream = (rng.normal(size=s).astype("float32") for s in shapes)
    layer = spectral_dense(kernel)
    for _ in range(100):
        layer(x, training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) * upstream)
    got = tape.gradient(loss, layer.layer.kernel.value)
    left, values, right = np.linalg.svd(kernel)
    at_normalised = x.T @ upstream
    product = np.sum(at_normalised * kernel) / values[0]
    expected = (at_normalised - product * np.outer(left[:, 0], right[0])) / values[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected - at_normalised / values[0]).max() > 0.1


def test_power_iteration_goes_on_in_training_alone():
    layer = spectral_dense(np.random.default_rng(0).normal(size=(6, 4)).astype("float32"))
    x = np.ones((2, 6), "float32")
    before = layer.vector.numpy()
    layer(x)
    np.testing.assert_array_equal(layer.vector, before)
    layer(x, training=True)
    kernel = layer.layer.kernel.numpy()
    expected = kernel.T @ (kernel @ before)  # one iteration
    np.testing.assert_allclose(layer.vector, expected / np.linalg.norm(expected), rtol=1e-5)


@pytest.mark.slow
def test_every_layer_of_sngans_discriminator_is_normalised():
    model = models.projection_discriminator(10, 64, width=NARROW)
    wrapped = [x for x in model.layers if isinstance(x, models.SpectralNorm)]
    assert len(wrapped) == 5 * 3 + 2  # three convolutions a block, the dense head, the embedding
    given = inputs_for(model, 64, np.random.default_rng(0))
    for _ in range(30):
        model(given, training=True)
    before = model(given).numpy()
    for layer in wrapped:  # a larger kernel makes no difference
        kernel = layer.layer.trainable_variables[0]
        kernel.assign(3 * kernel.value)
    np.testing.assert_allclose(model(given), before, rtol=1e-4, atol=1e-5)
    # Its weights are no others than those of the layers, and a vector each.
    assert len(model.weights) == sum(len(x.layer.weights) + 1 for x in wrapped)


@pytest.mark.slow
def test_projection_head_is_the_inner_product_with_the_class():
    model = models.projection_discriminator(4, 64, width=NARROW)
    images = np.repeat(np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)), 4, 0)
    images = images.astype("float32")
    features = keras.Model(model.inputs[0], model.get_layer("features").output)(images[:1]).numpy()
    normalised = {x.layer.name: x for x in model.layers if hasattr(x, "layer")}
    for _ in range(100):  # to the spectral norms of the two
        normalised["real"](features, training=True)
        normalised["embedding"](np.arange(4), training=True)
    wrapped = {name: x.layer for name, x in normalised.items()}
    kernel, bias = wrapped["real"].get_weights()
    (embedding,) = wrapped["embedding"].get_weights()
    kernel, embedding = (w / np.linalg.norm(w, 2) for w in (kernel, embedding))
    expected = features @ kernel + bias + features @ embedding.T
    np.testing.assert_allclose(
        model([images, np.arange(4)])[:, 0], expected[0], rtol=1e-3, atol=1e-4
    )


_ELSEWHERE = """
import sys


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gat_tf":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Hidden())
import keras

for kind in ("generator", "discriminator"):
    model = keras.models.load_model(f"{kind}.keras")
    print(kind, model.count_params())
try:
    import gat_tf
except ModuleNotFoundError:
    print("without gat_tf")
"""


@pytest.mark.slow
def test_saved_discriminator_of_sngan_opens(tmp_path):
    model = models.projection_discriminator(3, 32, width=NARROW)
    given = inputs_for(model, 32, np.random.default_rng(0))
    model(given, training=True)
    model.save(tmp_path / "discriminator.keras")
    loaded = keras.models.load_model(tmp_path / "discriminator.keras")
    np.testing.assert_array_equal(loaded(given), model(given))


@pytest.mark.slow
def test_saved_networks_open_in_a_project_without_gat_tf(tmp_path):
    built = {
        "generator": models.image_generator(3, width=NARROW),
        "discriminator": models.discriminator(3, width=NARROW),
    }
    for name, model in built.items():
        model.save(tmp_path / f"{name}.keras")
    result = subprocess.run(
        [sys.executable, "-I", "-c", _ELSEWHERE],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for name, model in built.items():
        assert f"{name} {model.count_params()}" in result.stdout
    assert "without gat_tf" in result.stdout


@pytest.mark.parametrize("build", [b for b, _ in (BUILT["generator 32"], BUILT["projection 64"])])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes=1"),
        ({"image_size": 48}, r"`image_size` must be one of .*64.*Received: image_size=48"),
        ({"width": 0}, "width=0"),
    ],
)
def test_bad_arguments_are_named(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_noise_has_a_length():
    with pytest.raises(ValueError, match="latent_size=0"):
        models.image_generator(latent_size=0)
