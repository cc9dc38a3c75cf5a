"""Rob-GAN's runners on the built-in images: networks, measurements, tables and figures."""

import base64
import dataclasses
import io
import json
import shutil

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import data, evaluation, models
from gat_tf.experiments.lab import files, fitting, results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.robgan import (
    curves,
    fig2,
    fig6,
    fig7,
    fig8,
    images,
    robustness,
    scoring,
    table1,
)
from gat_tf.experiments.robgan.methods import (
    GANS,
    Network,
    classifier_attack,
    joint_attack,
    snapshot_epochs,
)
from gat_tf.experiments.robgan.networks import Networks

pytestmark = pytest.mark.usefixtures("eagerly")
RUNNERS = {
    "table1": table1,
    "fig2": fig2,
    "fig6": fig6,
    "fig7": fig7,
    "fig8": fig8,
    "robustness": robustness,
}
OWN = {
    "table1": {
        "evaluation_steps": 2,
        "attacked_images": 20,
        "classifiers": ("adversarial_training", "fine_tuned", "fine_tuned_real", "fixed_fakes"),
    },
    "fig2": {"evaluation_steps": 2, "attacked_images": 20, "epsilons": (0.0, 0.1)},
    "fig6": {"evaluation_steps": 2, "attacked_images": 20, "epsilons": (0.0, 0.1)},
    "fig7": {"shown_classes": 3, "shown_images": 2, "diversity_images": 4},
    "fig8": {"gans": ("robgan", "sngan"), "score_images": 30, "score_splits": 2},
    "robustness": {
        "classifiers": ("adversarial_training", "fine_tuned"),
        "attacked_images": 20,
        "pgd_steps": 2,
        "restarts": 1,
        "apgd_steps": 2,
        "targets": 1,
        "fab_steps": 2,
        "queries": 3,
        "hard_label_steps": 1,
        "hard_label_images": 2,
    },
}
TINY = {
    "datasets": ("shapes",),
    "strategy": "one_device",
    "train_size": 50,
    "test_size": 20,
    "width": 1.0,
    "batch_size": 25,
    "epochs": 2,
    "learning_rate": 1e-3,
    "discriminator_steps": 1,
    "attack_steps": 2,
    "fake_images": 12,
    "snapshots": 2,
    "classifier_epochs": (1, 1),
    "classifier_batch_size": 25,
    "lipschitz_images": 20,
}


def small_generator(num_classes, image_size, width):
    noise, labels = keras.Input((8,)), keras.Input((), dtype="int32")
    x = keras.layers.Concatenate()([noise, keras.layers.Embedding(num_classes, 8)(labels)])
    x = keras.layers.Dense(16 * 4, activation="relu")(x)
    x = keras.layers.BatchNormalization()(keras.layers.Reshape((4, 4, 4))(x))
    x = keras.layers.UpSampling2D(image_size // 4)(x)
    return keras.Model([noise, labels], keras.layers.Conv2D(3, 1, activation="tanh")(x))


def _features(images):
    x = keras.layers.Conv2D(8, 4, 4, activation="relu")(images)
    return keras.layers.Flatten()(x)


def small_discriminator(num_classes, image_size, width):
    images = keras.Input((image_size, image_size, 3))
    x = _features(images)
    heads = {"real": keras.layers.Dense(1)(x), "classes": keras.layers.Dense(num_classes)(x)}
    return keras.Model(images, heads)


def small_projection_discriminator(num_classes, image_size, width):
    images, labels = keras.Input((image_size, image_size, 3)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(8)(_features(images))
    embedded = keras.layers.Embedding(num_classes, 8)(labels)
    return keras.Model([images, labels], keras.layers.Dot(-1)([x, embedded]))


@pytest.fixture(scope="module", autouse=True)
def _small_networks():
    """In place of the paper's, which take long to compile; test_training_gan.py trains those."""
    patch = pytest.MonkeyPatch()
    patch.setattr(models, "image_generator", small_generator)
    patch.setattr(models, "discriminator", small_discriminator)
    patch.setattr(models, "projection_discriminator", small_projection_discriminator)
    yield
    patch.undo()


def config_for(name, networks_dir, **settings):
    if name == "fig8":
        settings = {"score_network": str(networks_dir.parent / "scorer.keras"), **settings}
    settings = {**TINY, **OWN[name], "networks_dir": str(networks_dir), **settings}
    return RUNNERS[name].Config(**settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every experiment's folder and results, on networks that they share."""
    root = tmp_path_factory.mktemp("robgan")
    keras.utils.set_random_seed(5)
    models.classifier(width=1 / 24).save(root / "scorer.keras")
    found = {}
    for name, runner in RUNNERS.items():
        found[name] = (root / name, runner.run(config_for(name, root / "networks"), root / name))
    return root, found


@pytest.fixture(scope="module")
def networks(finished):
    return Networks(config_for("table1", finished[0] / "networks"))


def gan(name, dataset="shapes"):
    return Network(dataset, "gan", name, 0)


def classifier(name):
    return Network("shapes", "classifier", name, 0)


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", RUNNERS)
def test_a_run_leaves_results_tables_and_figures(finished, name):
    folder, found = finished[1][name]
    module = f"gat_tf.experiments.robgan.{name}"
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps({k: v for k, v in found.items() if k != "units"}))
    loaded = results.load(folder, module)
    assert loaded == json.loads(json.dumps(found))
    assert loaded["summary"]["shapes"]
    assert {v["verdict"] for v in loaded["verdicts"]["shapes"]} == {"undecided"}  # one seed
    assert (folder / f"{name}.md").read_text() == results.table(loaded)
    for figure in results.figures(loaded):
        assert (folder / f"{figure}.png").stat().st_size > 5_000
        assert (folder / f"{figure}.pdf").exists()
    assert "CPU" in results.made_with(loaded)


def test_what_is_there_is_not_computed_again(finished):
    root, found = finished
    folder, before = found["table1"]
    written = times(root / "networks"), times(folder / "units")
    again = table1.run(config_for("table1", root / "networks"), folder)
    assert (times(root / "networks"), times(folder / "units")) == written
    assert again["units"] == before["units"]


def unit_of(finished, experiment, classifier):
    units = finished[1][experiment][1]["units"]
    return next(u for u in units if u["classifier"] == classifier)


def test_accuracies_are_those_of_pgd_written_plainly(finished, networks):
    unit = unit_of(finished, "table1", "fine_tuned")
    model = networks.load(classifier("fine_tuned"))
    split = data.draw_shapes(20, seed=2)  # as data.load draws the test images
    clean = tf.constant(split.images / 127.5 - 1, tf.float32)
    labels = tf.constant(split.labels)
    expected = []
    for epsilon in (0, 0.02, 0.04, 0.08):
        x = clean
        for _ in range(2 if epsilon else 0):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = keras.losses.sparse_categorical_crossentropy(
                    labels, model(x), from_logits=True
                )
            x = x + epsilon / 5 * tf.sign(tape.gradient(loss, x))
            x = tf.clip_by_value(x, clean - epsilon, clean + epsilon)
            x = tf.clip_by_value(x, -1, 1)
        expected.append(np.mean(np.argmax(model(x), axis=-1) == split.labels))
    curve = unit["curves"]["fine_tuned"]["test"]
    assert curve["epsilons"] == [0, 0.02, 0.04, 0.08]
    np.testing.assert_allclose(curve["accuracy"], expected, atol=1e-5)


def same_weights(a, b):
    for ours, theirs in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_strong_evaluation_is_in_the_unit_of_the_images(finished, networks):
    test = data.draw_shapes(20, seed=2)
    x, labels = test.images.astype(np.float32) / 127.5 - 1, test.labels
    for name, source in (
        ("adversarial_training", "robgan"),
        ("fine_tuned", "adversarial_training"),
    ):
        unit = unit_of(finished, "robustness", name)
        assert (unit["epsilon"], unit["bounds"], unit["norm"]) == (0.04, [-1, 1], "Linf")
        assert (unit["source"], unit["images"]) == (source, 20)
        model, pixels = networks.load(classifier(name)), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            logits = model(pixels)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        right = logits.numpy().argmax(1) == labels
        assert unit["clean_accuracy"] == right.mean()
        attacked = np.clip(x + 0.04 * np.sign(tape.gradient(loss, pixels)), -1, 1)
        rows = {row["name"]: row["accuracy"] for row in unit["attacks"]}
        withstood = right & (model(attacked).numpy().argmax(1) == labels)
        assert rows["fast gradient"] == pytest.approx(withstood.mean())
        assert "PGD-2, transferred" in rows


def test_fine_tuning_begins_with_the_discriminator_and_leaves_the_generator(networks):
    head, tuned, other = (
        networks.load(classifier(n)) for n in ("robgan", "fine_tuned", "adversarial_training")
    )
    distances = [
        sum(float(np.abs(a - b).sum()) for a, b in zip(m.weights, tuned.weights, strict=True))
        for m in (head, other)
    ]
    assert 0 < distances[0] < 0.5 * distances[1]
    same_weights(networks.load(gan("robgan"), epoch=2), networks.load(gan("robgan")))
    history = networks.training(gan("robgan"))["history"]
    assert {"diversity", "discriminator_loss", "generator_loss"} <= history.keys()


def test_rival_sees_the_images_as_often_as_both_stages_of_rob_gan(finished, networks):
    expected = {"fine_tuned": 2, "fine_tuned_real": 2, "adversarial_training": 4, "fixed_fakes": 4}
    for name, epochs in expected.items():
        assert unit_of(finished, "table1", name)["trainings"][name]["epochs"] == epochs
        # The last epoch is kept, though a new Adam counts its steps anew.
        assert networks.units.read(classifier(name).unit)["best_epoch"] == epochs


class Planned(Exception):  # noqa: N818
    """Carries a training that is about to begin."""


@pytest.fixture
def planned(monkeypatch):
    """Returns a function: (networks, network) -> its fitting.Training, which does not begin."""

    def stop(training, *args):
        raise Planned(training)

    monkeypatch.setattr(fitting, "fit_to_best", stop)

    def plan(networks, network):
        with pytest.raises(Planned) as stopped:
            networks._train(network)
        return stopped.value.args[0]

    return plan


def first_images(training, epoch=0):
    (found,) = training.batches(epoch).take(1)
    return found[0].numpy()


def test_classifiers_train_without_noise_in_stages(networks, planned):
    joint = planned(networks, gan("robgan"))
    assert [type(c).__name__ for c in joint.callbacks] == ["LearningRateHalving"]
    greys = (first_images(joint) + 1) * 127.5
    assert np.abs(greys - np.round(greys)).max() > 0.2  # the noise reaches half a grey

    for name, rates in (("adversarial_training", [1, 1, 1, 0.1]), ("fine_tuned_real", [1, 0.1])):
        training = planned(networks, classifier(name))
        greys = (first_images(training) + 1) * 127.5
        np.testing.assert_allclose(greys, np.round(greys), atol=1e-3)
        (stages,) = training.callbacks
        stages.set_model(training.model)
        found = []
        for epoch in range(training.epochs):
            stages.on_epoch_begin(epoch)
            found.append(float(training.model.optimizer.learning_rate))
        np.testing.assert_allclose(found, 1e-3 * np.array(rates), rtol=1e-6)


@pytest.mark.slow
def test_sngan_updates_its_generator_as_often_as_rob_gan(tmp_path, planned):
    settings = {"discriminator_steps": None, "epochs": 10}
    networks = Networks(config_for("table1", tmp_path, **settings))
    theirs, ours = planned(networks, gan("sngan")), planned(networks, gan("robgan"))
    assert theirs.steps_per_epoch == ours.steps_per_epoch == 2
    assert (theirs.model.discriminator_steps, ours.model.discriminator_steps) == (5, 1)
    assert theirs.callbacks == []
    decays = [
        optimizer._learning_rate.get_config()
        for optimizer in (theirs.model.optimizer, theirs.model.generator_optimizer)
    ]
    expected = {"learning_rate": 1e-3, "iterations": 20, "decay": 4}
    assert decays == [{**expected, "updates": 5}, {**expected, "updates": 1}]
    # An epoch of SN-GAN is five passes of two minibatches.
    ((later, _),) = theirs.batches(0).skip(10).take(1)
    np.testing.assert_allclose(first_images(theirs, epoch=1), later, atol=1e-6)


@pytest.mark.parametrize(("most", "steps"), [(1, 1), (4, 3), (5, 3), (6, 6), (100, 6)])
def test_steps_of_one_call_divide_an_epoch(tmp_path, planned, most, steps):
    settings = {"batch_size": 8, "steps_per_execution": most}  # 6 steps an epoch
    training = planned(Networks(config_for("table1", tmp_path, **settings)), gan("split"))
    assert (training.steps_per_epoch, training.model.steps_per_execution) == (6, steps)


def test_controls_are_what_they_are_called(networks, planned):
    head, generator = networks.load(classifier("robgan")), networks.load(gan("robgan"))

    real = planned(networks, classifier("fine_tuned_real")).model
    same_weights(real.classifier, head)
    assert (real.fake_weight, real.generator) == (0, None)

    fixed = planned(networks, classifier("fixed_fakes")).model
    assert (fixed.fake_weight, fixed.statistics, fixed.fake_images) == (0.3, "moving", 12)
    assert np.abs(fixed.classifier.get_weights()[0] - head.get_weights()[0]).max() > 1e-3
    same_weights(fixed.generator, models.with_fixed_statistics(generator))

    tuned = planned(networks, classifier("fine_tuned")).model
    assert (tuned.fake_weight, tuned.statistics, tuned.fake_images) == (0.3, "batch", None)
    same_weights(tuned.generator, generator)


@pytest.mark.slow
def test_networks_trained_in_bfloat16_are_measured_and_kept_in_float32(tmp_path, planned):
    settings = {"precision": "mixed_bfloat16", "strategy": "mirrored"}
    networks = Networks(config_for("table1", tmp_path, **settings))
    training = planned(networks, gan("split"))
    assert training.model.discriminator.layers[-1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    training.model.steps.assign(4)
    weights = [0.1 * w for w in training.model.discriminator.get_weights()]
    training.model.discriminator.set_weights(weights)
    epoch, metrics = training.validate()
    assert epoch == 2
    exact = small_discriminator(10, 32, 1.0)
    exact.set_weights(weights)
    test = data.draw_shapes(20, seed=2)
    expected = evaluation.local_lipschitz_value(
        models.class_head(exact), images.batches(test), from_logits=True, bounds=(-1, 1)
    ).mean()
    assert metrics["lipschitz"] == pytest.approx(expected, rel=1e-5)  # of bfloat16 it is 1 % off
    kept = keras.models.load_model(networks.path(gan("split"), epoch=2))
    assert {layer.dtype_policy.name for layer in kept.layers} == {"float32"}
    same_weights(kept, training.model.generator)


def test_precision_of_a_folder_is_what_auto_comes_to(finished):
    networks = Networks(config_for("table1", finished[0] / "networks", precision="auto"))
    assert networks.config.precision == "float32"


def test_networks_of_an_older_recipe_are_not_continued(finished, tmp_path):
    for name, folder in (("networks", "networks"), ("output", "table1")):
        stored = json.loads((finished[0] / folder / "config.json").read_text())
        older = {k: v for k, v in stored.items() if not k.startswith("recipe.")}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(older))
    theirs = r"recipe\.fine_tuning: 'with noise, one Adam' there, 'without noise"
    with pytest.raises(ConfigError, match=theirs):
        Networks(config_for("table1", tmp_path / "networks"))
    with pytest.raises(ConfigError, match=theirs):
        table1.run(config_for("table1", finished[0] / "networks"), tmp_path / "output")


def test_one_compiled_attack_serves_every_epsilon(networks, monkeypatch):
    compiled, correct_function = [], evaluation.correct_function

    def counted(logits, attack, spec):
        compiled.append(attack is not None)
        return correct_function(logits, attack, spec)

    monkeypatch.setattr(evaluation, "correct_function", counted)
    splits = {"train": data.draw_shapes(20, seed=0), "test": data.draw_shapes(10, seed=2)}
    model = networks.load(classifier("fine_tuned"))
    found = curves.pgd_accuracies(model, splits, [0.0, 0.02, 0.04, 0.08], 2)
    assert sorted(compiled) == [False, True]
    assert {split: len(accuracies) for split, accuracies in found.items()} == {
        "train": 4,
        "test": 4,
    }


def test_steps_are_a_fifth_of_epsilon(dense_classifier):
    """Two of them lead a grey of 0.498 to 0.298 at ε = 0.5, to 0.198 at 0.75; fooled is 0.25."""
    kernel, bias = np.array([[-10, 10]], np.float32), np.array([2.5, -2.5])
    model = dense_classifier(kernel, bias, (1, 1, 1), activation=None)
    split = data.Split(np.full((3, 1, 1, 1), 191, np.uint8), np.ones(3, np.int64))
    found = curves.pgd_accuracies(model, {"test": split}, [0.0, 0.5, 0.75], 2)
    assert found == {"test": [1, 1, 0]}


def test_killed_training_ends_as_if_never_stopped(networks, tmp_path, monkeypatch):
    resumed = Networks(config_for("table1", tmp_path))
    report = fitting._Watch._report

    def killed(watch, metrics):
        report(watch, metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Watch, "_report", killed)
    with pytest.raises(KeyboardInterrupt):
        resumed.train([gan("acgan")])
    monkeypatch.undo()
    resumed.train([gan("acgan")])
    same_weights(resumed.load(gan("acgan")), networks.load(gan("acgan")))
    assert not list(tmp_path.glob("units/*.checkpoints"))


@pytest.mark.slow
def test_diverged_training_is_named_and_its_last_good_epoch_is_kept(tmp_path, monkeypatch):
    sample, calls = models.sample, []

    def diverging(*args, **kwargs):
        calls.append(args)
        return sample(*args, **kwargs) * (np.nan if len(calls) > 1 else 1)

    monkeypatch.setattr(models, "sample", diverging)
    networks = Networks(config_for("table1", tmp_path))
    networks.train([gan("split")])
    unit = networks.units.read(gan("split").unit)
    assert (unit["status"], unit["best_epoch"]) == ("failed", 1)
    assert "became nan in epoch 2" in unit["reason"]
    kept, snapshot = networks.path(gan("split")), networks.path(gan("split"), 1)
    same_weights(keras.models.load_model(kept), keras.models.load_model(snapshot))
    with pytest.raises(ConfigError, match=r"not trained to the end: .* became nan"):
        networks.load(gan("split"))


def test_networks_of_another_configuration_stay_as_they_are(finished):
    root, _ = finished
    before = times(root / "networks")
    config = config_for("fig2", root / "networks", width=0.5)
    with pytest.raises(ConfigError, match=r"another configuration.*width.*--networks_dir"):
        fig2.run(config, root / "other")
    assert times(root / "networks") == before


def test_picture_of_fig_7_shows_the_generators_images(finished, networks):
    (unit,) = finished[1]["fig7"][1]["units"]
    labels = np.repeat(np.arange(10), 4)
    fakes = models.sample(networks.load(gan("robgan")), labels, seed=0)
    diversity = evaluation.class_diversity(fakes, labels, 10)
    np.testing.assert_allclose(unit["diversity"]["robgan"], diversity, rtol=1e-5)
    grid = matplotlib.image.imread(io.BytesIO(base64.b64decode(unit["pictures"]["robgan"])), "png")
    assert grid.shape == (3 * 32, 2 * 32, 3)
    # Row 1, column 1 is class 1's second image.
    np.testing.assert_allclose(grid[32:64, 32:] * 2 - 1, fakes[4 + 1], atol=0.005)
    axes = results.figures(finished[1]["fig7"][1])["fig7"].axes[0]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), grid, atol=1e-6)
    assert "pictures" not in (finished[1]["fig7"][0] / "results.json").read_text()


def test_scores_of_fig_8_are_those_of_the_last_generator(finished, networks):
    root, found = finished
    labels = np.random.default_rng(0).permutation(np.arange(30) % 10)
    scorer = keras.models.load_model(root / "scorer.keras")
    for name, statistics in (("robgan", "batch"), ("sngan", "moving")):
        unit = next(u for u in found["fig8"][1]["units"] if u["gan"] == name)
        generator = networks.load(gan(name))
        batches = models.sample_batches(generator, labels, seed=0, statistics=statistics)
        fakes = np.concatenate([images for _, images in batches])
        mean, _ = evaluation.inception_score(scorer.predict((fakes + 1) / 2, verbose=0), 2)
        assert [s["epoch"] for s in unit["scores"]] == [1, 2]
        assert unit["scores"][-1]["inception_score"] == pytest.approx(mean, abs=2e-6)
        assert "scorer.keras" in unit["score_network"]


def test_lipschitz_values_of_a_gan_are_those_of_its_class_head(finished, networks):
    units = {u["gan"]: u for u in finished[1]["fig8"][1]["units"]}
    test = data.draw_shapes(20, seed=2)
    expected = evaluation.local_lipschitz_value(
        networks.load(classifier("robgan")), images.batches(test), from_logits=True, bounds=(-1, 1)
    ).mean()
    values = units["robgan"]["history"]["lipschitz"]
    assert len(values) == 2
    assert values[-1] == pytest.approx(expected, rel=1e-4)
    assert "lipschitz" not in units["sngan"]["history"]


def test_missing_inception_weights_are_named(finished, tmp_path, monkeypatch):
    def missing():
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "InceptionV3", missing)
    config = config_for("fig8", finished[0] / "networks", score_network="inception")
    with pytest.raises(ConfigError, match=r"(?s)weights of Inception v3.*--score_network=baseline"):
        fig8.run(config, tmp_path)


def test_scores_of_other_score_network_are_not_taken(finished, monkeypatch):
    root, found = finished
    monkeypatch.setattr(scoring.Scorer, "digest", "another")
    with pytest.raises(ConfigError, match="to be of the score that is there now"):
        fig8.run(config_for("fig8", root / "networks"), found["fig8"][0])


def test_score_network_that_is_none_is_named_before_any_training(tmp_path):
    config = config_for("fig8", tmp_path / "networks", score_network="nothing.keras")
    with pytest.raises(ConfigError, match=r"Expected --score_network .*nothing\.keras"):
        fig8.run(config, tmp_path / "out")
    assert not list(tmp_path.glob("networks/units/*.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_imagenet_143_trains_groups_of_minibatches(tmp_path, monkeypatch):
    """On made images: training images larger than the networks', two minibatches a step."""
    rng = np.random.default_rng(0)

    def split(size, pixels):
        made = rng.integers(0, 256, (size, pixels, pixels, 3), np.uint8)
        return data.Split(made, np.arange(size) % 143)

    made = data.Splits(split(145, 80), split(143, 64), split(143, 64), 143)
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: made)
    config = config_for(
        "table1", tmp_path, datasets=("imagenet143",), discriminator_steps=2, epochs=1,
        snapshots=1, batch_size=36, train_size=None, test_size=None,
    )  # fmt: skip
    networks, network = Networks(config), gan("split", "imagenet143")
    networks.train([network])
    result = networks.units.read(network.unit)
    assert result["status"] == "done"
    assert (result["steps_per_epoch"], result["train_images"]) == (2, 144)
    assert models.sample(networks.load(network), [0, 142]).shape == (2, 64, 64, 3)
    assert images.first(made.train, 3, 64).images.shape == (3, 64, 64, 3)


def test_class_without_images_is_named(tmp_path, monkeypatch):
    shapes = data.load("shapes", train_size=50, test_size=20)
    keep = ~np.isin(shapes.train.labels, (3, 7))
    lacking = shapes._replace(train=data.Split(*(a[keep] for a in shapes.train)))
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: lacking)
    networks = Networks(config_for("table1", tmp_path))
    with pytest.raises(
        ConfigError, match=r"each of the 10 classes of shapes\. Received: none of 3, 7"
    ):
        networks.train([gan("robgan")])


def test_truncated_unit_is_named(finished, tmp_path):
    root, found = finished
    copy = shutil.copytree(found["fig7"][0], tmp_path / "copy")
    (unit,) = (copy / "units").glob("*.json")
    unit.write_text(unit.read_text()[:100])
    with pytest.raises(files.BrokenFileError, match="truncated"):
        fig7.run(config_for("fig7", root / "networks"), copy)


def test_classes_with_one_test_image_are_named_before_any_training(tmp_path):
    config = config_for("fig7", tmp_path / "networks", test_size=10)
    with pytest.raises(ConfigError, match="at least two test images of every class of shapes"):
        fig7.run(config, tmp_path / "out")
    assert not list(tmp_path.glob("networks/units/*.json"))


def test_fine_tuned_classifier_of_another_rob_gan_is_not_taken(finished, tmp_path):
    copy = shutil.copytree(finished[0] / "networks", tmp_path / "networks")
    path = copy / "units/shapes-gan-robgan-seed0-discriminator.keras"
    path.write_bytes(path.read_bytes() + b"trained anew")
    networks = Networks(config_for("table1", copy))
    with pytest.raises(ConfigError, match="the robgan that is there now"):
        networks.train([classifier("fine_tuned")])


@pytest.mark.parametrize(
    ("epochs", "count", "expected"),
    [(100, 4, [25, 50, 75, 100]), (10, 3, [3, 7, 10]), (1, 4, [1]), (2, 5, [1, 2])],
)
def test_snapshots_are_evenly_spaced_and_end_with_the_last_epoch(epochs, count, expected):
    assert snapshot_epochs(epochs, count) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 48}, "image_size"),
        ({"epsilons": (0.1, 0.05)}, "rise"),
        ({"classifier_epochs": ()}, "classifier_epochs"),
        ({"classifier_epochs": (0, 0)}, "classifier_epochs"),
        ({"attack_epsilon": -1.0}, "attack_epsilon"),
        ({"attacked_images": 0}, "attacked_images"),
        ({"width": 0.0}, "width"),
        ({"precision": "float31"}, "precision"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        curves.Config(**settings)


def test_more_parts_than_images_are_named():
    with pytest.raises(ConfigError, match="as many score_images"):
        fig8.Config(score_images=3)


def test_paper_preset_is_the_papers():
    paper = curves.PRESETS["paper"]
    for size, epsilon in ((32, 0.07), (64, 0.03125)):
        attack = joint_attack(paper, size)
        assert (attack.epsilon, attack.steps, attack.step_size) == (epsilon, 5, 0.0078)
        assert (attack.clip, attack.random_start) == ((-1, 1), False)
    assert table1.PRESETS["paper"].classifiers == (*table1.NAMES, *table1.CONTROLS)
    assert table1.PRESETS["quick"].classifiers == table1.NAMES
    tuning = classifier_attack(paper)
    assert (tuning.epsilon, tuning.step_size) == (0.03125, 0.00625)
    assert (paper.batch_size, paper.learning_rate, paper.fake_weight) == (64, 2e-4, 0.3)
    assert dataclasses.asdict(paper)["networks_dir"] == "runs/robgan-networks"
    ways = {name: (gan.class_loss, gan.attacked) for name, gan in GANS.items()}
    assert ways == {
        "robgan": ("split", True),
        "split": ("split", False),
        "acgan_attack": ("acgan", True),
        "acgan": ("acgan", False),
        "sngan": (None, False),
        "split_equal": ("split_equal", True),
    }


def test_large_preset_is_a_quarter_of_the_paper_for_a_fifth_of_the_time():
    paper, large = curves.PRESETS["paper"], curves.PRESETS["large"]
    assert large.epochs * (50_000 // large.batch_size) == 15_620  # updates of the generator
    assert (large.width, large.train_size, large.test_size) == (0.25, None, None)
    assert large.precision == "mixed_bfloat16"
    for ours, theirs in (
        (large.epochs, paper.epochs),
        (large.halving_epochs, paper.halving_epochs),
        (sum(large.classifier_epochs), sum(paper.classifier_epochs)),
    ):
        assert ours == theirs / 5
    assert (large.learning_rate, large.discriminator_steps) == (2e-4, None)
    assert table1.PRESETS["large"].attacked_images is None
    assert set(table1.PRESETS["large"].classifiers) == {*table1.NAMES, *table1.CONTROLS}


@pytest.mark.parametrize(("train_size", "trained_on"), [(None, [0, 1, 2, 3]), (2, [0, 1])])
def test_all_of_cifars_training_images_are_trained_on(monkeypatch, train_size, trained_on):
    def split(*pixels):
        images = np.full((len(pixels), 32, 32, 3), np.reshape(pixels, (-1, 1, 1, 1)), np.uint8)
        return data.Split(images, np.array(pixels) % 2)

    splits = data.Splits(split(0, 1), split(2, 3), split(4, 5), 2)
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: splits)
    config = dataclasses.replace(curves.PRESETS["paper"], train_size=train_size)
    train, _, test, _ = images.load(config, "cifar10")
    assert train.images[:, 0, 0, 0].tolist() == trained_on
    assert train.labels.tolist() == [pixel % 2 for pixel in trained_on]
    assert test.images[:, 0, 0, 0].tolist() == [4, 5]
