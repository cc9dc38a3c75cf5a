"""What Figs. 3 and 4 share: classifiers of Table 2 under attacks of growing size."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from gat_tf import attacks, data
from gat_tf.experiments import classifiers, units
from gat_tf.experiments import config as configs
from gat_tf.experiments.config import ConfigError, option
from gat_tf.experiments.methods import METHODS

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config(classifiers.Config):
    """Settings of Figs. 3 and 4; the defaults are the paper's, or ours where it has none."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "the classifiers of Table 2's paper preset",
        "reduced": "those of its reduced preset, 2,000 test images, an hour on two cores",
        "quick": "those of its quick preset, built-in images, minutes on two cores",
    }

    methods: tuple[str, ...] = option(
        ("baseline", "fg_linf", "fg_l2", "gat"), "Methods of Table 2 (ours).", shard=True
    )
    fg_epsilons: tuple[float, ...] = option(
        (*(n / 20 for n in range(11)), 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 2.5, 3.0),
        "ε of the fast gradient, L2, rising (ours).",
    )
    pgd_l2_epsilons: tuple[float, ...] = option(
        (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5), "ε of PGD, L2 (ours)."
    )
    pgd_linf_epsilons: tuple[float, ...] = option(
        tuple(n / 255 for n in (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)), "ε of PGD, L∞ (ours)."
    )
    pgd_steps: int = option(20, "Steps of PGD (ours).")
    pgd_restarts: int = option(5, "Random starts of PGD (ours).")

    def __post_init__(self):
        super().__post_init__()
        configs.require_known("method", self.methods, METHODS)
        configs.require_range(self, ("pgd_steps", 1, INF), ("pgd_restarts", 1, INF))
        for name in ("fg_epsilons", "pgd_l2_epsilons", "pgd_linf_epsilons"):
            values = np.array(getattr(self, name), np.float64)
            fits = len(values) and np.isfinite(values).all() and values[0] >= 0
            if not fits or (np.diff(values) <= 0).any():
                raise ConfigError(
                    f"Expected {name} as finite numbers of at least 0, each larger than the one "
                    f"before. Received: {getattr(self, name)}"
                )

    def attacks(self) -> dict[str, tuple[attacks.Attack, tuple[float, ...]]]:
        """Name to attack and ε. Images are clipped under PGD, and not under the paper's attack."""
        steps, restarts = self.pgd_steps, self.pgd_restarts
        return {
            "fg_l2": (attacks.FastGradient(1.0, 2, clip=None), self.fg_epsilons),
            "pgd_l2": (attacks.PGD(1.0, 2, steps, restarts=restarts), self.pgd_l2_epsilons),
            "pgd_linf": (attacks.PGD(1.0, INF, steps, restarts=restarts), self.pgd_linf_epsilons),
        }


PRESETS = {
    "paper": Config(),
    "reduced": Config(
        **classifiers.REDUCED,
        test_size=2_000,
        pgd_l2_epsilons=(0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
        pgd_linf_epsilons=tuple(n / 255 for n in (0, 0.5, 1, 2, 3, 4, 6)),
    ),
    "quick": Config(
        **classifiers.QUICK,
        test_size=200,
        pgd_l2_epsilons=(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5),
        pgd_linf_epsilons=tuple(n / 255 for n in (0, 1, 2, 3, 4, 6, 8)),
        pgd_restarts=2,
    ),
}


class Runner:
    """Computes the units of a folder: files with curves, method -> attack -> accuracies."""

    def __init__(self, experiment: str, config: Config, output_dir: str | pathlib.Path):
        self.experiment = experiment
        self.started = time.time()
        self.config = config
        self.output_dir = pathlib.Path(output_dir)
        self.classifiers = classifiers.Classifiers(config)
        configs.claim_folder(experiment, config, self.output_dir, table2=self.classifiers.config)

    def test_split(self, dataset: str) -> data.Split:
        """The images that are attacked."""
        return self.classifiers.splits(dataset, self.config.test_size).test

    def unit(
        self, name: str, about: dict, digests: dict[str, str], compute: Callable[[], dict]
    ) -> None:
        """Computes and writes a unit, unless it is there.

        Args:
            name: Of its file.
            about: What it is: data set, seed and so on.
            digests: Method to the digest of each classifier in it.
            compute: () -> method -> attack -> accuracies as `curve` gives them.

        Raises:
            ConfigError: The unit is there, but of other classifiers.
        """
        images = len(self.test_split(about["dataset"]).labels)
        units.measure(
            self.output_dir / "units" / f"{name}.json",
            {**about, "test_images": images},
            digests,
            lambda: {"curves": compute()},
        )


def curve(epsilons, accuracies) -> dict:
    """A curve as the results hold it."""
    return {"epsilons": list(epsilons), "accuracy": [float(a) for a in accuracies]}
