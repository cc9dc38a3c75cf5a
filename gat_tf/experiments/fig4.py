"""Fig. 4 of the GAT paper: is GAT-trained more robust to an indirect attack?

    python -m gat_tf.experiments.fig4 --preset=quick                # built-in images, minutes
    python -m gat_tf.experiments.fig4 --dataset=cifar10 --data_dir=...        # the paper's

The paper's claim: when the gradients are those of another baseline, the order of Fig. 3 stays, and
accuracy falls more slowly than under the direct attack. The other baseline here has the
classifier's seed plus 100 and is trained as Table 2's is, in `source/`. Beyond the paper stand
the same curves under PGD against the other baseline.

A unit of work is one data set and seed: the classifiers of Table 2 on images that attack the same
other baseline.
"""

from __future__ import annotations

import pathlib

import keras

from gat_tf import data, evaluation
from gat_tf.experiments import attack_curves
from gat_tf.experiments import config as configs
from gat_tf.experiments.attack_curves import PRESETS, Config
from gat_tf.experiments.config import ConfigError
from gat_tf.experiments.reports import attack_curves as report

SOURCE_SEED = 100  # added to a classifier's seed


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 4, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.fig3.run`; the data sets and
    seeds choose the units, each of which has all methods.
    """
    runner = attack_curves.Runner("fig4", config, output_dir)
    source = runner.classifiers.beside(runner.output_dir / "source")
    for dataset in config.datasets:
        runner.classifiers.train_missing(dataset, config.methods, config.seeds)
        source.train_missing(dataset, ("baseline",), tuple(s + SOURCE_SEED for s in config.seeds))
        for seed in config.seeds:
            about = {"dataset": dataset, "seed": seed, "source_seed": seed + SOURCE_SEED}
            runner.unit(
                f"{dataset}-seed{seed}",
                about,
                {
                    **{m: runner.classifiers.digest(dataset, m, seed) for m in config.methods},
                    "source": source.digest(dataset, "baseline", about["source_seed"]),
                },
                lambda about=about: _curves(runner, source, **about),
            )
    return report.write(runner)


def _curves(runner, source, dataset, seed, source_seed):
    images = data.batches(runner.test_split(dataset), 500)
    attacked = source.load(dataset, "baseline", source_seed)
    accuracy, chance = evaluation.accuracy(attacked, images), 1 / attacked.output_shape[-1]
    if accuracy < 2 * chance:
        raise ConfigError(
            f"Expected another baseline that has learnt its task. Received: {accuracy:.1%} for "
            f"seed {source_seed} on {dataset}, whose gradients would attack nothing. Leave out "
            f"seed {seed}, or train longer."
        )
    methods = runner.config.methods
    models = {m: runner.classifiers.load(dataset, m, seed) for m in methods}
    models["source"] = attacked  # under its own attack
    curves = {name: {} for name in models}
    for attack_name, (attack, epsilons) in runner.config.attacks().items():
        accuracies = evaluation.transfer_curves(
            list(models.values()), attacked, images, attack, epsilons, seed=seed
        )
        for name, ours in zip(models, accuracies, strict=True):
            curves[name][attack_name] = attack_curves.curve(epsilons, ours)
    # The direct attack, to see which falls faster.
    attack, epsilons = runner.config.attacks()["fg_l2"]
    for method in methods:
        direct = evaluation.accuracy_curve(models[method], images, attack, epsilons, seed=seed)
        curves[method]["fg_l2_direct"] = attack_curves.curve(epsilons, direct)
    keras.backend.clear_session()
    return curves


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "fig4")
