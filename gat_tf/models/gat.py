"""Table 1 of the GAT paper: the classifier F (trainee) and the generator G (trainer)."""

from __future__ import annotations

import keras
from keras import layers

FILTERS = 48


def classifier(
    num_classes: int = 10,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    width: float = 1.0,
    classifier_activation: str | None = "softmax",
    input_shape: tuple[int, int, int] = (32, 32, 3),
) -> keras.Model:
    """Returns the classifier of Table 1 of the GAT paper.

    Six convolutions with ReLU, two of them with stride 2 and SAME padding, a 1x1 convolution to
    the classes, the average over what is left of the image (8x8 of 32x32), and a softmax layer
    of its own. Glorot uniform kernels, zero biases, no batch norm. 240,058 parameters with 10
    classes and 248,788 with 100.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        num_classes: Number of classes, at least 2.
        dropout: Rate in [0, 1) of a dropout layer after each stride-2 convolution. 0 is Table 1.
        input_dropout: Rate in [0, 1) of a dropout layer on the images. 0 is Table 1.
        width: Factor on the number of filters of every hidden layer. 1.0 is Table 1.
        classifier_activation: `"softmax"` for probabilities, or `None` for logits.
        input_shape: `(height, width, channels)` of the images.

    Returns:
        A Keras model from images `[B, H, W, C]` in [0, 1] to `[B, num_classes]`.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> classifier = models.classifier(num_classes=10)
        >>> classifier.count_params()
        240058
        >>> classifier.output_shape
        (None, 10)
    """
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    if classifier_activation not in ("softmax", None):
        raise ValueError(
            "`classifier_activation` must be 'softmax' (probabilities) or None (logits). "
            f"Received: classifier_activation={classifier_activation!r}"
        )
    for name, rate in (("dropout", dropout), ("input_dropout", input_dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"`{name}` must be a rate in [0, 1). Received: {name}={rate}")
    narrow, wide = _filters(1, width), _filters(2, width)

    images = keras.Input(input_shape, name="images")
    x = images
    if input_dropout:
        x = layers.Dropout(input_dropout, name="input_dropout")(x)
    x = _conv(narrow, 3, name="conv1")(x)
    x = _conv(narrow, 3, strides=2, name="conv2")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout1")(x)
    x = _conv(wide, 3, name="conv3")(x)
    x = _conv(wide, 3, strides=2, name="conv4")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout2")(x)
    x = _conv(wide, 3, name="conv5")(x)
    x = _conv(wide, 1, name="conv6")(x)
    x = _conv(num_classes, 1, activation=None, name="classes")(x)
    # Logits and probabilities in float32 whatever the precision of the convolutions is.
    outputs = layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)
    if classifier_activation:
        outputs = layers.Softmax(dtype="float32", name="probabilities")(outputs)
    return keras.Model(images, outputs, name="gat_classifier")


def perturbation_generator(
    input_shape: tuple[int, int, int] = (32, 32, 3), width: float = 1.0
) -> keras.Model:
    """Returns the generator of Table 1 of the GAT paper: input gradient in, perturbation out.

    Six 3x3 convolutions and a 1x1 convolution with ReLU, then a 1x1 convolution to the image's
    channels with tanh. Glorot uniform kernels, zero biases. 107,763 parameters.

    Paper: [Lee et al. 2017](https://arxiv.org/abs/1705.03387).

    Args:
        input_shape: `(height, width, channels)` of the images, and so of gradient and perturbation.
        width: Factor on the number of filters of every hidden layer. 1.0 is Table 1.

    Returns:
        A Keras model from gradients `[B, H, W, C]` to perturbations `[B, H, W, C]` in (-1, 1).

    Raises:
        ValueError: `width` is not positive.

    Examples:
        >>> generator = models.perturbation_generator()
        >>> generator.count_params()
        107763
    """
    filters = _filters(1, width)
    gradients = keras.Input(input_shape, name="gradients")
    x = gradients
    for i in range(1, 7):
        x = _conv(filters, 3, name=f"conv{i}")(x)
    x = _conv(filters, 1, name="conv7")(x)
    x = _conv(input_shape[-1], 1, activation=None, name="conv8")(x)
    perturbations = layers.Activation("tanh", dtype="float32", name="perturbations")(x)
    return keras.Model(gradients, perturbations, name="gat_generator")


def _filters(multiple: int, width: float) -> int:
    if not width > 0:
        raise ValueError(f"`width` must be a positive number. Received: width={width}")
    return max(1, round(multiple * FILTERS * width))


def _conv(
    filters: int, size: int, *, strides: int = 1, activation: str | None = "relu", name: str
) -> layers.Layer:
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        activation=activation,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        name=name,
    )
