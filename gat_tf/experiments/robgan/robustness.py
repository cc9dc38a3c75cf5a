"""How robust is Rob-GAN? The classifiers of its Table 1 under many attacks.

    python -m gat_tf.experiments.robgan.robustness --preset=quick   # built-in images, minutes
    python -m gat_tf.experiments.robgan.robustness --dataset=cifar10 --data_dir=...

The Rob-GAN paper evaluates its classifiers under PGD alone, with 20 steps and one start. This
experiment runs `gat_tf.evaluation.robustness` on them, in L∞. δmax is in units of pixel values in
[-1, 1]. Attacks are also transferred, from adversarial training to the others, and to it from
Rob-GAN without fine-tuning.

A unit of work is one data set, classifier, seed and δmax. Until the unit is done, each attack in it
has its own file, so that an interrupted run can continue.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib

from gat_tf import evaluation
from gat_tf.experiments import strong
from gat_tf.experiments.lab import budget, flags, monitoring
from gat_tf.experiments.lab.config import option, run_option
from gat_tf.experiments.lab.tables import by_dataset
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.lab.verdicts import decide
from gat_tf.experiments.measuring import Measurement
from gat_tf.experiments.robgan import images, settings
from gat_tf.experiments.robgan.measuring import Runner
from gat_tf.experiments.robgan.methods import BOUNDS, CLASSIFIERS, Network

NAME = "gat_tf.experiments.robgan.robustness"
# The first above the second: the claim of the paper's Table 1, and what fine-tuning does.
PAIRS = (("fine_tuned", "adversarial_training"), ("fine_tuned", "robgan"))
_TITLES = {name: classifier.title for name, classifier in CLASSIFIERS.items()}


@dataclasses.dataclass(frozen=True)
class Config(settings.Config, budget.Config):
    """Settings; there are none in the paper."""

    classifiers: tuple[str, ...] = run_option(
        ("adversarial_training", "robgan", "fine_tuned"), "Classifiers.", choices=CLASSIFIERS
    )
    epsilons: tuple[float, ...] = run_option(
        (0.04,), "Values of δmax, of pixels in [-1, 1].", high=2
    )
    attacked_images: int = option(1_000, "Number of test images that are attacked.")


_ON_CIFAR = {"attacked_images": 200, "hard_label_images": 50}
PRESETS = Config.presets(
    settings.PRESETS,
    large=_ON_CIFAR,
    reduced=_ON_CIFAR,
    quick={"attacked_images": 100, **budget.FEW},
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of the evaluation, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.robgan.table1.run`.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        runner.measure(
            _measurement(runner, Network(dataset, "classifier", classifier, seed), epsilon)
            for seed in config.seeds
            for epsilon in config.epsilons
            for classifier in config.classifiers
        )
    return runner.write()


def _measurement(runner: Runner, network: Network, epsilon: float) -> Measurement:
    folder, c = runner.networks, runner.config
    trained = "adversarial_training"
    source = network._replace(name="robgan" if network.name == trained else trained)
    networks = {network.name: network, "source": source}
    name = f"{network.dataset}-{network.name}-seed{network.seed}-{epsilon:.6g}"

    def measured():
        test = folder.splits(network.dataset).test
        size = test.images.shape[1]
        digests = {role: folder.digest(n) for role, n in networks.items()}
        return evaluation.robustness(
            folder.load(network),
            images.batches(images.first(test, c.attacked_images, size)),
            math.inf,
            epsilon,
            source=folder.load(source),
            from_logits=True,
            bounds=BOUNDS,
            budget=c.budget(),
            chunk_size=c.chunk_size,
            seed=network.seed,
            verbose=int(monitoring.in_terminal()),
            stage=budget.kept_in(Units(runner.units.path(name, ".parts")), digests),
        )

    about = {"dataset": network.dataset, "classifier": network.name, "seed": network.seed}
    about |= {"source": source.name, "epsilon": epsilon}
    return Measurement(name, about, networks, measured)


def summarise(units: list[dict]) -> dict:
    """Accuracies by data set, δmax and classifier.

    Returns:
        data set -> δmax, such as "0.04" -> classifier -> what `strong.row` returns.
    """
    ordered = sorted(units, key=lambda u: u["epsilon"])
    return {
        dataset: strong.rows(ours, _epsilon, "classifier", CLASSIFIERS)
        for dataset, ours in by_dataset(ordered).items()
    }


def _epsilon(unit: dict) -> str:
    return f"{unit['epsilon']:g}"


def verdicts(units: list[dict]) -> dict:
    """By data set: is fine-tuned Rob-GAN, in the worst case over all attacks, above the others?"""
    readable, summary = "δmax = {}".format, summarise(units)
    return {
        dataset: decide(strong.claims(ours, summary[dataset], _TITLES, PAIRS, readable))
        for dataset, ours in by_dataset(units).items()
    }


def table(results: dict) -> str:
    """Per δmax, a table of classifiers and attacks; then the failed checks and the verdicts."""
    readable = "L∞, δmax = {} (pixels in [-1, 1])".format
    return strong.tables(results, results["units"], _TITLES, "classifier", readable)


def figures(results: dict) -> dict:
    """Returns the classifiers under each attack, name to matplotlib figure."""
    return {"robustness": strong.figure(results, _TITLES, "L∞, δmax = {}".format)}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-robustness")
