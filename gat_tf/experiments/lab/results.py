"""From finished units to results.json, a table in Markdown and figures."""

from __future__ import annotations

import importlib
import pathlib
import types
from collections.abc import Iterable
from typing import Any

from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, files
from gat_tf.experiments.lab.config import FORMAT, Config
from gat_tf.experiments.lab.units import Units, say
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown


class ResultsError(ValueError):
    """Results that are missing, or belong to another experiment or version."""


def write(
    name: str,
    config: Config,
    output_dir: pathlib.Path,
    units: list[dict],
    seconds: float,
    **more: Any,
) -> dict:
    """Writes `results.json`, `<experiment>.md` and each figure as PNG and PDF.

    Args:
        name: Of the experiment's module, such as `gat_tf.experiments.fig2`, whose `summarise`,
            `verdicts`, `table` and `figures` make of the units what is written.
        config: The configuration.
        output_dir: Folder of the results.
        units: The units, which stay in files of their own.
        seconds: Duration of this run; that of earlier runs is added.
        **more: Further content of results.json.

    Returns:
        What `load` gives for the folder.
    """
    results = {
        "experiment": name,
        "format": FORMAT,
        "config": configs.fingerprint(config),
        "wall_seconds": round(_seconds_before(output_dir / "results.json") + seconds, 1),
        "environment": devices.environment(),
        **more,
        **_conclusions(name, units),
    }
    if devices.is_chief():
        described = _write_files({**results, "units": units}, output_dir, ("png", "pdf"))
        say(f"{described}\nResults, tables and figures are in {output_dir}/.")
    return {**results, "units": units}


def remake(folder: pathlib.Path) -> None:
    """Makes summary, verdicts, table and figures (as PNG) of a record from its units.

    The record's information about its run is kept: configuration, time and environment.
    """
    found = load(folder)
    _write_files({**found, **_conclusions(found["experiment"], found["units"])}, folder, ("png",))


def _conclusions(name: str, units: list[dict]) -> dict:
    module = experiment(name)
    if not hasattr(module, "summarise"):  # one evaluation, which is not summarised
        return {}
    return {"summary": module.summarise(units), "verdicts": module.verdicts(units)}


def _write_files(results: dict, folder: pathlib.Path, formats: Iterable[str]) -> str:
    """Writes the files of results with their units; returns the table."""
    stored = {key: value for key, value in results.items() if key != "units"}
    files.write_json(folder / "results.json", stored)
    described = table(results)
    file_name = results["experiment"].removesuffix(".command").rpartition(".")[2]
    with files.replacing(folder / f"{file_name}.md") as path:
        path.write_text(described, encoding="utf-8")
    draw(results, folder, formats)
    return described


def draw(results: dict, output_dir: pathlib.Path, formats: Iterable[str]) -> None:
    """Draws the figures of results into files of a folder."""
    from gat_tf import plotting  # matplotlib takes a while to load

    for name, figure in figures(results).items():
        for suffix in formats:
            with files.replacing(output_dir / f"{name}.{suffix}") as path:
                plotting.save(figure, path)


def load(path: str | pathlib.Path, name: str | None = None) -> dict:
    """Reads the results of a folder, with their units.

    Args:
        path: The folder, or the results.json in it.
        name: Of the module of the experiment whose results are wanted; any if None.

    Raises:
        ResultsError: There are none, or they are of another experiment or version.
        BrokenFileError: A file is not whole.
    """
    path = pathlib.Path(path)
    folder = path.parent if path.suffix == ".json" else path
    path = folder / "results.json"
    if not path.exists():
        raise ResultsError(
            f"Expected results in {path}. Received: no such file; "
            f"`python -m {name or 'gat_tf.experiments.table2'}` makes one."
        )
    results = files.read_json(path)
    received = results.get("experiment") if isinstance(results, dict) else None
    if received is None or name not in (None, received):
        raise ResultsError(
            f"Expected results of {name or 'an experiment'} in {path}. "
            f"Received: results of {received or 'none that is known'}."
        )
    if results.get("format") != FORMAT:
        raise ResultsError(
            f"Expected results of format {FORMAT} in {path}. Received: format "
            f"{results.get('format')}, of another version of gat_tf."
        )
    return {**results, "units": Units(folder / "units").read_all()}


def experiment(name: str) -> types.ModuleType:
    """Returns the module of an experiment of this package."""
    if not name.startswith("gat_tf."):
        raise ResultsError(f"Expected results of an experiment of gat_tf. Received: {name!r}.")
    return importlib.import_module(name)


def table(results: dict) -> str:
    """Returns the tables of results, paper against ours, and the verdicts, as Markdown."""
    return experiment(results["experiment"]).table(results)


def figures(results: dict) -> dict:
    """Returns the figures of results, name to matplotlib figure."""
    return experiment(results["experiment"]).figures(results)


def verdicts(results: dict) -> str:
    """Returns the verdicts on the claims alone, a table for each data set."""
    return "\n".join(
        f"**{dataset}**\n\n{verdicts_markdown(found)}"
        for dataset, found in results["verdicts"].items()
    )


def made_with(results: dict) -> str:
    """How a record was made, in a sentence or two."""
    units = results["units"]
    trainings = [t for u in units for t in (u, *u.get("trainings", {}).values())]
    hours = sum(t.get("train_seconds", 0) for t in trainings) / 3600
    if not units:
        return "No unit is finished."
    # A training that was killed may have gone on elsewhere.
    environments = [
        e for u in units for e in (u["environment"], *u.get("earlier_environments", ()))
    ]
    devices_used = sorted({d for e in environments for d in e["devices"]})
    versions = [e["versions"] for e in environments]
    tensorflow = sorted({str(v.get("tensorflow") or v.get("tensorflow-cpu")) for v in versions})
    keras = sorted({str(v["keras"]) for v in versions})
    trained = f", {hours:.1f} h of training time" if hours else ""
    revisions = sorted({str(e["code"]["git_revision"]) for e in environments})
    changed = sum("dirty" in revision for revision in revisions)
    dirty = f", {changed} of them with uncommitted changes" if changed else ""
    mixed = f" Made by {len(revisions)} revisions of the code{dirty}." if len(revisions) > 1 else ""
    return (
        f"{len(units)} unit(s){trained}, on {', '.join(devices_used)}; "
        f"TensorFlow {', '.join(tensorflow)}, Keras {', '.join(keras)}.{mixed}"
    )


def _seconds_before(path: pathlib.Path) -> float:
    try:
        return float(files.read_json(path)["wall_seconds"])
    except (OSError, files.BrokenFileError, KeyError, TypeError):
        return 0.0  # it is about to be replaced, whatever it was
