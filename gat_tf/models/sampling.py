"""Images from a class-conditional generator."""

from __future__ import annotations

import keras
import numpy as np


def sample(
    generator: keras.Model, labels, *, noise=None, seed: int = 0, batch_size: int = 100
) -> np.ndarray:
    """Returns images of the classes asked for.

    Args:
        generator: Keras model from `[noise, labels]` to images, such as `image_generator`'s. It
            runs in inference mode.
        labels: `[N]` integers, the class of each image.
        noise: `[N, latent size]`; standard normal, drawn from the seed, by default.
        seed: Seed of the noise.
        batch_size: Images at a time.

    Returns:
        `[N, H, W, C]` float32 in [-1, 1].

    Raises:
        ValueError: The noise is not of the generator's size, the labels are not integers
            `[N]`, or the model is no such generator.
    """
    size = latent_size(generator)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(
            "Expected integer labels [images], at least one. "
            f"Received: {labels.dtype} labels of shape {labels.shape}"
        )
    if noise is None:
        noise = np.random.default_rng(seed).standard_normal((len(labels), size), np.float32)
    noise = np.asarray(noise, np.float32)
    if noise.shape != (len(labels), size):
        raise ValueError(
            f"Expected noise of shape {(len(labels), size)}, a vector of the generator's size for "
            f"each label. Received: {noise.shape}"
        )
    return generator.predict([noise, labels.astype(np.int32)], batch_size=batch_size, verbose=0)


def latent_size(generator: keras.Model) -> int:
    """The length of the generator's noise vectors.

    Raises:
        ValueError: It does not take `[noise, labels]`.
    """
    shapes = getattr(generator, "input_shape", None)
    if not (isinstance(shapes, list) and len(shapes) == 2 and len(shapes[0]) == 2):
        raise ValueError(
            "Expected a generator of images from [noise [B, Z], labels [B]]. "
            f"Received: a model with inputs of shape {shapes}"
        )
    return shapes[0][1]
