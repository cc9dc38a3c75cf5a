"""Gradients of images, against the ones of a linear model worked out in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gat_tf import attacks, gradients, losses
from gat_tf.gradients import classifier_pass, input_gradient
from gat_tf.logits import Logits, logits_of

SHAPE = (3, 2, 2)
D, K = 12, 4
rng = np.random.default_rng(3)
W = rng.normal(size=(D, K)).astype(np.float32)
b = rng.normal(size=K).astype(np.float32)
X = rng.random((6, *SHAPE), dtype=np.float32)
Y = np.array([0, 1, 2, 3, 1, 2])


@pytest.fixture(autouse=True, scope="module")
def _seed():
    """Once: TensorFlow throws away what is compiled with each seed."""
    keras.utils.set_random_seed(0)


def _expected(of, w=W, bias=b, x=X, y=Y):
    """dF_y/dx, dJ/dx and the margin's gradient for F = softmax(xW + b)."""
    z = x.reshape(len(x), -1).astype(np.float64) @ w + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p_y = p[np.arange(len(y)), y][:, None]
    grad_j = (p - np.eye(len(bias))[y]) @ w.T
    gradient = {
        "cross_entropy": grad_j,
        "probability": -p_y * grad_j,
        "margin": grad_j / (1 - p_y),
    }[of]
    return gradient.reshape(x.shape)


def _dense(activation=None):
    return [layers.Flatten(), layers.Dense(K, activation=activation)]


def _sequential(*members):
    return keras.Sequential([keras.Input(SHAPE), *members])


class Unseen(keras.Model):
    """A model whose end cannot be seen from outside."""

    def __init__(self, *members):
        super().__init__()
        self.members = members

    def call(self, x):
        for member in self.members:
            x = member(x)
        return x


class ProbabilitiesByHand(Unseen):
    """As `Unseen`, with probabilities that Keras knows nothing about."""

    def call(self, x):
        exp = tf.exp(super().call(x))
        return exp / tf.reduce_sum(exp, axis=-1, keepdims=True)


def _functional(inner):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, inner(inputs))


PROBABILITIES = {
    "dense": lambda: _sequential(*_dense("softmax")),
    "softmax layer": lambda: _sequential(*_dense(), layers.Softmax()),
    "softmax of TensorFlow": lambda: _sequential(*_dense(tf.nn.softmax)),
    "softmax of keras.ops": lambda: _sequential(*_dense(keras.ops.softmax)),
    "activation layer": lambda: _sequential(*_dense(), layers.Activation("softmax")),
    "ops": lambda: _functional(lambda x: keras.ops.softmax(_sequential(*_dense())(x))),
    "sequential in sequential": lambda: _sequential(_sequential(*_dense("softmax"))),
    "sequential in functional": lambda: _functional(_sequential(*_dense("softmax"))),
    "functional in sequential in functional": lambda: _functional(
        _sequential(_functional(_sequential(*_dense(), layers.Softmax())))
    ),
    "layers behind a model": lambda: _sequential(_sequential(*_dense()), layers.Softmax()),
    "unbuilt sequential": lambda: keras.Sequential(_dense("softmax")),
    "subclassed": lambda: Unseen(*_dense("softmax")),
    "subclassed, softmax layer": lambda: Unseen(*_dense(), layers.Softmax()),
    "subclassed, by hand": lambda: ProbabilitiesByHand(*_dense()),
    "subclassed in functional": lambda: _functional(Unseen(*_dense("softmax"))),
    "identity activation behind": lambda: _sequential(
        *_dense("softmax"), layers.Activation("linear")
    ),
}
LOGITS = {
    "dense": lambda: _sequential(*_dense()),
    "nested": lambda: _functional(_sequential(_sequential(*_dense()))),
    "average last": lambda: _sequential(
        layers.Flatten(), layers.Dense(K), layers.Reshape((1, 1, K)), layers.GlobalAvgPool2D()
    ),
    "unbuilt sequential": lambda: keras.Sequential(_dense()),
    "subclassed": lambda: Unseen(*_dense()),
}
MODELS = [(name, build, False) for name, build in PROBABILITIES.items()]
MODELS += [(name, build, True) for name, build in LOGITS.items()]
every_model = pytest.mark.parametrize(
    ("build", "from_logits"),
    [pytest.param(*m[1:], id=f"{'logits' if m[2] else 'probabilities'}: {m[0]}") for m in MODELS],
)


def _built(build, scale=1.0):
    model = build()
    model(X)
    model.set_weights([W * scale, b * scale])
    return model


@pytest.mark.parametrize("of", gradients.QUANTITIES)
@every_model
def test_gradient_is_the_one_worked_out_by_hand(build, from_logits, of):
    gradient = input_gradient(_built(build), X, Y, of=of, from_logits=from_logits)
    np.testing.assert_allclose(gradient, _expected(of), atol=2e-6)


def test_gradient_is_that_of_the_probability_by_default():
    gradient = input_gradient(_built(PROBABILITIES["dense"]), X, Y)
    np.testing.assert_allclose(gradient, _expected("probability"), atol=2e-6)


@every_model
def test_gradient_is_the_same_inside_a_compiled_function(build, from_logits):
    model = _built(build)

    @tf.function
    def compiled(images, labels):
        return input_gradient(model, images, labels, "cross_entropy", from_logits)

    np.testing.assert_allclose(compiled(X, Y), _expected("cross_entropy"), atol=2e-6)


@every_model
def test_the_model_computes_the_same_after_its_gradient_was_taken(build, from_logits):
    model = _built(build)
    before = model(X).numpy()
    input_gradient(model, X, Y, from_logits=from_logits)
    np.testing.assert_array_equal(model(X), before)


def test_gradient_follows_the_weights():
    model = _built(PROBABILITIES["dense"])
    input_gradient(model, X, Y)
    model.set_weights([2 * W, -b])
    expected = _expected("probability", 2 * W, -b)
    np.testing.assert_allclose(input_gradient(model, X, Y), expected, atol=2e-6)


def test_gradient_follows_layers_that_were_exchanged():
    model = _built(PROBABILITIES["dense"])
    input_gradient(model, X, Y)
    model.pop()
    model.add(layers.Rescaling(2.0))  # before the head too
    model.add(layers.Dense(2, activation="softmax"))
    w, bias = model.layers[-1].get_weights()
    labels = Y % 2
    expected = _expected("probability", 2 * w, bias, y=labels)
    np.testing.assert_allclose(input_gradient(model, X, labels), expected, atol=2e-6)


@pytest.mark.parametrize("of", gradients.QUANTITIES)
def test_each_images_gradient_is_its_own(trained, shapes, of):
    images, labels = shapes[0][:8], shapes[1][:8]
    together = input_gradient(trained, images, labels, of)
    alone = [input_gradient(trained, images[i : i + 1], labels[i : i + 1], of) for i in range(8)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    assert np.abs(together).max() > 1e-3


def test_gradient_is_that_of_inference(trained_with_state, shapes):
    images, labels = shapes[0][:4], shapes[1][:4]
    logits = keras.Sequential(trained_with_state.layers[:-1])
    head = trained_with_state.layers[-1]
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = logits(x, training=False) @ head.kernel + head.bias
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z)
    expected = tape.gradient(loss, x)
    gradient = input_gradient(trained_with_state, images, labels, "cross_entropy")
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def _overconfident(model, factor=3000.0):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    head = copy.get_layer("classes")
    for variable in (head.kernel, head.bias):
        variable.assign(variable * factor)
    return copy


def test_no_gradient_of_an_overconfident_network_is_zero(trained, shapes):
    images, labels = shapes[0][:100], shapes[1][:100]
    model = _overconfident(trained)
    # The network is as confident as float32 can say: J, and with it a naive dJ/dx, is zero.
    probabilities = model(images).numpy()[np.arange(100), labels]
    assert (probabilities == 1).sum() > 20
    for norm, size in ((2, 0.1), (np.inf, 0.1 * np.sqrt(16 * 16 * 3))):
        eta = attacks.FastGradient(0.1, norm).perturbation(model, images, labels)
        sizes = np.linalg.norm(np.reshape(eta, (100, -1)), axis=1)
        assert sizes.min() > 0.9 * size


@pytest.mark.parametrize(
    ("build", "from_logits"),
    [
        pytest.param(build, from_logits, id=name)
        for name, build, from_logits in MODELS
        # These hand out nothing but float32 probabilities of 0 and 1.
        if name not in ("subclassed, by hand", "identity activation behind")
    ],
)
def test_overconfidence_does_not_turn_the_fast_gradient(build, from_logits):
    labels = Y % 2
    w, bias = W.copy(), b.copy()
    w[:, 2:], bias[2:] = 0, -1e4  # two classes; the others are out of reach
    attack = attacks.FastGradient(0.5, 2)
    direction = (w[:, 1] - w[:, 0]) / np.linalg.norm(w[:, 1] - w[:, 0])
    expected = np.where(labels == 0, 0.5, -0.5)[:, None] * direction
    for scale in (1, 3000):
        model = _built(build)
        model.set_weights([w * scale, bias * scale])
        eta = attack.perturbation(model, X, labels, from_logits=from_logits)
        np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-6)


def test_margins_and_losses_are_the_formulas():
    z = rng.normal(size=(6, K)) * 3
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    p_y = p[np.arange(6), Y]
    margins = losses.margin(tf.constant(z), tf.constant(Y))
    np.testing.assert_allclose(margins, np.log((1 - p_y) / p_y), rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(margins), -np.log(p_y), rtol=1e-6)
    np.testing.assert_allclose(losses.probability(margins), p_y, rtol=1e-6)
    others = np.where(np.eye(K)[Y] == 1, -np.inf, z).max(axis=1)
    worst = losses.logit_margin(tf.constant(z), tf.constant(Y))
    np.testing.assert_allclose(worst, others - z[np.arange(6), Y], rtol=1e-6)
    correct = losses.is_correct(tf.constant(z), tf.constant(Y))
    np.testing.assert_array_equal(correct, z.argmax(axis=1) == Y)


def test_a_tie_counts_for_the_first_class():
    z = tf.constant([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(losses.is_correct(z, tf.constant([0, 1])), [True, False])


def test_margin_of_a_label_that_is_none_is_nan():
    margins = losses.margin(tf.zeros([3, K]), tf.constant([-1, 0, K]))
    np.testing.assert_array_equal(np.isnan(margins), [True, False, True])


def test_one_pass_gives_the_gradients_of_weights_and_images():
    model = _built(PROBABILITIES["dense"])
    logits = Logits(model)
    for scale in (1.0, 8.0):
        result = classifier_pass(logits, tf.constant(X), tf.constant(Y), True, loss_scale=scale)
        z = X.reshape(6, D).astype(np.float64) @ W + b
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        error = p - np.eye(K)[Y]
        np.testing.assert_allclose(result.loss, -np.log(p[np.arange(6), Y]), rtol=1e-5)
        np.testing.assert_allclose(result.probability, p[np.arange(6), Y], rtol=1e-5)
        np.testing.assert_array_equal(result.correct, z.argmax(axis=1) == Y)
        kernel, bias = result.weight_gradients
        np.testing.assert_allclose(kernel, scale * X.reshape(6, D).T @ error, atol=2e-5)
        np.testing.assert_allclose(bias, scale * error.sum(axis=0), atol=2e-5)
        np.testing.assert_allclose(result.input_gradient, _expected("cross_entropy"), atol=2e-6)


def test_the_image_gradient_of_a_confident_pass_keeps_its_direction():
    w, bias, labels = 3000 * W[:, :2], 3000 * b[:2], Y % 2
    model = _sequential(layers.Flatten(), layers.Dense(2, activation="softmax"))
    model.set_weights([w, bias])
    result = classifier_pass(Logits(model), tf.constant(X), tf.constant(labels), True)
    assert np.any(result.loss.numpy() == 0)  # whose J is too small for float32
    eta = attacks.FastGradient(0.5, 2).from_gradient(result.input_gradient)
    direction = (w[:, 1] - w[:, 0]) / np.linalg.norm(w[:, 1] - w[:, 0])
    expected = np.where(labels == 0, 0.5, -0.5)[:, None] * direction
    np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-6)


def test_the_image_gradient_of_a_pass_is_left_out_where_not_asked_for():
    logits = Logits(_built(PROBABILITIES["dense"]))
    assert classifier_pass(logits, tf.constant(X), tf.constant(Y), False).input_gradient is None


def test_number_of_classes_is_read_off_the_model():
    assert Logits(_built(PROBABILITIES["dense"])).num_classes == K
    assert logits_of(_built(LOGITS["average last"]), from_logits=True).num_classes == K


def test_logits_of_logits_are_the_same():
    logits = Logits(_built(PROBABILITIES["dense"]))
    assert logits_of(logits) is logits


def test_layers_that_look_at_training_are_found():
    assert Logits(_sequential(*_dense("softmax"))).same_in_training
    assert Logits(_sequential(layers.Dropout(0.0), *_dense("softmax"))).same_in_training
    assert not Logits(_sequential(layers.Dropout(0.1), *_dense("softmax"))).same_in_training
    nested = _functional(_sequential(layers.BatchNormalization(), *_dense("softmax")))
    assert not Logits(nested).same_in_training


# One output: two classes, with logits [0, z].

ONE_PROBABILITY = {
    "dense": lambda: _sequential(layers.Flatten(), layers.Dense(1, "sigmoid")),
    "activation layer": lambda: _sequential(
        layers.Flatten(), layers.Dense(1), layers.Activation("sigmoid")
    ),
    "ops": lambda: _functional(
        lambda x: keras.ops.sigmoid(_sequential(layers.Flatten(), layers.Dense(1))(x))
    ),
    "nested": lambda: _functional(
        _sequential(_sequential(layers.Flatten(), layers.Dense(1, "sigmoid")))
    ),
    "subclassed": lambda: Unseen(layers.Flatten(), layers.Dense(1, "sigmoid")),
    "subclassed, by hand": lambda: Unseen(layers.Flatten(), layers.Dense(1), _sigmoid_by_hand),
}
ONE_LOGIT = {
    "dense": lambda: _sequential(layers.Flatten(), layers.Dense(1)),
    "subclassed": lambda: Unseen(layers.Flatten(), layers.Dense(1)),
}
ONE_OUTPUT = [(name, build, False) for name, build in ONE_PROBABILITY.items()]
ONE_OUTPUT += [(name, build, True) for name, build in ONE_LOGIT.items()]
one_output = pytest.mark.parametrize(
    ("build", "from_logits"),
    [pytest.param(*m[1:], id=f"{'logit' if m[2] else 'sigmoid'}: {m[0]}") for m in ONE_OUTPUT],
)


def _sigmoid_by_hand(x):
    return 1 / (1 + tf.exp(-x))


def _one_output(build, scale=1.0):
    model = build()
    model(X)
    model.set_weights([scale * W[:, :1], scale * b[:1]])
    return model


@pytest.mark.parametrize("of", gradients.QUANTITIES)
@one_output
def test_one_output_is_the_second_of_two_logits(build, from_logits, of):
    model, labels = _one_output(build), Y % 2
    two = np.concatenate([np.zeros((D, 1)), W[:, :1]], axis=1), np.array([0, b[0]])
    gradient = input_gradient(model, X, labels, of=of, from_logits=from_logits)
    np.testing.assert_allclose(gradient, _expected(of, *two, y=labels), atol=2e-6)
    logits = Logits(model, from_logits)
    z = X.reshape(6, D) @ W[:, :1] + b[0]
    np.testing.assert_allclose(
        logits(tf.constant(X)), np.concatenate([0 * z, z], axis=1), atol=1e-5
    )
    assert logits.num_classes == (None if isinstance(model, Unseen) else 2)


@pytest.mark.parametrize("name", [name for name in ONE_PROBABILITY if "by hand" not in name])
def test_a_saturated_sigmoid_does_not_stop_the_fast_gradient(name):
    model, labels = _one_output(ONE_PROBABILITY[name], 3000.0), Y % 2
    assert set(np.unique(model(X))) <= {0.0, 1.0}
    eta = attacks.FastGradient(0.5, 2).perturbation(model, X, labels)
    direction = W[:, 0] / np.linalg.norm(W[:, 0])
    expected = np.where(labels == 0, 0.5, -0.5)[:, None] * direction
    np.testing.assert_allclose(np.reshape(eta, (6, D)), expected, atol=1e-6)


def test_labels_of_one_output_are_0_and_1():
    with pytest.raises(ValueError, match=r"labels from 0 to 1, for a classifier with 2 classes"):
        input_gradient(_one_output(ONE_PROBABILITY["dense"]), X, Y)


@pytest.mark.parametrize("name", ["dense", "nested", "subclassed"])
def test_one_sigmoid_is_not_taken_for_a_logit_nor_a_logit_for_one(name):
    with pytest.raises(ValueError, match=r"Expected logits.*Pass from_logits=False"):
        input_gradient(_one_output(ONE_PROBABILITY[name]), X, Y % 2, from_logits=True)
    if name in ONE_LOGIT:
        with pytest.raises(ValueError, match=r"Expected probabilities.*Pass from_logits=True"):
            input_gradient(_one_output(ONE_LOGIT[name], 10.0), X, Y % 2)


def test_a_softmax_over_one_output_is_no_classifier():
    model = _sequential(layers.Flatten(), layers.Dense(1, "softmax"))
    with pytest.raises(ValueError, match=r"always 1.*outputs of shape \(None, 1\)"):
        input_gradient(model, X, Y * 0)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda: _sequential(*_dense("sigmoid")),
        lambda: _functional(_sequential(*_dense(), layers.Activation("sigmoid"))),
        lambda: _functional(lambda x: keras.ops.sigmoid(_sequential(*_dense())(x))),
        lambda: Unseen(*_dense("sigmoid")),
    ],
    ids=["dense", "activation layer", "ops", "subclassed"],
)
def test_sigmoids_of_several_classes_are_refused(build, from_logits):
    with pytest.raises(ValueError, match=r"Multi-label classification.*is unsupported") as error:
        input_gradient(build(), X, Y, from_logits=from_logits)
    assert "Pass from_logits" not in str(error.value)


def test_multi_hot_labels_are_not_told_to_pass_their_argmax():
    model, one_hot = _built(PROBABILITIES["dense"]), np.eye(K)[Y]
    multi_hot = one_hot.copy()
    multi_hot[0, 3] = 1
    with pytest.raises(ValueError, match="pass their argmax") as error:
        input_gradient(model, X, one_hot)
    assert "Multi-label" not in str(error.value)
    with pytest.raises(ValueError, match="Multi-label classification") as error:
        input_gradient(model, X, multi_hot)
    assert "argmax" not in str(error.value)


def test_labels_may_be_a_column_as_in_keras_datasets():
    model = _built(PROBABILITIES["dense"])
    gradient = input_gradient(model, X, Y[:, None].astype(np.uint8))
    np.testing.assert_allclose(gradient, _expected("probability"), atol=2e-6)


def test_outputs_per_pixel_are_no_classification():
    with pytest.raises(ValueError, match=r"outputs \[batch, classes\].*\(6, 3, 2, 4\)"):
        input_gradient(_sequential(layers.Dense(K)), X, Y, from_logits=True)


def test_two_outputs_are_no_classifier():
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    model = keras.Model(inputs, [layers.Dense(K)(flat), layers.Dense(K)(flat)])
    with pytest.raises(ValueError, match=r"one input and one output.*with 1 and 2"):
        input_gradient(model, X, Y, from_logits=True)


def test_quantity_is_checked():
    with pytest.raises(ValueError, match=r"`of` must be one of .*Received: of='loss'"):
        input_gradient(_built(PROBABILITIES["dense"]), X, Y, of="loss")


def test_a_model_without_gradient_is_named():
    model = Unseen(layers.Flatten(), lambda x: tf.stop_gradient(x), layers.Dense(K))
    with pytest.raises(ValueError, match="has no gradient with respect to its images"):
        input_gradient(model, X, Y, from_logits=True)


@pytest.mark.parametrize("kind", ["seen", "unseen"])
def test_outputs_that_are_no_probabilities_are_not_taken_for_them(kind):
    build = _sequential if kind == "seen" else Unseen
    model = build(*_dense("relu"))
    with pytest.raises(ValueError, match=r"Expected probabilities.*from_logits=False"):
        input_gradient(model, X, Y)
