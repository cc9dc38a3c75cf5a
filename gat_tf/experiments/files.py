"""Files that are there whole or not at all, whenever a run is killed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator


class BrokenFileError(ValueError):
    """A file that is not what a run writes."""


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write a file or folder at, which takes `path`'s place at the end.

    The temporary name keeps the suffix, because Keras chooses the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value) -> None:
    """Writes JSON that a person can read: a field a line, but a list of numbers on one."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda m: re.sub(r"\s+", " ", m.group()), text)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def read_json(path: pathlib.Path):
    """Reads JSON.

    Raises:
        BrokenFileError: The file is not whole.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenFileError(
            f"Expected JSON as a run writes it in {path}. Received: a file that is truncated or "
            f"changed ({error}). Delete it, and the next run makes it anew; nothing else is lost."
        ) from None
