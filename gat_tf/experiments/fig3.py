"""Fig. 3 of the GAT paper: are GAT's classifiers more robust to a direct attack?

    python -m gat_tf.experiments.fig3 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig3 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: under the fast gradient attack of eq. 3, computed from each network's own
gradients, a GAT-trained classifier has the best accuracy without perturbation and stays above the
baseline and above fast-gradient training. In addition to the paper, the same curves are measured
under PGD with restarts, because robustness to the fast gradient alone says little.

A unit of work is one data set, method and seed: a network of Table 2 under every attack.
"""

from __future__ import annotations

import pathlib

from gat_tf import data, evaluation
from gat_tf.experiments import curves
from gat_tf.experiments.curves import PRESETS, Config
from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.tables import by_dataset
from gat_tf.experiments.lab.verdicts import decide
from gat_tf.experiments.measuring import Measurement, Runner
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.networks import Network

NAME = "gat_tf.experiments.fig3"


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of Fig. 3, and returns and writes the results.

    Args:
        config: Settings. Its data sets, methods and seeds choose the units to compute; the
            results are those of all units in the folder.
        output_dir: Folder for the results of this configuration only.

    Returns:
        What `results.json` holds, and the units.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written, or a
            network is missing.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is damaged.
        FullDiskError: The disk is full.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        runner.measure(
            _measurement(runner, Network(dataset, method, seed))
            for seed in config.seeds
            for method in config.methods
        )
    return runner.write()


def _measurement(runner: Runner, network: Network) -> Measurement:
    def measured():
        test = runner.splits(network.dataset).test
        classifier, images = runner.networks.load(network), data.batches(test, 500)
        found = {
            name: curves.as_curve(
                epsilons,
                evaluation.accuracy_curve(classifier, images, attack, epsilons, seed=network.seed),
            )
            for name, (attack, epsilons) in runner.config.attacks().items()
        }
        return {"test_images": len(test.labels), "curves": {network.method: found}}

    return Measurement(network.name, network._asdict(), {network.method: network}, measured)


summarise = curves.summarise


def verdicts(units: list[dict]) -> dict:
    """The paper's claims on clean accuracy and robustness, and the same under PGD, by data set."""
    return {dataset: decide(_claims(ours)) for dataset, ours in by_dataset(units).items()}


def _claims(units):
    begins = {curve["epsilons"][0] for curve in curves.of(units, "gat", "fg_l2").values()}
    on_clean = [
        curves.claim(
            f"Clean accuracy: GAT above {METHODS[rival].title}",
            units, "fg_l2", rival, curves.clean,
            "paper" if rival in curves.PAPER_RIVALS else "beyond",
        )
        for rival in curves.rivals(units)
        if begins == {0}
    ]  # fmt: skip
    return on_clean + curves.robustness_claims("Direct", units)


def table(results: dict) -> str:
    """Points of the curves and the verdicts as Markdown, by data set."""
    return curves.table(results, "direct")


def figures(results: dict) -> dict:
    """Returns the figure, name to matplotlib figure."""
    return {"fig3": curves.figure(results, "direct")}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "fig3")
