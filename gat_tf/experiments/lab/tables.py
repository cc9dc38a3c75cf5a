"""Numbers over seeds, and tables of them in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from gat_tf._types import Numbers


def by_dataset(units: Iterable[dict]) -> dict[str, list[dict]]:
    """The units of each data set."""
    found: dict[str, list[dict]] = {}
    for unit in units:
        found.setdefault(unit["dataset"], []).append(unit)
    return found


def of_first_seed(units: Sequence[dict]) -> list[dict]:
    """The units of the first data set's first seed."""
    first = min((u["dataset"], u["seed"]) for u in units)
    return [u for u in units if (u["dataset"], u["seed"]) == first]


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and standard deviation; the latter is None with one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def spread(curves: Sequence[Numbers] | np.ndarray) -> dict:
    """Mean and standard deviation over the first axis, the latter None where it has length one."""
    values = np.array(curves, np.float64)
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0, ddof=1).tolist() if len(values) > 1 else None,
    }


def cell(mean: float, std: float | None, digits: int = 1) -> str:
    """Returns mean ± standard deviation as a table's cell."""
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def plus_minus(values: Sequence[float], digits: int = 1) -> str:
    """Returns the `cell` of some values."""
    return cell(*mean_and_std(values), digits)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]
