"""Settings of a strong evaluation: the budget of its attacks, and how its parts are stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from gat_tf.evaluation.robustness import CHUNK, Budget
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab.config import option
from gat_tf.experiments.lab.units import Units, measured, same_networks

NORMS = {"Linf": math.inf, "L2": 2}
NAMES = tuple(field.name for field in dataclasses.fields(Budget))


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The budget of the attacks; the defaults are AutoAttack's."""

    pgd_steps: int = option(100, "Number of steps of the longer PGD.")
    restarts: int = option(5, "Number of random starts of the longer PGD.")
    apgd_steps: int = option(100, "Number of steps of each APGD.")
    targets: int = option(9, "Number of target classes of APGD-T and FAB-T.")
    fab_steps: int = option(100, "Number of steps of FAB-T.")
    queries: int = option(5_000, "Number of queries of Square.")
    hard_label_steps: int = option(20, "Number of steps of HopSkipJump.")
    hard_label_images: int = option(100, "Number of images that HopSkipJump attacks.")
    chunk_size: int = option(
        CHUNK, "Number of images evaluated as a unit of work of their own.", before=CHUNK
    )

    def budget(self) -> Budget:
        return Budget(**{name: getattr(self, name) for name in NAMES})


FEW: dict[str, Any] = {  # of the quick presets
    "pgd_steps": 40,
    "restarts": 2,
    "apgd_steps": 20,
    "targets": 3,
    "fab_steps": 20,
    "queries": 300,
    "hard_label_steps": 5,
    "hard_label_images": 20,
}


def kept_in(units: Units, digests: dict[str, str | None]) -> Callable:
    """A `stage` for `evaluation.robustness` that stores each part of an evaluation as a unit.

    Args:
        units: Of the parts.
        digests: Digests of the networks and images; stored parts with other digests are refused.
    """

    def stage(name, compute):
        unit = "".join(c if c.isalnum() else "-" for c in name.lower())
        task = measured({"stage": name}, digests, lambda: {"result": compute()}, clear=False)
        check = same_networks(units.folder, {unit: digests})
        return units.complete({unit: task}, check)[unit]["result"]

    return stage
