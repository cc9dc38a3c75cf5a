"""Data sets: the fixed split of CIFAR, the built-in shapes, and the order of batches."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from gat_tf import data
from gat_tf.data import Split

SIZES = {"train": 50_000, "test": 10_000}


def _fake_cifar(classes):
    """As many images as CIFAR has, of one pixel whose four channels are the image's number."""
    rng = np.random.default_rng(8)
    splits = []
    for size in SIZES.values():
        images = np.arange(size, dtype="<u4").view(np.uint8).reshape(size, 1, 1, 4)
        splits.append(Split(images, rng.permutation(np.arange(size) % classes)))
    return tuple(splits)


def _numbers(split):
    return np.ascontiguousarray(split.images).view("<u4").ravel()


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, monkeypatch):
    """(name, number of classes, whole training split, whole test split) of a fake CIFAR."""
    classes = {"cifar10": 10, "cifar100": 100}[request.param]
    train, test = _fake_cifar(classes)
    monkeypatch.setattr(data, "_load_tfds", lambda name, data_dir: (train, test))
    return request.param, classes, train, test


def test_training_images_are_split_45000_to_5000_with_equal_classes(cifar):
    name, classes, whole, whole_test = cifar
    splits = data.load(name)
    assert splits.num_classes == classes
    assert [len(s.labels) for s in splits[:3]] == [45_000, 5_000, 10_000]
    assert (np.bincount(splits.train.labels) == 45_000 // classes).all()
    assert (np.bincount(splits.validation.labels) == 5_000 // classes).all()
    # Every image is in one of the two, under its own label.
    numbers = np.concatenate([_numbers(splits.train), _numbers(splits.validation)])
    assert sorted(numbers) == list(range(50_000))
    for split in splits[:2]:
        np.testing.assert_array_equal(split.labels, whole.labels[_numbers(split)])
    for mine, theirs in zip(splits.test, whole_test, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_split_is_always_the_same_and_mixes_the_files_order(cifar):
    name, *_ = cifar
    first = data.load(name)
    second = data.load(name)
    for one, other in zip(first[:3], second[:3], strict=True):
        np.testing.assert_array_equal(_numbers(one), _numbers(other))
        np.testing.assert_array_equal(one.labels, other.labels)
    numbers = _numbers(first.validation).astype(float)
    assert abs(numbers.mean() - 25_000) < 1_000


def test_smaller_sizes_are_part_of_the_whole_and_balanced(cifar):
    name, classes, *_ = cifar
    whole = data.load(name)
    small = data.load(name, train_size=1_000, validation_size=300, test_size=200)
    assert [len(s.labels) for s in small[:3]] == [1_000, 300, 200]
    for part, all_of_it in zip(small[:3], whole[:3], strict=True):
        assert (np.bincount(part.labels) == len(part.labels) // classes).all()
        assert len(set(_numbers(part))) == len(part.labels)
        assert set(_numbers(part)) <= set(_numbers(all_of_it))
    # The first of each class: a smaller size is the beginning of a larger one.
    smaller = data.load(name, train_size=500, validation_size=300, test_size=200)
    assert set(_numbers(smaller.train)) < set(_numbers(small.train))


def test_more_training_images_leave_validation_as_it_is(cifar):
    name, *_ = cifar
    small = data.load(name, train_size=100)
    np.testing.assert_array_equal(_numbers(small.validation), _numbers(data.load(name).validation))


@pytest.mark.parametrize("size", [0, -100, 150.5, 123, 45_100])
def test_size_that_does_not_divide_or_is_not_there_is_named(cifar, size):
    name, classes, *_ = cifar
    message = rf"each of the {classes} classes the same number.* at most {45_000 // classes} each"
    with pytest.raises(ValueError, match=rf"{message}. Received: {size}"):
        data.load(name, train_size=size)


def test_unknown_data_set_is_named():
    with pytest.raises(ValueError, match=r"\['cifar10', 'cifar100', 'shapes'\].*'mnist'"):
        data.load("mnist")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_through_tensorflow_datasets(name, tmp_path, monkeypatch):
    # Without the files TFDS does not know it, and would make room for 2^63 images.
    monkeypatch.setattr(tfds.core.splits.SplitDict, "total_num_examples", 12)
    rng = np.random.default_rng(4)
    files = {
        split: Split(rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, 10, size))
        for split, size in (("train", 7), ("test", 5))
    }

    def as_dataset(builder, split, *args, **kwargs):
        assert builder.name == name
        images, labels = files[split]
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        loaded = data._load_tfds(name, str(tmp_path))
    for split, (images, labels) in zip(loaded, files.values(), strict=True):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def test_missing_files_without_network_say_what_to_do(tmp_path, monkeypatch):
    class OfflineError(ConnectionError):
        pass

    def fail(self, *args, **kwargs):
        raise OfflineError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(data.DatasetNotFoundError) as caught:
        data.load("cifar10", str(tmp_path))
    message = str(caught.value)
    assert "'cifar10'" in message
    assert str(tmp_path) in message
    assert "OfflineError" in message
    assert "tfds.load('cifar10'" in message
    assert "--data_dir=" in message
    assert "--preset=quick" in message
    assert isinstance(caught.value.__cause__, OfflineError)


# Batches.


@pytest.fixture
def split():
    """23 images that can be told apart by every pixel."""
    images = np.empty((23, 2, 2, 3), np.uint8)
    images[:] = np.arange(0, 253, 11)[:, None, None, None]
    return Split(images, np.arange(23, dtype=np.int64))


def _epoch(dataset, steps):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(steps)]


def _order(batches):
    return np.concatenate([labels for _, labels in batches])


def test_batches_are_the_split_in_its_order_as_floats(split):
    batches = list(data.batches(split, 10))
    assert [len(labels) for _, labels in batches] == [10, 10, 3]
    images = np.concatenate([images for images, _ in batches])
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, split.images / 255, rtol=1e-7)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), split.labels)


def test_all_values_of_a_pixel_become_floats_in_0_to_1():
    split = Split(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), np.zeros(1, np.int64))
    ((images, _),) = data.batches(split, 1)
    np.testing.assert_allclose(np.ravel(images), np.arange(256) / 255, rtol=1e-7)
    assert np.min(images) == 0
    assert np.max(images) == 1


def test_steps_per_epoch_counts_the_smaller_last_batch(split):
    assert [data.steps_per_epoch(split, n) for n in (1, 10, 22, 23, 24)] == [23, 3, 2, 1, 1]


def test_an_epoch_has_every_image_once_and_a_smaller_last_batch(split):
    batches = _epoch(data.shuffled_batches(split, 10, seed=3), 9)
    assert [len(labels) for _, labels in batches] == [10, 10, 3] * 3
    for first in (0, 3, 6):
        assert sorted(_order(batches[first : first + 3])) == list(range(23))
    for images, labels in batches:
        np.testing.assert_allclose(images, split.images[labels] / 255, rtol=1e-7)


def test_order_is_a_function_of_seed_and_epoch(split):
    def order(seed, epoch):
        return tuple(
            _order(_epoch(data.shuffled_batches(split, 10, seed=seed, first_epoch=epoch), 3))
        )

    tf.random.set_seed(1)
    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({*orders.values(), tuple(range(23))}) == 5
    tf.random.set_seed(2)
    for (seed, epoch), expected in orders.items():
        assert order(seed, epoch) == expected


def test_resumed_epochs_are_those_that_would_have_come(split):
    through = _epoch(data.shuffled_batches(split, 10, seed=3), 12)
    resumed = _epoch(data.shuffled_batches(split, 10, seed=3, first_epoch=2), 6)
    np.testing.assert_array_equal(_order(through[6:]), _order(resumed))


def test_batch_size_does_not_change_the_order(split):
    by_ten = _order(_epoch(data.shuffled_batches(split, 10, seed=3), 3))
    by_four = _order(_epoch(data.shuffled_batches(split, 4, seed=3), 6))
    np.testing.assert_array_equal(by_ten, by_four)


# The built-in shapes.


def test_shapes_are_drawn_from_their_seed():
    first, same, other = data.draw_shapes(40, 5), data.draw_shapes(40, 5), data.draw_shapes(40, 6)
    np.testing.assert_array_equal(first.images, same.images)
    np.testing.assert_array_equal(first.labels, same.labels)
    assert (first.images != other.images).mean() > 0.9
    assert first.images.shape == (40, 32, 32, 3)
    assert first.images.dtype == np.uint8
    assert first.labels.dtype == np.int64


def test_shapes_are_balanced_and_in_random_order():
    labels = data.draw_shapes(200, 0).labels
    np.testing.assert_array_equal(np.bincount(labels), 20)
    assert (labels != np.arange(200) % 10).mean() > 0.5
    assert sorted(np.bincount(data.draw_shapes(23, 0).labels)) == [2] * 7 + [3] * 3


def test_a_shape_is_brighter_than_its_ground():
    split = data.draw_shapes(300, 1)
    disks = split.images[split.labels == data.SHAPES.index("disk")].astype(float)
    corners = disks[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=(1, 2))
    # The centre lies between pixels 12 and 20: all of 15 to 17 is within a radius of 6.
    middle = disks[:, 15:18, 15:18].mean(axis=(1, 2, 3))
    assert (middle > corners).all()
    rings = split.images[split.labels == data.SHAPES.index("ring")].astype(float)
    assert (rings[:, 15:18, 15:18].mean(axis=(1, 2, 3)) < middle.mean()).all()


def test_no_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"`size` must be at least 1.*size=0"):
        data.draw_shapes(0, 0)


def test_shapes_load_with_their_own_sizes_and_no_image_twice():
    splits = data.load("shapes", train_size=60)
    assert [len(s.labels) for s in splits[:3]] == [60, 500, 500]
    assert splits.num_classes == 10
    assert len(data.load("shapes").train.labels) == 1_000
    images = np.concatenate([s.images for s in splits[:3]]).reshape(1060, -1)
    assert len(np.unique(images, axis=0)) == 1060
