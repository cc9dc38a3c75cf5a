"""Fig. 6 of the Rob-GAN paper: does fine-tuning help, and do generated images close the gap?

    python -m gat_tf.experiments.robgan.fig6 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan.fig6 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claims: under PGD the classifier of Rob-GAN is more accurate after fine-tuning (eq. 10)
than the class head of the discriminator is (left), and the gap between training and test images is
smaller than Fig. 2's of adversarial training (right).

A unit of work is one data set, classifier and seed, on training and test images.
"""

from __future__ import annotations

import pathlib

from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.measuring import sampling_error
from gat_tf.experiments.robgan import curves
from gat_tf.experiments.robgan.curves import PRESETS, Config, summarise  # noqa: F401

NAME = "gat_tf.experiments.robgan.fig6"
NAMES = ("adversarial_training", "robgan", "fine_tuned")


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 6, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.robgan.table1.run`.
    """
    return curves.run(NAME, config, output_dir, NAMES, ("train", "test"))


def verdicts(units: list[dict]) -> dict:
    """Whether fine-tuning helps, and whether the gap is smaller than the rival's, by data set."""
    return {dataset: decide(_claims(ours)) for dataset, ours in curves.merged(units).items()}


def _claims(units: list[dict]) -> list[Claim]:
    units = curves.having(units, *NAMES)
    if not units:
        return []
    tuned, before = (curves.mean_accuracies(units, n, "test") for n in ("fine_tuned", "robgan"))
    pair = ("adversarial_training", "fine_tuned")
    rival, ours = (curves.gaps(units, name) for name in pair)
    return [
        Claim(
            "Test accuracy under PGD: fine-tuned above not fine-tuned",
            tuned - before,
            image_error=sampling_error(
                units[0]["dataset"], units[0]["images"]["test"], tuned, before
            ),
        ),
        Claim(
            "Gap between training and test images: smaller than adversarial training's",
            rival - ours,
            image_error=curves.gap_error(units, *pair),
        ),
    ]


table = curves.tables


def figures(results: dict) -> dict:
    """Returns accuracy against δmax, name to matplotlib figure."""
    return {"fig6": curves.figure(results, {})}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-fig6")
