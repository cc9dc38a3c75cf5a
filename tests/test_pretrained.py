"""Trained classifiers that come with the package, and how they are put there."""

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
from gat_tf.experiments.lab.units import Units

RECORD = pathlib.Path(__file__).parents[1] / "experiments/table2/full"


def of_seed_0():
    units = Units(RECORD / "units").read_all()
    return {f"{u['dataset']}/{u['method']}": u for u in units if u["seed"] == 0}


def test_every_full_size_network_of_seed_0_is_there_with_the_records_accuracy():
    cards = models.pretrained()
    assert cards.keys() == of_seed_0().keys()
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
        assert file.stat().st_size < 1e6


def test_published_card_says_how_it_was_made(tmp_path):
    assert set(publish.publish(RECORD, tmp_path)) == of_seed_0().keys()
    card = json.loads((tmp_path / "cards.json").read_text())["cifar10/baseline"]
    assert card["command"].endswith("--dataset=cifar10 --methods=baseline --seeds=0")
    assert "| `cifar10/baseline` | Baseline |" in (tmp_path / "README.md").read_text()


def write_unit(record, model, dataset, method, seed=0, status="done"):
    path = record / f"units/{dataset}-{method}-seed{seed}"
    about = {"dataset": dataset, "method": method, "seed": seed, "status": status}
    results = {"hyperparameters": {}, "test_accuracy": 0.5, "best_epoch": 1, "epochs": 2}
    more = {"precision": "float32", "environment": {}}
    files.write_json(path.with_suffix(".json"), about | results | more)
    model.save(path.with_suffix(".keras"))
    files.write_json(record / "config.json", {"width": 1})


def constant(value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), value), np.zeros(1)])
    return model


def test_what_seed_0_has_finished_is_published(tmp_path):
    for i, unit in enumerate([("baseline", 0), ("baseline", 1), ("gat", 0, "failed")]):
        write_unit(tmp_path / "record", constant(i), "cifar10", *unit)
    config = tmp_path / "record/config.json"
    files.write_json(config, {"width": 0.5})
    with pytest.raises(ConfigError, match=r"full-size networks. Received: width 0\.5"):
        publish.publish(tmp_path / "record", tmp_path / "weights")
    files.write_json(config, {"width": 1})
    assert publish.publish(tmp_path / "record", tmp_path / "weights") == ["cifar10/baseline"]
    (published,) = (tmp_path / "weights").glob("*.npz")
    with np.load(published) as weights:
        np.testing.assert_array_equal(weights["00"], [[0], [0]])


def test_networks_of_two_records_and_any_number_of_classes_are_read_back(tmp_path, monkeypatch):
    of_three = models.classifier(num_classes=3)
    write_unit(tmp_path / "a", constant(1), "cifar10", "baseline")
    write_unit(tmp_path / "b", of_three, "shapes", "gat")
    for record in ("a", "b"):
        publish.publish(tmp_path / record, tmp_path / "weights")
    # `models.pretrained` is the function.
    module = importlib.import_module("gat_tf.models.pretrained")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "weights")
    assert list(models.pretrained()) == ["cifar10/baseline", "shapes/gat"]
    with np.load(tmp_path / "weights/shapes-gat-seed0.npz") as stored:
        assert {stored[key].dtype for key in stored.files} == {np.dtype("float16")}
    found = models.pretrained("shapes/gat")
    for ours, theirs in zip(found.get_weights(), of_three.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-11, atol=2**-25)
    readme = (tmp_path / "weights/README.md").read_text()
    assert "| `cifar10/baseline` | Baseline |" in readme
    assert "| `shapes/gat` | " in readme
