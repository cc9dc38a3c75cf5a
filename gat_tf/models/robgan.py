"""The networks of the Rob-GAN paper and of its rival SN-GAN.

Images are in [-1, 1]. Generators make images of 32, 64 or 128 pixels from noise and a class;
discriminators have two heads, real or fake and the class. Padding and initialisation are those of
the authors' PyTorch code. Convolutions pad one pixel on every side, also before a stride. Kernels
start as follows:

- The discriminator of 32 pixels: Kaiming normal with the outputs as fan in the 3x3 convolutions of
  blocks; PyTorch's default, uniform within ±1/√(inputs), in stem, shortcuts and heads.
- All others: Xavier uniform, with gain √2 in the 3x3 convolutions of blocks.

Under the policy `mixed_bfloat16` what meets the image computes in float32 nevertheless, because
bfloat16 would round perturbations, and so do the pooled features and the heads.
"""

from __future__ import annotations

from collections.abc import Collection

import keras
from keras import layers

from gat_tf import checks
from gat_tf.models.spectral import SpectralNorm

# Channels of the residual blocks, and whether each changes the size of the image. Rob-GAN's
# discriminator of 32 pixels is another; that of 32 here is SN-GAN's alone.
_GENERATOR = {
    32: ((1024, 512, 256, 128, 64), (True, True, True, False)),
    64: ((1024, 512, 256, 128, 64), (True, True, True, True)),
    128: ((512, 512, 256, 256, 128, 64), (True, True, True, True, True)),
}
_DISCRIMINATOR = {
    32: ((128, 128, 128, 128), (True, True, False, False)),
    64: ((64, 128, 256, 512, 1024), (True,) * 5),
    128: ((64, 128, 256, 256, 512, 512), (True,) * 5 + (False,)),
}
_PREACTIVATION = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
LATENT_SIZE = 128
_MOMENTUM = 0.9  # of the moving statistics: SN-GAN's, the only ones that anyone samples with


def image_generator(
    num_classes: int = 10,
    image_size: int = 32,
    *,
    latent_size: int = LATENT_SIZE,
    width: float = 1.0,
) -> keras.Model:
    """Returns the generator of Rob-GAN: noise and a class in, an image out.

    A dense layer to 4x4, residual blocks with class-conditional batch norm that double the size
    (four for 32 pixels, the last of which does not; four for 64; five for 128), batch norm, ReLU, a
    3x3 convolution and tanh.

    The authors draw all images with the statistics of their batch, as `models.sample` does. The
    moving statistics, which inference mode uses, are SN-GAN's: each batch replaces a tenth.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        num_classes: Number of classes, at least 2.
        image_size: 32 (CIFAR), 64 or 128 (ImageNet-143).
        latent_size: Length of the noise vector. 128 in the paper.
        width: Factor on the number of filters. 1.0 is the paper's.

    Returns:
        A Keras model from `[noise, labels]`, `[B, latent_size]` standard normal and `[B]` integers
        in [0, num_classes), to images `[B, image_size, image_size, 3]` in (-1, 1).

    Raises:
        ValueError: An argument is outside its range, or there is no network for that size.

    Examples:
        >>> image_generator = models.image_generator(num_classes=10, image_size=32, width=1 / 16)
        >>> noise = np.random.default_rng(0).normal(size=(2, 128))
        >>> image_generator([noise, np.array([3, 7])]).shape
        TensorShape([2, 32, 32, 3])
    """
    _check(num_classes, image_size, width, _GENERATOR)
    if latent_size < 1:
        raise ValueError(f"`latent_size` must be at least 1. Received: latent_size={latent_size}")
    channels, doubled = _GENERATOR[image_size]
    first, *rest = (_filters(c, width) for c in channels)
    noise = keras.Input((latent_size,), name="noise")
    labels = keras.Input((), dtype="int32", name="labels")
    x = layers.Dense(4 * 4 * first, kernel_initializer=_xavier(1), name="dense")(noise)
    x = layers.Reshape((4, 4, first), name="reshape")(x)
    for i, (filters, up) in enumerate(zip(rest, doubled, strict=True), start=1):
        x = _generator_block(x, labels, num_classes, filters, up, f"block{i}")
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-5, name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = _conv(x, 3, 3, _xavier(1), "image", dtype="float32")
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model([noise, labels], images, name="robgan_generator")


def discriminator(
    num_classes: int = 10, image_size: int = 32, *, width: float = 1.0
) -> keras.Model:
    """Returns the discriminator of Rob-GAN: real or fake, and the class.

    For 32 pixels a pre-activation ResNet-18 without batch norm and with LeakyReLU 0.2; for 64 and
    128 pixels the residual network of SN-GAN without spectral norm, ReLU and a sum over what is
    left of the image. Convolutions have no bias. Two dense heads.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        num_classes: Number of classes, at least 2.
        image_size: 32 (CIFAR), 64 or 128 (ImageNet-143).
        width: Factor on the number of filters. 1.0 is the paper's.

    Returns:
        A Keras model from images `[B, image_size, image_size, 3]` in [-1, 1] to a dictionary of
        logits: `real` `[B, 1]`, positive for real, and `classes` `[B, num_classes]`.

    Raises:
        ValueError: An argument is outside its range, or there is no network for that size.

    Examples:
        >>> discriminator = models.discriminator(num_classes=10, image_size=32, width=1 / 16)
        >>> outputs = discriminator(np.zeros((2, 32, 32, 3)))
        >>> outputs["real"].shape, outputs["classes"].shape
        (TensorShape([2, 1]), TensorShape([2, 10]))
    """
    _check(num_classes, image_size, width, _DISCRIMINATOR)
    images = keras.Input((image_size, image_size, 3), name="images")
    if image_size == 32:
        features, initial = _preactivation_resnet(images, width), _pytorch()
    else:
        features, initial = _residual_features(images, width, bias=False), _xavier(1)
    # PyTorch's default for biases, which the authors keep.
    limit = features.shape[-1] ** -0.5
    heads = {
        name: layers.Dense(
            units,
            kernel_initializer=initial,
            bias_initializer=keras.initializers.RandomUniform(-limit, limit),
            dtype="float32",
            name=name,
        )(features)
        for name, units in (("real", 1), ("classes", num_classes))
    }
    return keras.Model(images, heads, name="robgan_discriminator")


def class_head(discriminator: keras.Model) -> keras.Model:
    """Returns the classifier in a discriminator: its body and its class head.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        discriminator: Keras model from images to `real` and `classes`.

    Returns:
        A Keras model from images `[B, H, W, C]` in [-1, 1] to logits `[B, K]`. It shares its
        weights with the discriminator: training one trains the other.

    Examples:
        >>> classifier = models.class_head(discriminator)
        >>> classifier(np.zeros((2, 32, 32, 3))).shape
        TensorShape([2, 4])
    """
    return keras.Model(discriminator.input, discriminator.output["classes"], name="classifier")


def projection_discriminator(
    num_classes: int = 143, image_size: int = 64, *, width: float = 1.0
) -> keras.Model:
    """Returns the discriminator of SN-GAN, Rob-GAN's rival.

    The residual network with spectral normalisation of every layer and a projection head: a dense
    layer plus the inner product of the features with the class's embedding. Convolutions have
    biases. A saved network needs gat_tf to be opened, for its `SpectralNorm`.

    Papers: [Miyato et al. 2018](https://arxiv.org/abs/1802.05957),
    [Miyato and Koyama 2018](https://arxiv.org/abs/1802.05637).

    Args:
        num_classes: Number of classes, at least 2.
        image_size: 32 (SN-GAN's CIFAR network), 64 or 128.
        width: Factor on the number of filters. 1.0 is the paper's.

    Returns:
        A Keras model from `[images, labels]` to logits `[B, 1]`, positive for real.

    Raises:
        ValueError: An argument is outside its range, or there is no network for that size.

    Examples:
        >>> projection = models.projection_discriminator(10, image_size=32, width=1 / 16)
        >>> projection([np.zeros((2, 32, 32, 3)), np.array([3, 7])]).shape
        TensorShape([2, 1])
    """
    _check(num_classes, image_size, width, _DISCRIMINATOR)
    images = keras.Input((image_size, image_size, 3), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    features = _residual_features(images, width, bias=True, wrapped=SpectralNorm)
    settings = {"dtype": "float32"}
    head = layers.Dense(1, kernel_initializer=_xavier(1), name="real", **settings)
    embedding = layers.Embedding(
        num_classes, features.shape[-1], _xavier(1), name="embedding", **settings
    )
    projection = layers.Dot(-1, name="projection", **settings)(
        [SpectralNorm(embedding)(labels), features]
    )
    outputs = layers.Add(name="logits", **settings)([SpectralNorm(head)(features), projection])
    return keras.Model([images, labels], outputs, name="sngan_discriminator")


def _generator_block(x, labels, num_classes, filters, up, name):
    h, shortcut = x, x
    for part in ("a", "b"):
        h = _conditional_batch_norm(h, labels, num_classes, f"{name}{part}")
        h = layers.ReLU(name=f"{name}{part}_relu")(h)
        if part == "a" and up:
            h = layers.UpSampling2D(name=f"{name}_up")(h)
        h = _conv(h, filters, 3, _xavier(2), f"{name}{part}_conv")
    if up:
        shortcut = layers.UpSampling2D(name=f"{name}_shortcut_up")(shortcut)
    shortcut = _conv(shortcut, filters, 1, _xavier(1), f"{name}_shortcut")
    return layers.Add(name=name)([h, shortcut])


def _conditional_batch_norm(x, labels, num_classes, name):
    """Batch norm with scale and shift of each class, of built-in layers."""
    channels = x.shape[-1]
    x = layers.BatchNormalization(
        momentum=_MOMENTUM, epsilon=2e-5, center=False, scale=False, name=f"{name}_norm"
    )(x)
    scale, shift = (
        layers.Reshape((1, 1, channels), name=f"{name}_{kind}_reshape")(
            layers.Embedding(num_classes, channels, initial, name=f"{name}_{kind}")(labels)
        )
        for kind, initial in (("scale", "ones"), ("shift", "zeros"))
    )
    x = layers.Multiply(name=f"{name}_scaled")([x, scale])
    return layers.Add(name=f"{name}_shifted")([x, shift])


def _preactivation_resnet(images, width):
    def activate(x, name):
        return layers.LeakyReLU(0.2, name=name)(x)

    x = _conv(images, _filters(64, width), 3, _pytorch(), "conv1", bias=False, dtype="float32")
    for i, (channels, strides) in enumerate(_PREACTIVATION, start=1):
        name, filters = f"block{i}", _filters(channels, width)
        active = h = activate(x, f"{name}a_relu")
        if strides != 1:
            # The same as a 1x1 convolution with a stride, in the gradient of which TensorFlow 2.21
            # corrupts the memory on CPUs where the batch is odd.
            x = layers.AveragePooling2D(1, strides, name=f"{name}_shortcut_stride")(active)
            x = _conv(x, filters, 1, _pytorch(), f"{name}_shortcut", bias=False)
            # PyTorch's padding of 1; SAME would shift the grid by a pixel before a stride.
            h = layers.ZeroPadding2D(1, name=f"{name}_padding")(active)
        h = _conv(h, filters, 3, _kaiming(), f"{name}a_conv", strides=strides, bias=False)
        h = activate(h, f"{name}b_relu")
        h = _conv(h, filters, 3, _kaiming(), f"{name}b_conv", bias=False)
        x = layers.Add(name=name)([h, x])
    x = layers.AveragePooling2D(4, dtype="float32", name="pool")(x)
    return layers.Flatten(dtype="float32", name="features")(x)


def _residual_features(images, width, *, bias, wrapped=None):
    """SN-GAN's discriminator up to its head; `wrapped` wraps every layer with weights."""
    channels, halved = _DISCRIMINATOR[images.shape[1]]
    x = images
    for i, (count, down) in enumerate(zip(channels, halved, strict=True), start=1):
        name, filters = f"block{i}", _filters(count, width)
        hidden = filters if i == 1 else x.shape[-1]
        sees_images = {"dtype": "float32"} if i == 1 else {}
        settings = {"bias": bias, "wrapped": wrapped}
        # The first block does not rectify the image, and pools its shortcut before the convolution.
        h = x if i == 1 else layers.ReLU(name=f"{name}a_relu")(x)
        h = _conv(h, hidden, 3, _xavier(2), f"{name}a_conv", **settings, **sees_images)
        h = layers.ReLU(name=f"{name}b_relu")(h)
        h = _conv(h, filters, 3, _xavier(2), f"{name}b_conv", **settings)
        h = layers.AveragePooling2D(2, name=f"{name}_pool")(h) if down else h
        if i == 1:
            x = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool", **sees_images)(x)
        if down or x.shape[-1] != filters:
            x = _conv(x, filters, 1, _xavier(1), f"{name}_shortcut", **settings, **sees_images)
        if down and i != 1:
            x = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
        x = layers.Add(name=name)([h, x])
    x = layers.ReLU(name="relu")(x)
    area = x.shape[1] * x.shape[2]
    x = layers.GlobalAveragePooling2D(dtype="float32", name="mean")(x)
    return layers.Rescaling(area, dtype="float32", name="features")(x)  # a sum over the image


def _conv(x, filters, size, initial, name, *, strides=1, bias=True, wrapped=None, dtype=None):
    """A convolution; what goes into one with a stride is padded already."""
    convolution = layers.Conv2D(
        filters,
        size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=bias,
        kernel_initializer=initial,
        dtype=dtype,
        name=name,
    )
    return (wrapped(convolution) if wrapped else convolution)(x)


def _xavier(squared_gain):
    return keras.initializers.VarianceScaling(squared_gain, "fan_avg", "uniform")


def _kaiming():
    return keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal")


def _pytorch():
    """PyTorch's default for layers: Kaiming uniform with a = √5."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _filters(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _check(num_classes: int, image_size: int, width: float, sizes: Collection[int]) -> None:
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    checks.one_of("image_size", image_size, sizes)
    if not width > 0:
        raise ValueError(f"`width` must be a positive number. Received: width={width}")
