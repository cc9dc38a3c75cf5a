"""File locks, which the operating system releases when their process ends for any reason."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO

from gat_tf.experiments.lab.config import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[bool]:
    """Tries to take a lock without waiting; yields whether this process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        taken = _try(file)
        try:
            yield taken
        finally:
            if taken:
                _release(file)


def wait(paths: Iterable[pathlib.Path]) -> None:
    """Returns as soon as one of the locks is held by no process."""
    while True:
        for path in paths:
            with held(path) as taken:
                if taken:
                    return
        time.sleep(_POLL_SECONDS)


def _try(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another process holds it
        return False
    except OSError as error:
        raise ConfigError(
            f"Expected a file system that can lock files, so that processes can share the work. "
            f"Received: {file.name}, where locking fails ({error}). Choose an --output_dir on "
            "another file system."
        ) from error
    return True


def _release(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_UN)
