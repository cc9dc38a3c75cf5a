"""Rob-GAN's augmentation, and the range of its networks, for images in [0, 1].

Pure functions of (images, seed), vectorised over the batch, for `data.shuffled_batches` and for
compiled training steps alike. A seed is `[2]` integers, as in `tf.random.stateless_uniform`.
"""

from __future__ import annotations

import tensorflow as tf

from gat_tf._types import Seed

_PADDING = 4
_AREA = (0.8, 0.9)  # of a crop, as a share of the image
_NOISE = 1 / 128


def pad_crop_flip(images: tf.Tensor, seed: Seed) -> tf.Tensor:
    """The authors' augmentation of CIFAR: shifts images by up to 4 pixels, mirrors half of them.

    Each image gets 4 black pixels on every side and is cropped back to its size at a random place.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        images: `[B, H, W, C]` in [0, 1].
        seed: `[2]` integers.

    Returns:
        Images of the same shape and range.

    Examples:
        >>> augmentation.pad_crop_flip(tf.constant(images), seed=(0, 1)).shape
        TensorShape([8, 8, 8, 3])
    """
    _, height, width, channels = images.shape
    batch = tf.shape(images)[0]
    place_seed, mirror_seed = tf.unstack(tf.random.split(seed, 2))
    offsets = tf.random.stateless_uniform(
        [2, batch, 1], place_seed, maxval=2 * _PADDING + 1, dtype=tf.int32
    )
    rows, columns = offsets[0] + tf.range(height), offsets[1] + tf.range(width)
    columns = tf.where(_half_of(batch, mirror_seed), columns[:, ::-1], columns)
    padded = tf.pad(images, [[0, 0], [_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]])
    # One gather, of pixels by their number.
    padded_width = width + 2 * _PADDING
    pixels = tf.reshape(padded, [batch, (height + 2 * _PADDING) * padded_width, channels])
    return tf.gather(pixels, rows[:, :, None] * padded_width + columns[:, None, :], batch_dims=1)


def scale_crop_flip(images: tf.Tensor, size: int, seed: Seed) -> tf.Tensor:
    """The authors' augmentation of ImageNet: crops of .8 to .9 of the area, half of them mirrored.

    The area of each square crop and its place, between pixels too, are uniform.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        images: `[B, S, S, C]` in [0, 1]. At 1.25 times `size` and more a crop has no fewer pixels
            than what is made of it.
        size: Height and width of the result, made by bilinear interpolation.
        seed: `[2]` integers.

    Returns:
        Images `[B, size, size, C]` in the same range.

    Raises:
        ValueError: The images are not squares.

    Examples:
        >>> augmentation.scale_crop_flip(tf.constant(images), size=6, seed=(0, 1)).shape
        TensorShape([8, 6, 6, 3])
    """
    _, height, width, _ = images.shape
    if height != width:
        raise ValueError(f"Expected square images. Received: images of shape {images.shape}")
    batch = tf.shape(images)[0]
    area_seed, place_seed, mirror_seed = tf.unstack(tf.random.split(seed, 3))
    side = height * tf.sqrt(tf.random.stateless_uniform([batch, 1], area_seed, *_AREA))
    corners = tf.random.stateless_uniform([2, batch, 1], place_seed) * (height - side)
    # Where the new pixels' centres lie, in pixels of the image, whose first centre is 0.
    steps = (tf.range(size, dtype=tf.float32) + 0.5) / size * side - 0.5
    rows, columns = corners[0] + steps, corners[1] + steps
    columns = tf.where(_half_of(batch, mirror_seed), columns[:, ::-1], columns)

    def weights(positions):  # of every old pixel in every new one
        positions = tf.clip_by_value(positions, 0, height - 1)[:, :, None]
        return tf.nn.relu(1 - tf.abs(positions - tf.range(height, dtype=tf.float32)))

    return tf.einsum("bih,bjw,bhwc->bijc", weights(rows), weights(columns), images)


def centred(images: tf.Tensor) -> tf.Tensor:
    """Images in [0, 1] as images in [-1, 1], the range of Rob-GAN's networks, for evaluation.

    Examples:
        >>> augmentation.centred(tf.constant([0.0, 0.5, 1.0])).numpy()
        array([-1.,  0.,  1.], dtype=float32)
    """
    return 2 * images - 1


def dequantised(images: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Images in [0, 1] as images in [-1, 1], the range of Rob-GAN's networks, for training.

    With the authors' noise, uniform in [0, 1/128): about the gap of two of the 256 greys. Values
    above 1 are clipped (ours), so that attacks that clip to [-1, 1] do not change them.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        images: `[B, H, W, C]` in [0, 1].
        seed: `[2]` integers.

    Examples:
        >>> noisy = augmentation.dequantised(tf.constant(images), seed=(0, 1))
        >>> bool(tf.reduce_min(noisy) >= -1), bool(tf.reduce_max(noisy) <= 1)
        (True, True)
    """
    noise = tf.random.stateless_uniform(tf.shape(images), seed, maxval=_NOISE)
    return tf.minimum(centred(images) + noise, 1)


def _half_of(batch: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Whether to mirror each image, `[B, 1]`."""
    return tf.random.stateless_uniform([batch, 1], seed) < 0.5
