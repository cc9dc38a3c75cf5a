"""Agreement with other libraries, on the same trained network and images."""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import PGD, FastGradient

REASON = "compares with {}, which is not installed: pip install {}"
LINF = 8 / 255


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:40], shapes[1][:40]


def _imported(name, package):
    # They warn of other frameworks that they do not find, and of their own dependencies.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=REASON.format(package, package))


@pytest.fixture(scope="module")
def art_classifier(trained_logits):
    estimators = _imported("art.estimators.classification", "adversarial-robustness-toolbox")
    return estimators.TensorFlowV2Classifier(
        trained_logits,
        nb_classes=10,
        input_shape=(16, 16, 3),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )


@pytest.fixture(scope="module")
def art_attacks():
    return _imported("art.attacks.evasion", "adversarial-robustness-toolbox")


def _assert_alike(ours, theirs, images, tolerance):
    """The sign of a gradient that is zero but for rounding may differ, at very few pixels."""
    differ = np.abs(np.asarray(ours) - np.asarray(theirs)) > tolerance
    assert differ.mean() < 1e-4
    assert np.abs(np.asarray(theirs) - images).mean() > 1e-3


def test_fast_gradient_is_that_of_art(trained, art_classifier, art_attacks, some):
    for norm, epsilon in ((2, 0.5), (math.inf, LINF)):
        theirs = art_attacks.FastGradientMethod(
            art_classifier, norm=2 if norm == 2 else "inf", eps=epsilon
        ).generate(*some)
        ours = FastGradient(epsilon, norm)(trained, *some)
        _assert_alike(ours, theirs, some[0], 1e-5)


def test_linf_pgd_is_that_of_art(trained, art_classifier, art_attacks, some):
    theirs = art_attacks.ProjectedGradientDescent(
        art_classifier, norm="inf", eps=LINF, eps_step=LINF / 4, max_iter=10, verbose=False
    ).generate(*some)
    ours = PGD(LINF, math.inf, 10, LINF / 4, random_start=False)(trained, *some)
    _assert_alike(ours, theirs, some[0], 1e-5)


def test_targeted_fast_gradient_is_that_of_art(trained, art_classifier, art_attacks, some):
    images, targets = some[0], (some[1] + 1) % 10
    theirs = art_attacks.FastGradientMethod(
        art_classifier, norm=2, eps=0.5, targeted=True
    ).generate(images, targets)
    ours = FastGradient(0.5, 2, targeted=True)(trained, images, targets)
    _assert_alike(ours, theirs, images, 1e-5)


def test_l2_pgd_is_that_of_foolbox(trained, trained_logits, some):
    foolbox = _imported("foolbox", "foolbox")
    images, labels = map(tf.constant, some)
    model = foolbox.TensorFlowModel(trained_logits, bounds=(0, 1))
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=10, random_start=False)
    theirs = attack(model, images, labels, epsilons=0.5)[1]
    ours = PGD(0.5, 2, 10, 0.1, random_start=False)(trained, *some)
    _assert_alike(ours, theirs, some[0], 1e-3)
