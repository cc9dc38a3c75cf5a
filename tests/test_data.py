"""Data sets: CIFAR's fixed split, ImageNet-143, the built-in shapes, and the order of batches."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from gat_tf import augmentation, data, imagenet143, reading
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


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "shapes"])
def test_image_size_that_a_data_set_does_not_have_is_an_error(name):
    with pytest.raises(ValueError, match=rf"'{name}' to have image_size=32.*image_size=64"):
        data.load(name, image_size=64)
    assert data.load("shapes", image_size=32).train.images.shape[1:] == (32, 32, 3)


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


# ImageNet-143.


def _examples(*examples):
    """A dataset as TFDS's of ImageNet, of (image, label)."""
    files = [tf.io.encode_png(image).numpy() for image, _ in examples]
    labels = np.array([label for _, label in examples], np.int64)
    return tf.data.Dataset.from_tensor_slices({"image": files, "label": labels})


def _grey(value, height=256, width=256):
    return np.full((height, width, 1), value, np.uint8)


def test_imagenet_143_are_the_labels_from_151_to_293():
    labels = [0, 293, 150, 151, 294, 200, 999]
    images, kept = imagenet143.read(_examples(*((_grey(n % 256), n) for n in labels)), 8)
    np.testing.assert_array_equal(kept, [142, 0, 49])
    assert kept.dtype == np.int64
    assert images.dtype == np.uint8
    # The number is also the colour, which is kept to the byte.
    expected = np.uint8([293 % 256, 151, 200])[:, None, None, None]
    np.testing.assert_array_equal(images, np.broadcast_to(expected, (3, 8, 8, 3)))


def test_images_with_a_short_side_are_left_out_where_asked():
    sizes = [(255, 300), (256, 300), (300, 255), (300, 256), (255, 255), (256, 256)]
    examples = _examples(*((_grey(i, *size), 160) for i, size in enumerate(sizes)))
    images, _ = imagenet143.read(examples, 8, shortest_side=256)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [1, 3, 5])
    images, _ = imagenet143.read(examples, 8)
    np.testing.assert_array_equal(images[:, 0, 0, 0], range(6))


def test_square_at_the_centre_is_taken():
    rng = np.random.default_rng(5)
    wide, high = (rng.integers(0, 256, s, np.uint8) for s in ((256, 300, 3), (301, 256, 3)))
    images, _ = imagenet143.read(_examples((wide, 151), (high, 151)), 256)
    np.testing.assert_array_equal(images, [wide[:, 22:278], high[22:278]])


def test_images_are_made_smaller_with_antialiasing():
    image = np.random.default_rng(5).integers(0, 256, (320, 400, 3), np.uint8)
    images, _ = imagenet143.read(_examples((image, 151)), 64)
    # Every new pixel is a mean of old ones, with weights that fall to zero over its size, 5.
    centres = np.arange(64) * 5 + 2
    weights = np.maximum(0, 1 - abs(np.arange(320) - centres[:, None]) / 5)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("ih,jw,hwc->ijc", weights, weights, image[:, 40:360] * 1.0, optimize=True)
    assert abs(images[0] - expected).max() < 0.501


@pytest.mark.slow
def test_images_of_a_class_are_numbered_in_their_order():
    labels = [151, 152, 151, 151, 152, 151]
    examples = [(_grey(i), label) for i, label in enumerate(labels)]
    examples.insert(0, (_grey(99, 255), 151))  # too small to be counted
    for start, stop, expected in ((0, 2, [0, 1, 2, 4]), (1, 3, [2, 3, 4]), (2, None, [3, 5])):
        images, kept = imagenet143.read(_examples(*examples), 4, start, stop, shortest_side=256)
        np.testing.assert_array_equal(images[:, 0, 0, 0], expected)
        np.testing.assert_array_equal(kept + 151, np.array(labels)[expected])
    images, kept = imagenet143.read(_examples(*examples), 4, 4, shortest_side=256)
    assert images.shape == (0, 4, 4, 3)
    assert kept.shape == (0,)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A folder of TFDS's ImageNet, with 2 images of each class held out and few to train.

    The training images of a class are of colours 0 to 4 (0 to 3 of the last) and a small one, the
    test images of 20 to 22 and small too.
    """
    monkeypatch.setattr(imagenet143, "HELD_OUT", 2)
    monkeypatch.setattr(tfds.core.splits.SplitDict, "total_num_examples", 12)
    images = {
        "train": [*map(_grey, range(5)), _grey(5, 255)],
        "validation": [_grey(colour, 40, 255) for colour in range(20, 23)],
    }

    def as_dataset(builder, split, decoders, **kwargs):
        assert builder.name == "imagenet2012"
        assert isinstance(decoders["image"], tfds.decode.SkipDecoding)
        files = [tf.io.encode_png(image).numpy() for image in images[split]]
        encoded, labels = zip(
            *((f, n) for i, f in enumerate(files) for n in range(150, 295) if (i, n) != (4, 293)),
            strict=True,
        )
        return tf.data.Dataset.from_tensor_slices({"image": list(encoded), "label": list(labels)})

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        yield str(tmp_path)


def _colours(split):
    return [sorted(split.images[split.labels == label, 0, 0, 0]) for label in range(143)]


@pytest.mark.slow
def test_imagenet_143_is_split_and_its_training_images_are_larger(imagenet):
    splits = data.load("imagenet143", imagenet, image_size=8)
    assert splits.num_classes == 143
    assert [s.images.shape[1:] for s in splits[:3]] == [(10, 10, 3), (8, 8, 3), (8, 8, 3)]
    for split in splits[:3]:
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert len(split.labels) == len(split.images)
    assert _colours(splits.train) == [[2, 3, 4]] * 142 + [[2, 3]]
    assert _colours(splits.validation) == [[0, 1]] * 143
    assert _colours(splits.test) == [[20, 21, 22]] * 143


@pytest.mark.slow
def test_smaller_sizes_of_imagenet_143_are_the_first_of_each_class(imagenet):
    splits = data.load(
        "imagenet143", imagenet, image_size=8, train_size=286, validation_size=143, test_size=286
    )
    assert _colours(splits.train) == [[2, 3]] * 143
    assert _colours(splits.validation) == [[0]] * 143
    assert _colours(splits.test) == [[20, 21]] * 143
    with pytest.raises(
        ValueError, match=r"each of the 143 classes.* at most 2 each. Received: 429"
    ):
        data.load("imagenet143", imagenet, image_size=8, train_size=429)


@pytest.mark.parametrize(
    "sizes", [{"train_size": 1_000}, {"validation_size": 143 * 51}, {"test_size": 143 * 51}]
)
def test_size_that_imagenet_143_cannot_have_is_named_before_it_is_read(sizes, monkeypatch):
    monkeypatch.setattr(reading, "prepared", None)
    (size,) = sizes.values()
    with pytest.raises(ValueError, match=rf"each of the 143 classes.* each. Received: {size}"):
        data.load("imagenet143", image_size=8, **sizes)


@pytest.mark.parametrize("image_size", [None, 0, 64.5])
def test_imagenet_143_needs_an_image_size(image_size):
    with pytest.raises(ValueError, match=rf"at least 1. Received: image_size={image_size}"):
        data.load("imagenet143", image_size=image_size)


def test_missing_imagenet_says_what_to_download_by_hand(tmp_path):
    with pytest.raises(data.DatasetNotFoundError) as caught:  # TFDS does not even try
        data.load("imagenet143", str(tmp_path), image_size=64)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "ILSVRC2012_img_train.tar" in message
    assert "ILSVRC2012_img_val.tar" in message
    assert "FOLDER/downloads/manual" in message
    assert "tfds.load('imagenet2012'" in message


def test_classes_of_imagenet_143_are_synsets(tmp_path):
    names = data.class_names("imagenet143", str(tmp_path))
    assert len(names) == 143
    assert (names[0], names[-1]) == ("n02085620", "n02130308")  # Chihuahua, cheetah


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


def _pixels(batches):
    return np.concatenate([images.ravel() for images, _ in batches])


def test_resumed_epochs_are_augmented_as_they_would_have_been(split):
    def train(first_epoch, steps):
        return _epoch(
            data.shuffled_batches(
                split, 10, seed=3, first_epoch=first_epoch, augment=augmentation.pad_crop_flip
            ),
            steps,
        )

    through = train(0, 12)
    tf.random.set_seed(2)
    resumed = train(2, 6)
    np.testing.assert_array_equal(_pixels(through[6:]), _pixels(resumed))
    # In the order without augmentation.
    np.testing.assert_array_equal(_order(through[6:]), _order(resumed))
    plain = _epoch(data.shuffled_batches(split, 10, seed=3), 12)
    np.testing.assert_array_equal(_order(through), _order(plain))
    assert (_pixels(through) != _pixels(plain)).any()


def test_every_batch_is_augmented_with_a_seed_of_its_own(split):
    def seeds(seed):
        dataset = data.shuffled_batches(split, 10, seed=seed, augment=lambda images, seed: seed)
        return [tuple(seed) for seed, _ in _epoch(dataset, 9)]

    assert len({*seeds(0), *seeds(1)}) == 18
    assert all(len(seed) == 2 for seed in seeds(0))
    assert seeds(0) == seeds(0)


def test_augmented_images_belong_to_their_labels(split):
    dataset = data.shuffled_batches(split, 10, seed=3, augment=lambda images, seed: images + 1)
    for images, labels in _epoch(dataset, 3):
        np.testing.assert_allclose(images, split.images[labels] / 255 + 1, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("split", "received"),
    [
        (data.Split(np.zeros((2, 4, 4, 3)), np.zeros(2, int)), "of float64 images"),
        (data.Split(np.zeros((2, 4, 4, 3), int), np.zeros(2, int)), "of int64 images"),
        ((np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, int)), "tuple"),
    ],
)
def test_batches_of_anything_but_a_split_are_refused(split, received):
    with pytest.raises(ValueError, match=rf"uint8 images.*{received}.*from_tensor_slices"):
        data.batches(split, 2)
    with pytest.raises(ValueError, match=rf"uint8 images.*{received}.*from_tensor_slices"):
        data.shuffled_batches(split, 2, seed=0)
