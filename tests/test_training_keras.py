"""The training schemes as Keras models: fit and its callbacks, resuming, metrics, bad input."""

import csv
import functools
import gc
import re

import keras
import numpy as np
import psutil
import pytest
import schemes
import tensorflow as tf
from schemes import CASES, RANDOM, WITH_GENERATOR, build, dataset, traced, weights

from gat_tf import attacks, evaluation, models, training
from gat_tf.training.gat import with_draws
from gat_tf.training.metrics import Quantiles

every_case = pytest.mark.parametrize("case", CASES)
one_of_each = pytest.mark.parametrize("case", ["fast_gradient_l2", *WITH_GENERATOR])

COMMON = {
    "loss", "clean_loss", "adversarial_loss", "clean_accuracy", "adversarial_accuracy",
    "power", "power_p10", "power_p50", "power_p90",
}  # fmt: skip
OF_GAT = {"generator_loss", "gradient_norm", "generator_bias_norm"}
OF_FINE_TUNING = COMMON - {"clean_loss", "clean_accuracy"} | {"fake_loss", "fake_accuracy"}


def metric_names(case):
    if case == "fine_tuning":
        return OF_FINE_TUNING
    if case == "trades":
        return COMMON | {"divergence"}
    return COMMON | OF_GAT if case in WITH_GENERATOR else COMMON


def fitted(case, steps=None, optimizer=schemes.sgd, **kwargs):
    """The weights after an epoch, or its first steps, of plain gradient descent."""
    keras.utils.set_random_seed(3)
    scheme = build(case, optimizer=optimizer, **kwargs)
    scheme.fit(dataset(), steps_per_epoch=steps, verbose=0)
    return weights(scheme)


@functools.cache
def eager_path(case):
    """The weights after each eager step of `fitted`, trained once for all tests."""
    path = []
    keras.utils.set_random_seed(3)
    scheme = build(case, optimizer=schemes.sgd, run_eagerly=True)
    step = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: path.append(weights(scheme))
    )
    scheme.fit(dataset(), verbose=0, callbacks=[step])
    return path


# The contract of every scheme.


def test_every_scheme_has_a_case():
    built = {type(build(case, compiled=False)).__name__ for case in CASES}
    # The others train GANs: test_training_gan.py.
    expected = {"AWP", "AdversarialTraining", "FineTuning", "GAT", "GeneratorTraining", "TRADES"}
    assert built == expected


@pytest.mark.slow
@every_case
def test_an_epoch_changes_the_network_and_reports_finite_metrics(case):
    scheme = traced(case)
    network = scheme.generator if case == "generator_training" else scheme.classifier
    before = schemes.vector(network)
    history = scheme.fit(dataset(), verbose=0).history
    assert np.abs(schemes.vector(network) - before).max() > 1e-3
    assert set(history) == metric_names(case)
    assert np.isfinite(list(history.values())).all()


@pytest.mark.slow
@every_case
def test_the_seed_fixes_the_weights(case):
    """From the first step on; test_loading_the_weights... has the steps after it."""
    first, *_ = eager_path(case)
    again, other = (fitted(case, steps=1, seed=seed, run_eagerly=True) for seed in (0, 2))
    np.testing.assert_array_equal(again, first)
    assert (np.abs(other - first).max() > 1e-5) == (case in RANDOM)


def resumable(case):
    """What comes in the same order however often `fit` is called: no draws of its own."""
    return schemes.pairs() if case == "gat_separate" else dataset()


@pytest.mark.slow
@every_case
def test_loading_the_weights_goes_on_as_if_never_stopped(case, tmp_path):
    """In a scheme built and compiled again, whatever Keras's seed."""
    path = tmp_path / "scheme.weights.h5"
    scheme = traced(case)
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: scheme.save_weights(path) if epoch == 0 else None
    )
    scheme.fit(resumable(case), epochs=3, verbose=0, callbacks=[save])
    keras.utils.set_random_seed(4)
    resumed = build(case)
    resumed.load_weights(path)
    resumed.fit(resumable(case), initial_epoch=1, epochs=3, verbose=0)
    np.testing.assert_array_equal(weights(resumed), weights(scheme))


@pytest.mark.slow
@one_of_each
def test_backup_and_restore_goes_on_as_if_never_stopped(case, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def trained(scheme, *callbacks):
        scheme.fit(resumable(case), epochs=3, verbose=0, callbacks=list(callbacks))
        return weights(scheme)

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    expected = trained(traced(case))
    with pytest.raises(KeyboardInterrupt):
        trained(traced(case), backup(), Stop())
    resumed = trained(build(case), backup())  # the callback changes more than variables
    np.testing.assert_array_equal(resumed, expected)


@pytest.mark.slow
@one_of_each
def test_the_classifier_is_a_plain_keras_model(case, tmp_path):
    scheme = traced(case)
    scheme.fit(dataset(), verbose=0)
    images, labels = schemes.arrays()
    scheme.classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras", custom_objects={})
    predicted = loaded.predict(images, verbose=0)
    np.testing.assert_allclose(predicted, scheme.predict(images, verbose=0), atol=1e-7)
    np.testing.assert_allclose(predicted, scheme(images).numpy(), atol=1e-6)
    assert evaluation.accuracy(loaded, dataset()) == np.mean(predicted.argmax(1) == labels)


# Keras.


@pytest.mark.slow
@one_of_each
def test_evaluate_is_the_mean_over_the_images_of_clean_and_attacked_ones(case):
    scheme = traced(case)
    images, labels = schemes.arrays()
    results = scheme.evaluate(dataset(), verbose=0, return_dict=True)
    assert set(results) == metric_names(case)
    if case in WITH_GENERATOR:
        attack = attacks.GeneratorAttack(scheme.generator, clip=None)
    else:
        attack = scheme.attack
    for name, x in (
        ("clean", images),
        ("adversarial", attack(scheme.classifier, images, labels).numpy()),
    ):
        probabilities = scheme.classifier.predict(x, verbose=0)
        loss = -np.log(probabilities[np.arange(len(labels)), labels])
        np.testing.assert_allclose(results[f"{name}_loss"], loss.mean(), rtol=1e-5)
        correct = np.mean(probabilities.argmax(1) == labels)
        np.testing.assert_allclose(results[f"{name}_accuracy"], correct, rtol=1e-6)


@pytest.mark.slow
@one_of_each
def test_callbacks_get_every_metric(case, tmp_path, capsys):
    scheme = traced(case)
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", monitor="val_loss", save_best_only=True,
        save_weights_only=True,
    )  # fmt: skip
    # "max", so that the falling loss stops it.
    stop = keras.callbacks.EarlyStopping("val_clean_loss", patience=0, mode="max")
    history = scheme.fit(
        dataset(),
        validation_data=dataset(9, seed=1),
        epochs=6,
        verbose=2,
        callbacks=[
            best,
            stop,
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    ).history
    names = metric_names(case)
    assert set(history) == names | {f"val_{name}" for name in names}
    assert 2 <= len(history["loss"]) < 6
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_power_p50"]) for row in rows] == history["val_power_p50"]
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in history)
    restored = traced(case)
    restored.load_weights(tmp_path / "best.weights.h5")
    loss = restored.evaluate(dataset(9, seed=1), verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, min(history["val_loss"]), rtol=1e-5)


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = keras.callbacks.TensorBoard(tmp_path)
    build("gat_shared").fit(dataset(), epochs=2, verbose=0, callbacks=[board])
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert {f"epoch_{name}" for name in metric_names("gat_shared")} <= set(events.Tags()["tensors"])


@pytest.mark.slow
def test_the_progress_bar_counts_batches_and_shows_metrics(capsys):
    traced("gat_separate").fit(dataset(), verbose=1)
    printed = capsys.readouterr().out
    assert "3/3" in printed
    assert "generator_bias_norm: " in printed


@pytest.mark.slow
@one_of_each
def test_validation_data_may_be_arrays(case):
    losses = []
    for validation in (dataset(9, seed=1), schemes.arrays(9, seed=1)):
        history = traced(case).fit(dataset(), validation_data=validation, verbose=0).history
        losses.append(history["val_loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.slow
@one_of_each
def test_arrays_train_as_their_dataset_does(case):
    images, labels = schemes.arrays()
    found = []
    for data in ({"x": dataset()}, {"x": images, "y": labels, "batch_size": 8, "shuffle": False}):
        scheme = traced(case)
        scheme.fit(**data, verbose=0)
        found.append(weights(scheme))
    np.testing.assert_array_equal(*found)


def test_arrays_are_shuffled_unless_told_otherwise():
    scheme = build("fast_gradient_l2")
    seen = recorded(scheme)
    images, labels = schemes.arrays()
    for _ in range(2):
        scheme.fit(images, labels, batch_size=8, verbose=0)
    epochs = np.concatenate([x[0] for x in seen[:3]]), np.concatenate([x[0] for x in seen[3:]])
    assert [len(x[0]) for x in seen] == [8, 8, 3, 8, 8, 3]
    for epoch in epochs:
        assert not np.array_equal(epoch, images)
        np.testing.assert_array_equal(sorted_images(epoch), sorted_images(images))
    assert not np.array_equal(*epochs)


# SGD, because Adam makes whole steps of what rounding leaves of gradients that are zero.
@pytest.mark.slow
@one_of_each
def test_steps_per_execution_changes_no_weight(case):
    several = fitted(case, steps_per_execution=2)  # of three
    np.testing.assert_allclose(several, eager_path(case)[-1], atol=1e-6)


@pytest.mark.slow
@every_case
def test_xla_gives_the_same_weights(case):
    # XLA compiles for every size of a batch: one case has the smaller last one.
    steps = 3 if case == "gat_shared" else 2
    got = fitted(case, steps, jit_compile=True)
    expected = eager_path(case)[steps - 1]
    # XLA has random numbers of its own, whose steps are as long.
    if case in ("random", "pgd", "trades", "fine_tuning"):
        start = weights(build(case, compiled=False))
        lengths = np.linalg.norm(got - start), np.linalg.norm(expected - start)
        np.testing.assert_allclose(*lengths, rtol=0.3)
        return
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.slow
@one_of_each
def test_eager_steps_give_the_same_weights(case):
    np.testing.assert_allclose(eager_path(case)[-1], fitted(case), atol=1e-5)


@pytest.mark.slow
def test_users_own_functions_may_wrap_a_step():
    scheme, expected = build("gat_shared"), build("gat_shared")
    images, labels = schemes.arrays(8)
    data = tf.constant(images), tf.constant(labels)
    tf.function(scheme.train_step)(data)
    expected.train_step(data)
    np.testing.assert_allclose(weights(scheme), weights(expected), atol=1e-6)


# Precision.


@pytest.fixture
def precision():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@one_of_each
def test_mixed_precision_takes_the_step_of_float32(case, policy, precision):
    def optimizer():
        if policy == "mixed_bfloat16":
            return schemes.sgd()
        return keras.optimizers.LossScaleOptimizer(schemes.sgd(), initial_scale=256.0)

    before = weights(build(case, compiled=False))
    expected = eager_path(case)[0] - before
    precision(policy)
    got = fitted(case, steps=1, optimizer=optimizer, run_eagerly=True) - before
    relative = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert relative < 0.05


@pytest.mark.slow
@one_of_each
def test_float16_scales_the_loss_by_itself(case, precision):
    precision("mixed_float16")
    scheme = build(case)
    assert isinstance(scheme.optimizer, keras.optimizers.LossScaleOptimizer)
    before = weights(scheme)
    history = scheme.fit(dataset(), epochs=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(weights(scheme)).all()
    assert np.abs(weights(scheme) - before).max() > 1e-2


# Metrics.


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fast_gradient_l2", "fast_gradient_linf", "gat_shared"])
def test_an_epochs_metrics_are_those_of_all_its_images(case):
    """With a learning rate of 0 and a smaller last batch."""
    scheme = traced(case)
    for attribute in scheme._optimizers.values():
        getattr(scheme, attribute).learning_rate = 0.0
    history = scheme.fit(dataset(), verbose=0).history
    images, labels = schemes.arrays()
    if case == "gat_shared":
        attack = attacks.GeneratorAttack(scheme.generator, clip=None)
    else:
        attack = scheme.attack
    eta = attack.perturbation(scheme.classifier, images, labels).numpy()
    adversarial = images + eta if attack.clip is None else np.clip(images + eta, *attack.clip)
    expected, of_label = {}, {}
    for name, x in (("clean", images), ("adversarial", adversarial)):
        probabilities = scheme.classifier.predict(x, verbose=0).astype("float64")
        of_label[name] = probabilities[np.arange(len(labels)), labels]
        expected[f"{name}_loss"] = np.mean(-np.log(of_label[name]))
        expected[f"{name}_accuracy"] = np.mean(probabilities.argmax(1) == labels)
    power = np.sum(eta.astype("float64") ** 2, (1, 2, 3))
    expected["loss"] = np.mean([expected["clean_loss"], expected["adversarial_loss"]])
    expected["power"] = power.mean()
    if case == "gat_shared":
        with tf.GradientTape() as tape:
            x = tf.constant(images)
            tape.watch(x)
            total = tf.reduce_sum(tf.gather(scheme.classifier(x), labels, batch_dims=1))
        delta = tape.gradient(total, x).numpy()
        expected["generator_loss"] = np.mean(of_label["adversarial"] + 0.1 * power)
        expected["gradient_norm"] = np.mean(np.sqrt(np.sum(delta**2, (1, 2, 3))))
        of_zero = scheme.generator(np.zeros((1, *schemes.SHAPE), "float32")).numpy()
        expected["generator_bias_norm"] = np.linalg.norm(of_zero)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], [value], rtol=2e-5, err_msg=name)
    for p in (10, 50, 90):
        quantile = np.quantile(power, p / 100, method="inverted_cdf")
        np.testing.assert_allclose(history[f"power_p{p}"], [quantile], rtol=0.02)


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1.0, 1e4])
def test_quantiles_are_right_to_two_percent(scale):
    values = scale * np.random.default_rng(0).lognormal(sigma=2, size=5000).astype("float32")
    metric = Quantiles("power", (1, 10, 50, 90, 99))
    for part in np.split(values, [13, 1000, 4000]):
        metric.update_state(tf.constant(part))
    for name, value in metric.result().items():
        expected = np.quantile(
            values, int(name.removeprefix("power_p")) / 100, method="inverted_cdf"
        )
        np.testing.assert_allclose(value, expected, rtol=0.02)


def test_quantiles_of_zeros_are_zero_and_nan_counts_for_nothing():
    metric = Quantiles("power")
    metric.update_state(tf.zeros(10))
    assert [float(value) for value in metric.result().values()] == [0, 0, 0]
    metric.reset_state()
    metric.update_state(tf.constant([np.nan, 2.0, np.inf]))
    np.testing.assert_allclose(list(metric.result().values()), 2.0, rtol=0.02)


# Tracing and memory.


@pytest.mark.slow
@one_of_each
def test_a_step_is_traced_once_however_many_batches_and_epochs(case):
    """Whatever other tests have fitted it to."""
    scheme = traced(case)
    scheme.fit(dataset(35), epochs=3, verbose=0)
    scheme.fit(dataset(11), epochs=2, verbose=0)
    assert len(scheme.traces) == 1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gat_separate", "gat_shared"])
def test_memory_does_not_grow_with_the_number_of_steps(case):
    """What a step would keep is a batch of 0.4 MB, or an object of Python."""

    def used():
        gc.collect()
        return np.array([psutil.Process().memory_info().rss, len(gc.get_objects())])

    scheme = build(case)
    batches = dataset(2_000, 2_000).repeat()
    scheme.fit(batches, steps_per_epoch=10, epochs=2, verbose=0)
    sizes = [used()]
    for _ in range(2):  # the allocator may grow in one of the two, a leak grows in both
        scheme.fit(batches, steps_per_epoch=25, epochs=2, verbose=0)
        sizes.append(used())
    size, objects = np.diff(sizes, axis=0).min(axis=0)
    assert size < 50 * 0.4e6 / 2
    assert objects < 50


# GAT's minibatches.


def recorded(scheme):
    """Has the scheme's steps run eagerly, and returns the list of what each is fed with."""
    seen = []
    step = scheme.train_step

    def train_step(data):
        seen.append(tf.nest.map_structure(lambda t: t.numpy(), data))
        return step(data)

    scheme.train_step = train_step
    scheme.run_eagerly = True
    return seen


def sorted_images(images):
    flat = images.reshape(len(images), -1)
    return flat[np.lexsort(flat.T)]


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 2])
def test_an_epoch_is_one_pass_of_the_classifier_with_draws_for_each_step(draws):
    scheme = build("gat_separate", generator_steps=draws)
    seen = recorded(scheme)
    images, labels = schemes.arrays()
    scheme.fit(dataset(), epochs=2, verbose=0)
    assert len(seen) == 6
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for epoch in (seen[:3], seen[3:]):
        np.testing.assert_array_equal(np.concatenate([x for (x, _), _ in epoch]), images)
        np.testing.assert_array_equal(np.concatenate([y for (_, y), _ in epoch]), labels)
    for (x, _), drawn in seen:
        assert len(drawn) == draws
        for drawn_x, drawn_y in drawn:
            assert len(drawn_x) == len(drawn_y) == len(x)
            assert not np.array_equal(drawn_x, x)
            assert [label_of[image.tobytes()] for image in drawn_x] == list(drawn_y)


@pytest.mark.slow
def test_draws_differ_from_step_to_step_from_epoch_to_epoch_and_from_each_other():
    scheme = build("gat_separate", generator_steps=2)
    seen = recorded(scheme)
    scheme.fit(dataset(16), epochs=2, verbose=0)
    drawn = [images.tobytes() for _, draws in seen for images, _ in draws]
    assert len(drawn) == len(set(drawn)) == 8


@pytest.mark.slow
def test_draws_are_uniform_whatever_the_order_of_the_data():
    """Sorted data: the generator's first minibatches come from all of it."""
    labels = np.repeat(np.arange(3), 100)
    images = np.zeros((300, *schemes.SHAPE), "float32")
    ordered = tf.data.Dataset.from_tensor_slices((images, labels)).batch(30)
    first = [next(iter(with_draws(ordered, 1, seed)))[1][0][1].numpy() for seed in range(20)]
    counts = np.bincount(np.concatenate(first), minlength=3)
    assert counts.sum() == 600
    # Without order 200 each, give or take 11.
    assert np.abs(counts - 200).max() < 60


@pytest.mark.slow
def test_minibatches_that_the_user_has_drawn_are_taken_as_they_are():
    scheme = build("gat_separate", generator_steps=2)
    seen = recorded(scheme)
    data = schemes.pairs(draws=2)
    scheme.fit(data, verbose=0)
    for got, expected in zip(seen, data.as_numpy_iterator(), strict=True):
        for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(a, b)


# Bad input: a ValueError or TypeError that says what was expected and what was received.


def assert_short(error):
    message = str(error.value)
    assert "File " not in message, "a traceback instead of a message"
    assert len(message) < 700
    return message


def bad_images(value, size=24):
    images, labels = schemes.arrays(size)
    images[20] = value
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


def assert_outside(use):
    with pytest.raises(ValueError, match=r"Expected images within \[0.0, 1.0\]") as error:
        use()
    assert "Received: values from" in assert_short(error)


@pytest.mark.slow
@one_of_each
def test_images_outside_0_1_are_an_error_at_the_batch_that_has_them(case):
    assert_outside(lambda: traced(case).fit(bad_images(255.0), verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("value", [1.01, -0.01, np.nan])
def test_images_outside_0_1_are_an_error_in_evaluation_too(value):
    scheme = traced("fast_gradient_l2")
    assert_outside(lambda: scheme.evaluate(bad_images(value), verbose=0))
    assert_outside(lambda: scheme.fit(dataset(), validation_data=bad_images(value), verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["classifier", "generator"])
def test_images_outside_0_1_are_an_error_in_minibatches_drawn_by_the_user_too(which):
    data = (bad_images(255.0), (dataset(24),))
    if which == "generator":
        data = (dataset(24), (bad_images(255.0),))
    with pytest.raises(ValueError, match=r"Expected images within \[0.0, 1.0\]") as error:
        traced("gat_separate").fit(tf.data.Dataset.zip(data), verbose=0)
    assert_short(error)


@one_of_each
def test_labels_that_are_no_classes_are_an_error(case):
    images, labels = schemes.arrays()
    expected = r"Expected labels from 0 to 2.*Received: labels from 1 to 3"
    with pytest.raises(ValueError, match=expected) as error:
        traced(case).fit(images, labels + 1, verbose=0)
    assert_short(error)
    with pytest.raises(ValueError, match=r"Expected integer labels.*pass their argmax") as error:
        traced(case).fit(images, keras.utils.to_categorical(labels), verbose=0)
    assert_short(error)
    with pytest.raises(ValueError, match="uint8 images; divide them by 255") as error:
        traced(case).fit((255 * images).astype("uint8"), labels, verbose=0)
    assert_short(error)


def images_and_labels():
    images, labels = schemes.arrays()
    return images, labels, tf.data.Dataset.from_tensor_slices


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return schemes.arrays(8)


def structures():
    images, labels = schemes.arrays()
    slices = tf.data.Dataset.from_tensor_slices
    two = r"\(images, labels\)"
    return {
        "images only": (slices(images).batch(8), two),
        "triples": (slices((images, labels, labels)).batch(8), two),
        "a dictionary": (slices({"images": images, "labels": labels}).batch(8), two),
        "a PyDataset": (Sequence(), r"Received: Sequence"),
        "a generator": (iter([(images, labels)]), r"Received: list_iterator"),
        "nothing": (None, r"Received: NoneType"),
        "an array alone": (images, r"Received: ndarray and NoneType"),
        "pairs": (schemes.pairs(), two),
        "too many draws": (schemes.pairs(draws=2), two),
        "draws with weights": (
            slices(((images, labels), ((images, labels, labels),))).batch(8),
            two,
        ),
        "no batch": (slices((images, labels)), r"\[batch, height, width, channels\]"),
    }


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (case, name)
        for case in ("fast_gradient_l2", *WITH_GENERATOR)
        for name in structures()
        if (case, name) != ("gat_separate", "pairs")  # which is what it takes
    ],
)
def test_data_of_another_structure_are_an_error(case, name):
    data, expected = structures()[name]
    with pytest.raises(ValueError, match=expected) as error:
        traced(case).fit(data, verbose=0)
    assert re.search("Received", assert_short(error))


@one_of_each
def test_validation_data_of_another_structure_are_an_error(case):
    images, labels = schemes.arrays()
    weighted = images, labels, np.ones(len(labels))
    with pytest.raises(ValueError, match=r"\(images, labels\)") as error:
        traced(case).fit(dataset(), validation_data=weighted, verbose=0)
    assert_short(error)


@pytest.mark.parametrize(
    "argument",
    [
        {"validation_split": 0.1},
        {"class_weight": {0: 2.0}},
        {"sample_weight": np.ones(19)},
        {"validation_batch_size": 4},
    ],
    ids=lambda a: next(iter(a)),
)
def test_what_a_scheme_does_not_take_is_named(argument):
    with pytest.raises(ValueError, match=f"takes no `{next(iter(argument))}`"):
        traced("gat_shared").fit(*schemes.arrays(), verbose=0, **argument)


@one_of_each
def test_loss_and_metrics_are_the_schemes_own(case):
    scheme = build(case, compiled=False)
    with pytest.raises(
        TypeError, match=f"takes no loss, metrics.*defines {type(scheme).__name__}"
    ) as e:
        scheme.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    message = str(e.value)
    assert "it records loss, clean_loss" in message
    assert "training.RobustAccuracy" in message
    with pytest.raises(TypeError, match=r"takes no weighted_metrics\.$"):
        scheme.compile(weighted_metrics=["accuracy"])
    if list(scheme._optimizers) == ["optimizer"]:  # where the second is none
        with pytest.raises(TypeError, match=r"takes no loss\..*defines"):
            scheme.compile("adam", "sparse_categorical_crossentropy")


def test_no_batches_to_draw_from_are_named():
    with pytest.raises(ValueError, match="Received: a dataset without any"):
        traced("gat_separate").fit(dataset().take(0), verbose=0)


@one_of_each
def test_a_dataset_brings_its_labels_and_batches(case):
    with pytest.raises(ValueError, match="brings its labels and batches"):
        traced(case).fit(dataset(), batch_size=8, verbose=0)


@pytest.mark.parametrize("case", ["fast_gradient_l2", "gat_shared"])
def test_a_scheme_is_compiled_first(case):
    for use in ("fit", "evaluate"):
        with pytest.raises(ValueError, match=r"call `compile\(\)`"):
            getattr(build(case, compiled=False), use)(dataset(), verbose=0)


def unbuilt():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])


def logits_network():
    return keras.Sequential(
        [keras.Input(schemes.SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


@pytest.mark.parametrize("scheme", ["AdversarialTraining", "GAT"])
@pytest.mark.parametrize(
    ("network", "arguments", "error", "message"),
    [
        (schemes.classifier, {"alpha": 1.5}, ValueError, r"`alpha`.*\[0, 1\].*1.5"),
        (schemes.classifier, {"alpha": -0.1}, ValueError, r"`alpha`.*\[0, 1\].*-0.1"),
        (schemes.classifier, {"alpha": float("nan")}, ValueError, r"`alpha`.*nan"),
        (schemes.classifier, {"seed": -1}, ValueError, r"`seed`.*-1"),
        (schemes.classifier, {"from_logits": True}, ValueError, "Pass from_logits=False"),
        (logits_network, {}, ValueError, "Pass from_logits=True"),
        (unbuilt, {}, ValueError, "not built"),
        (lambda: "resnet", {}, TypeError, "Expected a Keras 3 model.*'resnet'"),
    ],
)
def test_bad_arguments_name_what_was_expected(scheme, network, arguments, error, message):
    parts = (attacks.FastGradient(0.1),) if scheme != "GAT" else (schemes.generator(), 0.1)
    network = network()
    with pytest.raises(error, match=message):
        getattr(training, scheme)(network, *parts, **arguments)


@pytest.mark.parametrize("attack", ["fgsm", None, attacks.FastGradient])
def test_adversarial_training_takes_attacks_alone(attack):
    with pytest.raises(TypeError, match=r"Expected an attack from gat_tf\.attacks"):
        training.AdversarialTraining(schemes.classifier(), attack)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c_g": -1.0}, r"`c_g`.*-1"),
        ({"c_g": float("nan")}, r"`c_g`.*nan"),
        ({"c_g": "0.1"}, r"`c_g`.*'0.1'"),
        ({"generator_steps": 0}, r"`generator_steps`.*at least 1.*0"),
        ({"generator_steps": 1.5}, r"`generator_steps`.*1.5"),
        ({"minibatches": "same"}, r"`minibatches`.*separate.*shared.*'same'"),
        (
            {"generator": models.perturbation_generator((8, 8, 3), 1 / 12)},
            r"\(4, 4, 3\).*\(8, 8, 3\)",
        ),
        ({"generator": keras.Sequential([keras.layers.Conv2D(3, 1)])}, "not built"),
    ],
)
def test_bad_arguments_of_gat_name_what_was_expected(arguments, message):
    arguments = {"generator": schemes.generator(), "c_g": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        training.GAT(schemes.classifier(), **arguments)
    with pytest.raises(TypeError, match="Expected a Keras model as generator"):
        training.GAT(schemes.classifier(), "generator", 0.1)


@pytest.mark.slow
def test_logits_taken_for_probabilities_are_an_error_at_the_first_batch():
    """Where the last layer, an average, tells nothing."""
    network = models.classifier(
        3, width=1 / 12, input_shape=schemes.SHAPE, classifier_activation=None
    )
    with pytest.raises(ValueError, match=r"look like logits.*Pass from_logits=True") as error:
        build("gat_shared", network).fit(dataset(), verbose=0)
    assert_short(error)


def test_wrong_from_logits_of_a_network_that_cannot_be_seen_into_is_an_error_at_the_first_batch():
    class Opaque(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = schemes.classifier()
            self(np.zeros((1, *schemes.SHAPE), "float32"))

        def call(self, images):
            return self.network(images)

    with pytest.raises(ValueError, match=r"look like probabilities.*Pass from_logits=False") as e:
        build("fast_gradient_l2", Opaque(), from_logits=True).fit(dataset(), verbose=0)
    assert_short(e)
