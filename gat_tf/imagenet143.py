"""ImageNet-143, the dogs to cats of ImageNet: the large data set of the Rob-GAN paper.

Classes and crops are those of the authors' code: labels 151 to 293 of the sorted synsets, and the
central square of each image. Training images have at least 256 pixels on both sides. The test
images are all 7,150 validation images of ImageNet in these classes. The authors resize the shorter
side to 256 and crop 256x256; here the same square is interpolated once, to its final size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

LABELS = range(151, 294)  # n02085620 to n02130308
HELD_OUT = 50  # training images of each class for validation, as many as there are for the test
_SHORTEST_SIDE = 256  # of training images


def load(
    builder: Any,
    image_size: int,
    train_each: int | None = None,
    validation_each: int | None = None,
    test_each: int | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the training, validation and test split, as `read` does.

    The first 50 training images of each class are held out for validation; the test images are
    ImageNet's validation images. Training images are 1.25 times as large as the others, so that
    `augmentation.scale_crop_flip` has pixels to crop (ours).

    Args:
        builder: TFDS's, of ImageNet.
        image_size: Height and width of the images of validation and test.
        train_each: Number of training images of each class; by default all.
        validation_each: Number of validation images of each class; by default all 50.
        test_each: Number of test images of each class; by default all 50.
    """
    import tensorflow_datasets as tfds

    # Encoded: five in six are left out by their label.
    train, test = (
        builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        for split in ("train", "validation")
    )
    train_end = None if train_each is None else HELD_OUT + train_each
    return [
        read(train, round(1.25 * image_size), HELD_OUT, train_end, shortest_side=_SHORTEST_SIDE),
        read(train, image_size, 0, validation_each or HELD_OUT, shortest_side=_SHORTEST_SIDE),
        read(test, image_size, 0, test_each),
    ]


def read(
    examples: tf.data.Dataset,
    size: int,
    start: int = 0,
    stop: int | None = None,
    *,
    shortest_side: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of ImageNet-143 as arrays: of each class those numbered `start` to `stop`.

    Args:
        examples: ImageNet's `{"image": JPEG or PNG file, "label": 0 to 999}`.
        size: Height and width of the result, made by bilinear interpolation with antialiasing.
        start: Number of a class's first image, counted in the order of the examples.
        stop: Number after its last; none is as many as there are.
        shortest_side: Images with fewer pixels on a side are left out, and not counted.

    Returns:
        Images `[N, size, size, 3]` uint8 and labels `[N]` int64 from 0 to 142, in the order of the
        examples.
    """

    def is_chosen(example):
        return (example["label"] >= LABELS.start) & (example["label"] < LABELS.stop)

    def decode(example):
        image = tf.io.decode_image(example["image"], channels=3, expand_animations=False)
        return image, tf.cast(example["label"], tf.int64) - LABELS.start

    def is_large(image, label):
        del label
        return tf.reduce_min(tf.shape(image)[:2]) >= shortest_side

    def number(seen, example):
        image, label = example
        return tf.tensor_scatter_nd_add(seen, [[label]], [1]), (image, label, seen[label])

    def is_in_range(image, label, number):
        del image, label
        return (number >= start) & (number < (tf.int32.max if stop is None else stop))

    def resize(image, label, number):
        del number
        height, width = tf.unstack(tf.shape(image)[:2])
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[top : top + side, left : left + side]
        resized = tf.image.resize(square, [size, size], antialias=True)
        return tf.cast(tf.round(resized), tf.uint8), label

    dataset = (
        examples.filter(is_chosen)
        .map(decode, tf.data.AUTOTUNE)
        .filter(is_large)
        .scan(tf.zeros([len(LABELS)], tf.int32), number)
        .filter(is_in_range)
        .map(resize, tf.data.AUTOTUNE)
    )
    if stop is not None:  # which ends the reading early
        dataset = dataset.take(len(LABELS) * (stop - start))
    # They fill gigabytes, and how many there are shows at the end: grown in place, never copied.
    pixels, labels = bytearray(), []
    for image, label in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        pixels += image.tobytes()
        labels.append(label)
    return (
        np.frombuffer(pixels, np.uint8).reshape(-1, size, size, 3),
        np.array(labels, np.int64),
    )
