"""A training scheme saved whole, as `ModelCheckpoint("x.keras")` does, goes on where it was."""

import math

import keras
import numpy as np
import pytest

from gat_tf import attacks, data, models, training

SHAPE = (8, 8, 3)


def schemes():
    def classifier():
        return models.classifier(width=1 / 12, input_shape=SHAPE)

    def generator():
        return models.perturbation_generator(SHAPE, width=1 / 12)

    fast = attacks.FastGradient(0.1, math.inf, clip=None)
    return {
        "adversarial": lambda: training.AdversarialTraining(classifier(), fast, 0.3, seed=4),
        "pgd": lambda: training.AdversarialTraining(classifier(), attacks.PGD(0.1, steps=2)),
        "generator": lambda: training.AdversarialTraining(
            classifier(), attacks.GeneratorAttack(generator())
        ),
        "generator_training": lambda: training.GeneratorTraining(classifier(), generator(), 0.2),
        "gat": lambda: training.GAT(classifier(), generator(), 0.2, 0.4, 2, "shared"),
    }


@pytest.mark.parametrize("name", schemes())
def test_saved_scheme_goes_on_where_it_was(name, tmp_path):
    split = data.draw_shapes(40, 0)
    split = data.Split(split.images[:, ::4, ::4], split.labels)
    dataset = data.batches(split, 20)
    scheme = schemes()[name]()
    scheme.compile(run_eagerly=True)  # a few steps are faster than their trace
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "scheme.keras")
    scheme.fit(dataset, verbose=0, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "scheme.keras")
    assert type(loaded) is type(scheme)
    assert loaded.get_config().keys() == scheme.get_config().keys()
    for name in {"alpha", "c_g"} & scheme.get_config().keys():
        assert getattr(loaded, name) == getattr(scheme, name)
    for model in (scheme, loaded):
        model.fit(dataset, verbose=0)
    for ours, theirs in zip(loaded.get_weights(), scheme.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    optimizers = [loaded.optimizer, scheme.optimizer]
    assert [int(optimizer.iterations) for optimizer in optimizers] == [4, 4]
