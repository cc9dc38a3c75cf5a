"""How robust is GAT? The networks of Table 2 under many attacks, compared with PGD training.

    python -m gat_tf.experiments.robustness --preset=quick          # built-in images, minutes
    python -m gat_tf.experiments.robustness --dataset=cifar10 --data_dir=...

The GAT paper evaluates its classifiers under the fast gradient alone (Figs. 3 and 4), and no
evaluation under strong attacks has been published. This experiment runs
`gat_tf.evaluation.robustness` on them and, for comparison, on the same network trained with PGD
(Madry et al. 2018). Attacks are also transferred from a baseline of another seed.

A unit of work is a chunk of images for one data set, method, seed and ball. Until the unit is done,
each attack in it has its own file, so that an interrupted run can continue.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

from gat_tf import data, evaluation
from gat_tf.experiments import measuring, strong
from gat_tf.experiments.lab import budget, flags, monitoring
from gat_tf.experiments.lab.config import run_option
from gat_tf.experiments.lab.tables import by_dataset
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.lab.verdicts import decide
from gat_tf.experiments.measuring import Measurement, Runner
from gat_tf.experiments.methods import METHODS, PAPER_METHODS
from gat_tf.experiments.networks import Network

NAME = "gat_tf.experiments.robustness"


@dataclasses.dataclass(frozen=True)
class Config(measuring.Config, budget.Config):
    """Settings; there are none in the paper."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the networks of Table 2's paper preset, AutoAttack's budgets",
        "full": "four methods of its full preset, 500 test images, AutoAttack's budgets, a day on "
        "two cores",
        "reduced": "the networks of its reduced preset, 200 test images, AutoAttack's budgets, two "
        "hours on two cores",
        "quick": "those of its quick preset, built-in images, few steps, minutes on two cores",
    }

    methods: tuple[str, ...] = run_option(
        (*PAPER_METHODS, "pgd"), "Methods of training.", choices=METHODS
    )
    linf_epsilons: tuple[float, ...] = run_option(
        (8 / 255,), "Radii of the balls in L∞.", may_be_empty=True
    )
    l2_epsilons: tuple[float, ...] = run_option(
        (0.5,), "Radii of the balls in L2.", may_be_empty=True
    )

    def balls(self) -> list[tuple[str, float]]:
        """(norm, ε) of each evaluation."""
        return [
            *(("Linf", epsilon) for epsilon in self.linf_epsilons),
            *(("L2", epsilon) for epsilon in self.l2_epsilons),
        ]


_BOTH = (2 / 255, 8 / 255)  # of the standard ball hardly anything is left
PRESETS = Config.presets(
    measuring.PRESETS,
    full={
        "test_size": 500,
        "methods": ("baseline", "fg_linf", "gat", "pgd"),
        "linf_epsilons": _BOTH,
        "hard_label_images": 50,
    },
    reduced={"test_size": 200, "linf_epsilons": _BOTH, "hard_label_images": 50},
    quick={
        "test_size": 100,
        "methods": ("baseline", "fg_l2", "gat", "pgd"),
        "linf_epsilons": (2 / 255,),
        "l2_epsilons": (),
        **budget.FEW,
    },
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of the evaluation, and returns and writes the results.

    Arguments, results and errors are those of `gat_tf.experiments.fig3.run`; the data sets,
    methods, seeds and radii choose the units.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        runner.measure(
            _measurement(runner, Network(dataset, method, seed), norm, epsilon, first)
            for seed in config.seeds
            for norm, epsilon in config.balls()
            for method in config.methods
            for first in range(0, len(runner.splits(dataset).test.labels), config.chunk_size)
        )
    return runner.write()


def _measurement(
    runner: Runner, network: Network, norm: str, epsilon: float, first: int
) -> Measurement:
    # Attacks are transferred from this baseline, the same whatever seeds are run.
    source = Network(network.dataset, "baseline", 0 if network.seed else 1)
    name = f"{network.name}-{norm}-{epsilon:.6g}"
    images, labels = runner.splits(network.dataset).test
    chunk = slice(first, first + runner.config.chunk_size)
    part = {}
    if len(labels) > runner.config.chunk_size:
        part = {"first_image": first, "all_images": len(labels)}
        name += f"-images{first:06d}"

    networks = {network.method: network, "source": source}

    def measured():
        digests = {role: runner.networks.digest(n) for role, n in networks.items()}
        return evaluation.robustness(
            runner.networks.load(network),
            data.batches(data.Split(images[chunk], labels[chunk]), 500),
            budget.NORMS[norm],
            epsilon,
            source=runner.networks.load(source),
            budget=runner.config.budget(),
            first=first,
            seed=network.seed,
            verbose=int(monitoring.in_terminal()),
            stage=budget.kept_in(Units(runner.units.path(name, ".parts")), digests),
        )

    about = {**network._asdict(), "source_seed": source.seed, "norm": norm, "epsilon": epsilon}
    return Measurement(name, {**about, **part}, networks, measured)


def whole(units: list[dict]) -> list[dict]:
    """The evaluations of all images, without those that lack a chunk."""
    found: dict[tuple, list[dict]] = {}
    for unit in sorted(units, key=lambda u: u.get("first_image", 0)):
        key = unit["dataset"], unit["method"], unit["seed"], _ball(unit)
        found.setdefault(key, []).append(unit)
    return [
        chunks[0] if len(chunks) == 1 else {**chunks[0], **evaluation.merged(chunks)}
        for chunks in found.values()
        if sum(u["images"] for u in chunks) == chunks[0].get("all_images", chunks[0]["images"])
    ]


def summarise(units: list[dict]) -> dict:
    """Accuracies by data set, ball and method.

    Returns:
        data set -> ball, such as "Linf 0.0313725" -> method -> seeds; accuracies in %, a list over
        seeds for "clean", each attack and "worst case"; curve: epsilons, mean and std of the
        accuracy in % under PGD; checks; failed: those checks that failed, with how often.
    """
    ordered = sorted(whole(units), key=lambda u: (u["norm"] == "L2", u["epsilon"]))
    return {
        dataset: strong.rows(ours, _ball, "method", METHODS)
        for dataset, ours in by_dataset(ordered).items()
    }


def _ball(unit: dict) -> str:
    return f"{unit['norm']} {unit['epsilon']:.6g}"


def verdicts(units: list[dict]) -> dict:
    """By data set: is GAT, in the worst case over all attacks, above each other method?"""
    rivals = [m for m in METHODS if m not in ("gat", "dropout_gat", "pgd")]
    pairs = [*(("gat", m) for m in rivals), ("pgd", "gat")]
    found, summary = by_dataset(whole(units)), summarise(units)
    return {
        dataset: decide(strong.claims(ours, summary[dataset], _titles(), pairs, _readable))
        for dataset, ours in found.items()
    }


def _titles() -> dict[str, str]:
    return {name: method.title for name, method in METHODS.items()}


def _readable(ball: str) -> str:
    norm, epsilon = ball.split()
    if norm == "L2":
        return f"L2, ε = {epsilon}"
    return f"L∞, ε = {255 * float(epsilon):.3g}/255"


def table(results: dict) -> str:
    """Per ball, a table of methods and attacks; then the failed checks and the verdicts."""
    return strong.tables(results, whole(results["units"]), _titles(), "training", _readable)


def figures(results: dict) -> dict:
    """Returns the methods under each attack, and under PGD against ε, name to figure."""
    under_attacks = strong.figure(results, _titles(), _readable)
    return {"robustness": under_attacks, "robustness_curves": _against_epsilon(results)}


def _against_epsilon(results):
    from gat_tf.plotting import Line, Panel, curves

    panels = {}
    for dataset, balls in results["summary"].items():
        for ball, rows in balls.items():
            linf = ball.startswith("Linf")
            title = f"{dataset}, PGD in {_readable(ball).split(',')[0]}"
            lines = [
                Line(row["curve"]["epsilons"], row["curve"]["mean"], row["curve"]["std"],
                     METHODS[method].title)
                for method, row in rows.items()
            ]  # fmt: skip
            # Of each norm the first ball: the others' curves are the same at other ε.
            panels.setdefault(
                title,
                Panel(title, lines, "ε of PGD, of 255" if linf else "ε of PGD (pixels in [0, 1])",
                      "accuracy, %", xscale="epsilon", x_255=linf, ylim_bottom=0),
            )  # fmt: skip
    return curves([list(panels.values())], height=3.2, legend_columns=4)


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robustness")
