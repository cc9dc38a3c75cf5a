"""Experiments on data sets that are not built in: .npz files, folders, names of TFDS."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from linear_networks import NETWORKS, times

from gat_tf import data
from gat_tf.experiments import curves, fig2, fig3, settings, table2
from gat_tf.experiments.lab import datasets, files, results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.networks import Networks
from gat_tf.experiments.robgan import curves as robgan_curves
from gat_tf.experiments.robgan import settings as robgan_settings
from gat_tf.experiments.robgan import table1
from gat_tf.experiments.robgan.networks import Networks as RobganNetworks

pytestmark = pytest.mark.usefixtures("eagerly")
SIZES = {"train_size": None, "validation_size": None, "test_size": None}
SHARED = {f.name: getattr(NETWORKS, f.name) for f in dataclasses.fields(settings.Config)}
SHARED |= {**SIZES, "strategy": "one_device", "epochs": 1, "width": 1 / 48, "batch_size": 15}
UNITS = ("grey.npz-baseline-seed0", "grey.npz-gat-seed0")


@pytest.fixture(scope="module")
def undrawn():
    patch = pytest.MonkeyPatch()
    patch.setattr(results, "draw", lambda *_: None)
    yield
    patch.undo()


def arrays(seed=0):
    """Three classes of 28×28 grey images: the label says which third is bright."""
    rng = np.random.default_rng(seed)
    made = {}
    for part, size in (("train", 30), ("val", 6), ("test", 12)):
        labels = np.arange(size) % 3
        images = rng.integers(0, 100, (size, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[9 * label : 9 * (label + 1)] += 150
        made |= {f"x_{part}": images, f"y_{part}": labels}
    return made


@pytest.fixture(scope="module")
def grey(tmp_path_factory, undrawn):
    """The file, and Table 2 and Fig. 3 on it: their folders and results."""
    root = tmp_path_factory.mktemp("any")
    np.savez(root / "grey.npz", **arrays())
    config = table2.Config(
        **SHARED, datasets=(str(root / "grey.npz"),), methods=("baseline", "gat"), seeds=(0,)
    )
    found = {"table2": table2.run(config, root / "table2")}
    found["fig3"] = fig3.run(of_fig3(root, config.datasets), root / "fig3")
    return root, config, found


def of_fig3(root, sources):
    return dataclasses.replace(
        curves.PRESETS["quick"], datasets=sources, methods=("baseline", "gat"), test_size=None,
        fg_epsilons=(0.0, 3.0), pgd_l2_epsilons=(0.5,), pgd_linf_epsilons=(0.1,), pgd_steps=1,
        pgd_restarts=1, networks_dir=str(root / "table2"), strategy="one_device",
    )  # fmt: skip


def classifier(root, unit):
    return keras.models.load_model(root / "table2" / "units" / f"{unit}.keras")


def test_networks_are_built_for_the_images_of_the_file(grey):
    root, _, found = grey
    test = arrays()
    for name, unit in zip(UNITS, found["table2"]["units"], strict=True):
        model = classifier(root, name)
        assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 3))
        predicted = model(test["x_test"][..., None] / np.float32(255)).numpy().argmax(-1)
        assert unit["test_accuracy"] == pytest.approx((predicted == test["y_test"]).mean())
        assert (unit["dataset"], unit["test_images"]) == ("grey.npz", 12)
        assert unit["status"] == "done"


def test_table_has_no_numbers_of_the_paper_for_it(grey):
    _, _, found = grey
    table = table2.table(found["table2"])
    assert table.startswith("**grey.npz**, test accuracy in %")
    rows = [line for line in table.splitlines() if line.startswith("| ") and "ours" not in line]
    titles = [m.title for m in table2.METHODS.values() if m.paper]
    paper = {row.split(" | ")[0][2:]: row.split(" | ")[1] for row in rows}
    assert {paper[title] for title in titles} == {"–"}


def test_curves_are_of_its_test_images(grey):
    root, _, found = grey
    for name, unit in zip(UNITS, found["fig3"]["units"], strict=True):
        trained = files.read_json(root / "table2" / "units" / f"{name}.json")
        curve = unit["curves"][unit["method"]]["fg_l2"]
        assert curve["accuracy"][0] == pytest.approx(trained["test_accuracy"])
        assert unit["test_images"] == 12
    assert {p.stem for p in (root / "fig3" / "units").glob("*.json")} == set(UNITS)
    assert list(found["fig3"]["summary"]) == ["grey.npz"]


def test_generators_are_built_and_drawn_for_it(grey, tmp_path):
    root, config, _ = grey
    of_fig2 = dataclasses.replace(
        fig2.PRESETS["quick"], datasets=config.datasets, c_g=(1.0,), test_size=None, epochs=1,
        width=1 / 48, pgd_steps=1, networks_dir=str(root / "table2"), strategy="one_device",
        generator_learning_rate=1e-3,
    )  # fmt: skip
    found = fig2.run(of_fig2, tmp_path)
    (unit,) = found["units"]
    assert unit["dataset"] == "grey.npz"
    generator = keras.models.load_model(tmp_path / "units" / "grey.npz-c_g=1-seed0.keras")
    assert generator.input_shape == generator.output_shape == (None, 28, 28, 1)
    runner = fig2.Runner(fig2.NAME, of_fig2, tmp_path)
    runner.draw_images("grey.npz", found["units"])
    assert (tmp_path / "fig2_images_grey.npz.png").stat().st_size > 5_000


def test_the_same_images_elsewhere_continue_a_folder(grey, tmp_path):
    root, config, found = grey
    np.savez_compressed(tmp_path / "grey.npz", **arrays())
    before = times(root / "table2" / "units")
    moved = dataclasses.replace(config, datasets=(str(tmp_path / "grey.npz"),))
    again = table2.run(moved, root / "table2")
    assert times(root / "table2" / "units") == before
    assert again["units"] == found["table2"]["units"]


@pytest.mark.parametrize("changed", ["x_test", "y_train"])
def test_folder_of_other_images_is_refused(grey, tmp_path, changed):
    root, config, _ = grey
    other = arrays()
    other[changed].flat[0] ^= 1
    np.savez(tmp_path / "grey.npz", **other)
    copy = shutil.copytree(root / "table2", tmp_path / "table2")
    source = (str(tmp_path / "grey.npz"),)
    runs = {
        "table2": lambda: table2.run(dataclasses.replace(config, datasets=source), copy),
        "fig3": lambda: fig3.run(of_fig3(tmp_path, source), tmp_path / "fig3"),
    }
    before = times(copy)
    for run in runs.values():
        with pytest.raises(
            ConfigError, match=r"images from which .*table2 was made in .*grey\.npz"
        ):
            run()
    assert times(copy) == before


def folder_of(path, sizes, classes=("cat", "dog", "owl")):
    """A folder of colour images, as many of each class as there are sizes."""
    rng = np.random.default_rng(0)
    for name in classes:
        (path / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            keras.utils.save_img(path / name / f"{i}.png", image, scale=False)
    return path


def test_folder_is_resized_to_the_image_size(tmp_path):
    source = str(folder_of(tmp_path / "pets", [(20, 24), (16, 16), (24, 24), (16, 20)]))
    config = settings.Config(**{**SHARED, "image_size": 16})
    networks = Networks(config, tmp_path / "networks")
    assert networks.require([source]) == ["pets.folder"]
    splits = networks.splits("pets.folder")
    assert (splits.image_shape, splits.num_classes) == ((16, 16, 3), 3)
    as_they_are = Networks(settings.Config(**SHARED), tmp_path / "others")
    with pytest.raises(ConfigError, match=r"images of one size.*--image_size.*Received: 16x16"):
        as_they_are.require([source])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("cifar10", "cifar10"),
        ("imagenet143", "imagenet143"),
        ("svhn_cropped", "svhn_cropped"),
        ("mnist:3.0.1", "mnist_3.0.1"),
        ("cifar10_corrupted/fog_1", "cifar10_corrupted_fog_1"),
        ("my photos (2).npz", "my_photos_2_.npz"),
        ("cifar10.npz", "cifar10.npz"),
        ("elsewhere/cifar10.npz", "cifar10.npz"),
        ("./cifar10", "cifar10.folder"),
        ("mnist/", "mnist.folder"),
        ("mnist/..", "here.folder"),
    ],
)
def test_name_of_a_data_set_is_one_of_a_file(tmp_path, monkeypatch, source, expected):
    for name in ("cifar10", "mnist"):
        (tmp_path / "here" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert datasets.name(source) == expected


def test_two_files_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"Received: a/x\.npz and b/x\.npz, both x\.npz"):
        datasets.named(["shapes", "a/x.npz", "b/x.npz"])
    assert datasets.named(["a/x.npz", "a/x.npz"]) == {"x.npz": "a/x.npz"}


@pytest.mark.parametrize("experiment", [table2, fig3, table1], ids=lambda module: module.NAME)
def test_wrong_name_is_one_line_before_any_training(tmp_path, experiment):
    config = dataclasses.replace(experiment.PRESETS["quick"], datasets=("shapes", "cifar"))
    if hasattr(config, "networks_dir"):
        config = dataclasses.replace(config, networks_dir=str(tmp_path / "networks"))
    with pytest.raises(ConfigError) as error:
        experiment.run(config, tmp_path / "out")
    (line,) = str(error.value).splitlines()
    assert line.startswith("Expected shapes, a data set of TensorFlow Datasets, an .npz file")
    assert "Received: 'cifar'" in line
    assert not list(tmp_path.rglob("units/*"))


def test_images_of_two_sizes_by_design_are_rob_gans_alone():
    with pytest.raises(ConfigError, match=r"one size\. Received: imagenet143"):
        table2.Config(datasets=("imagenet143",))
    assert robgan_settings.Config().datasets == ("cifar10", "imagenet143")


def good(**changes):
    images, labels = np.zeros((12, 8, 8, 1), np.float32), np.arange(12) % 2
    parts = {f"{kind}_{p}": a for p in ("train", "val", "test")
             for kind, a in (("x", images), ("y", labels))}  # fmt: skip
    return {**parts, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((12, 9, 8, 1), np.float32)}, "one shape in .*: 8x8x1 and 9x8x1"),
        ({"x_val": np.full((12, 8, 8, 1), 255.0)}, r"floats in \[0, 1\], in .*from 0 to 255"),
        ({"x_train": np.full((12, 8, 8, 1), -1.0)}, r"floats in \[0, 1\], in .*from -1 to 0"),
        ({f"y_{p}": np.zeros(12, int) for p in ("train", "val", "test")}, "two classes in .*: 1"),
    ],
)
def test_images_that_no_network_takes_are_named(tmp_path, changes, message):
    path = tmp_path / "given.npz"
    np.savez(path, **good())
    assert datasets.load(str(path), None).image_shape == (8, 8, 1)
    np.savez(path, **good(**changes))
    with pytest.raises(ConfigError, match=message):
        datasets.load(str(path), None)


# Rob-GAN.


def of_robgan(tmp_path, source, **settings):
    return table1.Config(
        **{
            "datasets": (str(source),), "networks_dir": str(tmp_path / "networks"),
            "strategy": "one_device", "width": 1e-9, "batch_size": 6, "epochs": 1, "snapshots": 1,
            "discriminator_steps": 1, "attack_steps": 1, "classifier_epochs": (1,),
            "classifier_batch_size": 6, "lipschitz_images": 3, "evaluation_steps": 1,
            "classifiers": ("fine_tuned",), "image_size": 32, **settings,
        }
    )  # fmt: skip


@pytest.mark.slow
def test_robgan_is_trained_on_a_folder_in_its_size(tmp_path, undrawn):
    source = folder_of(tmp_path / "pets", [(40, 40), (32, 48), (32, 32), (64, 64)])
    found = table1.run(of_robgan(tmp_path, source), tmp_path / "out")
    (unit,) = found["units"]
    assert (unit["dataset"], unit["image_size"]) == ("pets.folder", 32)
    assert unit["images"] == {"test": 3}
    assert unit["curves"]["fine_tuned"]["test"]["epsilons"] == [0, 0.02, 0.04, 0.08]
    assert "the paper's" not in table1.table(found)
    networks = tmp_path / "networks" / "units"
    generator = keras.models.load_model(networks / "pets.folder-gan-robgan-seed0-generator.keras")
    assert generator.output_shape == (None, 32, 32, 3)
    tuned = keras.models.load_model(networks / "pets.folder-classifier-fine_tuned-seed0.keras")
    assert tuned.output_shape == (None, 3)
    assert files.read_json(networks / "pets.folder-gan-robgan-seed0.json")["train_images"] == 6

    (source / "owl" / "0.png").write_bytes((source / "owl" / "1.png").read_bytes())
    before = times(networks)
    with pytest.raises(ConfigError, match=r"images from which .*networks was made in .*pets"):
        table1.run(of_robgan(tmp_path, source), tmp_path / "out")
    assert times(networks) == before


def test_images_without_a_network_of_robgan_are_named(tmp_path):
    np.savez(tmp_path / "grey.npz", **arrays())
    with pytest.raises(ConfigError, match=r"colour images of 32x32, 64x64 or 128x128 .*28x28x1"):
        table1.run(of_robgan(tmp_path, tmp_path / "grey.npz"), tmp_path / "out")


def test_images_of_robgan_are_known_by_their_data_set(tmp_path):
    floats = np.random.default_rng(0).random((30, 64, 64, 3)).astype(np.float32)
    np.savez(tmp_path / "some.npz", images=floats, labels=np.arange(30) % 5)
    config = robgan_curves.PRESETS["quick"]
    config = dataclasses.replace(
        config, train_size=None, test_size=None, image_size=32, networks_dir=str(tmp_path / "out")
    )
    found = RobganNetworks(config)
    assert found.require(["shapes", str(tmp_path / "some.npz")]) == ["shapes", "some.npz"]
    assert (found.size("some.npz"), found.classes("some.npz")) == (64, 5)  # not of the settings
    assert (found.size("shapes"), found.size("imagenet143")) == (32, 32)
    assert (found.classes("cifar100"), found.classes("imagenet143")) == (100, 143)
    test = found.splits("some.npz").test
    expected = data.load(tmp_path / "some.npz").test
    assert test.images.dtype == np.uint8
    np.testing.assert_allclose(test.images, 255 * expected.images, atol=0.5001)
