"""Agreement with other libraries, on the same trained network and images."""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.attacks import APGD, PGD, FastGradient, Square, autoattack
from gat_tf.evaluation.evaluator import Evaluator

REASON = "compares with {}, which is not installed: pip install {}"
LINF = 8 / 255


@pytest.fixture(scope="module")
def some(shapes):
    return shapes[0][:40], shapes[1][:40]


@pytest.fixture(scope="module")
def hundred(shapes):
    return shapes[0][:100], shapes[1][:100]


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


# Attacks that draw random numbers or decide on their steps: what stands is compared, not pixels.
EPSILON = 0.006


def _standing(model, images, labels):
    return np.argmax(model(np.asarray(images)).numpy(), axis=-1) == labels


def _in_torch(logits, images, labels):
    """The classifier and the images in PyTorch, where both give the same logits."""
    torch = _imported("torch", "torch")
    from torch_copy import TorchCopy

    copied = TorchCopy(logits)
    x = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous()
    with torch.no_grad():
        np.testing.assert_allclose(copied(x), logits(images), atol=1e-4)
    return copied, x, torch.tensor(labels)


def test_apgd_is_as_strong_as_that_of_art(trained, art_classifier, art_attacks, hundred):
    theirs = art_attacks.AutoProjectedGradientDescent(
        art_classifier, norm="inf", eps=EPSILON, eps_step=2 * EPSILON, max_iter=50,
        nb_random_init=1, batch_size=100, loss_type="cross_entropy", verbose=False,
    ).generate(*hundred)  # fmt: skip
    ours = APGD(EPSILON, math.inf, 50)(trained, *hundred, seed=[0, 0])
    ours, theirs = (_standing(trained, x, hundred[1]) for x in (ours, theirs))
    assert 0.1 < theirs.mean() < 0.9
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1


def test_square_is_as_strong_as_that_of_torchattacks(trained, trained_logits, hundred):
    """So few queries leave much to chance: means over four seeds."""
    torchattacks = _imported("torchattacks", "torchattacks")
    copied, x, y = _in_torch(trained_logits, *hundred)
    ours, theirs = [], []
    for seed in range(4):
        attack = torchattacks.Square(
            copied, norm="Linf", eps=0.03, n_queries=300, n_restarts=1, seed=seed, loss="margin"
        )
        adversarial = attack(x, y).numpy().transpose(0, 2, 3, 1)
        theirs.append(_standing(trained, adversarial, hundred[1]).sum())
        adversarial = Square(0.03, math.inf, 300)(trained, *hundred, seed=[seed, 0])
        ours.append(_standing(trained, adversarial, hundred[1]).sum())
    assert 10 < np.mean(theirs) < 50
    assert abs(np.mean(ours) - np.mean(theirs)) <= 1


@pytest.mark.parametrize(("norm", "name", "epsilon"), [(math.inf, "Linf", 0.006), (2, "L2", 0.1)])
def test_composition_leaves_as_much_as_that_of_torchattacks(
    trained, trained_logits, hundred, norm, name, epsilon
):
    torchattacks = _imported("torchattacks", "torchattacks")
    copied, x, y = _in_torch(trained_logits, *hundred)
    adversarial = torchattacks.AutoAttack(copied, norm=name, eps=epsilon, n_classes=10)(x, y)
    theirs = _standing(trained, adversarial.numpy().transpose(0, 2, 3, 1), hundred[1])

    evaluator = Evaluator(trained, tf.data.Dataset.from_tensor_slices(hundred).batch(100))
    ours = evaluator.correct
    for attack in autoattack(epsilon, norm, 10).values():
        ours = ours & evaluator.attack(attack, ours).robust
    assert 0.1 < theirs.mean() < 0.9
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1
