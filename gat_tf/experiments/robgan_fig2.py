"""Fig. 2 of the Rob-GAN paper: what adversarial training gains does not generalise.

    python -m gat_tf.experiments.robgan_fig2 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan_fig2 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claim: under PGD an adversarially trained classifier is far more accurate on its
training images than on test images, at every δmax (left), and its local Lipschitz value ‖∂ℓ/∂x‖₂
is as much larger on the test images, more so as training goes on (right).

A unit of work is one data set and seed.
"""

from __future__ import annotations

import pathlib

from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import robgan_curves as report
from gat_tf.experiments.robgan_curves import PRESETS, Config, Runner


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 2; arguments, result and errors: `robgan_table1.run`."""
    runner = Runner("robgan_fig2", config, output_dir)
    runner.run(("adversarial_training",), ("train", "test"), config.epsilons)
    return report.write(runner)


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robgan_fig2")
