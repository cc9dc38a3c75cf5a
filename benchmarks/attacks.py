"""Attacks of this library and of others, side by side: how fast, and what still stands.

    pip install -e '.[benchmarks]'
    python benchmarks/attacks.py --data_dir=...

On a trained Table 1 classifier (the full-size one of the record) and the first real test images,
batch 128, alternating in one process, after a first call that compiles. Each library gets the same
images, budget and step sizes, and hands back adversarial images; what stands is counted outside the
timing. A library is left out of a row that it does not have. With `--direct` instead calls of our
attacks as a user makes them, `attack(model, images, labels)`, beside the same attack in a
`tf.function` of the user's own, at three sizes of a batch. With `--composition` instead the whole
of AutoAttack, compiling included, beside ART's and, on a PyTorch copy of the weights, torchattacks'
(whose class takes 10 steps of APGD and FAB where the paper takes 100: both are run).
"""

from __future__ import annotations

import math
import pathlib
import statistics
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from gat_tf import attacks, data
from gat_tf.evaluation.accuracy import signature
from gat_tf.evaluation.evaluator import Evaluator
from gat_tf.logits import Logits

RECORD = pathlib.Path(__file__).parent.parent / "experiments/table2/full/units"
_MODEL = flags.DEFINE_string(
    "model", str(RECORD / "cifar10-baseline-seed0.keras"), "A trained Keras classifier, softmax."
)
_DATASET = flags.DEFINE_string("dataset", "cifar10", "Data set whose test images are attacked.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
_IMAGES = flags.DEFINE_integer("images", 128, "Test images.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each is measured; the slow ones once.")
_COMPOSITION = flags.DEFINE_bool(
    "composition", False, "Whether to run the whole of AutoAttack alone."
)
_DIRECT = flags.DEFINE_bool("direct", False, "Whether to measure direct calls alone.")
_RESIDUAL = flags.DEFINE_string(
    "residual", None, "A network of benchmarks/residual.py, for --composition."
)
_THREADS = flags.DEFINE_integer("threads", 0, "Threads of each library; by default all cores.")
_PROCESSOR_TIME = flags.DEFINE_bool(
    "processor_time", False, "With --threads=1 on a busy machine: counts the process's own time."
)
_ROWS = flags.DEFINE_list("rows", None, "Rows to measure; all by default.")

BATCH = 128
LINF, L2 = 2 / 255, 0.25
INF = math.inf


def ours(model, spec) -> dict:
    """Row -> compiled function of (images, labels) -> adversarial images.

    As `evaluation.accuracy` runs them: an image that is fooled is left alone.
    """
    logits = Logits(model)

    def of(attack):
        attack = attack.for_accuracy()

        @tf.function(input_signature=signature(spec))
        def attacked(images, labels, seed):
            return attack.apply(images, attack.perturb(logits, images, labels, seed))

        return lambda x, y: attacked(x, y, tf.constant([0, 0])).numpy()

    return {
        "FG L2": of(attacks.FastGradient(L2, 2)),
        "FG L∞": of(attacks.FastGradient(LINF, INF)),
        "PGD-20 L2": of(attacks.PGD(L2, 2, 20)),
        "PGD-20 L∞": of(attacks.PGD(LINF, INF, 20)),
        "PGD-20 L∞, 5 starts": of(attacks.PGD(LINF, INF, 20, restarts=5)),
        "APGD-100 L∞": of(attacks.APGD(LINF, INF, 100)),
        "Square-1000 L∞": of(attacks.Square(LINF, INF, 1_000)),
    }


def art_classifier(logits):
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        logits,
        nb_classes=logits.output_shape[-1],
        input_shape=logits.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )


def art(logits) -> dict:
    from art.attacks import evasion

    classifier = art_classifier(logits)

    def pgd(norm, epsilon, starts=1):
        return evasion.ProjectedGradientDescent(
            classifier, norm=norm, eps=epsilon, eps_step=2.5 * epsilon / 20, max_iter=20,
            num_random_init=starts, batch_size=BATCH, verbose=False,
        )  # fmt: skip

    found = {
        "FG L2": evasion.FastGradientMethod(classifier, 2, L2, batch_size=BATCH),
        "FG L∞": evasion.FastGradientMethod(classifier, "inf", LINF, batch_size=BATCH),
        "PGD-20 L2": pgd(2, L2),
        "PGD-20 L∞": pgd("inf", LINF),
        "PGD-20 L∞, 5 starts": pgd("inf", LINF, 5),
        "APGD-100 L∞": evasion.AutoProjectedGradientDescent(
            classifier, "inf", LINF, 2 * LINF, 100, nb_random_init=1, batch_size=BATCH,
            loss_type="cross_entropy", verbose=False,
        ),
        "Square-1000 L∞": evasion.SquareAttack(
            classifier, "inf", max_iter=1_000, eps=LINF, nb_restarts=1, batch_size=BATCH,
            verbose=False,
        ),
    }  # fmt: skip
    return {row: lambda x, y, a=attack: a.generate(x, y) for row, attack in found.items()}


def foolbox(logits) -> dict:
    import foolbox as fb

    model = fb.TensorFlowModel(logits, bounds=(0, 1))

    def of(attack, epsilon):
        return lambda x, y: attack(model, tf.constant(x), tf.constant(y), epsilons=epsilon)[1]

    def step(epsilon):
        return {"abs_stepsize": 2.5 * epsilon / 20, "steps": 20}

    return {
        "FG L2": of(fb.attacks.FGM(), L2),
        "FG L∞": of(fb.attacks.FGSM(), LINF),
        "PGD-20 L2": of(fb.attacks.L2PGD(**step(L2)), L2),
        "PGD-20 L∞": of(fb.attacks.LinfPGD(**step(LINF)), LINF),
        "PGD-20 L∞, 5 starts": of(fb.attacks.LinfPGD(**step(LINF)).repeat(5), LINF),
    }


def cleverhans(logits) -> dict:
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    clip = {"clip_min": 0.0, "clip_max": 1.0}

    def fast(norm, epsilon):
        return lambda x, y: fast_gradient_method(
            logits, tf.constant(x), epsilon, norm, y=tf.constant(y), **clip
        )

    def pgd(norm, epsilon):
        return lambda x, y: projected_gradient_descent(
            logits, tf.constant(x), epsilon, 2.5 * epsilon / 20, 20, norm, y=tf.constant(y),
            rand_init=1.0, sanity_checks=False, **clip,
        )  # fmt: skip

    return {
        "FG L2": fast(2, L2),
        "FG L∞": fast(np.inf, LINF),
        "PGD-20 L2": pgd(2, L2),
        "PGD-20 L∞": pgd(np.inf, LINF),
    }


def direct(model, images, labels) -> None:
    """Direct calls beside compiled ones, in turn: the median of the rounds' ratios."""
    logits = Logits(model)
    found = {
        "FG L∞": attacks.FastGradient(LINF, INF),
        "PGD-20 L2": attacks.PGD(L2, 2, 20),
        "PGD-20 L∞": attacks.PGD(LINF, INF, 20),
    }
    print("| attack | images | compiled | direct call | direct / compiled | eager / compiled |")
    print(f"|{'---|' * 6}")
    for name, attack in found.items():
        compiled = tf.function(
            lambda x, y, attack=attack: attack.apply(x, attack.perturb(logits, x, y)),
            reduce_retracing=True,
        )
        for size in (1, 10, 100):
            x, y = tf.constant(images[:size]), tf.constant(labels[:size])
            calls = [
                lambda x=x, y=y, compiled=compiled: compiled(x, y),
                lambda x=x, y=y, attack=attack: attack(model, x, y),
                lambda x=x, y=y, attack=attack: attack.apply(x, attack.perturb(logits, x, y)),
            ]
            for call in calls:
                call()
            seconds = np.array([[_seconds(call) for call in calls] for _ in range(_ROUNDS.value)])
            medians = np.median(seconds, axis=0)
            ratios = np.median(seconds / seconds[:, :1], axis=0)
            print(f"| {name} | {size} | {medians[0] * 1e3:.1f} ms | {medians[1] * 1e3:.1f} ms | "
                  f"{ratios[1]:.2f} | {ratios[2]:.2f} |", flush=True)  # fmt: skip


def clock() -> float:
    return time.process_time() if _PROCESSOR_TIME.value else time.perf_counter()


def _seconds(call) -> float:
    started = time.perf_counter()
    np.asarray(call())
    return time.perf_counter() - started


def composition(images, labels) -> None:
    """The whole of AutoAttack, each library in turn: seconds with compiling, and what stands."""
    import_errors = {}
    networks = {"Table 1": (_MODEL.value, LINF, L2)}
    if _RESIDUAL.value:  # trained against attacks, so that it takes more to leave a tenth
        networks["residual"] = (_RESIDUAL.value, 4 * LINF, 4 * L2)
    print("| AutoAttack | library | seconds | of which | right | stand | over gat_tf |")
    print(f"|{'---|' * 7}")
    for network, (path, linf, l2) in networks.items():
        model = keras.models.load_model(path)
        logits = keras.Model(model.input, model.get_layer("logits").output)
        for name, norm, epsilon in (("L∞", INF, linf), ("L2", 2, l2)):
            ours = None
            for library in (ours_composed, same_torchattacks, default_torchattacks, art_composed):
                try:
                    standing, parts = library(model, logits, images, labels, norm, epsilon)
                except ImportError as error:
                    import_errors[library.__name__] = error
                    continue
                seconds = sum(parts.values())
                ours = ours or (standing, seconds)
                of = ", ".join(f"{part} {t:.1f}" for part, t in parts.items())
                differ = (standing != ours[0]).sum()
                print(f"| {network}, {name} {epsilon:.3g} | {library.__doc__} | {seconds:.1f} | "
                      f"{of} | {right(logits, images, labels).sum()} | {standing.sum()}, "
                      f"{differ} others | {seconds / ours[1]:.2f} |", flush=True)  # fmt: skip
    for name, error in import_errors.items():
        print(f"{name} is left out: {error}")


def ours_composed(model, logits, images, labels, norm, epsilon):
    """gat_tf"""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    started = clock()
    evaluator = Evaluator(model, dataset, batch_size=BATCH)
    standing, parts = evaluator.correct, {"clean": clock() - started}
    for name, attack in attacks.autoattack(epsilon, norm, evaluator.classes).items():
        started = clock()
        standing = standing & evaluator.attack(attack, standing).robust
        parts[name] = clock() - started
    return standing, parts


def art_composed(model, logits, images, labels, norm, epsilon):
    """ART, whose second and third attacks are untargeted APGD and DeepFool"""
    from art.attacks import evasion

    classifier, ball = art_classifier(logits), {"norm": "inf" if norm == INF else 2, "eps": epsilon}

    def apgd(loss):
        return evasion.AutoProjectedGradientDescent(
            classifier, eps_step=2 * epsilon, max_iter=100, nb_random_init=1, batch_size=BATCH,
            loss_type=loss, verbose=False, **ball,
        )  # fmt: skip

    square = evasion.SquareAttack(
        classifier, max_iter=5_000, nb_restarts=1, batch_size=BATCH, verbose=False, **ball
    )
    deep_fool = evasion.DeepFool(classifier, max_iter=100, batch_size=BATCH, verbose=False)
    parts = [apgd("cross_entropy"), apgd("difference_logits_ratio"), deep_fool, square]
    attack = evasion.AutoAttack(classifier, attacks=parts, batch_size=BATCH, **ball)
    started = clock()
    adversarial = attack.generate(images, labels)
    return right(logits, adversarial, labels), {"all": clock() - started}


def same_torchattacks(*arguments):
    """torchattacks, on a PyTorch copy of the weights, with the published 100 steps"""
    return torchattacks_composed(*arguments, steps=100)


def default_torchattacks(*arguments):
    """torchattacks as it comes, with 10 steps of APGD and FAB"""
    return torchattacks_composed(*arguments, steps=10)


def torchattacks_composed(model, logits, images, labels, norm, epsilon, steps):
    """Its own order and its own choice of the images to go on with, one attack after the other."""
    import torch
    import torchattacks
    from torch_copy import TorchCopy

    torch.set_num_threads(_THREADS.value or torch.get_num_threads())
    copied = TorchCopy(logits)
    x, y = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(), torch.tensor(labels)
    with torch.no_grad():
        np.testing.assert_allclose(copied(x).numpy(), logits(images), atol=1e-3)
    name = "Linf" if norm == INF else "L2"
    composed = torchattacks.AutoAttack(
        copied, norm=name, eps=epsilon, n_classes=logits.output_shape[-1]
    )
    found = composed._autoattack.attacks
    for attack in found[:3]:
        attack.steps = steps
    standing, parts = right(logits, images, labels), {}
    for name, attack in zip(("APGD-CE", "APGD-T", "FAB-T", "Square"), found, strict=True):
        started = clock()
        for batch in np.array_split(np.flatnonzero(standing), -(-standing.sum() // BATCH) or 1):
            if len(batch):
                adversarial = attack(x[batch], y[batch]).detach()
                with torch.no_grad():
                    standing[batch] = (copied(adversarial).argmax(1) == y[batch]).numpy()
        parts[name] = clock() - started
    return standing, parts


def installed(logits) -> dict:
    """Library -> row -> attack, of those that are installed."""
    found = {}
    for name, rows in {"ART": art, "Foolbox": foolbox, "CleverHans": cleverhans}.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = rows(logits)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def main(_):
    logging.set_verbosity(logging.ERROR)
    warnings.simplefilter("ignore")
    if _THREADS.value:
        tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
        tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    split = data.load(_DATASET.value, _DATA_DIR.value).test
    split = data.Split(split.images[: _IMAGES.value], split.labels[: _IMAGES.value])
    batches = [(x.numpy(), y.numpy()) for x, y in data.batches(split, BATCH)]
    if _COMPOSITION.value:
        composition(*map(np.concatenate, zip(*batches, strict=True)))
        return
    model = keras.models.load_model(_MODEL.value)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    if _DIRECT.value:
        direct(model, *map(np.concatenate, zip(*batches, strict=True)))
        return
    spec = data.batches(split, BATCH).element_spec
    libraries = {"gat_tf": ours(model, spec), **installed(logits)}
    names = list(libraries)
    print(f"{pathlib.Path(_MODEL.value).name}, {len(split.labels)} images of {_DATASET.value}")
    print(f"| attack | {' | '.join(names)} | fastest other / gat_tf |")
    print(f"|{'---|' * (len(names) + 2)}")
    for row in _ROWS.value or libraries["gat_tf"]:
        rivals = {name: rows[row] for name, rows in libraries.items() if row in rows}
        stand, seconds = {}, {name: [] for name in rivals}
        for name, attack in rivals.items():  # the first call compiles
            found = [right(logits, np.asarray(attack(x, y)), y) for x, y in batches]
            stand[name] = np.mean(np.concatenate(found))
        for _ in range(_ROUNDS.value if row.startswith(("FG", "PGD")) else 1):
            for name, attack in rivals.items():
                started = time.perf_counter()
                for x, y in batches:
                    np.asarray(attack(x, y))
                seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        cells = [
            f"{medians[n] * 1e3:.0f} ms, {stand[n]:.1%}" if n in medians else "" for n in names
        ]
        others = [
            min(s[i] for n, s in seconds.items() if n != "gat_tf") / seconds["gat_tf"][i]
            for i in range(len(seconds["gat_tf"]))
            if len(seconds) > 1
        ]
        ratio = f"{statistics.median(others):.2f}" if others else ""
        print(f"| {row} | {' | '.join(cells)} | {ratio} |", flush=True)


def right(logits, images, labels) -> np.ndarray:
    return np.argmax(logits(images).numpy(), axis=-1) == labels


if __name__ == "__main__":
    app.run(main)
