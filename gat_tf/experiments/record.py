"""Maintains the record: its tables in Markdown files, its figures, and the numbers quoted from it.

    python -m gat_tf.experiments.record                   # write the tables into the files
    python -m gat_tf.experiments.record --check           # fail where tables or prose differ
    python -m gat_tf.experiments.record --pack FOLDER     # make a run's folder a record
    python -m gat_tf.experiments.record --remake FOLDER   # summary, verdicts, figures from units

PATH is a results.json beside or below the Markdown file. The tables of that record, paper against
ours, are written between `<!-- record: PATH -->` and `<!-- end of record -->`. Only the verdicts on
its claims are written between `<!-- verdicts: PATH -->` and the same end. A paragraph that begins
with `<!-- from: PATH ... -->` quotes these records: every number in it with a decimal point must
occur in one of their tables.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

from gat_tf.experiments.lab import files, results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.units import Units

_PLACE = re.compile(
    r"(<!-- (record|verdicts): (\S+) -->\n)(.*?)(<!-- end of record -->|(?=<!-- record:)|\Z)",
    re.DOTALL,
)
_QUOTING = re.compile(r"<!-- from: ([^>]+?) -->\n(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w./])\d+\.\d+(?![\w.]*/)")
DEFAULT_FILES = ("README.md", "experiments/README.md")
_ERRORS = (ConfigError, files.BrokenFileError, results.ResultsError, FileNotFoundError)


def filled(path: pathlib.Path) -> str:
    """Returns the text of a Markdown file with its tables updated from the record.

    Raises:
        BrokenFileError: A results file is not whole.
        ResultsError: A results file that the file names is not there, or of another version; or a
            place for a table has no end.
        FileNotFoundError: The file is not there.
    """

    def filled_in(match):
        if not match[5]:
            raise results.ResultsError(
                f"Expected <!-- end of record --> after <!-- {match[2]}: {match[3]} --> in {path}. "
                "Received: none; put it after the table, so that the prose behind it is kept."
            )
        found = results.load(path.parent / match[3])
        describe = {"record": results.table, "verdicts": results.verdicts}[match[2]]
        return f"{match[1]}{describe(found)}\n{results.made_with(found)}\n{match[5]}"

    return _PLACE.sub(filled_in, path.read_text(encoding="utf-8"))


def unsupported(path: pathlib.Path) -> list[str]:
    """Returns the numbers in a file's prose that are not in the records that it quotes."""
    wrong = []
    for records, paragraph in _QUOTING.findall(path.read_text(encoding="utf-8")):
        tables = ""
        for record in records.split():
            found = results.load(path.parent / record)
            tables += results.table(found) + results.made_with(found)
        known = set(_NUMBER.findall(tables))
        prose = re.sub(r"`[^`]*`|\([^)\s]*\.\w+\)", "", paragraph)  # neither code nor links
        wrong += [
            f"{path}: {number} is not in {records} ({' '.join(paragraph.split())[:60]}...)"
            for number in _NUMBER.findall(prose)
            if number not in known
        ]
    return wrong


def check(paths: list[pathlib.Path]) -> list[str]:
    """Returns the errors: tables that differ from the record, and numbers that are not in it."""
    old = [
        f"{p}: its tables are not the record's; write them by `python -m gat_tf.experiments.record`"
        for p in paths
        if p.read_text(encoding="utf-8") != filled(p)
    ]
    return old + [line for path in paths for line in unsupported(path)]


def pack(folder: pathlib.Path) -> None:
    """Makes a run's folder a record: all units in one file, figures as PNG alone."""
    for kind in ("units", "search"):
        Units(folder / kind).pack()
        files.remove(folder / kind / ".locks")
    for path in folder.glob("*.pdf"):
        files.remove(path)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m gat_tf.experiments.record")
    parser.add_argument("paths", nargs="*", type=pathlib.Path, help="Markdown files or folders.")
    for name, text in (
        ("check", "Check the tables and the prose, and change nothing."),
        ("pack", "Put all units of the folders into one file each."),
        ("remake", "Make summary, verdicts, table and figures of the folders from their units."),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    given = parser.parse_args(arguments)
    paths = given.paths or [pathlib.Path(path) for path in DEFAULT_FILES]
    try:
        if given.check:
            if wrong := check(paths):
                sys.exit("\n".join(wrong))
            return
        for path in paths:
            if given.pack:
                pack(path)
                print(f"{path}: packed")
            if given.remake:
                results.remake(path)
                print(f"{path}: made from its units")
            if not (given.pack or given.remake):
                path.write_text(filled(path), encoding="utf-8")
                print(f"{path}: tables written")
    except _ERRORS as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
