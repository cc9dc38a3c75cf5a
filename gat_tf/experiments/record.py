"""Writes the record's tables into the Markdown files that show them.

    python -m gat_tf.experiments.record [README.md ...]

Between `<!-- record: PATH -->` and `<!-- end of record -->`, PATH being a results.json beside or
below the file, stand that record's tables, paper against ours; between `<!-- verdicts: PATH -->`
and the same end, the verdicts on the paper's claims alone. This command puts them there.
"""

from __future__ import annotations

import pathlib
import re
import sys

from gat_tf.experiments import files, reports

_PLACE = re.compile(r"(<!-- (record|verdicts): (\S+) -->\n).*?(<!-- end of record -->)", re.DOTALL)
DEFAULT_FILES = ("README.md", "experiments/README.md")


def filled(path: pathlib.Path) -> str:
    """Returns the text of a Markdown file with its tables as the record has them.

    Raises:
        BrokenFileError: A results file is not whole.
        ResultsError: A results file that the file names is not there, or of another version.
        FileNotFoundError: The file is not there.
    """

    def table(match):
        results = reports.load(path.parent / match[3])
        describe = {"record": reports.markdown, "verdicts": reports.verdicts_markdown}[match[2]]
        text = f"{describe(results)}\n{reports.made_with(results)}\n"
        return f"{match[1]}{text}{match[4]}"

    return _PLACE.sub(table, path.read_text())


def main(paths: list[str]) -> None:
    for path in map(pathlib.Path, paths or DEFAULT_FILES):
        try:
            path.write_text(filled(path))
        except (files.BrokenFileError, reports.ResultsError, FileNotFoundError) as error:
            sys.exit(f"Error: {error}")
        print(f"{path}: tables written")


if __name__ == "__main__":
    main(sys.argv[1:])
