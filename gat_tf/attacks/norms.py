"""L2 and L-infinity geometry of perturbations `[B, H, W, C]`; `norm` is 2 or `math.inf`."""

from __future__ import annotations

import math

import tensorflow as tf

from gat_tf._types import Array, Seed

AXES = (1, 2, 3)


def power(perturbation: tf.Tensor) -> tf.Tensor:
    """||η||_2^2 per image, `[B]`: the sum of squares over its values."""
    return tf.reduce_sum(tf.square(perturbation), AXES)


def l2_norm(perturbation: tf.Tensor) -> tf.Tensor:
    """||η||_2 per image, `[B]`, without underflow: squares of 1e-20 are zero in float32."""
    unit, largest = _scaled(perturbation)
    return tf.sqrt(power(unit)) * largest[:, 0, 0, 0]


def size(perturbation: tf.Tensor, norm: float) -> tf.Tensor:
    """||η|| per image, `[B]`."""
    if norm == math.inf:
        return tf.reduce_max(tf.abs(perturbation), AXES)
    return l2_norm(perturbation)


def direction(gradient: tf.Tensor, norm: float) -> tf.Tensor:
    """The perturbation of norm 1 with the largest inner product with the gradient: eqs. 1 and 3.

    An image with zero gradient has no such direction and gets zero.
    """
    if norm == math.inf:
        return tf.sign(gradient)
    unit, _ = _scaled(gradient)
    return tf.math.divide_no_nan(unit, tf.sqrt(per_image(power(unit))))


def project(perturbation: tf.Tensor, epsilon: tf.Tensor, norm: float) -> tf.Tensor:
    """The nearest perturbation of norm at most ε; `epsilon` is `[B, 1, 1, 1]`."""
    if norm == math.inf:
        return tf.clip_by_value(perturbation, -epsilon, epsilon)
    length = tf.sqrt(per_image(power(perturbation)))
    return perturbation * tf.minimum(1.0, tf.math.divide_no_nan(epsilon, length))


def random_in_ball(shape: tf.Tensor, epsilon: tf.Tensor, norm: float, seed: Seed) -> tf.Tensor:
    """Uniform in the ball of radius ε; `epsilon` is `[B, 1, 1, 1]`."""
    if norm == math.inf:
        return epsilon * tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    radius_seed, direction_seed = tf.unstack(tf.random.split(seed, 2))
    dimensions = tf.cast(tf.reduce_prod(shape[1:]), tf.float32)
    radius = tf.random.stateless_uniform([shape[0], 1, 1, 1], radius_seed) ** (1 / dimensions)
    return epsilon * radius * random_direction(shape, norm, direction_seed)


def random_direction(shape: tf.Tensor, norm: float, seed: Seed) -> tf.Tensor:
    """Uniform among the directions of norm 1: signs for L-infinity, the sphere for L2."""
    return direction(tf.random.stateless_normal(shape, seed), norm)


def radius(epsilon: float | Array, images: tf.Tensor) -> tf.Tensor:
    """ε, one number or one per image, as `[B, 1, 1, 1]`.

    Raises:
        ValueError: The number of ε is neither one nor the number of images.
    """
    epsilon = tf.convert_to_tensor(epsilon, tf.float32)
    require_as_many(epsilon, images)
    return per_image(tf.broadcast_to(epsilon, tf.shape(images)[:1]))


def require_as_many(epsilon: tf.Tensor, images: tf.Tensor) -> None:
    """Raises ValueError if the number of ε is known to be neither 1 nor the number of images."""
    expected, received = images.shape[0], epsilon.shape[0] if epsilon.shape.rank else None
    if None not in (expected, received) and expected != received:
        raise ValueError(
            f"Expected one epsilon, or one for each of the {expected} images. Received: {received}"
        )


def per_image(values: tf.Tensor) -> tf.Tensor:
    """One value per image, as `[B, 1, 1, 1]`."""
    return tf.reshape(values, [-1, 1, 1, 1])


def _scaled(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x divided by its largest magnitude per image, and that magnitude, `[B, 1, 1, 1]`."""
    largest = tf.reduce_max(tf.abs(x), AXES, keepdims=True)
    return tf.math.divide_no_nan(x, largest), largest
