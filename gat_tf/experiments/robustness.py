"""How robust is GAT? The networks of Table 2 under many attacks, compared with PGD training.

    python -m gat_tf.experiments.robustness --preset=quick          # built-in images, minutes
    python -m gat_tf.experiments.robustness --dataset=cifar10 --data_dir=...

The GAT paper evaluates its classifiers under the fast gradient alone (Figs. 3 and 4), and no
evaluation under strong attacks has been published. This experiment runs
`gat_tf.evaluation.robustness` on them and, for comparison, on the same network trained with PGD
(Madry et al. 2018). Attacks are also transferred from a baseline of another seed.

A unit of work is one data set, method, seed and ball. Until the unit is done, each attack in it has
its own file, so that an interrupted run can continue.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any, ClassVar

from gat_tf import data, evaluation
from gat_tf.experiments import measuring
from gat_tf.experiments.lab import budget, flags, strong
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab.config import option
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import Measurement, Runner, sampling_error
from gat_tf.experiments.methods import METHODS, PAPER_METHODS
from gat_tf.experiments.networks import Network

NAME = "gat_tf.experiments.robustness"
_TITLES = {name: method.title for name, method in METHODS.items()}
INF = math.inf


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

    methods: tuple[str, ...] = option(
        (*PAPER_METHODS, "pgd"), "Methods of training.", affects_results=False
    )
    linf_epsilons: tuple[float, ...] = option(
        (8 / 255,), "Radii of the balls in L∞.", affects_results=False
    )
    l2_epsilons: tuple[float, ...] = option(
        (0.5,), "Radii of the balls in L2.", affects_results=False
    )

    def __post_init__(self):
        measuring.Config.__post_init__(self)
        budget.Config.__post_init__(self)
        configs.require_known("method", self.methods, METHODS)
        configs.require_range(self, ("linf_epsilons", 0, INF), ("l2_epsilons", 0, INF))

    def balls(self) -> list[tuple[str, float]]:
        """(norm, ε) of each evaluation."""
        return [
            *(("Linf", epsilon) for epsilon in self.linf_epsilons),
            *(("L2", epsilon) for epsilon in self.l2_epsilons),
        ]


_BOTH = (2 / 255, 8 / 255)  # of the standard ball hardly anything is left
PRESETS = {
    "paper": Config(),
    "full": Config(
        **measuring.FULL,
        test_size=500,
        methods=("baseline", "fg_linf", "gat", "pgd"),
        linf_epsilons=_BOTH,
        hard_label_images=50,
    ),
    "reduced": Config(
        **measuring.REDUCED, test_size=200, linf_epsilons=_BOTH, hard_label_images=50
    ),
    "quick": Config(
        **measuring.QUICK,
        test_size=100,
        methods=("baseline", "fg_l2", "gat", "pgd"),
        linf_epsilons=(2 / 255,),
        l2_epsilons=(),
        **budget.FEW,
    ),
}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes the missing units of the evaluation, and returns and writes the results.

    Args:
        config: Settings. Its data sets, methods, seeds and radii choose the units to compute; the
            results are those of all units in the folder.
        output_dir: Folder for the results of this configuration only.

    Returns:
        What `results.json` holds, and the units.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written, or a
            network is missing or has not been trained to the end.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is damaged.
        FullDiskError: The disk is full.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in config.datasets:
        runner.measure(
            _measurement(runner, Network(dataset, method, seed), norm, epsilon)
            for seed in config.seeds
            for norm, epsilon in config.balls()
            for method in config.methods
        )
    return runner.write()


def _measurement(runner: Any, network: Network, norm: str, epsilon: float) -> Measurement:
    # Attacks are transferred from this baseline, the same whatever seeds are run.
    source = Network(network.dataset, "baseline", 0 if network.seed else 1)
    name = f"{network.name}-{norm}-{epsilon:.6g}"

    def measured():
        digests = {
            network.method: runner.networks.digest(network),
            "source": runner.networks.digest(source),
        }
        return evaluation.robustness(
            runner.networks.load(network),
            data.batches(runner.splits(network.dataset).test, 500),
            budget.NORMS[norm],
            epsilon,
            source=runner.networks.load(source),
            budget=runner.config.budget(),
            seed=network.seed,
            stage=budget.kept_in(Units(runner.units.path(name, ".parts")), digests),
        )

    about = {**network._asdict(), "source_seed": source.seed, "norm": norm, "epsilon": epsilon}
    return Measurement(name, about, {network.method: network, "source": source}, measured)


def summarise(units: list[dict]) -> dict:
    """Accuracies by data set, ball and method.

    Returns:
        data set -> ball, such as "Linf 0.0313725" -> method -> seeds; accuracies in %, a list over
        seeds for "clean", each attack and "worst case"; curve: epsilons, mean and std of the
        accuracy in % under PGD; checks; failed: those checks that failed, with how often.
    """
    summary = {}
    for dataset in dict.fromkeys(u["dataset"] for u in units):
        ordered = sorted(units, key=lambda u: (u["norm"] == "L2", u["epsilon"]))
        summary[dataset] = {
            ball: {
                method: strong.row(ours)
                for method in METHODS
                if (ours := _of(units, dataset, ball, method))
            }
            for ball in dict.fromkeys(_ball(u) for u in ordered if u["dataset"] == dataset)
        }
    return summary


def _of(units: list[dict], dataset: Any, ball: Any, method: Any) -> list[dict]:
    found = [u for u in units if (u["dataset"], _ball(u), u["method"]) == (dataset, ball, method)]
    return sorted(found, key=lambda u: u["seed"])


def _ball(unit: dict) -> str:
    return f"{unit['norm']} {unit['epsilon']:.6g}"


def verdicts(units: list[dict]) -> dict:
    """By data set: is GAT, in the worst case over all attacks, above each other method?"""
    return {
        dataset: decide(
            [
                _claim(dataset, ball, rows, high, low, units)
                for ball, rows in balls.items()
                for high, low in _pairs(rows)
            ]
        )
        for dataset, balls in summarise(units).items()
    }


def _pairs(rows: Any) -> list[tuple[str, str]]:
    rivals = [m for m in METHODS if m not in ("gat", "dropout_gat", "pgd")]
    pairs = [*(("gat", m) for m in rivals), ("pgd", "gat")]
    return [(a, b) for a, b in pairs if a in rows and b in rows]


def _claim(dataset: Any, ball: Any, rows: Any, high: str, low: str, units: list[dict]) -> Claim:
    ours, theirs = strong.worst_cases(rows, high, low)
    images = _of(units, dataset, ball, high)[0]["images"]
    return Claim(
        f"{_readable(ball)}, worst case: {METHODS[high].title} above {METHODS[low].title}",
        [a - b for a, b in zip(ours, theirs, strict=True)],
        "beyond",
        image_error=sampling_error(dataset, images, ours, theirs) if ours else 0.0,
    )


def _readable(ball: str) -> str:
    norm, epsilon = ball.split()
    if norm == "L2":
        return f"L2, ε = {epsilon}"
    return f"L∞, ε = {255 * float(epsilon):.3g}/255"


def table(results: dict) -> str:
    """Per ball, a table of methods and attacks; then the failed checks and the verdicts."""
    config = results["config"]
    lines = []
    for dataset, balls in results["summary"].items():
        ours = [u for u in results["units"] if u["dataset"] == dataset]
        for ball, rows in balls.items():
            head = strong.described(
                _readable(ball), ours[0]["images"], config["hard_label_images"],
                strong.most_seeds(rows),
            )  # fmt: skip
            lines += [f"**{dataset}**, {head}", "", *strong.table(rows, _TITLES, "training")]
        lines.append(verdicts_markdown(results["verdicts"][dataset]))
    return "\n".join(lines)


def figures(results: dict) -> dict:
    """Returns the methods under each attack, and under PGD against ε, name to figure."""
    return {"robustness": _under_attacks(results), "robustness_curves": _against_epsilon(results)}


def _under_attacks(results):
    from gat_tf.plotting import dots

    steps = results["config"]["pgd_steps"]
    panels = []
    for dataset, balls in results["summary"].items():
        methods = [m for m in METHODS if any(m in rows for rows in balls.values())]
        for ball, rows in balls.items():
            title, found = f"{dataset}, {_readable(ball)}", {m: rows.get(m, {}) for m in methods}
            panels.append(strong.panel(title, found, _TITLES, steps))
    return dots(panels, legend_columns=5)


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
