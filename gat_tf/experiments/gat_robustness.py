"""How robust is GAT really? Every classifier of Table 2 under many attacks, beside PGD training.

    python -m gat_tf.experiments.gat_robustness --preset=quick      # built-in images, minutes
    python -m gat_tf.experiments.gat_robustness --dataset=cifar10 --data_dir=...

The GAT paper evaluates its classifiers under the fast gradient alone (Figs. 3 and 4), and no
evaluation under strong attacks has been published. This one attacks them as
`gat_tf.evaluation.robustness` does, and for comparison the same network trained on PGD (Madry et
al. 2018). Attacks are also transferred, from a baseline of another seed.

A unit of work is one data set, method, seed and ball. Each attack in it is a file of its own until
the unit is done, so that a run that was stopped continues.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
import time
from typing import ClassVar

import keras

from gat_tf import data, evaluation
from gat_tf.experiments import classifiers, devices, pgd_training, robustness, table2, units
from gat_tf.experiments import config as configs
from gat_tf.experiments.config import option
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.reports import gat_robustness as report

INF = math.inf


@dataclasses.dataclass(frozen=True)
class Config(classifiers.Config, robustness.BudgetConfig):
    """Settings; there are none in the paper."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the classifiers of Table 2's paper preset, AutoAttack's budgets",
        "reduced": "those of its reduced preset, 200 test images, AutoAttack's budgets, two hours "
        "on two cores",
        "quick": "those of its quick preset, built-in images, few steps, minutes on two cores",
    }

    methods: tuple[str, ...] = option(
        (*METHODS, "pgd"), "Methods of Table 2, and pgd, trained on it.", shard=True
    )
    linf_epsilons: tuple[float, ...] = option((8 / 255,), "Radii of the balls in L∞.", shard=True)
    l2_epsilons: tuple[float, ...] = option((0.5,), "Radii of the balls in L2.", shard=True)
    training_epsilon: float = option(8 / 255, "ε of PGD training, L∞.")
    training_steps: int = option(7, "Steps of PGD in training, as of Madry et al.")

    def __post_init__(self):
        classifiers.Config.__post_init__(self)
        robustness.BudgetConfig.__post_init__(self)
        configs.require_known("method", self.methods, (*METHODS, "pgd"))
        configs.require_range(
            self,
            ("linf_epsilons", 0, INF),
            ("l2_epsilons", 0, INF),
            ("training_epsilon", 0, INF),
            ("training_steps", 1, INF),
        )

    def balls(self) -> list[tuple[str, float]]:
        """(norm, ε) of each evaluation."""
        return [
            *(("Linf", epsilon) for epsilon in self.linf_epsilons),
            *(("L2", epsilon) for epsilon in self.l2_epsilons),
        ]


PRESETS = {
    "paper": Config(),
    "reduced": Config(
        **classifiers.REDUCED,
        test_size=200,
        # Of the standard ball hardly anything is left of networks so small.
        linf_epsilons=(2 / 255, 8 / 255),
        training_epsilon=2 / 255,
        hard_label_images=50,
    ),
    "quick": Config(
        **classifiers.QUICK,
        test_size=100,
        methods=("baseline", "fg_l2", "gat", "pgd"),
        linf_epsilons=(2 / 255,),
        l2_epsilons=(),
        training_epsilon=1 / 255,  # with more it does not begin to learn within 20 epochs
        **robustness.FEW,
    ),
}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of the evaluation, and returns and writes its results.

    Args:
        config: Settings. Its data sets, methods, seeds and radii choose the units to compute; the
            results are those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The folder holds another configuration's results or cannot be written, or a
            classifier is missing or has not been trained to the end.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    runner = _Runner(config, pathlib.Path(output_dir))
    for dataset in config.datasets:
        runner.train_missing(dataset)
        for seed in config.seeds:
            for norm, epsilon in config.balls():
                for method in config.methods:
                    runner.unit(dataset, method, seed, norm, epsilon)
    return report.write(runner)


class _Runner:
    def __init__(self, config: Config, output_dir: pathlib.Path):
        self.started = time.time()
        self.config = config
        self.output_dir = output_dir
        self.classifiers = classifiers.Classifiers(config)
        configs.claim_folder("gat_robustness", config, output_dir, table2=self.classifiers.config)
        self._pgd = output_dir / "pgd"

    def train_missing(self, dataset: str) -> None:
        c = self.config
        table2_methods = tuple(m for m in c.methods if m != "pgd")
        self.classifiers.train_missing(dataset, table2_methods, c.seeds)
        sources = {_source_seed(seed) for seed in c.seeds}
        self.classifiers.train_missing(dataset, ("baseline",), tuple(sorted(sources)))
        if "pgd" in c.methods:
            attack = pgd_training.Config(c.training_epsilon, c.training_steps)
            pgd_training.train_missing(self._pgd, attack, self.classifiers, dataset, c.seeds)

    def unit(self, dataset: str, method: str, seed: int, norm: str, epsilon: float) -> None:
        """Evaluates one classifier in one ball, unless that has been done."""
        source_seed = _source_seed(seed)
        digests = {
            method: units.digest(self._path(dataset, method, seed).with_suffix(".keras")),
            "source": self.classifiers.digest(dataset, "baseline", source_seed),
        }
        name = f"{dataset}-{method}-seed{seed}-{norm}-{epsilon:.6g}"
        path = self.output_dir / "units" / f"{name}.json"
        parts = path.with_suffix(".parts")
        about = {
            "dataset": dataset,
            "method": method,
            "seed": seed,
            "source_seed": source_seed,
            "norm": norm,
            "epsilon": epsilon,
        }

        def evaluated():
            trained = self._path(dataset, method, seed)
            result = evaluation.robustness(
                units.load_network(trained, trained.with_suffix(".keras")),
                data.batches(self.classifiers.splits(dataset, self.config.test_size).test, 500),
                robustness.NORMS[norm],
                epsilon,
                source=self.classifiers.load(dataset, "baseline", source_seed),
                budget=self.config.budget(),
                seed=seed,
                stage=robustness.kept_in(parts, digests),
            )
            keras.backend.clear_session()
            return result

        units.measure(path, about, digests, evaluated)
        if devices.is_chief():
            shutil.rmtree(parts, ignore_errors=True)

    def _path(self, dataset, method, seed) -> pathlib.Path:
        folder = self._pgd if method == "pgd" else self.classifiers.folder
        return table2.unit_path(folder, dataset, method, seed)


def _source_seed(seed: int) -> int:
    """Of the baseline that attacks are transferred from: the same whatever seeds are run."""
    return 0 if seed else 1


if __name__ == "__main__":
    configs.main(Config, PRESETS, run, "gat_robustness")
