"""Image scores against closed forms, and the network behind them against calling it by hand."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import models
from gat_tf.evaluation import ScoreNetwork, class_diversity, frechet_distance, inception_score

SHAPE = (4, 4, 3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    """Seven images in [-1, 1]."""
    return rng.uniform(-1, 1, (7, *SHAPE)).astype("float32")


# Inception score


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_score_of_predictions_that_are_all_alike_is_one(rng, splits):
    for row in (np.full(5, 0.2), np.eye(5)[1], rng.dirichlet(np.ones(5))):
        assert inception_score(np.tile(row, (20, 1)), splits) == pytest.approx((1, 0))


@pytest.mark.parametrize(("classes", "splits"), [(2, 10), (10, 1), (10, 10)])
def test_score_of_sure_and_balanced_predictions_is_the_number_of_classes(classes, splits):
    balanced = np.tile(np.eye(classes, dtype="float32"), (splits, 1))
    assert inception_score(balanced, splits) == pytest.approx((classes, 0))


def test_score_by_brute_force(rng):
    p = rng.dirichlet(np.full(4, 0.5), 23)
    p[::5] = np.eye(4)[2]  # with zeros
    scores = []
    for part in (p[:6], p[6:12], p[12:18], p[18:]):
        marginal = sum(part) / len(part)
        divergences = [
            sum(a * (np.log(a) - np.log(b)) for a, b in zip(row, marginal, strict=True) if a)
            for row in part
        ]
        scores.append(np.exp(sum(divergences) / len(part)))
    assert inception_score(p, 4) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-12)
    assert np.std(scores) > 0.01


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.full((9, 2), 0.5), r"at least 10 images, one a part. Received: 9"),
        (np.ones((20, 2)), r"rows of numbers >= 0 that sum to 1.*\(20, 2\).*from 1.0 to 1.0"),
        (np.tile([1.5, -0.5], (20, 1)), r"Received: .*from -0.5 to 1.5"),
        (np.full((20, 2), np.nan), r"Received: .*nan"),
        (np.full(20, 0.5), r"\[images, classes\].*Received: an array of shape \(20,\)"),
    ],
    ids=["few", "sums", "negative", "nan", "one image"],
)
def test_what_is_no_probabilities_is_named(probabilities, message):
    with pytest.raises(ValueError, match=message):
        inception_score(probabilities)


def test_splits_are_a_number():
    with pytest.raises(ValueError, match="`splits` must be an integer of at least 1"):
        inception_score(np.full((4, 2), 0.5), 0)


# Fréchet distance


def _with_moments(rng, count, mean, covariance):
    """`[count, D]` rows with exactly that mean and unbiased covariance."""
    rows = rng.normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def _random_covariance(rng, dimensions):
    factor = rng.normal(size=(dimensions, dimensions))
    return factor @ factor.T + 0.1 * np.eye(dimensions)


@pytest.mark.parametrize("count", [50, 5], ids=["many", "fewer than dimensions"])
def test_distance_of_a_set_to_itself_is_zero(rng, count):
    features = 10 * rng.normal(size=(count, 12)).astype("float32")
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 1) == pytest.approx(12, abs=1e-4)


def test_distance_with_diagonal_covariances(rng):
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 0.3]), np.array([9.0, 0.25, 0.3])
    ours = _with_moments(rng, 40, np.zeros(3), np.diag(a))
    theirs = _with_moments(rng, 25, mean, np.diag(b))
    expected = np.sum(mean**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(theirs, ours) == pytest.approx(expected, rel=1e-9)


def test_distance_in_one_dimension():
    assert frechet_distance([[-1.0], [1.0]], [[1.0], [5.0]]) == pytest.approx(9 + 2)


def test_distance_with_covariances_that_do_not_commute(rng):
    a, b = _random_covariance(rng, 6), _random_covariance(rng, 6)
    assert np.abs(a @ b - b @ a).max() > 1
    ours = _with_moments(rng, 40, np.zeros(6), a)
    theirs = _with_moments(rng, 30, np.ones(6), b)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real
    expected = 6 + np.trace(a) + np.trace(b) - 2 * roots.sum()
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-9)


def test_distance_between_two_gaussians_from_their_samples(rng):
    a, b = _random_covariance(rng, 3), _random_covariance(rng, 3)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real
    expected = 3 * 4 + np.trace(a) + np.trace(b) - 2 * roots.sum()
    ours = rng.multivariate_normal(np.zeros(3), a, 20000)
    theirs = rng.multivariate_normal(np.full(3, 2.0), b, 20000)
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((1, 3)), r"at least two images. Received: an array of shape \(1, 3\)"),
        (np.ones(3), r"\[images, dimensions\].*Received: an array of shape \(3,\)"),
        (np.full((4, 3), np.inf), r"finite features.*Received: .*inf"),
        (np.ones((4, 2)), r"in the same dimensions. Received: [23] and [23]"),
    ],
    ids=["one image", "one dimension", "infinite", "dimensions"],
)
def test_features_without_a_distance_are_named(rng, features, message):
    good = rng.normal(size=(4, 3))
    for pair in ((features, good), (good, features)):
        with pytest.raises(ValueError, match=message):
            frechet_distance(*pair)


# Diversity


def test_diversity_over_all_pairs(rng):
    images = rng.uniform(-1, 1, (12, *SHAPE)).astype("float32")
    images[:3] *= 0.1
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 1, 0])
    expected = []
    for k in range(3):
        ours = images[labels == k].astype("float64")
        pairs = [(x, y) for i, x in enumerate(ours) for y in ours[:i]]
        expected.append(np.sqrt(np.mean([np.mean((x - y) ** 2) for x, y in pairs])))
    np.testing.assert_allclose(class_diversity(images, labels, 3), expected, rtol=1e-6)


def test_a_class_collapsed_to_one_image_has_no_diversity(images):
    collapsed = np.concatenate([np.repeat(images[:1], 7, axis=0), images])
    diversity = class_diversity(collapsed, np.repeat([0, 1], 7), 2)
    assert diversity[0] == 0
    assert diversity[1] > 0.5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0, 1, 1, 1, 2], "at least two images of every class. Received: 1 of class 2"),
        ([0, 0, 0, 1, 1, 1, 1], "Received: 0 of class 2"),
        ([0, 0, 1, 1, 2, 2, 3], "labels from 0 to 2. Received: labels from 0 to 3"),
        ([0, 0, 1, 1, 2, 2], r"7 integer labels.*Received: int64 labels of shape \(6,\)"),
        ([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0], "integer labels.*Received: float64"),
    ],
    ids=["one", "none", "outside", "a label missing", "floats"],
)
def test_labels_without_a_diversity_are_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        class_diversity(images, np.array(labels), 3)


# The network


def _classifier(activation="softmax", shape=SHAPE):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(5, activation=activation),
        ]
    )


def _by_hand(model, inputs, features="pool"):
    both = keras.Model(model.inputs[0], [model.outputs[0], model.get_layer(features).output])
    return [part.numpy() for part in both(inputs, training=False)]


def _check(network, images, expected, **kwargs):
    for got, wanted in zip(network(images, **kwargs), expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_network_gives_probabilities_and_what_enters_the_last_layer(images, batch_size):
    model = _classifier()
    expected = _by_hand(model, images / 2 + 0.5)
    assert expected[1].shape == (7, 6)
    _check(ScoreNetwork(model), images, expected, batch_size=batch_size)


def test_images_may_come_a_few_at_a_time(images):
    network = ScoreNetwork(_classifier())
    expected = network(images)
    parts = [images[:3], images[3:4], images[4:]]
    _check(network, (part for part in parts), expected)
    _check(network, parts, expected, batch_size=2)


@pytest.mark.slow
def test_no_more_than_one_array_of_images_is_kept(images):
    """Each is gone when the next but one is asked for."""
    alive = []

    def arrays():
        for _ in range(5):
            array = images.copy()
            alive.append(weakref.ref(array))
            yield array
            del array
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 1

    probabilities, _ = ScoreNetwork(_classifier())(arrays())
    assert len(probabilities) == 5 * len(images)


@pytest.mark.slow
def test_samples_are_scored_without_all_being_there():
    g, labels = models.image_generator(3, width=1 / 32), np.arange(9) % 3
    network = ScoreNetwork(_classifier(shape=(32, 32, 3)))
    places, batches = zip(*models.sample_batches(g, labels, batch_size=4), strict=True)
    got = network(batch for batch in batches)
    whole = network(models.sample(g, labels, batch_size=4)[np.concatenate(places)])
    for a, b in zip(got, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_network_of_logits(images):
    model = _classifier(activation=None)
    logits, features = _by_hand(model, images / 2 + 0.5)
    network = ScoreNetwork(model, from_logits=True)
    _check(network, images, (tf.nn.softmax(logits), features))


@pytest.mark.parametrize("bounds", [(-1, 1), (0.0, 255.0)])
def test_network_is_given_images_in_its_bounds(images, bounds):
    model = _classifier()
    inputs = bounds[0] + (images + 1) / 2 * (bounds[1] - bounds[0])
    _check(ScoreNetwork(model, bounds=bounds), images, _by_hand(model, inputs))


def test_network_is_given_images_of_its_size(images):
    model = _classifier(shape=(9, 6, 3))
    expected = _by_hand(model, tf.image.resize(images, (9, 6)))
    _check(ScoreNetwork(model, bounds=(-1, 1)), images, expected)


def test_network_of_any_size_is_given_images_as_they_are(images):
    model = _classifier(shape=(None, None, 3))
    _check(ScoreNetwork(model, bounds=(-1, 1)), images, _by_hand(model, images))


def test_network_is_traced_once(images, monkeypatch):
    traces = []

    def spy(self, images):
        traces.append(images.shape)
        return of_batch(self, images)

    of_batch = ScoreNetwork._of_batch
    monkeypatch.setattr(ScoreNetwork, "_of_batch", spy)
    network = ScoreNetwork(_classifier())
    network(images, batch_size=3)
    network(np.zeros((2, 8, 8, 3), "float32"))
    assert len(traces) == 1


def test_features_of_a_convolution_are_averaged_over_the_positions(images):
    model = models.classifier(width=1 / 6, input_shape=SHAPE)
    probabilities, features = _by_hand(model, images / 2 + 0.5, "conv6")
    _check(ScoreNetwork(model), images, (probabilities, features.mean(axis=(1, 2))))


def test_network_inside_another(images):
    inner = _classifier(activation=None)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(2, -1), inner])
    model = keras.Model(model.inputs[0], keras.layers.Softmax()(model.outputs[0]))
    logits, features = _by_hand(inner, images)
    _check(ScoreNetwork(model), images, (tf.nn.softmax(logits), features))


def test_class_head_of_a_discriminator(images):
    both = models.discriminator(image_size=32, width=1 / 32)
    model = keras.Model(both.input, both.output["classes"])
    logits, features = _by_hand(model, tf.image.resize(images, (32, 32)), "features")
    network = ScoreNetwork(model, from_logits=True, bounds=(-1, 1))
    _check(network, images, (tf.nn.softmax(logits), features))


def test_description_names_network_and_preprocessing():
    model = _classifier(shape=(9, 6, 3))
    expected = f"{model.name}; images resized bilinearly to 9x6, in [0, 1]"
    assert ScoreNetwork(model).description == expected
    model = _classifier(shape=(None, None, 3))
    network = ScoreNetwork(model, bounds=(-1, 1), name="judge.keras")
    assert network.description == "judge.keras; images at their own size, in [-1, 1]"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _classifier(activation=None), "Expected probabilities.*Pass from_logits=True"),
        (lambda: keras.Sequential([keras.layers.Dense(3, "softmax")]), "none can be seen"),
        (lambda: _without_weights(), "a last layer with weights.*none can be seen"),
        (lambda: _vector_classifier(), r"classifier of images.*shape \(None, 4\)"),
    ],
    ids=["logits", "not built", "no weights", "no images"],
)
def test_what_is_no_score_network_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        ScoreNetwork(build())


def _without_weights():
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax()]
    return keras.Sequential([keras.Input(SHAPE), *layers])


def _vector_classifier():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


def test_what_is_no_model_is_named():
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        ScoreNetwork(lambda x: x)


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), 1.0, None])
def test_bounds_are_low_and_high(bounds):
    with pytest.raises(ValueError, match=r"`bounds` as .low, high. with low < high. Received"):
        ScoreNetwork(_classifier(), bounds=bounds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 2, r"within \[-1, 1\]. Received: values from -"),
        (lambda x: x * np.nan, r"within \[-1, 1\]. Received: values from nan"),
        (lambda x: x.astype(int), r"floating-point images.*Received: int64"),
        (lambda x: x[0], r"\[images, height, width, channels\].*\(4, 4, 3\)"),
        (lambda x: x[..., :1], r"with 3 channels. Received: .*\(7, 4, 4, 1\)"),
        (lambda x: x[:0], r"at least one image.*\(0, 4, 4, 3\)"),
    ],
    ids=["range", "nan", "integers", "one image", "grey", "none"],
)
def test_images_that_cannot_be_scored_are_named(images, change, message):
    network = ScoreNetwork(_classifier())
    for spoilt in (change(images), [images, change(images)]):
        with pytest.raises(ValueError, match=message):
            network(spoilt)
    with pytest.raises(ValueError, match="at least one array of images"):
        network([])


def test_logits_taken_for_probabilities_are_found_where_the_end_cannot_be_seen(images):
    model = _classifier(activation=None)
    hidden = keras.layers.Activation("linear")(model.outputs[0])
    with pytest.raises(ValueError, match=r"Expected probabilities.*Pass from_logits=True"):
        ScoreNetwork(keras.Model(model.inputs[0], hidden))(images)


# Inception v3


def test_missing_inception_weights_are_explained(monkeypatch):
    def offline():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "InceptionV3", offline)
    with pytest.raises(RuntimeError) as caught:
        ScoreNetwork.inception_v3()
    message = str(caught.value)
    for part in (
        "Expected the imagenet weights of Inception v3",
        "~/.keras/models/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        "On a machine with network, run",
        "keras.applications.InceptionV3()",
        "any other Keras classifier: ScoreNetwork(model)",
        "Received: URL fetch failure",
    ):
        assert part in message


@pytest.mark.slow
def test_inception_sees_what_its_own_preprocessing_would_give(images, monkeypatch):
    model = keras.applications.InceptionV3(weights=None)
    monkeypatch.setattr(keras.applications, "InceptionV3", lambda: model)
    network = ScoreNetwork.inception_v3()
    assert "imagenet weights; images resized bilinearly to 299x299, in [-1, 1]" in (
        network.description
    )
    pixels = tf.image.resize((images[:2] + 1) * 127.5, (299, 299))
    inputs = keras.applications.inception_v3.preprocess_input(pixels)
    probabilities, features = _by_hand(model, inputs, "avg_pool")
    assert probabilities.shape == (2, 1000)
    assert features.shape == (2, 2048)
    _check(network, images[:2], (probabilities, features))
