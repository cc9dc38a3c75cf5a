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
from gat_tf.experiments.config import ConfigError

from gat_tf import data, evaluation, models, plotting
from gat_tf.experiments import (
    files,
    fitting,
    reports,
    robgan_curves,
    robgan_fig2,
    robgan_fig6,
    robgan_fig7,
    robgan_fig8,
    robgan_networks,
    robgan_table1,
)
from gat_tf.experiments.reports import robgan_curves as curves_report
from gat_tf.experiments.reports import robgan_images as images_report

RUNNERS = {
    "robgan_table1": robgan_table1,
    "robgan_fig2": robgan_fig2,
    "robgan_fig6": robgan_fig6,
    "robgan_fig7": robgan_fig7,
    "robgan_fig8": robgan_fig8,
}
OWN = {
    "robgan_table1": {"evaluation_steps": 2, "attacked_images": 20},
    "robgan_fig2": {"evaluation_steps": 2, "attacked_images": 20, "epsilons": (0.0, 0.1)},
    "robgan_fig6": {"evaluation_steps": 2, "attacked_images": 20, "epsilons": (0.0, 0.1)},
    "robgan_fig7": {"shown_classes": 3, "shown_images": 2, "diversity_images": 4},
    "robgan_fig8": {"gans": ("robgan", "sngan"), "score_images": 30,
                    "score_splits": 2},
}  # fmt: skip
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
    kind = RUNNERS[name].Config
    if name == "robgan_fig8":
        settings = {"score_network": str(networks_dir.parent / "scorer.keras"), **settings}
    return kind(**TINY, networks_dir=str(networks_dir), **{**OWN[name], **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every experiment's folder and results, on networks that they share."""
    root = tmp_path_factory.mktemp("robgan")
    keras.utils.set_random_seed(5)
    scorer = models.classifier(width=1 / 24)
    scorer.save(root / "scorer.keras")
    found = {}
    for name, runner in RUNNERS.items():
        results = runner.run(config_for(name, root / "networks"), root / name)
        found[name] = (root / name, results)
    return root, found


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", RUNNERS)
def test_a_run_leaves_results_tables_and_figures(finished, name):
    folder, results = finished[1][name]
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert reports.load(folder, name)["summary"]["shapes"]
    assert (folder / f"{name}.md").read_text() == reports.markdown(results)
    for figure in reports.figures(results):
        assert (folder / f"{figure}.png").stat().st_size > 5_000
        assert (folder / f"{figure}.pdf").exists()
    assert "CPU" in reports.made_with(results)


def test_what_is_there_is_not_computed_again(finished, tmp_path):
    root, found = finished
    before = times(root / "networks")
    folder, results = found["robgan_table1"]
    units = times(folder / "units")
    again = robgan_table1.run(config_for("robgan_table1", root / "networks"), folder)
    assert times(root / "networks") == before
    assert times(folder / "units") == units
    assert again["units"] == results["units"]


def test_accuracies_are_those_of_pgd_written_plainly(finished):
    root, found = finished
    (unit,) = found["robgan_table1"][1]["units"]
    model = keras.models.load_model(
        root / "networks/units/shapes-classifier-fine_tuned-seed0.keras"
    )
    split = data.draw_shapes(20, seed=2)  # as data.load draws the test images
    images = tf.constant(split.images / 127.5 - 1, tf.float32)
    labels = tf.constant(split.labels)
    expected = []
    for epsilon in (0, 0.02, 0.04, 0.08):
        x = images
        for _ in range(2 if epsilon else 0):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = keras.losses.sparse_categorical_crossentropy(
                    labels, model(x), from_logits=True
                )
            x = x + epsilon / 5 * tf.sign(tape.gradient(loss, x))
            x = tf.clip_by_value(x, images - epsilon, images + epsilon)
            x = tf.clip_by_value(x, -1, 1)
        expected.append(np.mean(np.argmax(model(x), axis=-1) == split.labels))
    curve = unit["curves"]["fine_tuned"]["test"]
    assert curve["epsilons"] == [0, 0.02, 0.04, 0.08]
    np.testing.assert_allclose(curve["accuracy"], expected, atol=1e-5)


def test_fine_tuning_begins_with_the_discriminator_and_leaves_the_generator(finished):
    root, _ = finished
    networks = robgan_networks.Networks(config_for("robgan_table1", root / "networks"))
    head = networks.load_classifier("shapes", "robgan", 0)
    tuned = networks.load_classifier("shapes", "fine_tuned", 0)
    other = networks.load_classifier("shapes", "adversarial_training", 0)
    distances = [
        sum(float(np.abs(a - b).sum()) for a, b in zip(m.weights, tuned.weights, strict=True))
        for m in (head, other)
    ]
    assert 0 < distances[0] < 0.5 * distances[1]
    unit = networks.unit("shapes", "gan", "robgan", 0)
    last = networks.load_generator("shapes", "robgan", 0, epoch=2)
    for a, b in zip(
        last.weights, networks.load_generator("shapes", "robgan", 0).weights, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    history = json.loads(unit.read_text())["history"]
    assert {"diversity", "discriminator_loss", "generator_loss"} <= history.keys()


def test_rival_sees_the_images_as_often_as_both_stages_of_rob_gan(finished):
    (unit,) = finished[1]["robgan_table1"][1]["units"]
    assert unit["trainings"]["fine_tuned"]["epochs"] == 2
    assert unit["trainings"]["adversarial_training"]["epochs"] == 4


def test_killed_training_ends_as_if_never_stopped(finished, tmp_path, monkeypatch):
    root, _ = finished
    networks = robgan_networks.Networks(config_for("robgan_table1", tmp_path / "networks"))
    report = fitting._Watch._report

    def killed(watch, metrics):
        report(watch, metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Watch, "_report", killed)
    with pytest.raises(KeyboardInterrupt):
        networks.train_gan("shapes", "acgan_attack", 0)
    monkeypatch.undo()
    networks.train_gan("shapes", "acgan_attack", 0)
    name = "units/shapes-gan-acgan_attack-seed0-generator.keras"
    resumed, whole = (
        keras.models.load_model(folder / name)
        for folder in (tmp_path / "networks", root / "networks")
    )
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list((tmp_path / "networks/units").glob("*.checkpoints"))


def test_diverged_training_is_recorded_and_named(tmp_path):
    config = dataclasses.replace(
        config_for("robgan_table1", tmp_path / "networks"), learning_rate=1e30
    )
    networks = robgan_networks.Networks(config)
    result = networks.train_gan("shapes", "split", 0)
    assert result["status"] == "failed"
    assert "became" in result["reason"]
    with pytest.raises(ConfigError, match=r"not trained to the end: .* became"):
        networks.load_generator("shapes", "split", 0)


def test_last_good_epoch_of_a_diverged_training_is_kept(finished, tmp_path):
    """By hand: what `_keep` does with a training whose third epoch failed."""
    root, _ = finished
    networks = robgan_networks.Networks(config_for("robgan_table1", tmp_path / "networks"))
    generator = keras.models.load_model(
        root / "networks/units/shapes-gan-robgan-seed0-generator.keras"
    )
    progress = fitting.Progress(epochs=3, best_epoch=2, failure="The loss became nan in epoch 3.")
    path = networks.unit("shapes", "gan", "robgan", 0)
    file = networks.generator_path("shapes", "robgan", 0)
    networks._keep(path, {"status": "failed"}, progress, {file: generator})
    assert file.exists()


def test_networks_of_another_configuration_stay_as_they_are(finished):
    root, _ = finished
    before = times(root / "networks")
    config = dataclasses.replace(config_for("robgan_fig2", root / "networks"), width=0.5)
    with pytest.raises(ConfigError, match=r"another configuration.*width"):
        robgan_fig2.run(config, root / "other")
    assert times(root / "networks") == before


def test_picture_of_fig_7_shows_the_generators_images(finished):
    root, found = finished
    (unit,) = found["robgan_fig7"][1]["units"]
    networks = robgan_networks.Networks(config_for("robgan_table1", root / "networks"))
    generator = networks.load_generator("shapes", "robgan", 0)
    images = models.sample(generator, np.repeat(np.arange(10), 4), seed=0)
    diversity = evaluation.class_diversity(images, np.repeat(np.arange(10), 4), 10)
    np.testing.assert_allclose(unit["diversity"]["robgan"], diversity, rtol=1e-5)
    grid = matplotlib.image.imread(io.BytesIO(base64.b64decode(unit["pictures"]["robgan"])), "png")
    assert grid.shape == (3 * 32, 2 * 32, 3)
    # Row 1, column 1 is class 1's second image.
    np.testing.assert_allclose(grid[32:64, 32:] * 2 - 1, images[4 + 1], atol=0.005)


def test_scores_of_fig_8_are_those_of_the_last_generator(finished):
    root, found = finished
    unit = next(u for u in found["robgan_fig8"][1]["units"] if u["gan"] == "sngan")
    networks = robgan_networks.Networks(config_for("robgan_table1", root / "networks"))
    generator = networks.load_generator("shapes", "sngan", 0)
    labels = np.random.default_rng(0).permutation(np.arange(30) % 10)
    images = models.sample(generator, labels, seed=0)
    scorer = keras.models.load_model(root / "scorer.keras")
    mean, _ = evaluation.inception_score(scorer.predict((images + 1) / 2, verbose=0), 2)
    assert [s["epoch"] for s in unit["scores"]] == [1, 2]
    assert unit["scores"][-1]["inception_score"] == pytest.approx(mean, rel=1e-4)
    assert "scorer.keras" in unit["score_network"]


def test_missing_inception_weights_are_named(finished, tmp_path, monkeypatch):
    def missing():
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "InceptionV3", missing)
    root, _ = finished
    config = config_for("robgan_fig8", root / "networks", score_network="inception")
    with pytest.raises(ConfigError, match=r"(?s)weights of Inception v3.*--score_network=baseline"):
        robgan_fig8.run(config, tmp_path)


def test_score_network_that_is_none_is_named(finished, tmp_path):
    root, _ = finished
    config = config_for("robgan_fig8", root / "networks", score_network="nothing.keras")
    with pytest.raises(ConfigError, match=r"Expected --score_network .*nothing\.keras"):
        robgan_fig8.run(config, tmp_path)


def test_imagenet_143_trains_groups_of_minibatches(tmp_path, monkeypatch):
    """On made images: training images larger than the networks', two minibatches a step."""
    rng = np.random.default_rng(0)

    def split(size, pixels):
        images = rng.integers(0, 256, (size, pixels, pixels, 3), np.uint8)
        return data.Split(images, np.arange(size) % 143)

    made = data.Splits(split(145, 80), split(143, 64), split(143, 64), 143)
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: made)
    config = dataclasses.replace(
        config_for("robgan_table1", tmp_path),
        datasets=("imagenet143",),
        discriminator_steps=2,
        epochs=1,
        snapshots=1,
        batch_size=36,
        train_size=None,
        test_size=None,
    )
    networks = robgan_networks.Networks(config)
    result = networks.train_gan("imagenet143", "split", 0)
    assert result["status"] == "done"
    assert (result["steps_per_epoch"], result["train_images"]) == (2, 144)
    generator = networks.load_generator("imagenet143", "split", 0)
    assert models.sample(generator, [0, 142]).shape == (2, 64, 64, 3)
    assert robgan_networks.first_images(made.train, 3, 64).images.shape == (3, 64, 64, 3)


def test_class_without_images_is_named(tmp_path, monkeypatch):
    shapes = data.load("shapes", train_size=50, test_size=20)
    keep = ~np.isin(shapes.train.labels, (3, 7))
    lacking = shapes._replace(train=data.Split(*(a[keep] for a in shapes.train)))
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: lacking)
    networks = robgan_networks.Networks(config_for("robgan_table1", tmp_path))
    with pytest.raises(
        ConfigError, match=r"each of the 10 classes of shapes\. Received: none of 3, 7"
    ):
        networks.train_gan("shapes", "robgan", 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ("mnist",)}, "data set"),
        ({"image_size": 32}, "image_size"),
        ({"epsilons": (0.1, 0.05)}, "rise"),
        ({"classifier_epochs": ()}, "classifier_epochs"),
        ({"attack_epsilon": -1.0}, "attack_epsilon"),
        ({"width": 0.0}, "width"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        robgan_curves.Config(**settings)


def test_more_parts_than_images_are_named():
    with pytest.raises(ConfigError, match="as many score_images"):
        robgan_fig8.Config(score_images=3)


def test_paper_preset_is_the_papers():
    paper = robgan_curves.PRESETS["paper"]
    networks = robgan_networks.Networks.joint_attack
    holder = type("Holder", (), {"config": paper})
    for size, epsilon in ((32, 0.07), (64, 0.03125)):
        attack = networks(holder, size)
        assert (attack.epsilon, attack.steps, attack.step_size) == (epsilon, 5, 0.0078)
        assert (attack.clip, attack.random_start) == ((-1, 1), False)
    tuning = robgan_networks.Networks.classifier_attack(holder)
    assert (tuning.epsilon, tuning.step_size) == (0.03125, 0.00625)
    assert (paper.batch_size, paper.learning_rate, paper.fake_weight) == (64, 2e-4, 0.3)


# Reports, on results written by hand.


def unit_of(dataset, seed, **accuracies):
    epsilons = [0, 0.02, 0.04, 0.08]
    history = {"train_lipschitz": [1.0, 2.0], "test_lipschitz": [1.0, 3.0]}
    return {
        "dataset": dataset,
        "seed": seed,
        "image_size": 32,
        "images": {"train": 10, "test": 10},
        "curves": {
            name: {k: {"epsilons": epsilons, "accuracy": v} for k, v in by_split.items()}
            for name, by_split in accuracies.items()
        },
        "trainings": {name: {"history": history} for name in accuracies},
    }


def test_table_1_says_what_the_paper_says_of_cifar():
    unit = unit_of(
        "cifar10",
        0,
        adversarial_training={"test": [0.8, 0.6, 0.5, 0.2]},
        fine_tuned={"test": [0.7, 0.6, 0.6, 0.4]},
    )
    found = curves_report.verdicts("robgan_table1", [unit])["cifar10"]
    assert [v["mean"] for v in found] == [10, 0, 10, 20]
    assert "fine-tuned below" in found[0]["claim"]
    results = {
        "experiment": "robgan_table1",
        "summary": curves_report.summarise([unit]),
        "verdicts": {"cifar10": found},
        "units": [unit],
    }
    text = curves_report.markdown(results)
    assert "| Rob-GAN, fine-tuned, the paper's | test | 81.10 | 70.41 | 57.43 | 30.25 |" in text
    assert "| Adv. training | test | 80.0 | 60.0 | 50.0 | 20.0 |" in text


def test_gaps_by_hand():
    units = [
        unit_of(
            "cifar10",
            seed,
            adversarial_training={"train": [0.9, 0.8, 0.7, 0.6], "test": [0.5, 0.4, 0.3, 0.2]},
            robgan={"train": [0.5, 0.4, 0.3, 0.2], "test": [0.5, 0.4, 0.3, 0.2]},
            fine_tuned={"train": [0.7, 0.6, 0.5, 0.4], "test": [0.6, 0.5, 0.4, 0.3 + seed / 25]},
        )
        for seed in (0, 1)
    ]
    gap, lipschitz = curves_report.verdicts("robgan_fig2", units)["cifar10"]
    assert (gap["mean"], lipschitz["mean"]) == (40, 50)
    gain, closer = curves_report.verdicts("robgan_fig6", units)["cifar10"]
    assert (gain["mean"], closer["mean"]) == (10.5, 30.5)
    assert gain["standard_error"] == pytest.approx(0.5)


def test_claims_of_fig_8_are_about_the_last_snapshot():
    def unit(name, first, last):
        scores = [
            {"epoch": e, "inception_score": s, "frechet_distance": 1.0}
            for e, s in ((1, first), (2, last))
        ]
        return {"gan": name, "seed": 0, "scores": scores, "steps_per_epoch": 7}

    units = [unit("robgan", 2, 5), unit("split", 1, 4), unit("sngan", 1, 6)]
    claims = dict(images_report._fig8_claims(units))
    gains = {claim: gain for claim, gain in claims.items() if gain}
    assert list(gains.values()) == [[1], [-1], [1]]
    summary = images_report._scores(units)
    assert summary["robgan"]["updates"] == [7, 14]
    assert summary["robgan"]["inception_score"] == {"mean": [2, 5], "std": None}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plotting.gaps({}, {}, {}),
        lambda: plotting.samples([], {}),
        lambda: plotting.scores({}, {}, {}),
    ],
)
def test_figures_of_nothing_are_refused(draw):
    with pytest.raises(ValueError, match="finished units"):
        draw()


def test_truncated_unit_is_named(finished, tmp_path):
    root, found = finished
    copy = shutil.copytree(found["robgan_fig7"][0], tmp_path / "copy")
    (unit,) = (copy / "units").glob("*.json")
    unit.write_text(unit.read_text()[:100])
    with pytest.raises(files.BrokenFileError, match="truncated"):
        robgan_fig7.run(config_for("robgan_fig7", root / "networks"), copy)


def test_more_snapshots_than_epochs_keep_every_epoch(tmp_path):
    config = dataclasses.replace(
        config_for("robgan_table1", tmp_path / "networks"), epochs=1, snapshots=4
    )
    networks = robgan_networks.Networks(config)
    assert networks.train_gan("shapes", "split", 0)["snapshots"] == [1]
    assert networks.generator_path("shapes", "split", 0, 1).exists()


def test_classes_with_one_test_image_are_named_before_any_training(tmp_path):
    config = dataclasses.replace(config_for("robgan_fig7", tmp_path / "networks"), test_size=10)
    with pytest.raises(ConfigError, match="at least two test images of every class of shapes"):
        robgan_fig7.run(config, tmp_path / "out")
    assert not (tmp_path / "networks/units").exists()


def test_fine_tuned_classifier_of_another_rob_gan_is_not_taken(finished, tmp_path):
    root, _ = finished
    copy = shutil.copytree(root / "networks", tmp_path / "networks")
    path = copy / "units/shapes-gan-robgan-seed0-discriminator.keras"
    path.write_bytes(path.read_bytes() + b"trained anew")
    networks = robgan_networks.Networks(config_for("robgan_table1", copy))
    with pytest.raises(ConfigError, match="the robgan that is there now"):
        networks.train_classifier("shapes", "fine_tuned", 0)


def test_folder_of_networks_is_named_by_its_flag(finished):
    root, _ = finished
    config = dataclasses.replace(config_for("robgan_fig2", root / "networks"), width=0.5)
    with pytest.raises(ConfigError, match="another --networks_dir"):
        robgan_networks.Networks(config)
