"""What the reports share: reading and writing results, and deciding on a claim."""

from __future__ import annotations

import pathlib
import statistics

from gat_tf.experiments import devices, files

FORMAT = 1  # of results.json; another number is another meaning of its fields


class ResultsError(ValueError):
    """Results of another experiment or version."""


def read_all(folder: pathlib.Path) -> list[dict]:
    """Reads every finished result of a folder."""
    # A name that begins with a dot is a file that is still being written.
    return [files.read_json(path) for path in sorted(folder.glob("[!.]*.json"))]


def load(path: str | pathlib.Path, experiment: str | None = None) -> dict:
    """Reads a results.json, or the one in a folder.

    Args:
        path: File or folder.
        experiment: Whose results are wanted; any if None.

    Raises:
        ResultsError: There are none, or they are of another experiment or version.
        BrokenFileError: The file is not whole.
    """
    path = pathlib.Path(path)
    path = path / "results.json" if path.suffix != ".json" else path
    if not path.exists():
        raise ResultsError(
            f"Expected results in {path}. Received: no such file; "
            f"`python -m gat_tf.experiments.{experiment or 'table2'}` makes one."
        )
    results = files.read_json(path)
    received = results.get("experiment") if isinstance(results, dict) else None
    if received is None or experiment not in (None, received):
        raise ResultsError(
            f"Expected results of {experiment or 'an experiment'} in {path}. "
            f"Received: results of {received or 'none that is known'}."
        )
    if results.get("format") != FORMAT:
        raise ResultsError(
            f"Expected results of format {FORMAT} in {path}. Received: format "
            f"{results.get('format')}, of another version of gat_tf."
        )
    return results


def write(results: dict, output_dir: pathlib.Path, markdown: str, figures: dict) -> dict:
    """Writes `results.json`, `<experiment>.md` and each figure as PNG and PDF.

    Args:
        results: What goes into results.json; the format and the machine are added, and to
            `wall_seconds` those of the runs before.
        output_dir: Folder.
        markdown: The table.
        figures: Name to a function that draws it, called where this process writes.

    Returns:
        What results.json holds.
    """
    path = output_dir / "results.json"
    results["wall_seconds"] = round(_seconds_before(path) + results["wall_seconds"], 1)
    results = {
        "experiment": results["experiment"],
        "format": FORMAT,
        "environment": devices.environment(),
        **results,
    }
    if devices.is_chief():
        files.write_json(path, results)
        with files.replacing(output_dir / f"{results['experiment']}.md") as table:
            table.write_text(markdown)
        for name, draw in figures.items():
            save_figure(draw(results), output_dir, name)
        if results["experiment"] != "table2":  # which prints its table as it grows
            print(markdown, flush=True)
        print(f"Results, tables and figures are in {output_dir}/.", flush=True)
    return results


def _seconds_before(path: pathlib.Path) -> float:
    try:
        return float(files.read_json(path)["wall_seconds"])
    except (OSError, files.BrokenFileError, KeyError, TypeError):
        return 0.0  # it is about to be replaced, whatever it was


def save_figure(figure, output_dir: pathlib.Path, name: str) -> None:
    """Writes a figure as PNG and PDF."""
    from gat_tf import plotting  # matplotlib takes a while to load

    for suffix in ("png", "pdf"):
        with files.replacing(output_dir / f"{name}.{suffix}") as path:
            plotting.save(figure, path)


def made_with(results: dict) -> str:
    """What a record was made with, in a sentence."""
    units, trials = results["units"], results.get("trials", [])
    trainings = [t for u in units + trials for t in (u, *u.get("trainings", {}).values())]
    hours = sum(t.get("train_seconds", 0) for t in trainings) / 3600
    devices_used = sorted({d for u in units for d in u["environment"]["devices"]})
    versions = units[0]["environment"]["versions"]
    tensorflow = versions.get("tensorflow") or versions.get("tensorflow-cpu")
    searched = f" and {len(trials)} trials of the search" if trials else ""
    trained = f", {hours:.1f} h of training time" if hours else ""
    return (
        f"{len(units)} unit(s){searched}{trained}, on {', '.join(devices_used)}; "
        f"TensorFlow {tensorflow}, Keras {versions['keras']}."
    )


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and standard deviation; of one value there is no deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def plus_minus(values: list[float], digits: int = 1) -> str:
    """Mean ± standard deviation, as a table's cell."""
    mean, std = mean_and_std(values)
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


# Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; beyond, the next smaller entry.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
      10: 2.228, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000}  # fmt: skip


def verdict(claim: str, differences: list[float]) -> dict:
    """Decides a claim "this is larger than that" from its differences, one for each seed.

    Args:
        claim: In words.
        differences: In percentage points or units of the score, positive where the claim holds.

    Returns:
        claim; verdict: "holds" or "does not hold" where the mean differs from zero by a paired t
        test at 95 %, "undecided" where it does not, and with one seed; mean; standard_error; seeds.
    """
    mean, std = mean_and_std(differences)
    error = None if std is None else std / len(differences) ** 0.5
    freedom = max((n for n in _T if n <= len(differences) - 1), default=None)
    if freedom is None or abs(mean) <= _T[freedom] * error:
        decided = "undecided"
    else:
        decided = "holds" if mean > 0 else "does not hold"
    return {
        "claim": claim,
        "verdict": decided,
        "mean": round(mean, 3),
        "standard_error": None if error is None else round(error, 3),
        "seeds": len(differences),
    }


def verdicts_markdown(
    verdicts: list[dict], difference: str = "difference in points", digits: int = 1
) -> str:
    """A table of verdicts, the head of its last column being `difference`."""
    lines = [f"| claim | verdict (95 %) | {difference} |", "|---|---|---|"]
    for v in verdicts:
        if v["standard_error"] is None:
            evidence = f"{v['mean']:+.{digits}f} (one seed)"
        else:
            error = f"{v['standard_error']:.{digits}f}"
            evidence = f"{v['mean']:+.{digits}f} ± {error} ({v['seeds']} seeds)"
        lines.append(f"| {v['claim']} | **{v['verdict']}** | {evidence} |")
    return "\n".join(lines) + "\n"
