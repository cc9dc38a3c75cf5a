"""Rob-GAN's augmentation: where each image is cropped, how often it is mirrored, and the noise."""

import numpy as np
import pytest
import tensorflow as tf

from gat_tf import augmentation

SEED = (3, 8)
FUNCTIONS = {
    "pad_crop_flip": augmentation.pad_crop_flip,
    "scale_crop_flip": lambda images, seed: augmentation.scale_crop_flip(images, 5, seed),
    "dequantised": augmentation.dequantised,
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def _random(*shape):
    return np.random.default_rng(6).uniform(0.01, 1, shape).astype(np.float32)


def test_result_is_a_function_of_the_seed(function):
    images = _random(20, 6, 6, 3)
    tf.random.set_seed(1)
    first = function(images, SEED)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(function(images, SEED), first)
    others = [function(images, seed) for seed in ((4, 8), (3, 9))]
    for other in others:
        assert (np.not_equal(other, first).mean(axis=(1, 2, 3)) > 0).mean() > 0.9
    assert np.not_equal(*others).any()


def test_compiled_for_any_batch_size_as_eager(function):
    spec = tf.TensorSpec([None, 6, 6, 3])
    compiled = tf.function(function, input_signature=[spec, tf.TensorSpec([2], tf.int32)])
    for batch in (1, 7):
        images = tf.constant(_random(batch, 6, 6, 3))
        result = compiled(images, tf.constant(SEED))
        np.testing.assert_allclose(result, function(images, SEED), rtol=1e-6)


# pad_crop_flip.


@pytest.fixture(scope="module")
def cropped():
    """Which of 81 places and whether mirrored, as (place, mirrored), of 2,000 images' crops."""
    image, brightness = _random(5, 6, 2), _random(2_000)
    result = augmentation.pad_crop_flip(image * brightness[:, None, None, None], SEED).numpy()
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = np.stack([padded[y : y + 5, x : x + 6] for y in range(9) for x in range(9)])
    windows = np.stack([windows, windows[:, :, ::-1]], axis=1)
    places = []
    for crop, factor in zip(result, brightness, strict=True):  # each made of its own image
        (place,) = np.argwhere((windows * factor == crop).all(axis=(2, 3, 4)))
        places.append(place)
    return np.array(places).T


def test_images_are_shifted_to_all_places_alike(cropped):
    counts = np.bincount(cropped[0], minlength=81)
    expected = 2_000 / 81
    assert counts.min() > 0
    # Chi squared with 80 degrees of freedom: 80 ± 12.6.
    assert 40 < ((counts - expected) ** 2 / expected).sum() < 130


def test_half_of_the_images_are_mirrored_wherever_they_are(cropped):
    places, mirrored = cropped
    assert 0.46 < mirrored.mean() < 0.54
    assert len(np.unique(places * 2 + mirrored)) == 162


# scale_crop_flip.


def _ramp(batch, size):
    """Images of two channels: the number of the row, and that of the column."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    return np.broadcast_to(np.stack([rows, columns], axis=-1), (batch, size, size, 2))


@pytest.fixture(scope="module")
def squares():
    """Crops of 1,000 ramps of 40 pixels to 8: (top, left, side) in pixels, and whether mirrored."""
    result = augmentation.scale_crop_flip(_ramp(1_000, 40), 8, SEED).numpy()
    mirrored = result[:, 0, 0, 1] > result[:, 0, -1, 1]
    result[mirrored] = result[mirrored, :, ::-1]
    step = result[:, 1, 1] - result[:, 0, 0]
    # A ramp stays one, the same across and down: the crop is a square.
    np.testing.assert_allclose(step[:, 0], step[:, 1], atol=2e-5)
    expected = result[:, :1, :1] + _ramp(1_000, 8) * step[:, None, None]
    np.testing.assert_allclose(result, expected, atol=2e-4)
    # A new pixel's centre is half a step from the crop's edge, an old one's half a pixel.
    top, left = (result[:, 0, 0] + 0.5 - step / 2).T
    return top, left, step[:, 0] * 8, mirrored


def test_crops_have_from_80_to_90_percent_of_the_area(squares):
    area = (squares[2] / 40) ** 2
    assert 0.8 - 1e-4 < area.min() < 0.801
    assert 0.899 < area.max() < 0.9 + 1e-4
    np.testing.assert_allclose(
        np.quantile(area, [0.25, 0.5, 0.75]), [0.825, 0.85, 0.875], atol=4e-3
    )


def test_crops_lie_anywhere_within_the_image(squares):
    top, left, side, mirrored = squares
    for corner in (top, left):
        share = corner / (40 - side)
        assert -1e-3 < share.min() < 0.01
        assert 0.99 < share.max() < 1 + 1e-3
        np.testing.assert_allclose(
            np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05
        )
    unrelated = np.corrcoef([top / (40 - side), left / (40 - side), side, mirrored])
    assert abs(unrelated - np.eye(4)).max() < 0.1


def test_half_of_the_crops_are_mirrored(squares):
    assert 0.45 < squares[3].mean() < 0.55


@pytest.mark.parametrize("size", [8, 64])  # fewer pixels than the crop has, and more
def test_crops_are_interpolated_bilinearly(size):
    images, ramps = _random(30, 40, 40, 3), _ramp(30, 40)
    result = augmentation.scale_crop_flip(images, size, SEED).numpy()
    positions = augmentation.scale_crop_flip(ramps, size, SEED).numpy()
    assert positions.min() >= 0
    assert positions.max() <= 39

    def between(image, positions):  # along the first axis
        below = np.minimum(positions.astype(int), 38)
        share = (positions - below)[:, None, None]
        return image[below] * (1 - share) + image[below + 1] * share

    for image, position, crop in zip(images, positions, result, strict=True):
        rows = between(image, position[:, 0, 0])
        expected = between(rows.swapaxes(0, 1), position[0, :, 1]).swapaxes(0, 1)
        np.testing.assert_allclose(crop, expected, atol=3e-5)


def test_images_that_are_no_squares_are_an_error():
    with pytest.raises(ValueError, match=r"Expected square images. Received: .*\(2, 8, 9, 3\)"):
        augmentation.scale_crop_flip(_random(2, 8, 9, 3), 6, SEED)


# The networks' range.


def test_centred_images_are_from_minus_1_to_1():
    images = np.float32([0, 0.25, 0.5, 1]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(np.ravel(augmentation.centred(images)), [-1, -0.5, 0, 1])


def test_dequantised_images_are_centred_ones_with_noise_of_one_grey_value():
    images = np.broadcast_to(np.arange(256, dtype=np.float32) / 255, (100, 16, 16, 256))[..., :255]
    result = augmentation.dequantised(images, SEED).numpy()
    noise = result.astype(np.float64) - (2 * images - 1)
    assert -1e-7 < noise.min() < 1e-6
    assert 1 / 128 - 1e-6 < noise.max() < 1 / 128 + 1e-7
    np.testing.assert_allclose(noise.mean(), 1 / 256, rtol=1e-3)
    np.testing.assert_allclose(noise.std(), 1 / 128 / 12**0.5, rtol=1e-3)
    assert result.min() >= -1
    assert result.max() <= 1


def test_dequantised_white_is_1():
    np.testing.assert_array_equal(augmentation.dequantised(np.ones([1, 4, 4, 3], "f"), SEED), 1)
