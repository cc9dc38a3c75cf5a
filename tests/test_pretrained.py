"""Trained networks that come with the package, and how they are put there."""

import importlib
import json
import pathlib

import keras
import numpy as np
import pytest

from gat_tf import models
from gat_tf.experiments import publish
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.units import Units, digest

RECORD = pathlib.Path(__file__).parents[1] / "experiments/table2/full"


def of_seed_0():
    units = Units(RECORD / "units").read_all()
    return {f"{u['dataset']}/{u['method']}": u for u in units if u["seed"] == 0}


def test_every_full_size_network_of_seed_0_is_there_with_the_records_accuracy():
    cards = models.pretrained()
    assert cards.keys() >= of_seed_0().keys()
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
    for key in ("inception_score", "frechet_distance"):
        assert card[key] == last[key]
    unit = Units(record / "table1/large/units").read("cifar10-fine_tuned-seed0")
    curve = unit["curves"]["fine_tuned"]["test"]
    assert cards["cifar10/robgan/classifier"]["robust_accuracy"] == curve | {"attack": "PGD-20, L∞"}


def test_generator_draws_images_of_the_classes():
    generator = models.pretrained("cifar10/robgan/generator")
    labels = np.repeat(np.arange(10), 10)
    images = models.sample(generator, labels, seed=0)
    judged = np.argmax(models.pretrained("cifar10/baseline")((images + 1) / 2), axis=-1)
    assert (judged == labels).mean() > 0.35  # chance is 0.1; measured 0.47


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
    write_config(record, "networks", 1)


def write_config(record, experiment, width):
    files.write_json(record / "config.json", {"experiment": experiment, "width": width})


def constant(value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), value), np.zeros(1)])
    return model


def test_what_seed_0_has_finished_is_published(tmp_path):
    for i, unit in enumerate([("baseline", 0), ("baseline", 1), ("gat", 0, "failed")]):
        write_unit(tmp_path / "record", constant(i), "cifar10", *unit)
    write_config(tmp_path / "record", "networks", 0.5)
    with pytest.raises(ConfigError, match=r"full-size networks. Received: width 0\.5"):
        publish.publish(tmp_path / "record", folder=tmp_path / "weights")
    write_config(tmp_path / "record", "networks", 1)
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


def robgan(tmp_path):
    """A folder of networks, with seeds and classifiers that are not published, and two of results.

    Returns the arguments of `publish`, the generator and the classifier.
    """
    networks, fig8, table1 = (tmp_path / name for name in ("networks", "fig8", "table1"))
    write_config(networks, "robgan.networks", 0.25)
    rng = np.random.default_rng(0)

    def write(name, suffix, model, **about):
        weights = [rng.normal(size=w.shape) for w in model.get_weights()]
        model.set_weights(weights)
        path = networks / f"units/{name}.json"
        trained = {"status": "done", "best_epoch": 2, "epochs": 2, "precision": "float32"}
        about = {"dataset": "shapes", "seed": 0, "environment": {}} | about
        files.write_json(path, about | trained)
        model.save(networks / f"units/{name}{suffix}")
        return model, digest(networks / f"units/{name}{suffix}")

    def generator():
        return models.image_generator(7, width=0.25)

    def classifier():
        return models.class_head(models.discriminator(7, width=0.25))

    drawn, file = write("shapes-gan-robgan-seed0", "-generator.keras", generator(), gan="robgan")
    write("shapes-gan-robgan-seed1", "-generator.keras", generator(), gan="robgan", seed=1)
    write("shapes-gan-acgan-seed0", "-generator.keras", generator(), gan="acgan")
    tuned, other = write(
        "shapes-classifier-fine_tuned-seed0", ".keras", classifier(), classifier="fine_tuned"
    )
    scores = [{"inception_score": 1.5 + i, "frechet_distance": 9.25 - i} for i in (0, 1)]
    unit = {"score_network": "a network", "scores": scores, "classifiers": {"robgan": file}}
    files.write_json(fig8 / "units/ours.json", unit)
    stale = {"scores": [{"inception_score": 9, "frechet_distance": 0}], "score_network": "old"}
    files.write_json(fig8 / "units/theirs.json", stale | {"classifiers": {"robgan": "0" * 64}})
    curve = {"epsilons": [0.0, 0.04], "accuracy": [0.75, 0.5]}
    unit = {"curves": {"fine_tuned": {"test": curve}}, "classifiers": {"fine_tuned": other}}
    files.write_json(table1 / "units/ours.json", unit)
    files.write_json(fig8 / "config.json", {})
    files.write_json(table1 / "config.json", {"evaluation_steps": 7})
    return (networks, [fig8, table1]), drawn, tuned


def test_generator_and_classifier_of_robgan_are_read_back(tmp_path, monkeypatch):
    folders, generator, classifier = robgan(tmp_path)
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


def test_cards_of_robgan_have_what_was_measured_on_the_same_files(tmp_path):
    folders, *_ = robgan(tmp_path)
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
    assert "| Rob-GAN | inception score 2.50, Fréchet distance 8.25 | 2 |" in readme
    assert "| PGD-7, L∞: 75.0 % at ε 0, 50.0 % at ε 0.04 |" in readme


@pytest.mark.parametrize(
    ("experiment", "width", "message"),
    [
        ("robgan.networks", 0.125, r"widths \[1, 0\.25\]. Received: width 0\.125"),
        ("gat_tf.experiments.fig2", 1, r"networks of Table 2 or of Rob-GAN. Received: .*fig2"),
    ],
)
def test_other_folders_are_refused(tmp_path, experiment, width, message):
    (networks, _), *_ = robgan(tmp_path)
    write_config(networks, experiment, width)
    with pytest.raises(ConfigError, match=message):
        publish.publish(networks, folder=tmp_path / "weights")
