"""The callback: what it writes is `evaluation.accuracy`, and other callbacks can go by it."""

import keras
import numpy as np
import pytest
import schemes
import tensorflow as tf

from gat_tf import attacks, evaluation, training

ATTACK = attacks.PGD(0.1, np.inf, 3)


class Expected(keras.callbacks.Callback):
    def __init__(self, data):
        super().__init__()
        self.data, self.values = data, []

    def on_epoch_end(self, epoch, logs=None):
        model = getattr(self.model, "classifier", self.model)
        self.values.append(evaluation.accuracy(model, self.data, ATTACK, seed=5))


def plain():
    model = schemes.classifier()
    model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, lambda: schemes.build("gat_shared")])
def test_logs_have_the_accuracy_under_attack_of_every_epoch(build, tmp_path):
    model, validation = build(), schemes.arrays(40, seed=1)
    expected, best = Expected(validation), tmp_path / "best.weights.h5"
    history = model.fit(
        schemes.dataset(),
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[
            training.RobustAccuracy(validation, ATTACK, seed=5),
            keras.callbacks.ModelCheckpoint(
                best, monitor="val_robust_accuracy", mode="max", save_best_only=True,
                save_weights_only=True,
            ),
            expected,
        ],
    ).history["val_robust_accuracy"]  # fmt: skip
    assert history == expected.values
    assert len(set(history)) > 1
    model.load_weights(best)
    classifier = getattr(model, "classifier", model)
    assert evaluation.accuracy(classifier, validation, ATTACK, seed=5) == max(history)


@pytest.mark.slow
def test_the_attack_is_traced_once_a_training(monkeypatch):
    traces = []

    class Spy(attacks.FastGradient):
        def perturb(self, *args):
            traces.append(1)
            return super().perturb(*args)

    robust = training.RobustAccuracy(schemes.dataset(), Spy(0.1), name="robust")
    history = plain().fit(*schemes.arrays(), epochs=3, verbose=0, callbacks=[robust]).history
    assert len(history["robust"]) == 3
    assert len(traces) == 1


def test_a_training_that_diverges_is_no_error_and_no_success():
    model = plain()
    model.layers[-1].kernel.assign(tf.fill(model.layers[-1].kernel.shape, np.nan))
    robust = training.RobustAccuracy(schemes.arrays(9), ATTACK)
    robust.set_model(model)
    robust.on_train_begin()
    logs = {}
    robust.on_epoch_end(0, logs)
    labels = schemes.arrays(9)[1]
    assert logs["val_robust_accuracy"] <= np.mean(labels == 0)  # where NaN's argmax is 0
