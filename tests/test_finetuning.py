"""Fine-tuning (eq. 10 of the Rob-GAN paper) against NumPy, and the Keras model around it."""

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf
from schemes import pgd

from gat_tf import attacks, models, training
from gat_tf.training.gan import draw

LATENT = 5
BOUNDS = (-1, 1)
RATE = 0.1


def classifier(hidden=8, normalised=False):
    """The class head of a small discriminator, or a linear one."""
    if hidden:
        return models.class_head(schemes.discriminator(normalised))
    softmax = schemes.classifier(hidden=0)
    linear = keras.Sequential(
        [keras.Input(schemes.SHAPE), keras.layers.Flatten(), keras.layers.Dense(schemes.CLASSES)]
    )
    linear.set_weights(softmax.get_weights())
    return linear


def fine_tuning(fake_weight=0.3, *, hidden=8, normalised=False, attack=None, **kwargs):
    f, g = classifier(hidden, normalised), schemes.image_generator(BOUNDS, normalised)
    scheme = training.FineTuning(f, g, attack or pgd(), fake_weight, **kwargs)
    return compiled(scheme)


def compiled(scheme, **kwargs):
    """Eager unless told otherwise: at this size a step is faster than its compilation."""
    scheme.compile(keras.optimizers.SGD(RATE), **{"run_eagerly": True, **kwargs})
    return scheme


def dataset(size=19):
    return schemes.dataset(size, low=-1.0)


def fitted(scheme, epochs=1, **kwargs):
    scheme.fit(dataset(), epochs=epochs, verbose=0, **kwargs)
    return schemes.vector(scheme.classifier)


def batch(seed, size=6):
    images, labels = schemes.arrays(size, seed, low=-1.0)
    return tf.constant(images), tf.constant(labels)


# Eq. 10.


class Linear:
    """A linear softmax classifier and PGD without random start on it, by hand."""

    def __init__(self, network):
        self.kernel, self.bias = (w.astype("float64") for w in network.get_weights())

    def probabilities(self, x):
        z = np.exp(x.reshape(len(x), -1) @ self.kernel + self.bias)
        return z / z.sum(1, keepdims=True)

    def errors(self, x, y):
        return self.probabilities(x) - np.eye(schemes.CLASSES)[y]

    def loss(self, x, y):
        return -np.log(self.probabilities(x)[np.arange(len(y)), y])

    def correct(self, x, y):
        return self.probabilities(x).argmax(1) == y

    def attacked(self, x, y, attack):
        clean = x
        for _ in range(attack.steps):
            x = x + attack.step_size * np.sign(self.errors(x, y) @ self.kernel.T).reshape(x.shape)
            x = np.clip(np.clip(x, clean - attack.epsilon, clean + attack.epsilon), -1, 1)
        return x

    def gradients(self, x, y):
        errors = self.errors(x, y)
        return x.reshape(len(x), -1).T @ errors / len(x), errors.mean(0)


@pytest.mark.parametrize("fake_weight", [0.3, 2.0, 0.0])
def test_a_step_is_eq_10(fake_weight):
    scheme = fine_tuning(fake_weight, hidden=0, seed=5)
    f = Linear(scheme.classifier)
    before = schemes.vector(scheme.generator)
    for step in range(2):
        images, labels = batch(step)
        noise, c = draw(images, LATENT, schemes.CLASSES, [5, step])
        fakes, c = scheme.generator([noise, c]).numpy().astype("float64"), c.numpy()
        scheme.reset_metrics()

        logs = scheme.train_step((images, labels))

        x, y = images.numpy().astype("float64"), labels.numpy()
        attacked = f.attacked(x, y, scheme.attack)
        attacked_fakes = f.attacked(fakes, c, scheme.attack)
        loss, fake_loss = f.loss(attacked, y), f.loss(attacked_fakes, c)
        expected = {
            "adversarial_loss": loss,
            "adversarial_accuracy": f.correct(attacked, y),
            "power": np.sum((attacked - x) ** 2, (1, 2, 3)),
        }
        if fake_weight:
            expected["loss"] = loss + fake_weight * fake_loss
            expected["fake_loss"] = fake_loss
            expected["fake_accuracy"] = f.correct(attacked_fakes, c)
        for name, values in expected.items():
            np.testing.assert_allclose(logs[name], np.mean(values), rtol=2e-5, err_msg=name)
        real, fake = f.gradients(attacked, y), f.gradients(attacked_fakes, c)
        f.kernel = f.kernel - RATE * (real[0] + fake_weight * fake[0])
        f.bias = f.bias - RATE * (real[1] + fake_weight * fake[1])
        for got, by_hand in zip(scheme.classifier.get_weights(), (f.kernel, f.bias), strict=True):
            np.testing.assert_allclose(got, by_hand, atol=1e-6)
    np.testing.assert_array_equal(schemes.vector(scheme.generator), before)


def test_it_is_evaluated_by_eq_10_and_trains_nothing():
    scheme = fine_tuning(hidden=0, seed=5)
    f = Linear(scheme.classifier)
    before = schemes.weights(scheme)
    images, labels = batch(0)
    logs = scheme.test_step((images, labels))
    noise, c = draw(images, LATENT, schemes.CLASSES, [5, -1])
    fakes, c = scheme.generator([noise, c]).numpy().astype("float64"), c.numpy()
    x, y = images.numpy().astype("float64"), labels.numpy()
    loss = f.loss(f.attacked(x, y, scheme.attack), y)
    fake_loss = f.loss(f.attacked(fakes, c, scheme.attack), c)
    np.testing.assert_allclose(logs["adversarial_loss"], loss.mean(), rtol=2e-5)
    np.testing.assert_allclose(logs["fake_loss"], fake_loss.mean(), rtol=2e-5)
    np.testing.assert_allclose(logs["loss"], np.mean(loss + 0.3 * fake_loss), rtol=2e-5)
    np.testing.assert_array_equal(schemes.weights(scheme), before)


@pytest.mark.slow
@pytest.mark.parametrize("random_start", [False, True])
def test_without_fakes_it_is_adversarial_training(random_start):
    attack = pgd(random_start=random_start)
    rival = training.AdversarialTraining(classifier(), attack, 0.0, from_logits=True, seed=3)
    expected = fitted(compiled(rival), epochs=2)
    scheme = compiled(training.FineTuning(classifier(), None, attack, 0.0, seed=3))
    np.testing.assert_allclose(fitted(scheme, epochs=2), expected, atol=1e-6)
    assert np.abs(fitted(fine_tuning(attack=attack, seed=3), epochs=2) - expected).max() > 1e-3


def test_the_generator_is_not_changed_and_the_body_of_d_is():
    """With batch norm in both: G's statistics stay, D runs in training mode but in the attack."""
    d, g = schemes.discriminator(normalised=True), schemes.image_generator(BOUNDS, normalised=True)
    scheme = compiled(training.FineTuning(models.class_head(d), g, pgd()))
    before = schemes.vector(g)
    judged = schemes.vector(d.get_layer("real"))
    (norm,) = (x for x in d.layers if isinstance(x, keras.layers.BatchNormalization))
    statistics = norm.moving_mean.numpy()
    fitted(scheme)
    np.testing.assert_array_equal(schemes.vector(g), before)
    np.testing.assert_array_equal(schemes.vector(d.get_layer("real")), judged)
    assert np.abs(norm.moving_mean.numpy() - statistics).max() > 1e-3
    # Twice a step: on attacked reals and on attacked fakes.
    norm.moving_variance.assign(tf.fill(norm.moving_variance.shape, 1e6))
    scheme.train_step(batch(0))
    np.testing.assert_allclose(norm.moving_variance, 1e6 / 4, rtol=1e-3)


# Fakes.


def fakes_of(scheme, steps, size=6):
    """The fakes of each step, as `train_step` makes them."""
    images, _ = batch(0, size)
    return [tuple(t.numpy() for t in scheme._fakes(images, step)) for step in range(steps)]


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_fakes_have_the_statistics_of_their_batch_or_the_generators(statistics):
    """By default the authors': with the moving ones, a last batch would decide how fakes look."""
    arguments = {} if statistics == "batch" else {"statistics": statistics}
    scheme = fine_tuning(normalised=True, seed=5, **arguments)
    copy = keras.models.clone_model(scheme.generator)
    copy.set_weights(scheme.generator.get_weights())
    noise, c = draw(batch(0)[0], LATENT, schemes.CLASSES, [5, 0])
    expected = copy([noise, c], training=statistics == "batch")
    ((fakes, labels),) = fakes_of(scheme, 1)
    np.testing.assert_allclose(fakes, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, c)
    # And it is these that the classifier learns from.
    logs = scheme.train_step(batch(0))
    (norm,) = (x for x in scheme.generator.layers if hasattr(x, "moving_mean"))
    norm.moving_mean.assign(norm.moving_mean + 3)
    again = fine_tuning(normalised=True, seed=5, **arguments)
    again.generator.set_weights(scheme.generator.get_weights())
    other = again.train_step(batch(0))
    assert (abs(float(other["fake_loss"] - logs["fake_loss"])) < 1e-6) == (statistics == "batch")


def test_fixed_fakes_are_as_many_as_asked_for_of_all_classes():
    scheme = fine_tuning(normalised=True, statistics="moving", fake_images=7, seed=5)
    fakes, labels = map(np.concatenate, zip(*fakes_of(scheme, 20), strict=True))
    different = {fake.tobytes(): label for fake, label in zip(fakes, labels, strict=True)}
    assert len(different) == 7
    assert sorted(different.values()) == [0, 0, 0, 1, 1, 2, 2]
    for fake, label in zip(fakes, labels, strict=True):
        assert different[fake.tobytes()] == label
    others = fine_tuning(normalised=True, statistics="moving", fake_images=7, seed=6)
    assert not {x.tobytes() for x in fakes_of(others, 1)[0][0]} & set(different)
    fresh, _ = map(np.concatenate, zip(*fakes_of(fine_tuning(seed=5), 20), strict=True))
    assert len({fake.tobytes() for fake in fresh}) == 120


def test_a_new_optimiser_brings_neither_the_old_fakes_nor_random_starts_back():
    scheme = fine_tuning(seed=5)
    seen, seeds, fakes = [], [], scheme._fakes

    def spied(images, step):
        seen.append(fakes(images, step))
        return seen[-1]

    scheme._fakes = spied
    for _ in range(2):
        compiled(scheme)  # its count begins again
        seeds.append(scheme._step_seed().numpy().tolist())
        scheme.train_step(batch(0))
    assert np.abs(seen[0][0] - seen[1][0]).max() > 0.1
    assert seeds[0] != seeds[1]
    assert (int(scheme.steps), int(scheme.optimizer.iterations)) == (2, 1)


# Keras.


@pytest.mark.slow
def test_evaluate_reports_what_fit_does_and_predict_gives_logits():
    scheme = fine_tuning()
    history = scheme.fit(dataset(), validation_data=dataset(9), verbose=0).history
    results = scheme.evaluate(dataset(9), verbose=0, return_dict=True)
    names = {
        "loss", "adversarial_loss", "adversarial_accuracy", "fake_loss", "fake_accuracy",
        "power", "power_p10", "power_p50", "power_p90",
    }  # fmt: skip
    assert set(results) == names
    assert set(history) == names | {f"val_{name}" for name in names}
    assert np.isfinite(list(history.values())).all()
    images, _ = schemes.arrays(9, low=-1.0)
    expected = scheme.classifier(tf.constant(images))
    np.testing.assert_allclose(scheme.predict(images, verbose=0), expected, atol=1e-6)


@pytest.mark.slow
def test_two_replicas_are_one():
    """The second's share of the last batch is empty."""
    results = []
    for strategy in (tf.distribute.get_strategy(), schemes.two_replicas()):
        with strategy.scope():
            scheme = compiled(fine_tuning(), run_eagerly=False)
        history = scheme.fit(dataset(17), verbose=0).history
        evaluated = scheme.evaluate(dataset(17), verbose=0, return_dict=True)
        results.append((schemes.weights(scheme), {**history, "evaluated": evaluated["loss"]}))
    np.testing.assert_allclose(results[1][0], results[0][0], atol=1e-6)
    for name, values in results[0][1].items():
        np.testing.assert_allclose(results[1][1][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_each_replica_has_the_statistics_of_its_fakes():
    """As in the authors' code on several devices; an empty share of a batch does no harm."""
    strategy = schemes.two_replicas()
    with strategy.scope():
        g = schemes.image_generator(BOUNDS, normalised=True)
        scheme = training.FineTuning(classifier(), g, pgd(), seed=5)
        scheme.compile(keras.optimizers.SGD(RATE))
    before = schemes.vector(g)

    @tf.function
    def fakes(images):
        return strategy.run(lambda x: scheme._fakes(x, 0)[0], (images,))

    (images, _), *_ = strategy.experimental_distribute_dataset(dataset(8))
    seen = [part.numpy() for part in strategy.experimental_local_results(fakes(images))]
    noise, labels = draw(np.zeros(8), LATENT, schemes.CLASSES, [5, 0])
    copy = schemes.image_generator(BOUNDS, normalised=True)
    for ours, part in ((slice(4), seen[0]), (slice(4, 8), seen[1])):
        expected = copy([noise[ours], labels[ours]], training=True)
        np.testing.assert_allclose(part, expected, atol=1e-5)
    history = scheme.fit(dataset(17), epochs=2, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert np.isfinite(schemes.weights(scheme)).all()
    np.testing.assert_array_equal(schemes.vector(g), before)


@pytest.mark.slow
@pytest.mark.parametrize("with_generator", [True, False])
def test_a_scheme_saved_whole_goes_on_where_it_was(with_generator, tmp_path):
    if with_generator:
        settings = {"statistics": "moving", "fake_images": 9, "seed": 7}
        scheme = fine_tuning(0.4, attack=pgd(random_start=True), **settings)
    else:
        scheme = compiled(training.FineTuning(classifier(), None, pgd(), 0.0, seed=7))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "scheme.keras")
    fitted(scheme, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "scheme.keras")
    assert type(loaded) is training.FineTuning
    assert (loaded.fake_weight, loaded.seed) == (scheme.fake_weight, 7)
    assert (loaded.statistics, loaded.fake_images) == (scheme.statistics, scheme.fake_images)
    assert (loaded.attack.steps, loaded.attack.epsilon) == (3, 0.1)
    assert (loaded.generator is None) != with_generator
    np.testing.assert_array_equal(schemes.weights(loaded), schemes.weights(scheme))
    np.testing.assert_array_equal(fitted(loaded), fitted(scheme))
    assert int(loaded.optimizer.iterations) == 6


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_takes_the_steps_of_float32(policy):
    def moved():
        scheme = fine_tuning()
        before = schemes.vector(scheme.classifier)
        if policy == keras.config.dtype_policy().name == "mixed_float16":
            sgd = keras.optimizers.SGD(RATE)
            optimizer = keras.optimizers.LossScaleOptimizer(sgd, initial_scale=256.0)
            scheme.compile(optimizer, run_eagerly=True)
        return fitted(scheme) - before

    expected = moved()
    keras.config.set_dtype_policy(policy)
    try:
        found = moved()
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_images_are_those_of_the_attacks_clip():
    scheme = fine_tuning()
    images, labels = schemes.arrays(8, low=-1.0)
    with pytest.raises(ValueError, match=r"images within \[-1, 1\].*Received: values from -1.99"):
        scheme.fit(2 * images, labels, verbose=0)


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"generator": None}, ValueError, "Expected a generator.*λ is not 0.*Received: None"),
        ({"generator": "g"}, ValueError, "Expected a generator.*'g'"),
        (
            {"attack": attacks.PGD(0.1, np.inf, targeted=True)},
            ValueError,
            "Expected an untargeted attack",
        ),
        (
            {"generator": models.image_generator(3, width=1 / 64)},
            ValueError,
            r"\(4, 4, 3\).*\(32, 32, 3\)",
        ),
        ({"generator": schemes.generator()}, ValueError, r"from \[noise \[B, Z\], labels \[B\]\]"),
        ({"attack": "pgd"}, TypeError, "Expected an attack from gat_tf.attacks.*'pgd'"),
        ({"attack": None}, TypeError, "Expected an attack from gat_tf.attacks.*None"),
        ({"fake_weight": -0.1}, ValueError, "`fake_weight`.*-0.1"),
        ({"statistics": "live"}, ValueError, "`statistics` must be one of.*batch.*'live'"),
        ({"fake_images": 0}, ValueError, "`fake_images`.*at least 1.*0"),
        ({"fake_weight": float("nan")}, ValueError, "`fake_weight`.*nan"),
        ({"from_logits": False}, ValueError, "Pass from_logits=True"),
        ({"classifier": schemes.classifier()}, ValueError, "Pass from_logits=False"),
        ({"classifier": schemes.discriminator()}, ValueError, "one output"),
        ({"classifier": "resnet"}, TypeError, "Expected a Keras 3 model.*'resnet'"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    arguments = {
        "classifier": classifier(),
        "generator": schemes.image_generator(BOUNDS),
        "attack": pgd(),
        **arguments,
    }
    with pytest.raises(error, match=message):
        training.FineTuning(**arguments)


def test_halving_of_two_rates_is_refused():
    callback = training.LearningRateHalving()
    with pytest.raises(ValueError, match=r"two optimisers, such as RobGAN.*FineTuning"):
        fine_tuning().fit(*schemes.arrays(8), verbose=0, callbacks=[callback])
