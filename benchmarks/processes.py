"""Times two processes that share the units of a folder over one process alone, alternating.

    python benchmarks/processes.py [rounds]

Each process has a single thread. Wall time is that of the whole command, the start of Python
included; processor time, which other work on the machine changes less, is that of the process that
takes longest.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [
    *(sys.executable, "-m", "gat_tf.experiments.table2", "--preset=quick", "--methods=baseline"),
    *("--seeds=0:8", "--train_size=1000", "--validation_size=500", "--test_size=500"),
    *("--epochs=6", "--strategy=one_device"),
]
ONE_THREAD = dict.fromkeys(
    ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1"
)


def seconds(processes: int) -> tuple[float, float]:
    """(wall time, processor time of the longest) of so many processes on a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, f"--output_dir={folder}/run"]
        started = time.perf_counter()
        running = [
            subprocess.Popen(
                command,
                env={**os.environ, **ONE_THREAD},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(processes)
        ]
        used = []
        for process in running:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, command
            used.append(usage.ru_utime + usage.ru_stime)
        wall = time.perf_counter() - started
        assert len(list(pathlib.Path(folder).glob("run/units/*.json"))) == 8
    return wall, max(used)


def main(rounds: int) -> None:
    ratios = []
    print("| | one process, s | two processes, s | two over one |\n|---|---|---|---|")
    for _ in range(rounds):
        one, two = seconds(1), seconds(2)
        ratios.append([b / a for a, b in zip(one, two, strict=True)])
        for kind, a, b in zip(("wall", "processor"), one, two, strict=True):
            print(f"| {kind} | {a:.0f} | {b:.0f} | {b / a:.2f} |", flush=True)
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"Medians over {rounds} rounds: {wall:.2f} of the wall time, {processor:.2f} of the "
          "processor time.")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
