"""Trained networks that come with the package, and how they are put there."""

import importlib
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

from gat_tf import models
from gat_tf.experiments import publish, settings
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError, fingerprint
from gat_tf.experiments.lab.units import Units, digest
from gat_tf.experiments.robgan import fig8, table1
from gat_tf.experiments.robgan import settings as robgan_settings

FULL = settings.Config(**settings.PRESETS["full"])
LARGE = robgan_settings.Config(**robgan_settings.PRESETS["large"])
RECORD = pathlib.Path(__file__).parents[1] / "experiments/table2/full"


def of_seed_0():
    units = Units(RECORD / "units").read_all()
    return {f"{u['dataset']}/{u['method']}": u for u in units if u["seed"] == 0}


def test_every_full_size_network_of_seed_0_is_there_with_the_records_accuracy():
    cards = models.pretrained()
    assert {n for n, c in cards.items() if "method" in c} == of_seed_0().keys()
    for name, unit in of_seed_0().items():
        for key in ("test_accuracy", "hyperparameters", "environment"):
            assert cards[name][key] == unit[key]


@pytest.mark.parametrize("name", list(of_seed_0()))
def test_weights_are_the_records_in_half_precision(name):
    dataset, method = name.split("/")
    record = keras.models.load_model(RECORD / f"units/{dataset}-{method}-seed0.keras")
    published = models.pretrained(name)
    for ours, theirs in zip(published.get_weights(), record.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-11, atol=2**-25)


def test_rob_gans_networks_have_the_numbers_of_the_record():
    cards, record = models.pretrained(), RECORD.parents[1] / "robgan"
    unit = Units(record / "fig8/large/units").read("cifar10-robgan-seed0")
    last = unit["scores"][-1]
    card = cards["cifar10/robgan/generator"]
    assert card["digest"] == unit["classifiers"]["robgan"]
    for key in ("inception_score", "frechet_distance"):
        assert card[key] == last[key]
    unit = Units(record / "table1/large/units").read("cifar10-fine_tuned-seed0")
    curve = unit["curves"]["fine_tuned"]["test"]
    card = cards["cifar10/robgan/classifier"]
    assert card["digest"] == unit["classifiers"]["fine_tuned"]
    assert card["robust_accuracy"] == curve | {"attack": "PGD-20, L∞", "images": 10_000}


def test_list_is_that_of_the_cards():
    shipped = (pathlib.Path(models.__file__).parent / "weights/README.md").read_text()
    assert shipped == publish.readme(models.pretrained())


def test_shipped_networks_know_the_images_that_the_generator_draws():
    generator = models.pretrained("cifar10/robgan/generator")
    labels = np.repeat(np.arange(10), 10)
    images = models.sample(generator, labels, seed=0)
    tuned = np.argmax(models.pretrained("cifar10/robgan/classifier")(images), axis=-1)
    assert (tuned == labels).mean() > 0.8  # it was trained on such images
    baseline = np.argmax(models.pretrained("cifar10/baseline")((images + 1) / 2), axis=-1)
    assert (baseline == labels).mean() > 0.35  # it was not; chance is 0.1


def test_gives_probabilities_of_images():
    model = models.pretrained("cifar10/baseline")
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    record = keras.models.load_model(RECORD / "units/cifar10-baseline-seed0.keras")
    np.testing.assert_allclose(model(images), record(images), atol=2e-3)
    assert model.count_params() == 240_058


def test_unknown_name_tells_the_known_ones():
    with pytest.raises(ValueError, match=r"cifar10/baseline.*Received: 'cifar10/gta'"):
        models.pretrained("cifar10/gta")


def test_weights_are_small():
    for file in (pathlib.Path(models.__file__).parent / "weights").glob("*.npz"):
        assert file.stat().st_size < 2e6


def test_published_card_says_how_it_was_made(tmp_path):
    assert set(publish.publish(RECORD, folder=tmp_path)) == of_seed_0().keys()
    card = json.loads((tmp_path / "cards.json").read_text())["cifar10/baseline"]
    assert card["command"].endswith("--dataset=cifar10 --methods=baseline --seeds=0")
    assert (
        "| `cifar10/baseline` | Baseline | accuracy 77.65 % |"
        in (tmp_path / "README.md").read_text()
    )


def write_unit(record, model, dataset, method, seed=0, status="done"):
    path = record / f"units/{dataset}-{method}-seed{seed}"
    about = {"dataset": dataset, "method": method, "seed": seed, "status": status}
    results = {"hyperparameters": {}, "test_accuracy": 0.5, "best_epoch": 1, "epochs": 2}
    more = {"precision": "float32", "environment": {}}
    files.write_json(path.with_suffix(".json"), about | results | more)
    model.save(path.with_suffix(".keras"))
    write_config(record, "networks", FULL)


def write_config(folder, experiment, config=None, **changed):
    values = (fingerprint(config) if config else {}) | changed
    files.write_json(folder / "config.json", {"experiment": experiment, **values})


def constant(value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), value), np.zeros(1)])
    return model


def test_what_seed_0_has_finished_is_published(tmp_path):
    for i, unit in enumerate([("baseline", 0), ("baseline", 1), ("gat", 0, "failed")]):
        write_unit(tmp_path / "record", constant(i), "cifar10", *unit)
    write_config(tmp_path / "record", "networks", FULL, width=0.5, batch_size=64)
    with pytest.raises(ConfigError, match="ones that differ from full in batch_size, width"):
        publish.publish(tmp_path / "record", folder=tmp_path / "weights")
    write_config(tmp_path / "record", "networks", FULL, precision="mixed_bfloat16")
    assert publish.publish(tmp_path / "record", folder=tmp_path / "weights") == ["cifar10/baseline"]
    (published,) = (tmp_path / "weights").glob("*.npz")
    with np.load(published) as weights:
        np.testing.assert_array_equal(weights["00"], [[0], [0]])


def read_from(folder, monkeypatch):
    # `models.pretrained` is the function.
    monkeypatch.setattr(importlib.import_module("gat_tf.models.pretrained"), "FOLDER", folder)


def test_networks_of_two_records_and_any_number_of_classes_are_read_back(tmp_path, monkeypatch):
    of_three = models.classifier(num_classes=3)
    write_unit(tmp_path / "a", constant(1), "cifar10", "baseline")
    write_unit(tmp_path / "b", of_three, "shapes", "gat")
    for record in ("a", "b"):
        publish.publish(tmp_path / record, folder=tmp_path / "weights")
    read_from(tmp_path / "weights", monkeypatch)
    assert list(models.pretrained()) == ["cifar10/baseline", "shapes/gat"]
    with np.load(tmp_path / "weights/shapes-gat-seed0.npz") as stored:
        assert {stored[key].dtype for key in stored.files} == {np.dtype("float16")}
    found = models.pretrained("shapes/gat")
    for ours, theirs in zip(found.get_weights(), of_three.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-11, atol=2**-25)
    readme = (tmp_path / "weights/README.md").read_text()
    assert "| `cifar10/baseline` | Baseline |" in readme
    assert "| `shapes/gat` | " in readme


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of networks, with seeds and networks that are not published, and two of results.

    Returns the folder that holds the three, the generator and the classifier.
    """
    folder = tmp_path_factory.mktemp("robgan")
    networks, of_fig8, of_table1 = (folder / name for name in ("networks", "fig8", "table1"))
    write_config(networks, "robgan.networks", LARGE)
    write_config(of_fig8, fig8.NAME)
    write_config(of_table1, table1.NAME, evaluation_steps=7)
    rng = np.random.default_rng(0)

    def write(name, suffix, model, **about):
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        trained = {"status": "done", "best_epoch": 2, "epochs": 2, "precision": "float32"}
        about = {"dataset": "shapes", "seed": 0, "environment": {}} | about
        files.write_json(networks / f"units/{name}.json", about | trained)
        model.save(networks / f"units/{name}{suffix}")
        return model, digest(networks / f"units/{name}{suffix}")

    def generator(gan, seed=0):
        name = f"shapes-gan-{gan}-seed{seed}"
        model = models.image_generator(7, width=0.25)
        return write(name, "-generator.keras", model, gan=gan, seed=seed)

    def classifier(how):
        model = models.class_head(models.discriminator(7, width=0.25))
        return write(f"shapes-classifier-{how}-seed0", ".keras", model, classifier=how)

    drawn, file = generator("robgan")
    generator("robgan", seed=1)
    generator("acgan")
    tuned, other = classifier("fine_tuned")
    classifier("adversarial_training")
    classifier("fixed_fakes")
    scores = [{"inception_score": 1.5 + i, "frechet_distance": 9.25 - i} for i in (0, 1)]
    scored = {"score_network": "a network", "score_images": 50, "real": {"inception_score": 6}}
    unit = {"gan": "robgan", "scores": scores, **scored}
    # Another file of that name; one that the file only judged; and then its own.
    for name, classifiers in {
        "a": {"robgan": "0" * 64}, "b": {"robgan": "1" * 64, "score": file}, "c": {"robgan": file}
    }.items():  # fmt: skip
        ours = unit if name == "c" else unit | {"scores": scores[:1]}
        files.write_json(of_fig8 / f"units/{name}.json", ours | {"classifiers": classifiers})
    curve = {"epsilons": [0.0, 0.04], "accuracy": [0.75, 0.5]}
    unit = {"classifier": "fine_tuned", "curves": {"fine_tuned": {"test": curve}}}
    unit |= {"classifiers": {"fine_tuned": other}, "images": {"test": 20}}
    files.write_json(of_table1 / "units/ours.json", unit)
    return folder, drawn, tuned


@pytest.fixture
def robgan(trained, tmp_path):
    """A copy of the folders, the arguments of `publish`; the generator and the classifier."""
    folder, drawn, tuned = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return (tmp_path / "networks", [tmp_path / "fig8", tmp_path / "table1"]), drawn, tuned


def test_generator_and_classifier_of_robgan_are_read_back(robgan, tmp_path, monkeypatch):
    folders, generator, classifier = robgan
    names = ["shapes/robgan/classifier", "shapes/robgan/generator"]
    assert sorted(publish.publish(*folders, tmp_path / "weights")) == names
    read_from(tmp_path / "weights", monkeypatch)
    for name, theirs, relative in zip(names, (classifier, generator), (2**-11, 2**-8), strict=True):
        ours = models.pretrained(name)
        assert (ours.input_shape, ours.output_shape) == (theirs.input_shape, theirs.output_shape)
        for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=relative, atol=2**-25)
    sizes = [p.stat().st_size for p in (tmp_path / "weights").glob("*.npz")]
    assert max(sizes) < 2e6  # of random weights, which compress no better than trained ones


def test_cards_of_robgan_have_what_was_measured_on_the_same_files(robgan, tmp_path):
    folders, *_ = robgan
    publish.publish(*folders, tmp_path / "weights")
    cards = json.loads((tmp_path / "weights/cards.json").read_text())
    drawn, tuned = cards["shapes/robgan/generator"], cards["shapes/robgan/classifier"]
    assert (drawn["inception_score"], drawn["frechet_distance"]) == (2.5, 8.25)
    assert drawn["command"].endswith(
        "robgan.fig8 --preset=large --dataset=shapes --gans=robgan --seeds=0"
    )
    assert (tuned["test_accuracy"], tuned["robust_accuracy"]["accuracy"]) == (0.75, [0.75, 0.5])
    assert tuned["pixels"] == drawn["pixels"] == [-1, 1]
    readme = (tmp_path / "weights/README.md").read_text()
    assert "score 2.50 (real images 6.00), Fréchet distance 8.25, 50 images, in the eyes" in readme
    assert "under PGD-7, L∞: 75.0 % at δmax 0, 50.0 % at δmax 0.04, 20 images |" in readme


def test_a_network_on_which_nothing_was_measured_is_not_published(robgan, tmp_path):
    (networks, (of_fig8, _)), *_ = robgan
    message = r"seed0\.keras.*none in .*fig8. Run .*--classifiers=fine_tuned"
    with pytest.raises(ConfigError, match=message):
        publish.publish(networks, [of_fig8], tmp_path / "weights")
    files.remove(networks / "units/shapes-classifier-fine_tuned-seed0.json")
    with pytest.raises(ConfigError, match=r"-generator.*none in no folder.*--gans=robgan"):
        publish.publish(networks, folder=tmp_path / "weights")


def test_other_folders_are_refused(robgan, tmp_path):
    (networks, _), *_ = robgan

    def refused(match, *measured):
        with pytest.raises(ConfigError, match=match):
            publish.publish(networks, measured, tmp_path / "weights")

    refused("fig8 or .*table1. Received: .*, of robgan.networks", networks)
    refused("the folder of an experiment. Received: no .*config.json", tmp_path / "nothing")
    write_config(networks, fig8.NAME)
    refused("networks of Table 2 or of Rob-GAN. Received: .*fig8")
    write_config(networks, "robgan.networks", LARGE, epochs=3)
    refused("presets large, paper. Received: ones that differ from large in epochs")
    write_config(networks, "robgan.networks", LARGE)
    for path in (networks / "units").glob("*seed0*"):
        files.remove(path)
    refused("trained networks of seed 0 in .*networks. Received: none")


def test_a_network_without_its_file_is_named(robgan, tmp_path):
    (networks, measured), *_ = robgan
    files.remove(networks / "units/shapes-gan-robgan-seed0-generator.keras")
    with pytest.raises(ConfigError, match=r"Expected the network .*-generator\.keras"):
        publish.publish(networks, measured, tmp_path / "weights")
