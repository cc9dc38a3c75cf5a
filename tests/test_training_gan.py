"""Rob-GAN and SN-GAN: the maths against plain formulas, and the Keras models around it."""

import re

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf
from schemes import pgd

from gat_tf import attacks, models, training
from gat_tf.training.gan import draw
from gat_tf.training.robgan import (
    attacked,
    discriminator_step,
    fake_loss,
    generator_step,
    real_loss,
)

LATENT = 5
BOUNDS = (-1, 1)

class_losses = pytest.mark.parametrize("class_loss", ["split", "split_equal", "acgan"])
both_class_losses = pytest.mark.parametrize("class_loss", ["split", "acgan"])


def robgan(attack=None, *args, normalised=False, **kwargs):
    d, g = schemes.discriminator(normalised), schemes.image_generator(BOUNDS, normalised)
    return training.RobGAN(d, g, attack, *args, **kwargs)


def sngan(**kwargs):
    d, g = schemes.projecting_discriminator(), schemes.image_generator(BOUNDS)
    return training.SNGAN(d, g, schemes.CLASSES, **kwargs)


CASES = {
    "robgan": lambda **k: robgan(pgd(random_start=True), **k),
    "robgan_acgan_2": lambda **k: robgan(None, "acgan", discriminator_steps=2, **k),
    "sngan_2": lambda **k: sngan(discriminator_steps=2, **k),
}
every_case = pytest.mark.parametrize("case", CASES)
NAMES = {"loss", "discriminator_loss", "generator_loss", "real_judged_real", "fake_judged_real"}


def metric_names(case):
    return NAMES | ({"adversarial_accuracy", "fake_accuracy"} if "robgan" in case else set())


def build(case, optimizer=schemes.adam, **kwargs):
    return compiled(CASES[case](**kwargs), optimizer)


def compiled(scheme, optimizer=schemes.adam, **kwargs):
    """Eager unless told otherwise: at this size a step is faster than its compilation."""
    scheme.compile(optimizer(), optimizer(), **{"run_eagerly": True, **kwargs})
    return scheme


def dataset(size=19, seed=0):
    """19 images make batches of 8, 8 and 3."""
    return schemes.dataset(size, seed=seed, low=-1.0)


def fitted(scheme, data=None, epochs=1, **kwargs):
    scheme.fit(data or dataset(), epochs=epochs, verbose=0, **kwargs)
    return schemes.weights(scheme)


# The losses.


def softplus(x):
    return np.logaddexp(0, x)


def cross_entropy(logits, labels):
    total = np.log(np.sum(np.exp(logits - logits.max(1, keepdims=True)), 1)) + logits.max(1)
    return total - logits[np.arange(len(labels)), labels]


REAL = np.array([[0.0], [2.0], [-3.0], [40.0]])
CLASSES = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [-30.0, 30.0, 0.0], [3.0, 3.0, -1.0]])
LABELS = np.array([2, 1, 0, 1])


def outputs():
    return {
        "real": tf.constant(REAL, tf.float32),
        "classes": tf.constant(CLASSES, tf.float32),
    }


def test_the_loss_of_reals_and_of_the_generator_is_half_and_half():
    expected = 0.5 * softplus(-REAL[:, 0]) + 0.5 * cross_entropy(CLASSES, LABELS)
    np.testing.assert_allclose(real_loss(outputs(), LABELS), expected, rtol=1e-6)
    # By hand: half of log 2 and half of log 3.
    np.testing.assert_allclose(expected[0], 0.5 * np.log(2) + 0.5 * np.log(3))


def test_the_loss_of_fakes_is_eq_9s_or_eq_8s():
    judged = softplus(REAL[:, 0])
    split = fake_loss(outputs(), LABELS, "split")
    np.testing.assert_allclose(split, judged, rtol=1e-6)
    expected = 0.5 * judged + 0.5 * cross_entropy(CLASSES, LABELS)
    np.testing.assert_allclose(fake_loss(outputs(), LABELS, "acgan"), expected, rtol=1e-6)


def test_the_split_loss_at_equal_weight_is_acgans_without_the_class():
    """So that the two differ in nothing but what the class head learns from fakes."""
    equal = fake_loss(outputs(), LABELS, "split_equal")
    np.testing.assert_allclose(equal, 0.5 * softplus(REAL[:, 0]), rtol=1e-6)
    difference = fake_loss(outputs(), LABELS, "acgan") - equal
    np.testing.assert_allclose(difference, 0.5 * cross_entropy(CLASSES, LABELS), rtol=1e-5)


@class_losses
def test_the_class_head_learns_from_fakes_under_acgans_loss_alone(class_loss):
    d = schemes.discriminator()
    (x, y), (fakes, c) = batch(0), batch(1)
    other_fakes, other_c = batch(2)
    gradients = [
        named(d, discriminator_step(d, x, y, *fake, class_loss).gradients)
        for fake in ((fakes, c), (other_fakes, other_c))
    ]
    for name in ("classes/kernel", "classes/bias"):
        same = np.array_equal(gradients[0][name], gradients[1][name])
        assert same == (class_loss != "acgan")
    assert not np.array_equal(gradients[0]["real/kernel"], gradients[1]["real/kernel"])
    with tf.GradientTape() as tape:
        loss = fake_loss(d(fakes), c, class_loss)
    of_head = tape.gradient(loss, d.get_layer("classes").trainable_variables)
    assert all((g is None) == (class_loss != "acgan") for g in of_head)


def batch(seed, size=6):
    images, labels = schemes.arrays(size, seed, low=-1.0)
    return tf.constant(images), tf.constant(labels)


def named(network, gradients):
    return {v.path: g.numpy() for v, g in zip(network.trainable_variables, gradients, strict=True)}


# A step, by plain tapes and Keras's losses.


class RobGANByHand:
    def __init__(self, d, g, class_loss="split", attack=None):
        self.d, self.g, self.class_loss, self.attack = d, g, class_loss, attack

    def judge(self, images, labels):
        return self.d(images)

    def half_and_half(self, outputs, judgement, labels):
        target = tf.fill(outputs["real"].shape, judgement)
        return 0.5 * keras.losses.binary_crossentropy(
            target, outputs["real"], from_logits=True
        ) + 0.5 * keras.losses.sparse_categorical_crossentropy(
            labels, outputs["classes"], from_logits=True
        )

    def of_real(self, outputs, labels):
        return self.half_and_half(outputs, 1.0, labels)

    def of_fake(self, outputs, labels):
        if self.class_loss == "acgan":
            return self.half_and_half(outputs, 0.0, labels)
        zeros = tf.zeros_like(outputs["real"])
        weight = 0.5 if self.class_loss == "split_equal" else 1.0
        return weight * keras.losses.binary_crossentropy(zeros, outputs["real"], from_logits=True)

    def of_generator(self, outputs, labels):
        return self.half_and_half(outputs, 1.0, labels)

    def attacked(self, images, labels):
        if self.attack is None:
            return images
        x, low, high = images, images - self.attack.epsilon, images + self.attack.epsilon
        for _ in range(self.attack.steps):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = self.of_real(self.judge(x, labels), labels)
            x = x + self.attack.step_size * tf.sign(tape.gradient(loss, x))
            x = tf.clip_by_value(tf.clip_by_value(x, low, high), -1, 1)
        return x

    def step(self, minibatches, draws):
        """Updates D on each minibatch and G at last; returns the values of the last losses."""
        for (images, labels), (noise, fake_labels) in zip(minibatches, draws[:-1], strict=True):
            images, fakes = self.attacked(images, labels), self.g([noise, fake_labels])
            with tf.GradientTape() as tape:
                loss = self.of_real(self.judge(images, labels), labels)
                loss += self.of_fake(self.judge(fakes, fake_labels), fake_labels)
                mean = tf.reduce_mean(loss)
            descend(self.d, tape, mean)
        noise, fake_labels = draws[-1]
        with tf.GradientTape() as tape:
            fakes = self.g([noise, fake_labels])
            generator_loss = tf.reduce_mean(
                self.of_generator(self.judge(fakes, fake_labels), fake_labels)
            )
        descend(self.g, tape, generator_loss)
        return {"discriminator_loss": mean, "generator_loss": generator_loss}


class SNGANByHand(RobGANByHand):
    def judge(self, images, labels):
        return self.d([images, labels])[:, 0]

    def of_real(self, outputs, labels):
        return tf.maximum(1 - outputs, 0)

    def of_fake(self, outputs, labels):
        return tf.maximum(1 + outputs, 0)

    def of_generator(self, outputs, labels):
        return -outputs


def descend(network, tape, loss, rate=0.1):
    variables = network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(rate * tf.convert_to_tensor(gradient))


def drawn(seed, step, discriminator_steps, size):
    streams = range(discriminator_steps + 1)
    return [
        draw(tf.zeros(size), LATENT, 3, tf.random.fold_in(tf.constant([seed, step]), i))
        for i in streams
    ]


def assert_steps_as(by_hand, scheme, size=6, steps=2, seed=4):
    """Of two steps: the weights, and the losses of each."""
    n = scheme.discriminator_steps
    scheme.compile(schemes.sgd(), schemes.sgd())
    for step in range(steps):
        minibatches = [batch(10 * step + i, size) for i in range(n)]
        data = minibatches[0]
        if n > 1:
            data = tuple(tf.stack(t, axis=1) for t in zip(*minibatches, strict=True))
        scheme.reset_metrics()
        logs = scheme.train_step(data)
        expected = by_hand.step(minibatches, drawn(seed, step, n, size))
        for name, value in expected.items():
            np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(logs["loss"], sum(expected.values()), rtol=1e-5)
        got = schemes.weights(scheme)
        np.testing.assert_allclose(got, schemes.vector(by_hand.d, by_hand.g), atol=1e-6)
    assert int(scheme.steps) == int(scheme.generator_optimizer.iterations) == steps
    assert int(scheme.optimizer.iterations) == n * steps


@pytest.mark.parametrize("discriminator_steps", [1, 3])
@pytest.mark.parametrize("attack", [None, pgd()], ids=["", "attack"])
@class_losses
def test_a_step_of_robgan_is_that_of_plain_tapes(class_loss, attack, discriminator_steps):
    by_hand = RobGANByHand(
        schemes.discriminator(), schemes.image_generator(BOUNDS), class_loss, attack
    )
    scheme = robgan(attack, class_loss, discriminator_steps=discriminator_steps, seed=4)
    assert_steps_as(by_hand, scheme)


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_a_step_of_sngan_is_that_of_plain_tapes(discriminator_steps):
    by_hand = SNGANByHand(schemes.projecting_discriminator(), schemes.image_generator(BOUNDS))
    assert_steps_as(by_hand, sngan(discriminator_steps=discriminator_steps, seed=4))


@both_class_losses
def test_the_pure_functions_give_the_gradients_of_sums_and_update_nothing(class_loss):
    d, g = schemes.discriminator(), schemes.image_generator(BOUNDS)
    by_hand = RobGANByHand(d, g, class_loss)
    before = schemes.vector(d, g)
    (x, y), (noise, c) = batch(0), drawn(0, 0, 1, 6)[0]
    fakes = g([noise, c])
    with tf.GradientTape(persistent=True) as tape:
        loss = by_hand.of_real(d(x), y) + by_hand.of_fake(d(fakes), c)
        generator_loss = by_hand.of_generator(d(g([noise, c])), c)
    step = discriminator_step(d, x, y, fakes, c, class_loss, loss_scale=8.0)
    assert_step(step, loss, tape.gradient(loss, d.trainable_variables), 8.0)
    step = generator_step(d, g, noise, c, loss_scale=8.0)
    assert_step(step, generator_loss, tape.gradient(generator_loss, g.trainable_variables), 8.0)
    np.testing.assert_array_equal(schemes.vector(d, g), before)


def assert_step(step, loss, gradients, scale):
    np.testing.assert_allclose(step.loss, loss, rtol=1e-5)
    for got, expected in zip(step.gradients, gradients, strict=True):
        got, expected = (tf.convert_to_tensor(t) for t in (got, expected))
        np.testing.assert_allclose(got, scale * expected, rtol=1e-4, atol=1e-5)


@every_case
@pytest.mark.parametrize("frozen", ["discriminator", "generator"])
def test_each_network_learns_with_its_own_optimiser_alone(case, frozen):
    scheme = CASES[case]()
    networks = {"discriminator": scheme.discriminator, "generator": scheme.generator}
    rates = {name: 0.0 if name == frozen else 0.1 for name in networks}
    scheme.compile(*(keras.optimizers.SGD(rates[name]) for name in networks), run_eagerly=True)
    before = {name: schemes.vector(network) for name, network in networks.items()}
    fitted(scheme, dataset(16))
    for name, network in networks.items():
        moved = np.abs(schemes.vector(network) - before[name]).max()
        assert (moved == 0) if name == frozen else (moved > 1e-3)


def test_sngan_judges_by_the_sign():
    scheme = build("sngan_2", schemes.sgd)
    images, labels = batch(0)
    logs = scheme.test_step((images, labels))
    noise, c = draw(images, LATENT, 3, [0, -1])
    real = scheme.discriminator([images, labels]).numpy()
    fake = scheme.discriminator([scheme.generator([noise, c]), c]).numpy()
    expected = {
        "discriminator_loss": np.mean(np.maximum(1 - real, 0) + np.maximum(1 + fake, 0)),
        "generator_loss": -np.mean(fake),
        "real_judged_real": np.mean(real > 0),
        "fake_judged_real": np.mean(fake > 0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)


def test_both_optimisers_are_the_papers_by_default():
    scheme = robgan()
    scheme.compile()
    for optimizer in (scheme.optimizer, scheme.generator_optimizer):
        config = optimizer.get_config()
        assert isinstance(optimizer, keras.optimizers.Adam)
        expected = {"learning_rate": 2e-4, "beta_1": 0, "beta_2": 0.9, "epsilon": 1e-8}
        assert {name: pytest.approx(config[name]) for name in expected} == expected
    assert scheme.optimizer is not scheme.generator_optimizer


# Noise and classes.


def test_noise_is_normal_and_classes_are_uniform():
    noise, labels = draw(tf.zeros(4000), 10, 4, [1, 2])
    assert (noise.shape, labels.shape) == ((4000, 10), (4000,))
    assert abs(np.mean(noise)) < 0.02
    assert abs(np.std(noise) - 1) < 0.02
    np.testing.assert_allclose(np.bincount(labels), 1000, atol=100)
    again, other = (draw(tf.zeros(4000), 10, 4, [1, i])[0] for i in (2, 3))
    np.testing.assert_array_equal(again, noise)
    assert np.abs(np.corrcoef(np.ravel(noise), np.ravel(other))[0, 1]) < 0.02


def test_every_update_has_noise_of_its_own():
    streams = [noise for step in range(3) for noise, _ in drawn(0, step, 2, 6)]
    assert len({noise.numpy().tobytes() for noise in streams}) == 9


# The attack.


@pytest.mark.parametrize("random_start", [False, True])
def test_the_attack_raises_the_loss_within_its_ball_and_changes_nothing(random_start):
    d = schemes.discriminator(normalised=True)
    d(batch(9, 40)[0], training=True)  # moves the statistics
    before = schemes.vector(d)
    images, labels = batch(0, 30)
    images = tf.concat([images, tf.ones((1, *schemes.SHAPE)), -tf.ones((1, *schemes.SHAPE))], 0)
    labels = tf.concat([labels, [0, 1]], 0)
    attack = pgd(epsilon=0.12, random_start=random_start)
    got = attacked(d, attack, images, labels, seed=[0, 1])
    assert np.abs(got - images).max() == pytest.approx(0.12, abs=1e-6)
    assert np.abs(got).max() <= 1
    clean, adversarial = (real_loss(d(x, training=False), labels) for x in (images, got))
    if not random_start:
        assert np.all(adversarial >= clean)
    assert np.mean(adversarial) > np.mean(clean) + 0.1
    assert np.abs(got[-2:] - images[-2:]).max() > 0.05
    np.testing.assert_array_equal(schemes.vector(d), before)


@pytest.mark.slow
def test_the_attack_is_the_plain_loop():
    d = schemes.discriminator()
    images, labels = batch(0)
    for attack in (pgd(), pgd(epsilon=0.02), pgd(epsilon=0.3, steps=7)):
        expected = RobGANByHand(d, None, attack=attack).attacked(images, labels)
        got = tf.function(attacked)(d, attack, images, labels)
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("norm", [2, np.inf])
def test_ascent_of_a_linear_loss_has_a_closed_form(norm):
    images, slope = batch(0)[0], batch(1)[0]
    attack = pgd(norm=norm, clip=None)
    got = attack.ascend(lambda x: tf.identity(slope), images)
    length = min(0.1, 3 * 0.05)
    direction = np.sign(slope)
    if norm == 2:
        direction = slope / np.sqrt(np.sum(slope**2, (1, 2, 3), keepdims=True))
    np.testing.assert_allclose(got, length * direction, atol=1e-6)
    short = pgd(norm=norm, clip=None, epsilon=1.0).ascend(lambda x: tf.identity(slope), images)
    np.testing.assert_allclose(short, 0.15 * direction, atol=1e-6)


def test_ascent_sees_the_images_where_they_are():
    """Of the sum of x^2/2, whose gradient is x: the ascent doubles it each time, and clips."""
    images = tf.fill((1, *schemes.SHAPE), 0.1)
    attack = attacks.PGD(5.0, np.inf, 3, step_size=0.2, random_start=False, clip=(-1, 0.6))
    seen = []
    got = attack.ascend(lambda x: seen.append(x[0, 0, 0, 0].numpy()) or x, images)
    np.testing.assert_allclose(seen, [0.1, 0.3, 0.5], atol=1e-6)
    np.testing.assert_allclose(got, 0.5, atol=1e-6)


@pytest.mark.slow
@both_class_losses
def test_an_attack_of_size_0_is_none(class_loss):
    results = []
    for attack in (None, pgd(epsilon=0.0)):
        scheme = compiled(robgan(attack, class_loss, normalised=True))
        results.append(fitted(scheme))
    np.testing.assert_array_equal(results[1], results[0])


def test_the_attack_makes_a_difference():
    results = [fitted(compiled(robgan(attack), schemes.sgd)) for attack in (None, pgd())]
    assert np.abs(results[1] - results[0]).max() > 1e-3


def test_batch_norm_learns_in_the_updates():
    """D sees reals, fakes and the generator's fakes in a step; G makes the latter two."""
    scheme = robgan(pgd(), normalised=True)
    scheme.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    calls = {}
    for network, expected in ((scheme.discriminator, 3), (scheme.generator, 2)):
        (norm,) = (x for x in network.layers if isinstance(x, keras.layers.BatchNormalization))
        norm.moving_variance.assign(tf.zeros_like(norm.moving_variance))
        norm.moving_variance.assign_add(tf.fill(norm.moving_variance.shape, 1e6))
        calls[norm] = expected
    scheme.train_step(batch(0))
    for norm, times in calls.items():
        # Each call halves it and adds little.
        np.testing.assert_allclose(norm.moving_variance, 1e6 / 2**times, rtol=1e-3)


@pytest.mark.parametrize("normalised", [False, True])
def test_d_sees_reals_and_fakes_in_one_pass_unless_batch_norm_would_mix_them(normalised):
    scheme = compiled(robgan(normalised=normalised), schemes.sgd)
    calls = counted_calls(scheme.discriminator)
    scheme.train_step(batch(0))
    assert calls == [6, 6, 6] if normalised else [12, 6]  # the last one is the generator's


def test_sngans_d_sees_reals_and_fakes_in_one_pass():
    scheme = compiled(sngan(discriminator_steps=1), schemes.sgd)
    calls = counted_calls(scheme.discriminator)
    scheme.train_step(batch(0))
    assert calls == [12, 6]


def counted_calls(network):
    """The number of images in each call."""
    calls, call = [], network.call

    def counted(inputs, **kwargs):
        calls.append(len(tf.nest.flatten(inputs)[0]))
        return call(inputs, **kwargs)

    network.call = counted
    return calls


# n_dis.


def recorded(scheme):
    """The list of what each step of an eager scheme is fed with."""
    seen = []
    step = scheme.train_step

    def train_step(data):
        seen.append(tf.nest.map_structure(lambda t: t.numpy(), data))
        return step(data)

    scheme.train_step = train_step
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("discriminator_steps", "groups"), [(2, 2), (3, 1), (4, 1)])
def test_each_update_of_d_has_a_minibatch_of_its_own(discriminator_steps, groups):
    scheme = compiled(robgan(discriminator_steps=discriminator_steps))
    seen = recorded(scheme)
    images, labels = schemes.arrays(35, low=-1.0)
    scheme.fit(dataset(35), epochs=2, verbose=0)
    assert len(seen) == 2 * groups
    for epoch in (seen[:groups], seen[groups:]):
        for i, (x, y) in enumerate(epoch):
            assert x.shape == (8, discriminator_steps, *schemes.SHAPE)
            first = 8 * discriminator_steps * i
            for j in range(discriminator_steps):
                ours = slice(first + 8 * j, first + 8 * j + 8)
                np.testing.assert_array_equal(x[:, j], images[ours])
                np.testing.assert_array_equal(y[:, j], labels[ours])
    assert int(scheme.optimizer.iterations) == 2 * groups * discriminator_steps
    assert int(scheme.generator_optimizer.iterations) == int(scheme.steps) == 2 * groups


def test_a_smaller_last_batch_in_a_group_is_filled_up_from_the_beginning():
    scheme = compiled(robgan(discriminator_steps=5))
    seen = recorded(scheme)
    images, _ = schemes.arrays(35, low=-1.0)
    scheme.fit(dataset(35), verbose=0)
    ((x, _),) = seen
    in_order = np.moveaxis(x, 1, 0).reshape(40, *schemes.SHAPE)
    np.testing.assert_array_equal(in_order, np.concatenate([images, images[:5]]))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["arrays", "dropped", "endless"])
def test_updates_are_counted_whatever_the_data(data):
    scheme = robgan(discriminator_steps=2)
    scheme.compile()
    images, labels = schemes.arrays(35, low=-1.0)
    if data == "arrays":
        scheme.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    elif data == "dropped":
        dropped = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, True)
        scheme.fit(dropped, epochs=2, verbose=0)
    else:
        scheme.fit(dataset(32).repeat(), epochs=2, steps_per_epoch=2, verbose=0)
    assert int(scheme.optimizer.iterations) == 8
    assert int(scheme.generator_optimizer.iterations) == int(scheme.steps) == 4


def test_too_few_batches_for_a_step_are_named():
    scheme = robgan(discriminator_steps=4)
    scheme.compile()
    with pytest.raises(ValueError, match=r"at least discriminator_steps=4 batches.*Received: 3"):
        scheme.fit(dataset(), verbose=0)


# Replicas.


@pytest.fixture(scope="module")
def two_replicas():
    return schemes.two_replicas()


def test_two_replicas_are_one(two_replicas):
    """The second's share of the last batch is empty."""
    assert_same_on_two(lambda: robgan(pgd()), 17, two_replicas)


def test_two_replicas_are_one_with_several_updates_of_d(two_replicas):
    assert_same_on_two(lambda: robgan(pgd(), "acgan", discriminator_steps=2), 35, two_replicas)


def assert_same_on_two(build, size, two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            scheme = build()
            scheme.compile(schemes.sgd(), schemes.sgd())
        history = scheme.fit(dataset(size), verbose=0).history
        evaluated = scheme.evaluate(dataset(size), verbose=0, return_dict=True)
        results.append((schemes.weights(scheme), {**history, "evaluated": evaluated["loss"]}))
    np.testing.assert_allclose(results[1][0], results[0][0], atol=1e-6)
    for name, values in results[0][1].items():
        np.testing.assert_allclose(results[1][1][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def spectral_discriminator():
    images, labels = keras.Input(schemes.SHAPE), keras.Input((), dtype="int32")
    normalised = models.SpectralNorm
    x = keras.layers.ReLU()(normalised(keras.layers.Conv2D(4, 3))(images))
    x = keras.layers.Flatten()(x)
    embedded = normalised(keras.layers.Embedding(schemes.CLASSES, 16))(labels)
    projection = keras.layers.Dot(-1)([x, embedded])
    judged = keras.layers.Add()([normalised(keras.layers.Dense(1))(x), projection])
    return keras.Model([images, labels], judged)


def test_two_replicas_normalise_spectra_as_one(two_replicas):
    def build():
        d, g = spectral_discriminator(), schemes.image_generator(BOUNDS)
        return training.SNGAN(d, g, schemes.CLASSES, discriminator_steps=1)

    assert_same_on_two(build, 19, two_replicas)


# Resuming and saving.


@pytest.mark.slow
@every_case
def test_loading_the_weights_goes_on_as_if_never_stopped(case, tmp_path):
    scheme = build(case)
    scheme.fit(dataset(), verbose=0)
    scheme.save_weights(tmp_path / "scheme.weights.h5")
    resumed = build(case)
    resumed.load_weights(tmp_path / "scheme.weights.h5")
    resumed.fit(dataset(), initial_epoch=1, epochs=2, verbose=0)
    np.testing.assert_array_equal(schemes.weights(resumed), fitted(build(case), epochs=2))


@pytest.mark.slow
def test_backup_and_restore_goes_on_as_if_never_stopped(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def callbacks():
        return [
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            training.LearningRateHalving(1, 1e-2),
        ]

    data = dataset(11)
    with pytest.raises(KeyboardInterrupt):
        fitted(build("robgan"), data, epochs=2, callbacks=[*callbacks(), Stop()])
    resumed = fitted(build("robgan"), data, epochs=2, callbacks=callbacks())
    expected = fitted(build("robgan"), data, epochs=2, callbacks=callbacks()[1:])
    np.testing.assert_array_equal(resumed, expected)


@pytest.mark.slow
@every_case
def test_a_scheme_saved_whole_goes_on_where_it_was(case, tmp_path):
    scheme = build(case, seed=7)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "scheme.keras")
    scheme.fit(dataset(), verbose=0, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "scheme.keras")
    assert type(loaded) is type(scheme)
    assert loaded.seed == 7
    assert loaded.discriminator_steps == scheme.discriminator_steps
    if "robgan" in case:
        assert loaded.class_loss == scheme.class_loss
        assert (loaded.attack is None) == (scheme.attack is None)
    np.testing.assert_array_equal(schemes.weights(loaded), schemes.weights(scheme))
    np.testing.assert_array_equal(fitted(loaded), fitted(scheme))
    for name in ("optimizer", "generator_optimizer"):
        iterations = [int(getattr(model, name).iterations) for model in (loaded, scheme)]
        assert iterations[0] == iterations[1] > 0


@pytest.mark.slow
@every_case
def test_the_seed_fixes_the_weights(case):
    data = dataset(16)
    first = fitted(build(case, seed=1), data)
    np.testing.assert_array_equal(fitted(build(case, seed=1), data), first)
    assert np.abs(fitted(build(case, seed=2), data) - first).max() > 1e-5


# The networks of the papers.


@pytest.mark.slow
def test_sngan_trains_its_network():
    """Every kernel moves by its gradient alone: a step of rate 0 leaves all of them."""
    d, g = models.projection_discriminator(10, 32, width=1 / 32), generator_of_32_pixels()
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    data = images, rng.integers(0, 10, 8)
    scheme = training.SNGAN(d, g, 10, discriminator_steps=1)
    before = [v.numpy() for v in d.trainable_variables]
    vectors = [v.numpy() for v in d.non_trainable_variables]
    scheme.compile(keras.optimizers.SGD(0.0), schemes.sgd(), run_eagerly=True)
    scheme.fit(*data, batch_size=4, verbose=0)
    for variable, value in zip(d.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    for variable, value in zip(d.non_trainable_variables, vectors, strict=True):
        assert np.abs(variable.numpy() - value).max() > 1e-3
    scheme.compile(schemes.sgd(), schemes.sgd())
    history = scheme.fit(*data, batch_size=4, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    for variable, value in zip(d.trainable_variables, before, strict=True):
        if not variable.path.endswith("bias"):  # the head's cancels: as many reals as fakes
            assert np.abs(variable.numpy() - value).max() > 1e-6, variable.path


def generator_of_32_pixels():
    noise, classes = keras.Input((4,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(4 * 4 * 3, "tanh")(noise)
    x = keras.layers.UpSampling2D(8)(keras.layers.Reshape((4, 4, 3))(x))
    return keras.Model([noise, classes], x)


# Keras.


@pytest.mark.slow
@every_case
def test_fit_and_evaluate_report_the_same_finite_metrics(case):
    scheme = build(case)
    before = schemes.weights(scheme)
    fit = {"validation_data": dataset(9, seed=1), "verbose": 0}
    history = scheme.fit(dataset(), epochs=2, **fit).history
    names = metric_names(case)
    assert set(history) == names | {f"val_{name}" for name in names}
    assert np.isfinite(list(history.values())).all()
    assert np.abs(schemes.weights(scheme) - before).max() > 1e-2
    after = schemes.weights(scheme)
    results = [scheme.evaluate(dataset(9, seed=1), verbose=0, return_dict=True) for _ in range(2)]
    assert results[0] == results[1]
    assert set(results[0]) == names
    last = {name: history[f"val_{name}"][-1] for name in names}
    for name, value in results[0].items():
        np.testing.assert_allclose(last[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(schemes.weights(scheme), after)


def test_evaluate_is_by_hand_on_attacked_images():
    scheme = robgan(pgd())
    scheme.compile()
    d = scheme.discriminator
    by_hand = RobGANByHand(d, scheme.generator, attack=scheme.attack)
    images, labels = batch(0)
    noise, c = draw(images, LATENT, 3, [0, -1])
    real = d(by_hand.attacked(images, labels))
    fake = d(scheme.generator([noise, c]))
    expected = {
        "discriminator_loss": by_hand.of_real(real, labels) + by_hand.of_fake(fake, c),
        "generator_loss": by_hand.of_real(fake, c),
        "adversarial_accuracy": np.argmax(real["classes"], 1) == labels,
        "fake_accuracy": np.argmax(fake["classes"], 1) == c,
        "real_judged_real": real["real"] > 0,
        "fake_judged_real": fake["real"] > 0,
    }
    logs = scheme.test_step((images, labels))
    for name, values in expected.items():
        np.testing.assert_allclose(logs[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_predict_gives_the_discriminators_outputs():
    scheme = build("robgan")
    images, _ = schemes.arrays(19, low=-1.0)
    got, expected = scheme.predict(images, verbose=0), scheme.discriminator(images)
    assert set(got) == {"real", "classes"}
    for name, values in got.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)


@pytest.mark.slow
def test_however_run_the_weights_are_the_same():
    expected = fitted(build("robgan", schemes.sgd), dataset(32))
    scheme = compiled(CASES["robgan"](), schemes.sgd, run_eagerly=False, steps_per_execution=2)
    np.testing.assert_allclose(fitted(scheme, dataset(32)), expected, atol=1e-5)


@pytest.mark.slow
def test_xla_takes_the_same_steps(monkeypatch):
    """XLA has random numbers of its own, so noise and classes are given."""
    noise, labels = tf.random.normal([8, 5], seed=1), tf.range(8) % schemes.CLASSES
    monkeypatch.setattr("gat_tf.training.gan.draw", lambda *_: (noise, labels))
    of_both = [
        fitted(
            compiled(robgan(pgd()), schemes.sgd, run_eagerly=False, jit_compile=jit), dataset(16)
        )
        for jit in (True, False)
    ]
    np.testing.assert_allclose(*of_both, atol=1e-5)
    assert np.abs(of_both[0] - schemes.weights(robgan(pgd()))).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("case", ["robgan", "robgan_acgan_2"])
def test_a_step_is_traced_once_however_many_batches_and_epochs(case):
    scheme = compiled(CASES[case](), run_eagerly=False)
    calls = []
    step = scheme.train_step
    scheme.train_step = lambda data: calls.append(1) or step(data)
    scheme.fit(dataset(), epochs=3, verbose=0)
    scheme.fit(dataset(19), verbose=0)
    assert len(calls) == 1


@pytest.fixture
def precision():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("case", ["robgan", "sngan_2"])
def test_mixed_precision_trains(case, policy, precision):
    def optimizer():
        sgd = schemes.sgd()
        if policy == "mixed_bfloat16":
            return sgd
        return keras.optimizers.LossScaleOptimizer(sgd, initial_scale=256.0)

    before = schemes.weights(build(case))
    expected = fitted(build(case, schemes.sgd), dataset(16)) - before
    precision(policy)
    scheme = build(case, optimizer)
    history = scheme.fit(dataset(16), verbose=0).history
    assert np.isfinite(list(history.values())).all()
    moved = schemes.weights(scheme) - before
    assert np.linalg.norm(moved - expected) / np.linalg.norm(expected) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("rival", ["robgan", "sngan"])
def test_the_papers_networks_train_in_bfloat16(rival, precision):
    precision("mixed_bfloat16")
    g = models.image_generator(10, 32, width=1 / 32)
    if rival == "robgan":
        scheme = training.RobGAN(models.discriminator(10, 32, width=1 / 32), g, pgd(steps=1))
    else:
        d = models.projection_discriminator(10, 32, width=1 / 32)
        scheme = training.SNGAN(d, g, 10, discriminator_steps=1)
    compiled(scheme)
    before = schemes.weights(scheme)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    logs = scheme.train_step((tf.constant(images), tf.range(4)))
    assert np.isfinite([float(value) for value in logs.values()]).all()
    after = schemes.weights(scheme)
    assert np.isfinite(after).all()
    assert np.mean(after != before) > 0.9
    assert {v.dtype for v in (*scheme.discriminator.weights, *g.weights)} == {"float32"}


@pytest.mark.slow
def test_float16_keeps_its_loss_scale_when_the_rate_halves(precision):
    precision("mixed_float16")
    scheme = build("robgan")
    callbacks = [training.LearningRateHalving(1, 1e-2)]
    history = scheme.fit(dataset(), epochs=3, verbose=0, callbacks=callbacks).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(schemes.weights(scheme)).all()
    for optimizer in (scheme.optimizer, scheme.generator_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert float(optimizer.dynamic_scale) >= 1024
        assert float(optimizer.learning_rate) == pytest.approx(2.5e-3)
        assert int(optimizer.iterations) > 0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_discriminator_that_is_sure_is_attacked_too(policy, precision):
    precision(policy)
    d = schemes.discriminator()
    d.get_layer("real").bias.assign([30.0])
    d.get_layer("classes").bias.assign([30.0, 0.0, 0.0])
    images, _ = batch(0)
    labels = tf.zeros(len(images), tf.int64)
    got = attacked(d, pgd(), images, labels)
    assert np.mean(np.abs(got - images) > 0.04) > 0.95


# Bad input: a ValueError or TypeError that says what was expected and what was received.


def assert_short(error):
    message = str(error.value)
    assert "File " not in message, "a traceback instead of a message"
    assert len(message) < 700
    assert re.search("Received", message)


both_steps = pytest.mark.parametrize("discriminator_steps", [1, 2])


@both_steps
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (2 * x, y), r"images within \[-1.0, 1.0\].*Received: values from -1.*to 1"),
        (lambda x, y: (np.where(x > 0.9, np.nan, x), y), r"images within \[-1.0, 1.0\]"),
        (lambda x, y: (x.astype("uint8"), y), r"floating-point images.*uint8"),
        (lambda x, y: (x, y + 1), r"labels from 0 to 2.*Received: labels from 1 to 3"),
        (lambda x, y: (x, y - 1), r"labels from 0 to 2.*Received: labels from -1 to 1"),
        (lambda x, y: (x, keras.utils.to_categorical(y)), "integer labels.*pass their argmax"),
        (lambda x, y: (x[:, :3], y), r"networks' shape \(4, 4, 3\).*Received: \(3, 4, 3\)"),
        (lambda x, y: (x[..., :1], y), r"networks' shape \(4, 4, 3\).*Received: \(4, 4, 1\)"),
    ],
)
def test_bad_data_are_named(spoil, message, discriminator_steps):
    scheme = compiled(robgan(discriminator_steps=discriminator_steps))
    images, labels = spoil(*schemes.arrays(35, low=-1.0))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    for use in (
        lambda: scheme.fit(data, verbose=0),
        lambda: scheme.fit(images, labels, batch_size=8, verbose=0),
        lambda: scheme.evaluate(data, verbose=0),
    ):
        with pytest.raises(ValueError, match=message) as error:
            use()
        assert_short(error)


def without_heads():
    images = keras.Input(schemes.SHAPE)
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))


def with_heads(**units):
    images = keras.Input(schemes.SHAPE)
    x = keras.layers.Flatten()(images)
    return keras.Model(images, {k: keras.layers.Dense(v)(x) for k, v in units.items()})


class Subclass(keras.Model):
    def call(self, images):
        return schemes.discriminator()(images)


@pytest.mark.parametrize(
    ("discriminator", "message"),
    [
        (without_heads, r"dictionary of logits, `real` \[B, 1\] and `classes`.*Received"),
        (lambda: with_heads(real=1, labels=3), r"`classes` \[B, K\].*Received.*labels"),
        (lambda: with_heads(real=2, classes=3), r"`real` \[B, 1\].*Received.*\(None, 2\)"),
        (Subclass, "Expected a functional discriminator"),
        (lambda: None, "Expected a functional discriminator"),
        (lambda: models.discriminator(3, width=1 / 64), r"\(32, 32, 3\).*\(4, 4, 3\)"),
        (lambda: with_heads(real=1, classes=4), "4 classes.*Received: one of 3 classes"),
    ],
)
def test_bad_discriminators_are_named(discriminator, message):
    with pytest.raises(ValueError, match=message) as error:
        training.RobGAN(discriminator(), schemes.image_generator(BOUNDS))
    assert_short(error)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (lambda: models.image_generator(3, width=1 / 64), r"\(4, 4, 3\).*\(32, 32, 3\)"),
        (schemes.generator, r"from \[noise \[B, Z\], labels \[B\]\]"),
        (schemes.discriminator, r"from \[noise \[B, Z\], labels \[B\]\]"),
    ],
)
def test_bad_generators_are_named(generator, message):
    with pytest.raises(ValueError, match=message) as error:
        training.RobGAN(schemes.discriminator(), generator())
    assert_short(error)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attack": "pgd"}, TypeError, "Expected attacks.PGD, or None.*'pgd'"),
        ({"attack": attacks.FastGradient(0.1, clip=BOUNDS)}, TypeError, "Expected attacks.PGD"),
        ({"attack": pgd(clip=(0, 1))}, ValueError, r"clip=\(-1, 1\).*clip=\(0, 1\)"),
        ({"attack": pgd(clip=None)}, ValueError, r"clip=\(-1, 1\).*clip=None"),
        ({"attack": pgd(targeted=True)}, ValueError, "untargeted.*targeted=True"),
        (
            {"attack": pgd(random_start=True, restarts=2)},
            ValueError,
            "without restarts.*restarts=2",
        ),
        ({"attack": pgd(early_stop=True)}, ValueError, "early_stop.*early_stop=True"),
        ({"class_loss": "eq9"}, ValueError, "`class_loss`.*split.*acgan.*'eq9'"),
        ({"discriminator_steps": 0}, ValueError, "`discriminator_steps`.*at least 1.*0"),
        ({"discriminator_steps": 1.5}, ValueError, "`discriminator_steps`.*1.5"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
    ],
)
def test_bad_arguments_of_robgan_are_named(arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        robgan(**arguments)
    assert_short(raised)


@pytest.mark.parametrize(
    ("discriminator", "classes", "message"),
    [
        (schemes.discriminator, 3, r"discriminator of \[images, labels\].*1 input"),
        (schemes.projecting_discriminator, 4, "4 classes.*Received: one of 3 classes"),
        (
            lambda: models.projection_discriminator(3, 32, width=1 / 64),
            3,
            r"\(32, 32, 3\).*\(4, 4, 3\)",
        ),
    ],
)
def test_bad_arguments_of_sngan_are_named(discriminator, classes, message):
    with pytest.raises(ValueError, match=message) as error:
        training.SNGAN(discriminator(), schemes.image_generator(BOUNDS), classes)
    assert_short(error)
