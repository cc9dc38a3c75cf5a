"""The maths of the training schemes, against NumPy and against the plain formulas."""

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, models, training

RATE = 0.5
C_G = 0.3


class Linear:
    """A linear softmax classifier, by hand: F(x) = softmax(xW + b)."""

    def __init__(self, network):
        self.kernel, self.bias = (w.astype("float64") for w in network.get_weights())

    def probabilities(self, x):
        z = x.reshape(len(x), -1) @ self.kernel + self.bias
        z = np.exp(z - z.max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)

    def of_label(self, x, y):
        return self.probabilities(x)[np.arange(len(y)), y]

    def loss(self, x, y):
        return -np.log(self.of_label(x, y))

    def correct(self, x, y):
        return self.probabilities(x).argmax(1) == y

    def errors(self, x, y):
        return self.probabilities(x) - np.eye(self.kernel.shape[1])[y]

    def loss_slope(self, x, y):
        return (self.errors(x, y) @ self.kernel.T).reshape(x.shape)

    def delta(self, x, y):
        """dF(x)_y/dx, of the softmax itself."""
        p = self.of_label(x, y)[:, None]
        mean_column = self.probabilities(x) @ self.kernel.T
        return (p * (self.kernel.T[y] - mean_column)).reshape(x.shape)

    def update(self, x, perturbed, y, alpha):
        flat, flat_perturbed = x.reshape(len(x), -1), perturbed.reshape(len(x), -1)
        clean, adversarial = self.errors(x, y), self.errors(perturbed, y)
        kernel = alpha * flat.T @ clean + (1 - alpha) * flat_perturbed.T @ adversarial
        bias = (alpha * clean + (1 - alpha) * adversarial).sum(0)
        self.kernel = self.kernel - RATE * kernel / len(x)
        self.bias = self.bias - RATE * bias / len(x)


class Tanh:
    """A generator of one 1x1 convolution, by hand: G(d) = tanh(dK + c), pixel by pixel."""

    def __init__(self, network):
        kernel, self.bias = (w.astype("float64") for w in network.get_weights())
        self.kernel = kernel[0, 0]

    def __call__(self, delta):
        return np.tanh(delta @ self.kernel + self.bias)

    def loss(self, linear, x, y, delta):
        eta = self(delta)
        return linear.of_label(x + eta, y) + C_G * power(eta)

    def update(self, linear, x, y, delta):
        eta = self(delta)
        slope = (linear.delta(x + eta, y) + 2 * C_G * eta) * (1 - eta**2)
        self.kernel = self.kernel - RATE * np.einsum("bhwi,bhwo->io", delta, slope) / len(x)
        self.bias = self.bias - RATE * slope.sum((0, 1, 2)) / len(x)


def power(eta):
    return np.sum(eta**2, (1, 2, 3))


def batch(seed, size=5):
    images, labels = schemes.arrays(size, seed)
    return images, labels


def tensors(data):
    return tf.nest.map_structure(tf.constant, data)


def gat(minibatches="separate", alpha=0.5, generator_steps=1):
    scheme = training.GAT(
        schemes.classifier(hidden=0),
        schemes.generator(),
        C_G,
        alpha,
        generator_steps,
        minibatches,
    )
    scheme.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE))
    return scheme


def assert_updated(network, kernel, bias):
    got_kernel, got_bias = network.get_weights()
    np.testing.assert_allclose(got_kernel.reshape(kernel.shape), kernel, atol=2e-6)
    np.testing.assert_allclose(got_bias, bias, atol=2e-6)


def assert_logs(logs, **expected):
    for name, values in expected.items():
        np.testing.assert_allclose(float(logs[name]), np.mean(values), rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("generator_steps", [1, 2])
@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0])
def test_gat_with_separate_minibatches_is_algorithm_1(alpha, generator_steps):
    scheme = gat("separate", alpha, generator_steps)
    f, g = Linear(scheme.classifier), Tanh(scheme.generator)
    (x, y), draws = batch(0), [batch(1 + i) for i in range(generator_steps)]

    logs = scheme.train_step(tensors(((x, y), tuple(draws))))

    for drawn_x, drawn_y in draws:
        delta = f.delta(drawn_x, drawn_y)
        generator_loss = g.loss(f, drawn_x, drawn_y, delta)
        g.update(f, drawn_x, drawn_y, delta)
    delta = f.delta(x, y)
    eta = g(delta)
    clean, adversarial = f.loss(x, y), f.loss(x + eta, y)
    assert_logs(
        logs,
        generator_loss=generator_loss,
        clean_loss=clean,
        adversarial_loss=adversarial,
        loss=alpha * clean + (1 - alpha) * adversarial,
        clean_accuracy=f.correct(x, y),
        adversarial_accuracy=f.correct(x + eta, y),
        power=power(eta),
        gradient_norm=np.sqrt(power(delta)),
        generator_bias_norm=np.sqrt(16 * np.sum(np.tanh(g.bias) ** 2)),
    )
    f.update(x, x + eta, y, alpha)
    assert_updated(scheme.generator, g.kernel, g.bias)
    assert_updated(scheme.classifier, f.kernel, f.bias)


@pytest.mark.parametrize("generator_steps", [1, 2])
@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0])
def test_gat_with_a_shared_minibatch_uses_one_perturbation_for_both(alpha, generator_steps):
    scheme = gat("shared", alpha, generator_steps)
    f, g = Linear(scheme.classifier), Tanh(scheme.generator)
    x, y = batch(0)

    logs = scheme.train_step(tensors((x, y)))

    delta = f.delta(x, y)
    for _ in range(generator_steps - 1):
        g.update(f, x, y, delta)
    eta = g(delta)
    clean, adversarial = f.loss(x, y), f.loss(x + eta, y)
    generator_loss = g.loss(f, x, y, delta)
    g.update(f, x, y, delta)
    assert_logs(
        logs,
        generator_loss=generator_loss,
        clean_loss=clean,
        adversarial_loss=adversarial,
        loss=alpha * clean + (1 - alpha) * adversarial,
        clean_accuracy=f.correct(x, y),
        adversarial_accuracy=f.correct(x + eta, y),
        power=power(eta),
        gradient_norm=np.sqrt(power(delta)),
        generator_bias_norm=np.sqrt(16 * np.sum(np.tanh(g.bias) ** 2)),
    )
    f.update(x, x + eta, y, alpha)
    assert_updated(scheme.generator, g.kernel, g.bias)
    assert_updated(scheme.classifier, f.kernel, f.bias)


def test_gat_is_evaluated_by_eqs_9_and_10_and_trains_nothing():
    scheme = gat("separate", alpha=0.25)
    f, g = Linear(scheme.classifier), Tanh(scheme.generator)
    x, y = batch(0)
    before = schemes.weights(scheme)

    logs = scheme.test_step(tensors((x, y)))

    delta = f.delta(x, y)
    eta = g(delta)
    clean, adversarial = f.loss(x, y), f.loss(x + eta, y)
    assert_logs(
        logs,
        generator_loss=g.loss(f, x, y, delta),
        clean_loss=clean,
        adversarial_loss=adversarial,
        loss=0.25 * clean + 0.75 * adversarial,
        clean_accuracy=f.correct(x, y),
        adversarial_accuracy=f.correct(x + eta, y),
        power=power(eta),
        gradient_norm=np.sqrt(power(delta)),
    )
    np.testing.assert_array_equal(schemes.weights(scheme), before)


def test_generator_training_is_eq_9_and_leaves_the_classifier_alone():
    classifier = schemes.classifier(hidden=0)
    scheme = training.GeneratorTraining(classifier, schemes.generator(), C_G)
    scheme.compile(keras.optimizers.SGD(RATE))
    f, g = Linear(classifier), Tanh(scheme.generator)
    x, y = batch(0)
    before = schemes.vector(classifier)
    delta = f.delta(x, y)
    eta = g(delta)
    expected = {
        "loss": g.loss(f, x, y, delta),
        "generator_loss": g.loss(f, x, y, delta),
        "clean_loss": f.loss(x, y),
        "adversarial_loss": f.loss(x + eta, y),
        "clean_accuracy": f.correct(x, y),
        "adversarial_accuracy": f.correct(x + eta, y),
        "power": power(eta),
        "gradient_norm": np.sqrt(power(delta)),
    }

    def bias_norm():
        return np.sqrt(16 * np.sum(np.tanh(g.bias) ** 2))

    logs = scheme.test_step(tensors((x, y)))
    assert_logs(logs, generator_bias_norm=bias_norm(), **expected)
    scheme.reset_metrics()
    logs = scheme.train_step(tensors((x, y)))
    g.update(f, x, y, delta)
    assert_logs(logs, generator_bias_norm=bias_norm(), **expected)
    assert_updated(scheme.generator, g.kernel, g.bias)
    np.testing.assert_array_equal(schemes.vector(classifier), before)


def test_generator_training_has_the_papers_optimiser_by_default():
    scheme = training.GeneratorTraining(schemes.classifier(), schemes.generator(), C_G)
    scheme.compile()
    assert float(scheme.optimizer.learning_rate) == pytest.approx(1e-6)
    assert scheme.optimizer.epsilon == 1e-8


def test_the_generators_gradient_does_not_depend_on_the_batch_an_image_is_in():
    x, y = batch(0)
    deltas = []
    for images, labels in ((x, y), (x[:1], y[:1])):
        scheme = gat("shared")
        deltas.append(float(scheme.test_step(tensors((images, labels)))["gradient_norm"]))
    f = Linear(schemes.classifier(hidden=0))
    norms = np.sqrt(power(f.delta(x, y)))
    np.testing.assert_allclose(deltas, [norms.mean(), norms[0]], rtol=1e-5)


def fast_gradient(f, x, y, seed):
    return 0.5 * np.sign(f.loss_slope(x, y))


def fast_gradient_l2(f, x, y, seed):
    slope = f.loss_slope(x, y)
    return 0.5 * slope / np.sqrt(power(slope))[:, None, None, None]


def random_perturbation(f, x, y, seed):
    eta = attacks.RandomPerturbation(0.5).perturb(None, tf.constant(x), tf.constant(y), seed)
    np.testing.assert_allclose(power(eta.numpy()), 0.25, rtol=1e-5)
    return eta.numpy().astype("float64")


def generated(f, x, y, seed):
    return Tanh(schemes.generator())(f.delta(x, y))


ETAS = {
    "fast gradient, L-infinity": (
        lambda **k: attacks.FastGradient(0.5, np.inf, **k),
        fast_gradient,
    ),
    "fast gradient, L2": (lambda **k: attacks.FastGradient(0.5, 2, **k), fast_gradient_l2),
    "random": (lambda **k: attacks.RandomPerturbation(0.5, **k), random_perturbation),
    "generator": (lambda **k: attacks.GeneratorAttack(schemes.generator(), **k), generated),
}


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0])
@pytest.mark.parametrize("name", ETAS)
def test_adversarial_training_is_eqs_2_and_4(name, alpha, clip):
    attack, by_hand = ETAS[name]
    scheme = training.AdversarialTraining(
        schemes.classifier(hidden=0), attack(clip=clip), alpha, seed=7
    )
    scheme.compile(keras.optimizers.SGD(RATE))
    f = Linear(scheme.classifier)
    x, y = batch(0)
    # (seed, step), then the replica.
    seed = tf.random.fold_in(tf.constant([7, 0]), 0)

    logs = scheme.train_step(tensors((x, y)))

    eta = by_hand(f, x, y, seed)
    perturbed = x + eta if clip is None else np.clip(x + eta, *clip)
    clean, adversarial = f.loss(x, y), f.loss(perturbed, y)
    assert_logs(
        logs,
        clean_loss=clean,
        adversarial_loss=adversarial,
        loss=alpha * clean + (1 - alpha) * adversarial,
        clean_accuracy=f.correct(x, y),
        adversarial_accuracy=f.correct(perturbed, y),
        power=power(eta),
    )
    f.update(x, perturbed, y, alpha)
    assert_updated(scheme.classifier, f.kernel, f.bias)


def test_pgd_of_one_step_trains_as_the_fast_gradient():
    fast = training.AdversarialTraining(schemes.classifier(), attacks.FastGradient(0.5))
    pgd = attacks.PGD(0.5, steps=1, step_size=0.5, random_start=False)
    pgd = training.AdversarialTraining(schemes.classifier(), pgd)
    for scheme in (fast, pgd):
        scheme.compile(keras.optimizers.SGD(RATE))
        scheme.train_step(tensors(batch(0)))
    np.testing.assert_allclose(schemes.weights(pgd), schemes.weights(fast), atol=1e-6)


# The plain formulas, each gradient by a tape of its own.


def loss_of(network, images, labels, training):
    return -tf.math.log(tf.gather(network(images, training=training), labels, batch_dims=1))


def probability_slope(network, images, labels):
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(tf.gather(network(images, training=False), labels, batch_dims=1))
    return tape.gradient(total, images)


def loss_slope(network, images, labels):
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(loss_of(network, images, labels, False))
    return tape.gradient(total, images)


def apply_mean(optimizer, network, loss_function):
    variables = network.trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loss_function())
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def plain_generator_update(f, g, optimizer, images, labels):
    delta = probability_slope(f, images, labels)

    def loss():
        eta = g(delta, training=True)
        fooled = tf.gather(f(images + eta, training=False), labels, batch_dims=1)
        return fooled + C_G * tf.reduce_sum(eta**2, (1, 2, 3))

    apply_mean(optimizer, g, loss)


def plain_classifier_update(f, optimizer, images, labels, perturb):
    def loss():
        clean = loss_of(f, images, labels, True)
        perturbed = images + tf.stop_gradient(perturb())
        return 0.5 * clean + 0.5 * loss_of(f, perturbed, labels, True)

    apply_mean(optimizer, f, loss)


def plain_separate(f, g, f_optimizer, g_optimizer, data):
    (images, labels), ((drawn_images, drawn_labels),) = data
    plain_generator_update(f, g, g_optimizer, drawn_images, drawn_labels)
    plain_classifier_update(
        f, f_optimizer, images, labels, lambda: g(probability_slope(f, images, labels))
    )


def plain_shared(f, g, f_optimizer, g_optimizer, data):
    (images, labels), _ = data
    variables = [*g.trainable_variables]
    with tf.GradientTape() as g_tape, tf.GradientTape() as f_tape:
        clean = loss_of(f, images, labels, True)
        with g_tape.stop_recording(), f_tape.stop_recording():
            delta = probability_slope(f, images, labels)
        eta = g(delta, training=True)
        adversarial = loss_of(f, images + tf.stop_gradient(eta), labels, True)
        f_loss = tf.reduce_mean(0.5 * clean + 0.5 * adversarial)
        fooled = tf.gather(f(images + eta, training=False), labels, batch_dims=1)
        g_loss = tf.reduce_mean(fooled + C_G * tf.reduce_sum(eta**2, (1, 2, 3)))
    f_gradients = f_tape.gradient(f_loss, f.trainable_variables)
    g_optimizer.apply_gradients(zip(g_tape.gradient(g_loss, variables), variables, strict=True))
    f_optimizer.apply_gradients(zip(f_gradients, f.trainable_variables, strict=True))


def plain_fast_gradient(f, g, f_optimizer, g_optimizer, data):
    (images, labels), _ = data

    def perturb():
        slope = loss_slope(f, images, labels)
        return 0.5 * slope / tf.sqrt(tf.reduce_sum(slope**2, (1, 2, 3), keepdims=True))

    plain_classifier_update(f, f_optimizer, images, labels, perturb)


def plain_network():
    return models.classifier(schemes.CLASSES, width=1 / 12, input_shape=schemes.SHAPE)


def network_with_dropout_and_batch_norm():
    return keras.Sequential(
        [
            keras.Input(schemes.SHAPE),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.7),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.4, seed=11),
            keras.layers.Flatten(),
            keras.layers.Dense(schemes.CLASSES, "softmax"),
        ]
    )


def separate_scheme(f, g):
    return training.GAT(f, g, C_G)


def shared_scheme(f, g):
    return training.GAT(f, g, C_G, minibatches="shared")


def fast_gradient_scheme(f, g):
    return training.AdversarialTraining(f, attacks.FastGradient(0.5, clip=None))


@pytest.mark.parametrize("network", [plain_network, network_with_dropout_and_batch_norm])
@pytest.mark.parametrize(
    ("scheme", "plain"),
    [
        (separate_scheme, plain_separate),
        (shared_scheme, plain_shared),
        (fast_gradient_scheme, plain_fast_gradient),
    ],
)
def test_shared_passes_are_the_plain_formulas(scheme, plain, network):
    networks = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        networks.append((network(), schemes.generator()))
    (f, g), (plain_f, plain_g) = networks
    scheme = scheme(f, g)
    if isinstance(scheme, training.GAT):
        scheme.compile(schemes.adam(), schemes.adam())
    else:
        scheme.compile(schemes.adam())
    f_optimizer, g_optimizer = schemes.adam(), schemes.adam()
    start = schemes.vector(f)
    for step in range(3):
        data = tensors((batch(2 * step, 6), (batch(2 * step + 1, 6),)))
        separate = getattr(scheme, "minibatches", None) == "separate"
        scheme.train_step(data if separate else data[0])
        plain(plain_f, plain_g, f_optimizer, g_optimizer, data)
    assert np.abs(schemes.vector(f) - start).max() > 1e-2
    np.testing.assert_allclose(schemes.vector(f), schemes.vector(plain_f), atol=1e-5)
    np.testing.assert_allclose(schemes.vector(g), schemes.vector(plain_g), atol=1e-5)


@pytest.mark.parametrize("minibatches", ["separate", "shared"])
def test_dropout_draws_a_mask_for_the_clean_and_another_for_the_perturbed_images(minibatches):
    """Two training passes a step and no more: inference passes draw no masks."""
    f = network_with_dropout_and_batch_norm()
    (dropout,) = (layer for layer in f.layers if isinstance(layer, keras.layers.Dropout))
    drawn = []
    draw = dropout.seed_generator.next

    def counting(*args, **kwargs):
        drawn.append(1)
        return draw(*args, **kwargs)

    dropout.seed_generator.next = counting
    scheme = training.GAT(f, schemes.generator(), C_G, minibatches=minibatches)
    scheme.compile()
    data = tensors((batch(0), (batch(1),)))
    scheme.train_step(data if minibatches == "separate" else data[0])
    assert len(drawn) == 2


@pytest.mark.parametrize("case", ["fast_gradient_l2", "gat_separate", "gat_shared"])
def test_weight_regularisers_are_part_of_the_loss_of_their_network(case):
    """Plain SGD: the penalty λ·||W||² moves W by another -rate·2λW."""
    kernels = []
    for strength in (0.0, 0.1):
        regularizer = keras.regularizers.L2(strength) if strength else None
        f, g = schemes.classifier(0, regularizer), schemes.generator(regularizer)
        if case == "fast_gradient_l2":
            scheme = training.AdversarialTraining(f, attacks.FastGradient(0.5))
            scheme.compile(keras.optimizers.SGD(RATE))
        else:
            scheme = training.GAT(f, g, C_G, minibatches=case.removeprefix("gat_"))
            scheme.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE))
        start = f.get_weights()[0], g.get_weights()[0]
        data = tensors((batch(0), (batch(1),)))
        scheme.train_step(data if case == "gat_separate" else data[0])
        kernels.append((f.get_weights()[0], g.get_weights()[0]))
    (f_plain, g_plain), (f_penalised, g_penalised) = kernels
    if case != "gat_separate":  # where F is trained on what the penalised generator makes
        np.testing.assert_allclose(f_penalised - f_plain, -RATE * 0.2 * start[0], atol=1e-6)
    if case != "fast_gradient_l2":
        np.testing.assert_allclose(g_penalised - g_plain, -RATE * 0.2 * start[1], atol=1e-6)


@pytest.mark.parametrize("minibatches", ["separate", "shared"])
@pytest.mark.parametrize("frozen", ["classifier", "generator"])
def test_each_update_moves_its_own_network_alone(minibatches, frozen):
    scheme = training.GAT(schemes.classifier(), schemes.generator(), C_G, minibatches=minibatches)
    rates = {"classifier": 0.1, "generator": 0.1, frozen: 0.0}
    scheme.compile(
        keras.optimizers.SGD(rates["classifier"]), keras.optimizers.SGD(rates["generator"])
    )
    before = {name: schemes.vector(getattr(scheme, name)) for name in rates}
    data = tensors((batch(0), (batch(1),)))
    scheme.train_step(data if minibatches == "separate" else data[0])
    for name in rates:
        moved = np.abs(schemes.vector(getattr(scheme, name)) - before[name]).max()
        assert (moved == 0) == (name == frozen), name


def test_a_frozen_layer_stays_and_the_others_train():
    f = schemes.classifier()
    f.layers[-1].trainable = False
    scheme = schemes.build("gat_shared", f)
    before = f.get_weights()
    scheme.train_step(tensors(batch(0)))
    moved = [np.abs(a - b).max() > 0 for a, b in zip(before, f.get_weights(), strict=True)]
    assert moved == [True, True, False, False]


def test_logits_train_as_probabilities_do():
    f = schemes.classifier()
    of_logits = keras.models.clone_model(f)
    of_logits.layers[-1].activation = keras.activations.linear
    of_logits = keras.Sequential([keras.Input(schemes.SHAPE), *of_logits.layers])
    of_logits.set_weights(f.get_weights())
    for network, from_logits in ((f, False), (of_logits, True)):
        scheme = schemes.build("gat_shared", network, from_logits=from_logits)
        scheme.train_step(tensors(batch(0)))
    np.testing.assert_allclose(schemes.vector(of_logits), schemes.vector(f), atol=1e-6)
