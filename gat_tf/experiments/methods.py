"""What can be trained: the rows of Table 2 of the GAT paper, and what is compared with them.

A method is the only place that knows its hyperparameters. To add a method, add an entry here or
call `add`: searches, tables, figures and verdicts then find it by its name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from gat_tf import attacks, data, models, training
from gat_tf._keras import build_metrics
from gat_tf.experiments import surrogates
from gat_tf.training.base import ADAM_EPSILON, MultiWorker, xla_by_default

if TYPE_CHECKING:
    from gat_tf.experiments.settings import Config

Values: TypeAlias = dict[str, float]  # of hyperparameters, by name
INF = math.inf
_LINF_GRID = tuple(n / 255 for n in (0.5, 1, 2, 4, 8, 16))
_L2_GRID = tuple(epsilon * 3072**0.5 for epsilon in _LINF_GRID)


# Epochs, and the power of GAT's perturbations there: the mean of the reduced record's three seeds.
GAT_POWER = (
    (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
    (0.0, 0.060, 0.105, 0.136, 0.160, 0.186, 0.207, 0.227, 0.241, 0.254, 0.276),
)


class Hyperparameter(NamedTuple):
    """A number that a method needs.

    Attributes:
        value: The value if it is neither configured nor searched. None takes the value of the same
            name from the inherited method.
        grid: The values that a search tries; empty if it is not searched.
    """

    value: float | None
    grid: tuple[float, ...] = ()


class Trainee(NamedTuple):
    """The model that a method trains.

    Attributes:
        model: Compiled and built, ready for `fit`.
        classifier: The Keras classifier inside it, from images in [0, 1] to probabilities.
        draws: Number of minibatches that the generator needs for itself in each step.
        callbacks: Of the training: functions of the epoch.
    """

    model: keras.Model
    classifier: keras.Model
    draws: int = 0
    callbacks: tuple[keras.callbacks.Callback, ...] = ()


@dataclasses.dataclass(frozen=True)
class Method:
    """A way of training a classifier.

    Attributes:
        title: As the paper prints it.
        build: (settings, hyperparameters, splits, seed) -> what is trained; settings are a
            `settings.Config`, and splits the images, with their shape and number of classes.
        hyperparameters: Those of its own by name, in the order in which they are searched.
        inherits: The method whose hyperparameters, or search results, it takes over.
        paper: Test accuracy in % of Table 2, mean and standard deviation over 50 initialisations,
            by data set.
        validation_attack: hyperparameters -> the attack under which the best epoch is chosen;
            None for clean validation images.
    """

    title: str
    build: Callable[[Config, Values, data.Splits, int], Trainee]
    hyperparameters: dict[str, Hyperparameter] = dataclasses.field(default_factory=dict)
    inherits: str | None = None
    paper: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    validation_attack: Callable[[Values], attacks.Attack] | None = None


def lineage(name: str) -> list[str]:
    """The method and those that it inherits from, the oldest first."""
    parent = METHODS[name].inherits
    return [*(lineage(parent) if parent else []), name]


def qualified(name: str) -> dict[str, Hyperparameter]:
    """A method's own hyperparameters as settings call them, such as `gat.c_g`."""
    return {f"{name}.{key}": value for key, value in METHODS[name].hyperparameters.items()}


def add(name: str, method: Method) -> None:
    """Makes a method known to all experiments.

    Raises:
        ValueError: A method of that name exists.
    """
    if name in METHODS:
        raise ValueError(f"Expected the name of a new method. Received: {name!r}, which there is.")
    METHODS[name] = method


class CleanTraining(MultiWorker, keras.Model):
    """Keras's standard training, on the logits."""


def _classifier(settings, splits, dropout=0.0):
    return models.classifier(
        splits.num_classes,
        dropout=dropout,
        width=settings.width,
        input_shape=splits.image_shape,
    )


def _optimizer(settings):
    return keras.optimizers.Adam(settings.learning_rate, epsilon=ADAM_EPSILON)


def _jit_compile(settings):
    return xla_by_default() if settings.jit_compile is None else settings.jit_compile


def _trainee(settings, classifier, scheme):
    scheme.compile(_optimizer(settings), jit_compile=_jit_compile(settings))
    return Trainee(scheme, classifier)


def _clean(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
    classifier = _classifier(settings, splits, values.get("rate", 0.0))
    logits = CleanTraining(classifier.input, classifier.get_layer("logits").output)
    logits.compile(
        _optimizer(settings),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="clean_accuracy")],
        jit_compile=_jit_compile(settings),
    )
    shape = classifier.input_shape[1:]
    build_metrics(logits, tf.zeros([1, *shape]), tf.zeros([1], tf.int64))
    return Trainee(logits, classifier)


def adversarial(attack: Callable[[Values], attacks.Attack], alpha: float | None = None) -> Callable:
    """Training on an attack, by eqs. 2 and 4; alpha is the settings' unless it is given."""

    def build(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
        classifier = _classifier(settings, splits)
        weight = settings.alpha if alpha is None else alpha
        scheme = training.AdversarialTraining(classifier, attack(values), weight, seed=seed)
        return _trainee(settings, classifier, scheme)

    return build


def _scheduled(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
    epsilon = tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.MEAN)
    attack = surrogates.ScheduledFastGradient(epsilon, clip=None)
    trainee = adversarial(lambda _: attack)(settings, values, splits, seed)
    schedule = surrogates.PowerSchedule(epsilon, *GAT_POWER)
    return trainee._replace(callbacks=(schedule,))


def _trades(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
    classifier = _classifier(settings, splits)
    scheme = training.TRADES(classifier, _pgd(values), values["beta"], seed=seed)
    return _trainee(settings, classifier, scheme)


def _awp(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
    classifier = _classifier(settings, splits)
    warmup_steps = round(values["warmup_steps"])
    scheme = training.AWP(
        classifier, _pgd(values), values["gamma"], warmup_steps=warmup_steps, seed=seed
    )
    return _trainee(settings, classifier, scheme)


def _gat(settings: Config, values: Values, splits: data.Splits, seed: int) -> Trainee:
    classifier = _classifier(settings, splits, values.get("rate", 0.0))
    gat = training.GAT(
        classifier,
        models.perturbation_generator(splits.image_shape, settings.width),
        values["c_g"],
        settings.alpha,
        settings.generator_steps,
        settings.minibatches,
        seed=seed,
    )
    gat.compile(
        _optimizer(settings),
        keras.optimizers.Adam(values["generator_learning_rate"], epsilon=ADAM_EPSILON),
        jit_compile=_jit_compile(settings),
    )
    draws = settings.generator_steps if settings.minibatches == "separate" else 0
    return Trainee(gat, classifier, draws)


# The paper's equations do not clip.
def _random_noise(values):
    return attacks.RandomPerturbation(values["epsilon"], INF, clip=None)


def _fg_linf(values):
    return attacks.FastGradient(values["epsilon"], INF, clip=None)


def _fg_l2(values):
    return attacks.FastGradient(values["epsilon"], 2, clip=None)


def _pgd(values):
    return attacks.PGD(values["epsilon"], INF, round(values["steps"]))


def _scaled_gradient(values):
    return surrogates.ScaledGradient(values["scale"], clip=None)


def _shared_power(values):
    return surrogates.SharedPower(values["power"], clip=None)


def _paper(cifar10, cifar100):
    return {"cifar10": cifar10, "cifar100": cifar100}


# The values are those that the reduced record's search has found.
METHODS = {
    "baseline": Method("Baseline", _clean, paper=_paper((77.48, 0.46), (44.32, 0.63))),
    "dropout": Method(
        "Dropout",
        _clean,
        {"rate": Hyperparameter(0.1, (0.1, 0.2, 0.3, 0.4, 0.5))},
        paper=_paper((78.49, 0.64), (46.29, 0.61)),
    ),
    "random": Method(
        "Random perturbation",
        adversarial(_random_noise),
        {"epsilon": Hyperparameter(1 / 255, tuple(n / 255 for n in (2, 4, 8, 16, 32, 64)))},
        paper=_paper((77.59, 0.57), (44.43, 0.71)),
    ),
    "fg_linf": Method(
        "Adv. training (FG, L∞)",
        adversarial(_fg_linf),
        {"epsilon": Hyperparameter(1 / 255, _LINF_GRID)},
        paper=_paper((78.12, 0.59), (45.16, 0.73)),
    ),
    "fg_l2": Method(
        "Adv. training (FG, L2)",
        adversarial(_fg_l2),
        {"epsilon": Hyperparameter(1 / 255 * 3072**0.5, _L2_GRID)},
        paper=_paper((77.99, 0.45), (45.67, 0.63)),
    ),
    "gat": Method(
        "Adv. training (GAT)",
        _gat,
        {
            "c_g": Hyperparameter(0.3, (0.01, 0.03, 0.1, 0.3, 1, 3, 10)),
            "generator_learning_rate": Hyperparameter(1e-6, (1e-6, 1e-5, 1e-4, 1e-3)),
        },
        paper=_paper((80.33, 0.44), (50.44, 0.56)),
    ),
    "dropout_gat": Method(
        "Dropout + GAT",
        _gat,
        {"rate": Hyperparameter(0.1, (0.1, 0.2, 0.3, 0.4, 0.5)), "c_g": Hyperparameter(None)},
        inherits="gat",
        paper=_paper((81.62, 0.34), (50.71, 0.49)),
    ),
    # Not in the paper: what defences are compared with (Madry et al. 2018).
    "pgd": Method(
        "Adv. training (PGD)",
        adversarial(_pgd, alpha=0.0),
        {"epsilon": Hyperparameter(8 / 255), "steps": Hyperparameter(7)},
        validation_attack=_pgd,
    ),
    # Zhang et al. 2019.
    "trades": Method(
        "TRADES",
        _trades,
        {
            "epsilon": Hyperparameter(8 / 255),
            "steps": Hyperparameter(7),
            "beta": Hyperparameter(6.0),
        },
        validation_attack=_pgd,
    ),
    # Wu et al. 2020.
    "awp": Method(
        "AWP",
        _awp,
        {
            "gamma": Hyperparameter(0.005),
            "warmup_steps": Hyperparameter(500),  # Table 1 has no batch norm
        },
        inherits="pgd",
        validation_attack=_pgd,
    ),
}
# Controls: what of GAT's gain is the generator's? The strength of the first four is that of GAT's
# reduced networks, whose perturbations had a power of 0.237 at the best epoch of seeds 0 to 2, and
# 0.205 is the mean of ‖Δ‖₂² there. A generator that never learns hardly perturbs.
_POWER = 0.237
METHODS |= {
    "fg_l2_gat_power": Method(
        "FG L2, GAT's power", adversarial(_fg_l2), {"epsilon": Hyperparameter(0.4865)}
    ),
    "fg_l2_gat_schedule": Method("FG L2, GAT's power by epoch", _scheduled),
    "shared_power": Method(
        "s·Δ, GAT's power", adversarial(_shared_power), {"power": Hyperparameter(_POWER)}
    ),
    "scaled_gradient": Method(
        "s·Δ, fixed s",
        adversarial(_scaled_gradient),
        {"scale": Hyperparameter(round((_POWER / 0.205) ** 0.5, 3))},
    ),
    "gat_frozen": Method(
        "GAT, generator never trained",
        _gat,
        {"c_g": Hyperparameter(1.0), "generator_learning_rate": Hyperparameter(0.0)},
    ),
}
PAPER_METHODS = tuple(name for name, method in METHODS.items() if method.paper)
