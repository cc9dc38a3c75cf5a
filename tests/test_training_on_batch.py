"""The training schemes one batch at a time, and what their optimizers and networks may be."""

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf
from schemes import build, traced, weights
from test_training_gan import build as build_gan

from gat_tf import training

ONE_MINIBATCH = ["fast_gradient_l2", "generator_training", "gat_shared"]


@pytest.mark.parametrize("case", ONE_MINIBATCH)
def test_a_batch_is_trained_on_as_in_fit(case):
    images, labels = schemes.arrays(schemes.BATCH)
    scheme = traced(case, optimizer=schemes.sgd)
    before = weights(scheme)
    found = scheme.train_on_batch(images, labels[:, None], return_dict=True)
    on_batch = weights(scheme)
    scheme = traced(case, optimizer=schemes.sgd)
    history = scheme.fit(images, labels, batch_size=schemes.BATCH, verbose=0).history
    fitted = {name: value for name, (value,) in history.items()}
    assert not np.array_equal(before, on_batch)
    np.testing.assert_allclose(on_batch, weights(scheme), atol=1e-6)
    assert found == pytest.approx(fitted, rel=1e-5)
    tested = scheme.test_on_batch(images, labels, return_dict=True)
    evaluated = scheme.evaluate(images, labels, return_dict=True, verbose=0)
    assert tested == pytest.approx(evaluated, rel=1e-5)


BAD = {
    "pixels": (lambda x, y: (255 * x, y), r"images within \[0\.0, 1\.0\].*divide by 255"),
    "classes": (lambda x, y: (x, y + 1), "labels from 0 to 2.*Received: labels from"),
    "one-hot": (lambda x, y: (x, np.eye(3)[y]), "integer labels.*pass their argmax"),
    "bytes": (lambda x, y: ((255 * x).astype("uint8"), y), "uint8 images; divide them by 255"),
    "number": (lambda x, y: (x, y[:5]), "one label per image: 8 Received: 5"),
    "no labels": (lambda x, y: (x, None), "its labels. Received: no labels"),
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("use", ["train_on_batch", "test_on_batch"])
def test_a_bad_batch_is_named_and_not_trained_on(use, fault):
    spoil, message = BAD[fault]
    scheme = traced("fast_gradient_l2")
    before = weights(scheme)
    with pytest.raises(ValueError, match=message):
        getattr(scheme, use)(*spoil(*schemes.arrays(schemes.BATCH)))
    np.testing.assert_array_equal(weights(scheme), before)


def test_steps_of_several_minibatches_are_for_fit():
    images, labels = schemes.arrays(schemes.BATCH)
    with pytest.raises(ValueError, match=r"GAT with minibatches='separate' .*use `fit`"):
        traced("gat_separate").train_on_batch(images, labels)
    gan = build_gan("robgan_acgan_2")
    with pytest.raises(ValueError, match=r"RobGAN with discriminator_steps=2 .*use `fit`"):
        gan.train_on_batch(images, labels)


def test_as_many_labels_as_images_are_expected():
    images, labels = schemes.arrays()
    with pytest.raises(ValueError, match="one label per image: 19 Received: 5"):
        traced("fast_gradient_l2").fit(images, labels[:5], verbose=0)


def averages(path, momentum):
    """Of the weights after each step; the first step's are the average then."""
    average = path[0]
    for values in path[1:]:
        average = [momentum * a + (1 - momentum) * v for a, v in zip(average, values, strict=True)]
    return average


def networks(scheme):
    names = ("classifier", "discriminator", "generator")
    return {name: getattr(scheme, name) for name in names if hasattr(scheme, name)}


@pytest.mark.parametrize("case", ["fast_gradient_l2", "generator_training", "gat_shared", "robgan"])
def test_every_network_ends_with_its_own_moving_averages(case):
    """`use_ema` of Keras's optimizers, whose averages `fit` puts in place at its end."""

    def optimizer():
        return keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.6)

    scheme = (build_gan if case == "robgan" else build)(case, optimizer=optimizer)
    path, first = [], {name: n.get_weights() for name, n in networks(scheme).items()}
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: path.append(
            {name: [v.numpy() for v in n.trainable_weights] for name, n in networks(scheme).items()}
        )
    )
    before = weights(scheme)
    scheme.fit(schemes.dataset(), epochs=0, verbose=0)  # there are no averages yet
    np.testing.assert_array_equal(weights(scheme), before)
    scheme.fit(schemes.dataset(), epochs=2, callbacks=[watch], verbose=0)
    for name, network in networks(scheme).items():
        if case == "generator_training" and name == "classifier":  # which is not trained
            expected = first[name]
        else:
            expected = averages([step[name] for step in path], 0.6)
        for ours, theirs in zip(network.trainable_weights, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


class Penalty(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.mean(x))
        return x


PENALTIES = {
    "activity_regularizer": lambda: keras.layers.Activation(
        "linear", activity_regularizer=keras.regularizers.L2(1.0)
    ),
    "add_loss": Penalty,
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("case", ["fast_gradient_l2", "awp", "gat_shared"])
def test_penalties_that_no_scheme_trains_on_are_refused(case, penalty):
    ours = schemes.classifier(regularizer=keras.regularizers.L2(0.1))
    network = keras.Sequential(
        [keras.Input(schemes.SHAPE), PENALTIES[penalty](), *ours.layers], name="penalised"
    )
    with pytest.raises(ValueError, match=r"weight regularisers\. Received: 'penalised', with an"):
        build(case, network).fit(schemes.dataset(), verbose=0)


def test_so_are_those_of_a_generator_that_is_trained():
    generator = schemes.generator()
    generator = keras.Sequential([keras.Input(schemes.SHAPE), Penalty(), *generator.layers])
    scheme = training.GeneratorTraining(schemes.classifier(), generator, 0.1)
    scheme.compile(schemes.sgd())
    with pytest.raises(ValueError, match=f"Received: {generator.name!r}, with an"):
        scheme.fit(schemes.dataset(), verbose=0)


def test_quotation_marks_of_an_error_in_a_graph_are_plain():
    from gat_tf import checks

    @tf.function
    def check(logits):
        return checks.finite(logits, logits, "mine")

    with (
        pytest.raises(ValueError, match="logits of the model 'mine'"),
        checks.readable_errors(),
    ):
        check(tf.constant([[float("nan")]]))
