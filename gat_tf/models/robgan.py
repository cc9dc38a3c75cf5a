"""The networks of the Rob-GAN paper and of its rival SN-GAN.

Images are in [-1, 1]. Generators make images of 32, 64 or 128 pixels from noise and a class;
discriminators have two heads, real or fake and the class. Padding and initialisation are those of
the authors' PyTorch code: one pixel on every side, also before a stride, and Xavier uniform with
gain √2 in the 3x3 convolutions of residual blocks.
"""

from __future__ import annotations

import keras
from keras import layers

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
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(3, 3, padding="same", kernel_initializer=_xavier(1), name="image")(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model([noise, labels], images, name="robgan_generator")


def discriminator(
    num_classes: int = 10, image_size: int = 32, *, width: float = 1.0
) -> keras.Model:
    """Returns the discriminator of Rob-GAN: real or fake, and the class.

    For 32 pixels a pre-activation ResNet-18 without batch norm and with LeakyReLU 0.2; for 64 and
    128 pixels the residual network of SN-GAN without spectral norm, ReLU and a sum over what is
    left of the image. Two dense heads.

    Args:
        num_classes: Number of classes, at least 2.
        image_size: 32 (CIFAR), 64 or 128 (ImageNet-143).
        width: Factor on the number of filters. 1.0 is the paper's.

    Returns:
        A Keras model from images `[B, image_size, image_size, 3]` in [-1, 1] to a dictionary of
        logits: `real` `[B, 1]`, positive for real, and `classes` `[B, num_classes]`.

    Raises:
        ValueError: An argument is outside its range, or there is no network for that size.
    """
    _check(num_classes, image_size, width, _DISCRIMINATOR)
    images = keras.Input((image_size, image_size, 3), name="images")
    features = _preactivation_resnet(images, width) if image_size == 32 else None
    if features is None:
        features = _residual_features(images, width, lambda layer: layer)
    heads = {
        name: layers.Dense(units, kernel_initializer=_xavier(1), dtype="float32", name=name)(
            features
        )
        for name, units in (("real", 1), ("classes", num_classes))
    }
    return keras.Model(images, heads, name="robgan_discriminator")


def class_head(discriminator: keras.Model) -> keras.Model:
    """Returns the classifier in a discriminator: its body and its class head.

    Args:
        discriminator: Keras model from images to `real` and `classes`.

    Returns:
        A Keras model from images `[B, H, W, C]` in [-1, 1] to logits `[B, K]`. It shares its
        weights with the discriminator: training one trains the other.
    """
    return keras.Model(discriminator.input, discriminator.output["classes"], name="classifier")


def projection_discriminator(
    num_classes: int = 143, image_size: int = 64, *, width: float = 1.0
) -> keras.Model:
    """Returns the discriminator of SN-GAN, Rob-GAN's rival.

    The residual network with spectral normalisation of every layer and a projection head: a dense
    layer plus the inner product of the features with the class's embedding.

    Args:
        num_classes: Number of classes, at least 2.
        image_size: 32 (SN-GAN's CIFAR network), 64 or 128.
        width: Factor on the number of filters. 1.0 is the paper's.

    Returns:
        A Keras model from `[images, labels]` to logits `[B, 1]`, positive for real.

    Raises:
        ValueError: An argument is outside its range, or there is no network for that size.
    """
    _check(num_classes, image_size, width, _DISCRIMINATOR)
    images = keras.Input((image_size, image_size, 3), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    normalised = layers.SpectralNormalization
    features = _residual_features(images, width, normalised)
    logit = normalised(layers.Dense(1, kernel_initializer=_xavier(1), name="real"))(features)
    # An embedding as a dense layer: Keras's SpectralNormalization gives its output the type of its
    # input, which for class numbers would round the embedding to integers.
    one_hot = layers.CategoryEncoding(num_classes, "one_hot", name="one_hot")(labels)
    embedding = layers.Dense(
        features.shape[-1], use_bias=False, kernel_initializer=_xavier(1), name="embedding"
    )
    projection = layers.Dot(-1, name="projection")([normalised(embedding)(one_hot), features])
    outputs = layers.Add(dtype="float32", name="logits")([logit, projection])
    return keras.Model([images, labels], outputs, name="sngan_discriminator")


def _generator_block(x, labels, num_classes, filters, up, name):
    h, shortcut = x, x
    for part in ("a", "b"):
        h = _conditional_batch_norm(h, labels, num_classes, f"{name}{part}")
        h = layers.ReLU(name=f"{name}{part}_relu")(h)
        if part == "a" and up:
            h = layers.UpSampling2D(name=f"{name}_up")(h)
        h = _conv3(filters, f"{name}{part}_conv")(h)
    if up:
        shortcut = layers.UpSampling2D(name=f"{name}_shortcut_up")(shortcut)
    shortcut = _conv1(filters, f"{name}_shortcut")(shortcut)
    return layers.Add(name=name)([h, shortcut])


def _conditional_batch_norm(x, labels, num_classes, name):
    """Batch norm with scale and shift of each class, of built-in layers."""
    channels = x.shape[-1]
    # The authors pass the decay .9 as PyTorch's momentum, which is Keras's 0.1.
    x = layers.BatchNormalization(
        momentum=0.1, epsilon=2e-5, center=False, scale=False, name=f"{name}_norm"
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

    x = _conv3(_filters(64, width), "conv1", bias=False)(images)
    for i, (channels, strides) in enumerate(_PREACTIVATION, start=1):
        name, filters = f"block{i}", _filters(channels, width)
        active = activate(x, f"{name}a_relu")
        if strides != 1:
            # The same as a 1x1 convolution with a stride, in the gradient of which TensorFlow 2.21
            # corrupts the memory on CPUs where the batch is odd.
            x = layers.AveragePooling2D(1, strides, name=f"{name}_shortcut_stride")(active)
            x = _conv1(filters, f"{name}_shortcut", bias=False)(x)
        # PyTorch's padding of 1; SAME would shift the grid by a pixel before a stride.
        h = layers.ZeroPadding2D(1, name=f"{name}_padding")(active) if strides != 1 else active
        h = _conv3(filters, f"{name}a_conv", strides, bias=False)(h)
        h = _conv3(filters, f"{name}b_conv", bias=False)(activate(h, f"{name}b_relu"))
        x = layers.Add(name=name)([h, x])
    x = layers.AveragePooling2D(4, name="pool")(x)
    return layers.Flatten(name="features")(x)


def _residual_features(images, width, normalised):
    """SN-GAN's discriminator up to its head; `normalised` wraps every layer with weights."""
    channels, halved = _DISCRIMINATOR[images.shape[1]]
    x = images
    for i, (count, down) in enumerate(zip(channels, halved, strict=True), start=1):
        name, filters = f"block{i}", _filters(count, width)
        hidden = filters if i == 1 else x.shape[-1]
        # The first block does not rectify the image, and pools its shortcut before the convolution.
        h = x if i == 1 else layers.ReLU(name=f"{name}a_relu")(x)
        h = normalised(_conv3(hidden, f"{name}a_conv"))(h)
        h = normalised(_conv3(filters, f"{name}b_conv"))(layers.ReLU(name=f"{name}b_relu")(h))
        h = layers.AveragePooling2D(2, name=f"{name}_pool")(h) if down else h
        if i == 1:
            x = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
        if down or x.shape[-1] != filters:
            x = normalised(_conv1(filters, f"{name}_shortcut"))(x)
        if down and i != 1:
            x = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
        x = layers.Add(name=name)([h, x])
    x = layers.ReLU(name="relu")(x)
    area = x.shape[1] * x.shape[2]
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return layers.Rescaling(area, name="features")(x)  # a sum over the image


def _conv3(filters, name, strides=1, bias=True):
    return layers.Conv2D(
        filters,
        3,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=bias,
        kernel_initializer=_xavier(2),
        name=name,
    )


def _conv1(filters, name, bias=True):
    return layers.Conv2D(filters, 1, use_bias=bias, kernel_initializer=_xavier(1), name=name)


def _xavier(squared_gain):
    return keras.initializers.VarianceScaling(squared_gain, "fan_avg", "uniform")


def _filters(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _check(num_classes, image_size, width, sizes) -> None:
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    if image_size not in sizes:
        raise ValueError(
            f"`image_size` must be one of {tuple(sizes)}. Received: image_size={image_size}"
        )
    if not width > 0:
        raise ValueError(f"`width` must be a positive number. Received: width={width}")
