"""Table 1 of the Rob-GAN paper: is Rob-GAN more robust than adversarial training?

    python -m gat_tf.experiments.robgan_table1 --preset=quick       # built-in images, minutes
    python -m gat_tf.experiments.robgan_table1 --dataset=cifar10 --data_dir=...     # the paper's

The paper's claim: under PGD-20 the classifier of Rob-GAN after fine-tuning keeps 57.43 % of
CIFAR-10 at δmax = 0.04 and 30.25 % at 0.08, adversarial training of the same network 53.74 % and
23.58 %. δmax is in units of pixel values in [-1, 1].

A unit of work is one data set and seed: both classifiers on the test images.
"""

from __future__ import annotations

import pathlib

from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import robgan_curves as report
from gat_tf.experiments.robgan_curves import PRESETS, Config, Runner


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Table 1, and returns and writes its results.

    Args:
        config: Settings. Its data sets and seeds choose the units to compute; the results are
            those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: A folder holds another configuration's results or cannot be written, or a
            network diverged or is missing.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in a folder is not whole.
    """
    runner = Runner("robgan_table1", config, output_dir)
    runner.run(("adversarial_training", "fine_tuned"), ("test",))
    return report.write(runner)


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "robgan_table1")
