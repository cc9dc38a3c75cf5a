"""Fig. 6 of the Rob-GAN paper: does fine-tuning help, and do generated images close the gap?

    python -m gat_tf.experiments.robgan_fig6 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan_fig6 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claims: under PGD the classifier of Rob-GAN is more accurate after fine-tuning (eq. 10)
than the class head of the discriminator is (left), and the gap between training and test images is
smaller than Fig. 2's of adversarial training (right).

A unit of work is one data set and seed: three classifiers on training and test images.
"""

from __future__ import annotations

import pathlib

from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import robgan_curves as report
from gat_tf.experiments.robgan_curves import PRESETS, Config, Runner


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 6; arguments, result and errors: `robgan_table1.run`."""
    runner = Runner("robgan_fig6", config, output_dir)
    names = ("adversarial_training", "robgan", "fine_tuned")
    runner.run(names, ("train", "test"), config.epsilons)
    return report.write(runner)


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robgan_fig6")
