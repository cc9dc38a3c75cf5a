"""Data as it comes: an .npz file, a folder of images, a data set of TensorFlow Datasets."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from gat_tf import attacks, data, evaluation, reading, training
from gat_tf.data import Split

LABELS = np.arange(24) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 6, 3), np.uint8)
CLASSES = ("ant", "bee", "cat")


def write_folder(folder, indices=range(24), classes=CLASSES, images=IMAGES):
    for name in classes:
        (folder / name).mkdir(parents=True)
    for i in indices:
        path = folder / classes[LABELS[i]] / f"{i:03d}.png"
        path.write_bytes(tf.io.encode_png(images[i]).numpy())
    return folder


def in_order(split):
    """The images by class, as a folder has them."""
    order = np.argsort(split.labels, kind="stable")
    return split.images[order], split.labels[order]


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("x_test", "y_test")])
def test_npz_under_each_name(names, tmp_path):
    arrays = dict(zip(names, (IMAGES, LABELS[:, None].astype(np.int32)), strict=True))
    if names[0] == "x_test":  # the others are not what is tested on
        arrays |= {"x_train": IMAGES[:3] // 2, "y_train": LABELS[:3]}
    np.savez(tmp_path / "mine.npz", **arrays)
    images, labels = data.load_test(tmp_path / "mine.npz")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64
    assert data.class_names(str(tmp_path / "mine.npz")) is None


def test_npz_as_keras_has_mnist(tmp_path):
    grey = IMAGES[..., 0]
    train, test = slice(0, 15), slice(15, 24)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=grey[train], y_train=LABELS[train], x_test=grey[test], y_test=LABELS[test],
    )  # fmt: skip
    splits = data.load(tmp_path / "mnist.npz")
    assert splits.test.images.shape == (9, 4, 6, 1)
    assert splits.num_classes == 3
    np.testing.assert_array_equal(splits.test.labels, LABELS[test])
    # Of 15 images, one of each class is a tenth, rounded to at least one.
    np.testing.assert_array_equal(np.bincount(splits.validation.labels), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(splits.train.labels), [4, 4, 4])


def test_floats_stay_as_they_are(tmp_path):
    floats = (IMAGES / 127.5 - 1).astype(np.float64)
    np.savez(tmp_path / "mine.npz", images=floats, labels=LABELS.astype(np.float32))
    split = data.load_test(tmp_path / "mine.npz")
    ((images, labels),) = data.batches(split, 24)
    np.testing.assert_array_equal(images, floats.astype(np.float32))
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES, "labels": LABELS},
         "Expected `images` and `labels`.*Received: labels, pictures"),
        ({"images": IMAGES, "labels": LABELS[:5]}, r"integer labels \[N\].*\(5,\)"),
        ({"images": IMAGES, "labels": np.eye(3)[LABELS]}, "one-hot. Save their argmax"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "uint8 or floats.*int64"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels from 0.*-1"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "Expected images.*Received: none"),
    ],
)  # fmt: skip
def test_npz_of_something_else_is_named(arrays, message, tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.load_test(tmp_path / "mine.npz")


def test_folder_is_read_as_keras_reads_it(tmp_path):
    write_folder(tmp_path)
    (tmp_path / ".hidden").mkdir()
    split = data.load_test(tmp_path)
    images, labels = in_order(Split(IMAGES, LABELS))
    np.testing.assert_array_equal(split.images, images)
    np.testing.assert_array_equal(split.labels, labels)
    assert split.images.dtype == np.uint8
    assert data.class_names(tmp_path) == CLASSES
    resized = data.load_test(str(tmp_path), image_size=3, channels=1)
    theirs = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(3, 3), color_mode="grayscale", shuffle=False, verbose=False
    )
    expected = np.concatenate([x for x, _ in theirs.as_numpy_iterator()])
    np.testing.assert_allclose(resized.images, expected, atol=0.501)
    assert resized.images.shape == (24, 3, 3, 1)


def test_folder_is_divided_the_same_way_every_time(tmp_path):
    splits = data.load(write_folder(tmp_path))
    assert splits.num_classes == 3
    # Eight of each class: one for testing; one of the seven for validation.
    for split, each in zip(splits[:3], (6, 1, 1), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), [each] * 3)
    pixels = np.concatenate([s.images for s in splits[:3]]).reshape(24, -1)
    assert len(np.unique(pixels, axis=0)) == 24
    again = data.load(tmp_path)
    np.testing.assert_array_equal(again.test.images, splits.test.images)
    np.testing.assert_array_equal(again.train.images, splits.train.images)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_training_images_are_not_sorted_by_class(kind, divided, tmp_path):
    images, labels = in_order(Split(IMAGES, LABELS))
    if kind == "npz":
        source = tmp_path / "sorted.npz"
        arrays = {"images": images, "labels": labels}
        if divided:
            arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
        np.savez(source, **arrays)
    else:
        source = tmp_path
        for part in ("train", "test") if divided else (".",):
            write_folder(tmp_path / part)
    splits = data.load(source)
    assert (np.diff(splits.train.labels) < 0).sum() >= 3  # sorted, it never falls
    again = data.load(source)
    for found, same in zip(splits[:3], again[:3], strict=True):
        np.testing.assert_array_equal(found.images, same.images)
        # Each image still has its own label.
        pixels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert [pixels[image.tobytes()] for image in found.images] == found.labels.tolist()
    if divided:  # the test images stay as they are
        np.testing.assert_array_equal(splits.test.images, images)
        np.testing.assert_array_equal(data.load_test(source).images, images)


def test_folders_of_splits(tmp_path):
    write_folder(tmp_path / "train", range(15))
    write_folder(tmp_path / "val", range(15, 24))
    splits = data.load(tmp_path)
    # The validation images are those to test on; others of the training images take their place.
    np.testing.assert_array_equal(splits.test.images, in_order(Split(IMAGES[15:], LABELS[15:]))[0])
    assert (len(splits.train.labels), len(splits.validation.labels)) == (12, 3)
    write_folder(tmp_path / "Test", range(3))
    splits = data.load(tmp_path)
    assert [len(s.labels) for s in splits[:3]] == [15, 9, 3]
    assert len(data.load_test(tmp_path).labels) == 3
    write_folder(tmp_path / "validation", range(3))
    with pytest.raises(ValueError, match=r"one folder for each split.*val, validation"):
        data.load(tmp_path)


def test_images_are_chosen_of_the_classes_that_are_there():
    split = Split(IMAGES, np.repeat([0, 2], 12))
    assert data._first_of_each_class(split, 4).labels.tolist() == [0, 0, 2, 2]


def test_folders_that_are_no_data_set_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"two or more. Received: no subfolder"):
        data.load_test(tmp_path)
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match=r"two or more. Received: ant"):
        data.load_test(tmp_path)
    (tmp_path / "bee").mkdir()
    with pytest.raises(ValueError, match=r"\.png, \.jpg.*Received: none"):
        data.load_test(tmp_path)
    (tmp_path / "bee" / "0.png").write_bytes(b"no image")
    for size in (None, 4):
        with pytest.raises(ValueError, match=r"0\.png, which is damaged"):
            data.load_test(tmp_path, image_size=size)


def test_sizes_that_differ_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "ant" / "1.png").write_bytes(tf.io.encode_png(IMAGES[0, :2]).numpy())
    with pytest.raises(ValueError, match=r"`image_size`.*2x6 and 4x6.*\.png"):
        data.load_test(tmp_path)
    assert data.load_test(tmp_path, image_size=(5, 4)).images.shape == (25, 5, 4, 3)


def test_splits_of_other_classes_are_named(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("ant", "bee", "dog"))
    with pytest.raises(ValueError, match=r"same classes.*Received: cat, dog"):
        data.load(tmp_path)


def test_class_without_images_to_hold_out_is_named(tmp_path):
    write_folder(tmp_path, [0, 1, 3, 4, 6, 7])  # none of the third
    with pytest.raises(ValueError, match="0 of class 2"):
        data.load(tmp_path)
    assert len(data.load_test(tmp_path).labels) == 6  # it keeps the number of its classes


@pytest.mark.parametrize("name", ["no_such_name", "no/such/folder", "file.csv"])
def test_what_is_no_data_set_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").write_text("a,b")
    with pytest.raises(ValueError, match=rf"\.npz file.*folder.*Received: '?{name}"):
        data.load(name)
    with pytest.raises(ValueError, match=r"no file .*gone\.npz"):
        data.load(tmp_path / "gone.npz")


class Insects(tfds.core.GeneratorBasedBuilder):
    """A data set of TFDS: 24 images for training and 6 for testing."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(4, 6, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=CLASSES)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"photo": image, "kind": label}),
            supervised_keys=("photo", "kind"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(24), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"photo": IMAGES[i], "kind": int(LABELS[i])}


class Words(Insects):
    """No images."""

    def _info(self):
        features = tfds.features.FeaturesDict({"photo": tfds.features.Text(), "kind": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, count):
        yield 0, {"photo": "a word", "kind": 0}


def test_any_data_set_of_tfds_is_read_by_its_name(tmp_path):
    splits = data.load("insects", str(tmp_path))
    assert splits.num_classes == 3
    assert [len(s.labels) for s in splits[:3]] == [21, 3, 6]
    test = data.load_test("insects", str(tmp_path))
    order = np.lexsort(test.images.reshape(6, -1).T)
    expected = np.lexsort(IMAGES[:6].reshape(6, -1).T)
    np.testing.assert_array_equal(test.images[order], IMAGES[expected])
    np.testing.assert_array_equal(test.labels[order], LABELS[expected])
    assert data.class_names("insects", str(tmp_path)) == CLASSES
    smaller = data.load_test("insects", str(tmp_path), image_size=(2, 3)).images
    means = test.images.reshape(6, 2, 2, 3, 2, 3).mean(axis=(2, 4))  # bilinear, halved
    np.testing.assert_allclose(smaller, means, atol=0.501)
    with pytest.raises(ValueError, match=r"an image and a class each.*'words' with .*photo"):
        data.load_test("words", str(tmp_path))


def linear():
    return keras.Sequential(
        [keras.Input((4, 6, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
         keras.layers.Dense(3, "softmax")]
    )  # fmt: skip


@pytest.mark.slow
def test_dataset_of_a_folder_trains_and_is_measured_as_its_arrays(tmp_path):
    """What `image_dataset_from_directory` gives goes into `fit` and `accuracy` as it is."""
    directory = keras.utils.image_dataset_from_directory(
        write_folder(tmp_path), image_size=(4, 6), batch_size=8, shuffle=False, verbose=False
    )
    split = data.load_test(tmp_path)
    attack = attacks.FastGradient(8, clip=(0, 255))
    found = []
    for images, labels in ((directory, None), (split.images, split.labels)):
        keras.utils.set_random_seed(0)
        scheme = training.AdversarialTraining(linear(), attack)
        scheme.compile(keras.optimizers.SGD(0.1))
        scheme.fit(images, labels, batch_size=None if labels is None else 8, shuffle=False,
                   verbose=0)  # fmt: skip
        pair = (images,) if labels is None else (images, labels)
        found.append(evaluation.accuracy(scheme.classifier, *pair, attack=attack))
        found.append(scheme.classifier.get_weights()[0])
    assert found[0] == found[2]
    np.testing.assert_allclose(found[1], found[3], atol=1e-6)


def test_labels_of_a_folder_that_are_no_integers_are_named(tmp_path):
    write_folder(tmp_path)
    directory = keras.utils.image_dataset_from_directory(
        tmp_path, label_mode="categorical", image_size=(4, 6), verbose=False
    )
    with pytest.raises(ValueError, match=r'One-hot labels: pass their argmax.*label_mode="int"'):
        evaluation.accuracy(linear(), directory, bounds=(0, 255))
    with pytest.raises(ValueError, match=r'float32 labels.*label_mode="int"'):
        evaluation.accuracy(linear(), IMAGES, LABELS[:, None].astype(np.float32), bounds=(0, 255))


def test_source_without_images_to_train_on_is_named(tmp_path):
    np.savez(tmp_path / "test.npz", x_test=IMAGES, y_test=LABELS)
    with pytest.raises(ValueError, match=r"images to train on.*Received: test images alone"):
        data.load(tmp_path / "test.npz")
    np.savez(tmp_path / "train.npz", x_train=IMAGES, y_train=LABELS)
    with pytest.raises(ValueError, match=r"a test split.*Received: train images alone"):
        data.load_test(tmp_path / "train.npz")


def test_channels_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"1, 3 or 4.*channels=2"):
        reading.opened(tmp_path, channels=2)
