"""Writes the record's tables into the Markdown files that show them.

    python -m gat_tf.experiments.record [README.md ...]

Between `<!-- record: PATH -->` and `<!-- end of record -->`, PATH being a results.json beside or
below the file, stands that record's table, paper against ours; this command puts it there.
"""

from __future__ import annotations

import pathlib
import re
import sys

from gat_tf.experiments import files, report, table2

_PLACE = re.compile(r"(<!-- record: (\S+) -->\n).*?(<!-- end of record -->)", re.DOTALL)
DEFAULT_FILES = ("README.md", "experiments/README.md")


def filled(path: pathlib.Path) -> str:
    """Returns the text of a Markdown file with its tables as the record has them.

    Raises:
        BrokenFileError: A results file is not whole.
        FileNotFoundError: The file, or a results file that it names, is not there.
    """

    def table(match):
        results = files.read_json(path.parent / match[2])
        return f"{match[1]}{described(results)}{match[3]}"

    return _PLACE.sub(table, path.read_text())


def described(results: dict) -> str:
    """A record's table, and under it what it was made with."""
    units = results["units"]
    hours = sum(u["train_seconds"] for u in units + results["trials"]) / 3600
    devices = sorted({d for u in units for d in u["environment"]["devices"]})
    versions = units[0]["environment"]["versions"]
    tensorflow = versions.get("tensorflow") or versions.get("tensorflow-cpu")
    return (
        f"{report.table2_markdown(units, table2.METHODS)}\n"
        f"{len(units)} trainings and {len(results['trials'])} trials of the search, "
        f"{hours:.1f} h of training time, on {', '.join(devices)}; TensorFlow {tensorflow}, "
        f"Keras {versions['keras']}.\n"
    )


def main(paths: list[str]) -> None:
    for path in map(pathlib.Path, paths or DEFAULT_FILES):
        path.write_text(filled(path))
        print(f"{path}: tables written")


if __name__ == "__main__":
    main(sys.argv[1:])
