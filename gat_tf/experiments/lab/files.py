"""Files that are written completely or not at all, even if a run is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import Any


class BrokenFileError(ValueError):
    """A file whose content is not what a run writes."""


class FullDiskError(RuntimeError):
    """The disk is full."""


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path for a file or folder, which replaces `path` at the end.

    The temporary name is unique, whatever machines share the folder, and keeps the suffix, because
    Keras chooses the format by it. What was written is flushed to the disk before it takes the
    place, so that a power cut leaves the old file or the new one.

    Raises:
        FullDiskError: The disk is full.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)  # the system replaces files alone
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDiskError(
                f"The disk is full: {path} could not be written. What was finished before is "
                "whole; free some space, and the same command continues."
            ) from error
        raise
    finally:
        remove(temporary)


def require_space(folder: pathlib.Path, size: int) -> None:
    """Raises FullDiskError unless a folder's disk has room for `size` bytes.

    HDF5 ends the process without a message if the disk becomes full while it writes.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise FullDiskError(
            f"The disk is full: {folder} has room for {free / 1e6:.1f} MB, and {size / 1e6:.1f} MB "
            "are to be written. What was finished before is whole; free some space, and the same "
            "command continues."
        )


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes readable JSON: one field per line, and each list of numbers on one line."""
    with replacing(path) as temporary:
        temporary.write_text(as_text(value), encoding="utf-8")


def create_json(path: pathlib.Path, value: Any) -> bool:
    """Writes JSON unless the file exists; returns whether it was written.

    Of several processes that try at once exactly one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        temporary.write_text(as_text(value), encoding="utf-8")
        _flush(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(as_text(value))
            except FileExistsError:
                return False
        _flush_folder(path.parent)
        return True
    finally:
        remove(temporary)


def as_text(value: Any) -> str:
    """A value as the text of a JSON file."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda m: re.sub(r"\s+", " ", m.group()), text) + "\n"


def read_json(path: pathlib.Path) -> Any:
    """Reads JSON.

    Raises:
        BrokenFileError: The file is not whole.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenFileError(
            f"Expected JSON as a run writes it in {path}. Received: a file that is truncated or "
            f"changed ({error}). Delete it, and the next run makes it anew; nothing else is lost."
        ) from None


def _flush(path: pathlib.Path) -> None:
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _flush_folder(path: pathlib.Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
