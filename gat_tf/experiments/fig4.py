"""Fig. 4 of the GAT paper: are GAT's classifiers more robust to an indirect attack?

    python -m gat_tf.experiments.fig4 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig4 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: with the gradients of another baseline, the ranking of Fig. 3 is the same, and
accuracy falls more slowly than under the direct attack. The other baseline has the network's seed
plus 100. In addition to the paper, the same curves are measured under PGD against the other
baseline.

A unit of work is one data set and seed: the networks of Table 2 on images that attack the same
other baseline.
"""

from __future__ import annotations

import pathlib

import tensorflow as tf

from gat_tf import data, evaluation
from gat_tf.experiments import curves
from gat_tf.experiments.curves import PRESETS, Config
from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.tables import by_dataset
from gat_tf.experiments.lab.verdicts import decide
from gat_tf.experiments.measuring import Measurement, Runner, above
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.networks import SOURCE_SEED, Network

NAME = "gat_tf.experiments.fig4"


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of Fig. 4, and returns and writes the results.

    Arguments, results and errors are those of `gat_tf.experiments.fig3.run`; the data sets and
    seeds choose the units, each of which has all methods.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        runner.measure(_measurement(runner, dataset, seed) for seed in config.seeds)
    return runner.write()


def _measurement(runner: Runner, dataset: str, seed: int) -> Measurement:
    networks = {m: Network(dataset, m, seed) for m in runner.config.methods}
    networks["source"] = Network(dataset, "baseline", seed + SOURCE_SEED)

    def measured():
        test = runner.splits(dataset).test
        models = {role: runner.networks.load(network) for role, network in networks.items()}
        found = _curves(runner.config, models, data.batches(test, 500), seed)
        return {"test_images": len(test.labels), "curves": found}

    about = {"dataset": dataset, "seed": seed, "source_seed": seed + SOURCE_SEED}
    return Measurement(f"{dataset}-seed{seed}", about, networks, measured)


def _curves(config: Config, models: dict, images: tf.data.Dataset, seed: int) -> dict:
    source = models["source"]  # also under its own attack
    accuracy, chance = evaluation.accuracy(source, images), 1 / source.output_shape[-1]
    if accuracy < 2 * chance:
        raise ConfigError(
            f"Expected another baseline that has learnt its task. Received: {accuracy:.1%} for "
            f"seed {seed + SOURCE_SEED}, whose gradients would attack nothing. Leave out seed "
            f"{seed}, or train longer."
        )
    found: dict[str, dict] = {name: {} for name in models}
    for attack_name, (attack, epsilons) in config.attacks().items():
        accuracies = evaluation.transfer_curves(
            list(models.values()), source, images, attack, epsilons, seed=seed
        )
        for name, ours in zip(models, accuracies, strict=True):
            found[name][attack_name] = curves.as_curve(epsilons, ours)
    # The direct attack, to see which falls faster.
    attack, epsilons = config.attacks()["fg_l2"]
    for method in config.methods:
        direct = evaluation.accuracy_curve(models[method], images, attack, epsilons, seed=seed)
        found[method]["fg_l2_direct"] = curves.as_curve(epsilons, direct)
    return found


summarise = curves.summarise


def verdicts(units: list[dict]) -> dict:
    """The paper's claims on robustness and on the slower fall, and the same under PGD."""
    return {dataset: decide(_claims(ours)) for dataset, ours in by_dataset(units).items()}


def _claims(units):
    claims = curves.robustness_claims("Indirect", units)
    for method in ("baseline", "gat"):
        falls = [
            {s: curves.fall(c) for s, c in curves.of(units, method, attack).items()}
            for attack in ("fg_l2_direct", "fg_l2")
        ]
        if falls[0]:
            text = "accuracy falls more slowly than under the direct attack"
            claims.append(above(f"{METHODS[method].title}: {text}", units, *falls))
    return claims


def table(results: dict) -> str:
    """Points of the curves and the verdicts as Markdown, by data set."""
    return curves.table(results, "indirect")


def figures(results: dict) -> dict:
    """Returns the figure, name to matplotlib figure."""
    return {"fig4": curves.figure(results, "indirect")}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "fig4")
