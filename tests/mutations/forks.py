"""pytest in a fork of a process that has imported TensorFlow: the import takes longer than a test.

Where there are no forks, each runs in a process of its own.
"""

import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_HOW = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_CONTEXT = multiprocessing.get_context(_HOW)
# Nothing of the package: each fork imports its own copy of it.
_CONTEXT.set_forkserver_preload(["tensorflow", "keras", "matplotlib.pyplot", "pytest"])


def tested(arguments: list[str], copy: pathlib.Path, seconds: float) -> tuple[int, str]:
    """The exit status of pytest in a copy of the repository, and what it has printed.

    Raises:
        TimeoutError: It took longer. Its processes are ended.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the first import
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "output"
        process = _CONTEXT.Process(target=_test, args=(arguments, copy, output))
        process.start()
        process.join(seconds)
        if process.is_alive():
            (os.killpg if _HOW == "forkserver" else os.kill)(process.pid, signal.SIGTERM)
            process.join()
            raise TimeoutError(f"The tests have not ended after {seconds} seconds.")
        return process.exitcode, output.read_text()


def _test(arguments: list[str], copy: pathlib.Path, output: pathlib.Path) -> None:
    if _HOW == "forkserver":
        os.setsid()  # what the tests start is ended with them
    # No compiled files: the next bug may be as long and made in the same second.
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [str(copy), *(p for p in sys.path if pathlib.Path(p).resolve() != ROOT)]
    os.chdir(copy)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(pytest.main(arguments))
