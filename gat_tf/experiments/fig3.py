"""Fig. 3 of the GAT paper: is GAT-trained more robust to a direct attack?

    python -m gat_tf.experiments.fig3 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig3 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: under the fast gradient attack of eq. 3, made from each network's own gradients,
a GAT-trained classifier has the best accuracy without perturbation and stays above the baseline and
above fast-gradient training. Beyond the paper stand the same curves under PGD with restarts,
without which a claim of robustness says little.

A unit of work is one data set, method and seed: a classifier of Table 2 under every attack.
"""

from __future__ import annotations

import pathlib

from gat_tf import data, evaluation
from gat_tf.experiments import attack_curves
from gat_tf.experiments import config as configs
from gat_tf.experiments.attack_curves import PRESETS, Config
from gat_tf.experiments.reports import attack_curves as report


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 3, and returns and writes its results.

    Args:
        config: Settings. Its data sets, methods and seeds choose the units to compute; the
            results are those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written, or a
            classifier is missing.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    runner = attack_curves.Runner("fig3", config, output_dir)
    for dataset in config.datasets:
        runner.classifiers.train_missing(dataset, config.methods, config.seeds)
        for seed in config.seeds:
            for method in config.methods:
                about = {"dataset": dataset, "method": method, "seed": seed}
                runner.unit(
                    f"{dataset}-{method}-seed{seed}",
                    about,
                    {method: runner.classifiers.digest(dataset, method, seed)},
                    lambda about=about: {about["method"]: _curves(runner, **about)},
                )
    return report.write(runner)


def _curves(runner, dataset, method, seed):
    classifier = runner.classifiers.load(dataset, method, seed)
    images = data.batches(runner.test_split(dataset), 500)
    return {
        name: attack_curves.curve(
            epsilons, evaluation.accuracy_curve(classifier, images, attack, epsilons, seed=seed)
        )
        for name, (attack, epsilons) in runner.config.attacks().items()
    }


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "fig3")
