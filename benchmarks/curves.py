"""What a curve of accuracy against ε costs, against attacking from scratch at each ε.

    python benchmarks/curves.py --data_dir=...

20 values of ε, on a trained classifier (Table 2's reduced baseline from the record) and real test
images, alternating in one process, compilation included. "From scratch" are the same attack and
seeds at each ε; PGD runs all its steps there, as other libraries do, or leaves an image alone from
the first step that fools it ("stopping early").
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from gat_tf import attacks, data, evaluation, losses
from gat_tf.evaluation.accuracy import signature
from gat_tf.logits import Logits

RECORD = pathlib.Path(__file__).parent.parent / "experiments/table2/reduced/units"
_MODEL = flags.DEFINE_string(
    "model", str(RECORD / "cifar10-baseline-seed0.keras"), "A trained Keras classifier."
)
_DATASET = flags.DEFINE_string("dataset", "cifar10", "Data set whose test images are attacked.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
_IMAGES = flags.DEFINE_integer("images", 2_000, "Test images for FG; PGD takes a tenth of them.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times that FG's are measured; PGD's once.")

EPSILONS = tuple(n / 20 for n in range(1, 21))
ATTACKS = {
    "FG L2": attacks.FastGradient(1.0, 2),
    "PGD-20 L2, 5 restarts": attacks.PGD(1.0, 2, steps=20, restarts=5),
}


def from_scratch(model, dataset, attack, *, early):
    """The accuracies under the attack at every ε on every image, compiled once for all ε."""
    logits = Logits(model)
    attack = attack.for_accuracy() if early else attack

    @tf.function(input_signature=[*signature(dataset.element_spec), tf.TensorSpec([])])
    def correct(images, labels, seed, epsilon):
        ours = dataclasses.replace(attack, epsilon=epsilon)
        images = ours.apply(images, ours.perturb(logits, images, labels, seed))
        return losses.is_correct(logits(images), labels)

    right = [
        [
            correct(*batch, tf.constant([0, i]), tf.constant(epsilon, tf.float32)).numpy()
            for i, batch in enumerate(dataset)
        ]
        for epsilon in EPSILONS
    ]
    return np.array([np.concatenate(flags).mean() for flags in right])


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)  # TFDS tells much
    model = keras.models.load_model(_MODEL.value)
    print(f"{_DATASET.value}, {len(EPSILONS)} values of ε up to 1 in L2\n")
    print("| attack | images | from scratch / curve | stopping early / curve | accuracies |")
    print("|---|---|---|---|---|")
    for name, attack in ATTACKS.items():
        is_pgd = isinstance(attack, attacks.PGD)
        images = _IMAGES.value // 10 if is_pgd else _IMAGES.value
        splits = data.load(_DATASET.value, _DATA_DIR.value, test_size=images)
        dataset = data.batches(splits.test, 128).cache()
        compute = {
            "curve": lambda a=attack, d=dataset: evaluation.accuracy_curve(model, d, a, EPSILONS),
            "scratch": lambda a=attack, d=dataset: from_scratch(model, d, a, early=False),
            "early": lambda a=attack, d=dataset: from_scratch(model, d, a, early=True),
        }
        seconds, curves = {key: [] for key in compute}, {}
        for _ in range(1 if is_pgd else _ROUNDS.value):
            for key, run in compute.items():
                started = time.perf_counter()
                curves[key] = run()
                seconds[key].append(time.perf_counter() - started)
        pairs = {
            key: zip(seconds[key], seconds["curve"], strict=True) for key in ("scratch", "early")
        }
        ratios = {key: statistics.median(s / c for s, c in pair) for key, pair in pairs.items()}
        higher = 100 * max(np.max(curves["curve"] - curves[key]) for key in ratios)
        lower = 100 * max(np.max(curves[key] - curves["curve"]) for key in ratios)
        print(
            f"| {name} | {images} | {ratios['scratch']:.1f} | {ratios['early']:.1f} "
            f"| never more than {higher:.1f} points higher, at most {lower:.1f} lower |"
        )


if __name__ == "__main__":
    app.run(main)
