"""The learning rates of Rob-GAN, its fine-tuning and SN-GAN, epoch by epoch and step by step."""

import keras
import numpy as np
import pytest
import schemes
from schemes import pgd

from gat_tf import models, training

BOUNDS = (-1, 1)


def robgan():
    d, g = schemes.discriminator(), schemes.image_generator(BOUNDS)
    return training.RobGAN(d, g, pgd(random_start=True))


def built():
    return compiled(robgan(), schemes.adam)


def fine_tuning(optimizer, **kwargs):
    classifier = models.class_head(schemes.discriminator())
    scheme = training.FineTuning(classifier, schemes.image_generator(BOUNDS), pgd(), **kwargs)
    scheme.compile(optimizer, run_eagerly=True)
    return scheme


def compiled(scheme, optimizer):
    """Eager: at this size a step is faster than its compilation."""
    scheme.compile(optimizer(), optimizer(), run_eagerly=True)
    return scheme


def dataset(size=19):
    return schemes.dataset(size, low=-1.0)


def fitted(scheme, data=None, epochs=1, **kwargs):
    scheme.fit(data or dataset(), epochs=epochs, verbose=0, **kwargs)
    return schemes.weights(scheme)


class Rates(keras.callbacks.Callback):
    """The learning rates of every epoch."""

    def __init__(self, *optimizers):
        super().__init__()
        self.optimizers, self.seen = optimizers, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([float(optimizer.learning_rate) for optimizer in self.optimizers])


# Halving.


@pytest.mark.slow
def test_the_rates_of_both_optimisers_halve():
    scheme = built()
    rates = Rates(scheme.optimizer, scheme.generator_optimizer)
    callbacks = [training.LearningRateHalving(2), rates]
    fitted(scheme, dataset(8), epochs=5, callbacks=callbacks)
    expected = [[rate, rate] for rate in (2e-4, 2e-4, 1e-4, 1e-4, 5e-5)]
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-6)


@pytest.mark.slow
def test_halving_restarts_the_optimisers():
    def adam(rate=0.1):
        return keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.9)

    scheme, expected = compiled(robgan(), adam), robgan()
    got = fitted(scheme, epochs=2, callbacks=[training.LearningRateHalving(1, 0.1)])
    for epoch, rate in enumerate((0.1, 0.05)):
        expected.compile(adam(rate), adam(rate), run_eagerly=True)
        expected.fit(dataset(), initial_epoch=epoch, epochs=epoch + 1, verbose=0)
    np.testing.assert_allclose(got, schemes.weights(expected), atol=1e-6)
    for optimizer in (scheme.optimizer, scheme.generator_optimizer):
        assert int(optimizer.iterations) == 3
    assert int(scheme.steps) == 6


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [2, 3])  # where the rate halves, and between
def test_halving_goes_on_from_the_initial_epoch(stopped, tmp_path):
    data = dataset(8)

    def callbacks():
        return [training.LearningRateHalving(2, 0.1)]

    scheme = built()
    fitted(scheme, data, epochs=stopped, callbacks=callbacks())
    scheme.save_weights(tmp_path / "scheme.weights.h5")
    resumed = built()
    resumed.load_weights(tmp_path / "scheme.weights.h5")
    got = fitted(resumed, data, epochs=4, initial_epoch=stopped, callbacks=callbacks())
    expected = fitted(built(), data, epochs=4, callbacks=callbacks())
    np.testing.assert_array_equal(got, expected)


# Stages.


@pytest.mark.slow
def test_each_stage_divides_the_rate_by_ten():
    scheme = fine_tuning(schemes.adam())
    rates = Rates(scheme.optimizer)
    callbacks = [training.LearningRateStages((2, 0, 1, 1)), rates]
    fitted(scheme, dataset(8), epochs=6, callbacks=callbacks)
    expected = [1e-3, 1e-3, 1e-5, 1e-6, 1e-6, 1e-6]
    np.testing.assert_allclose(np.ravel(rates.seen), expected, rtol=1e-5)


@pytest.mark.slow
def test_each_stage_is_a_new_adam():
    """The fakes and the attacks go on: only the optimiser begins again."""
    scheme, expected = (fine_tuning(keras.optimizers.Adam(0.1)) for _ in range(2))
    got = fitted(scheme, epochs=3, callbacks=[training.LearningRateStages((2, 1), 0.1)])
    for first, rate in ((0, 0.1), (2, 0.01)):
        expected.compile(keras.optimizers.Adam(rate), run_eagerly=True)
        expected.fit(dataset(), initial_epoch=first, epochs=min(first + 2, 3), verbose=0)
    np.testing.assert_allclose(got, schemes.weights(expected), atol=1e-6)
    assert int(scheme.optimizer.iterations) == 3
    assert int(scheme.steps) == 9


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [2, 3])  # where a stage begins, and inside it
def test_stages_go_on_from_the_initial_epoch(stopped, tmp_path):
    def run(scheme, **kwargs):
        callbacks = [training.LearningRateStages((2, 2), 0.1)]
        return fitted(scheme, dataset(8), callbacks=callbacks, **kwargs)

    scheme = fine_tuning(schemes.adam())
    run(scheme, epochs=stopped)
    scheme.save_weights(tmp_path / "scheme.weights.h5")
    resumed = fine_tuning(schemes.adam())
    resumed.load_weights(tmp_path / "scheme.weights.h5")
    got = run(resumed, epochs=4, initial_epoch=stopped)
    np.testing.assert_array_equal(got, run(fine_tuning(schemes.adam()), epochs=4))


# Linear decay.


def test_the_rate_stays_and_then_falls_to_zero():
    schedule = training.LinearDecay(0.5, iterations=10, decay=4)
    expected = [0.5] * 7 + [0.375, 0.25, 0.125, 0, 0, 0]
    np.testing.assert_allclose([schedule(i) for i in range(13)], expected)


def test_the_papers_schedule():
    expected = {0: 2e-4, 200_000: 2e-4, 225_000: 1e-4, 249_999: 4e-9, 250_000: 0}
    for iteration, rate in expected.items():
        assert float(training.LinearDecay()(iteration)) == pytest.approx(rate, rel=1e-4)
        assert float(training.LinearDecay(updates=5)(5 * iteration)) == pytest.approx(
            rate, rel=1e-4
        )


def test_all_updates_of_an_iteration_have_its_rate():
    schedule = training.LinearDecay(1.0, iterations=4, decay=2, updates=3)
    expected = np.repeat([1, 1, 1, 0.5, 0], 3)
    np.testing.assert_allclose([schedule(i) for i in range(15)], expected)


@pytest.mark.slow
def test_sngan_trains_on_its_schedule_and_goes_on_with_it_when_loaded(tmp_path):
    def built():
        d, g = schemes.projecting_discriminator(), schemes.image_generator(BOUNDS)
        scheme = training.SNGAN(d, g, schemes.CLASSES, discriminator_steps=2)
        rates = (training.LinearDecay(0.1, 4, 3, updates=n) for n in (2, 1))
        scheme.compile(*map(keras.optimizers.SGD, rates), run_eagerly=True)
        return scheme

    scheme, data = built(), dataset(16)
    fitted(scheme, data, epochs=2)
    for optimizer in (scheme.optimizer, scheme.generator_optimizer):
        assert float(optimizer.learning_rate) == pytest.approx(0.1 * 2 / 3)
    scheme.save(tmp_path / "scheme.keras")
    loaded = keras.models.load_model(tmp_path / "scheme.keras")
    got = fitted(loaded, data, epochs=5)
    np.testing.assert_array_equal(got, fitted(built(), data, epochs=4))  # which ends at zero


# Bad input.


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (training.LearningRateHalving, {"epochs": 0}, "`epochs`.*at least 1.*0"),
        (training.LearningRateHalving, {"learning_rate": -1.0}, "`learning_rate`.*-1"),
        (training.LearningRateStages, {"epochs": ()}, r"at least one stage. Received: epochs=\(\)"),
        (training.LearningRateStages, {"epochs": (3, -1)}, "`epochs`.*-1"),
        (training.LearningRateStages, {"learning_rate": -1.0}, "`learning_rate`.*-1"),
        (training.LinearDecay, {"learning_rate": -1.0}, "`learning_rate`.*-1"),
        (training.LinearDecay, {"iterations": 0}, "`iterations`.*at least 1.*0"),
        (training.LinearDecay, {"updates": 0}, "`updates`.*at least 1.*0"),
        (training.LinearDecay, {"decay": 0}, "`decay`.*at least 1.*0"),
        (training.LinearDecay, {"iterations": 9, "decay": 10}, "decay=10 of iterations=9"),
    ],
)
def test_bad_arguments_are_named(schedule, arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(**arguments)
