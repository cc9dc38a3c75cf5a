"""Makes the bugs of `tests.mutations` one by one, and names those that the tests do not notice.

    python -m tests.mutations                              # all, ten minutes of processor time
    python -m tests.mutations --only=pgd.py,"softmax fed"  # those with such words in file or name
    python -m tests.mutations --processes=4
    python -m tests.mutations --list

Everything happens in copies of the repository. The exit status is 1 where a bug survives its
tests, where these could not be run, or where an entry no longer applies.
"""

import argparse
import concurrent.futures
import itertools
import pathlib
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile

from . import MUTATIONS, forks
from .forks import ROOT

OUTCOMES = {0: "SURVIVED", 1: "killed"}  # by pytest's exit status
_SECONDS = 1200  # for the tests of one bug


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("--only", default="", help="Words of files or names, separated by commas.")
    parser.add_argument("--processes", type=int, default=1, help="Number of tests at a time.")
    parser.add_argument("--list", action="store_true", help="Print the names, and run nothing.")
    given = parser.parse_args()
    words = [word.strip().lower() for word in given.only.split(",")]
    titles = {m: f"{m.file}: {m.name}" for m in MUTATIONS}
    chosen = [m for m in MUTATIONS if any(word in titles[m].lower() for word in words)]
    if not chosen:
        parser.error(f"no bug has {given.only!r} in its file or name")
    if given.list:
        print(*(titles[m] for m in chosen), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        copies = queue.SimpleQueue()
        for i in range(given.processes):
            copies.put(copied(pathlib.Path(folder) / str(i)))
        with concurrent.futures.ThreadPoolExecutor(given.processes) as pool:
            outcomes = list(pool.map(lambda m: tried(m, copies), chosen))
    left = [m.name for m, outcome in zip(chosen, outcomes, strict=True) if outcome != "killed"]
    print(f"{len(chosen) - len(left)} of {len(chosen)} killed.", *left, sep="\n")
    sys.exit(bool(left))


def copied(folder: pathlib.Path) -> pathlib.Path:
    """Copies the files that git knows, or would know, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def tried(mutation, copies: queue.SimpleQueue) -> str:
    """What becomes of a bug in one of the copies, which is put back as it was."""
    copy = copies.get()
    path = copy / "gat_tf" / mutation.file
    source = path.read_text()
    try:
        path.write_text(mutation.applied(source))
        outcome, evidence = tested(mutation.tests, copy)
    except (ValueError, TimeoutError) as error:
        outcome, evidence = "not tried", str(error)
    finally:
        path.write_text(source)
        copies.put(copy)
    print(f"{outcome}: {mutation.name} ({evidence})", flush=True)
    return outcome


def tested(tests: str, copy: pathlib.Path) -> tuple[str, str]:
    """The outcome of the tests in a copy, and the first that failed, or what else there was."""
    file, *options = shlex.split(tests)
    arguments = ["-x", "-n0", "-rfE", "--no-header", "--tb=no", f"tests/{file}", *options]
    status, output = forks.tested(arguments, copy, _SECONDS)
    lines = output.strip().splitlines() or [""]
    failed = itertools.chain((line for line in lines if line.startswith("FAILED")), lines[-1:])
    return OUTCOMES.get(status, "not tried"), next(failed)


if __name__ == "__main__":
    main()
