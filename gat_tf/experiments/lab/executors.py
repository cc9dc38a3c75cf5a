"""Who computes the units of a run: this process, or the machines of a Ray cluster.

On a cluster, a unit is a Ray task with a GPU of its own, or a CPU where there is no GPU. The task
runs the same command up to its unit, computes it, and writes it into the shared folder. Ray decides
where and when, and repeats the tasks of a machine that dies; a training that had begun continues
from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gat_tf.experiments.lab import locks, monitoring, units
from gat_tf.experiments.lab.config import ConfigError

EXECUTORS = ("local", "ray")
_RETRIES = 10  # of a unit whose machine or process dies
_UNREACHED_SECONDS = 300  # what others have written may appear later on a network file system


def run(executor: str, run: Callable, config: Any, output_dir: str | pathlib.Path) -> dict:
    """Runs an experiment, its units computed by an executor.

    Args:
        executor: One of `EXECUTORS`.
        run: `run` of the experiment's module: (config, output_dir) -> results.
        config: `Config` of the same module.
        output_dir: Folder of the results; on a cluster all machines share it.

    Raises:
        ConfigError: Ray is not installed, or the strategy needs several workers.
    """
    if executor == "local":
        return run(config, output_dir)
    if getattr(config, "strategy", None) == "multi_worker":
        raise ConfigError(
            "Expected a strategy for one machine with --executor=ray, which spreads whole "
            "trainings over machines. Received: multi_worker"
        )
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Expected Ray, which --executor=ray needs. Received: an installation without it. "
            "`pip install 'gat_tf[cluster]'` adds it."
        ) from error
    with contextlib.suppress(RuntimeError):  # TensorFlow has started
        tf.config.set_visible_devices([], "GPU")  # they are for the tasks
    ours = not ray.is_initialized()
    if ours:
        ray.init()  # the cluster of RAY_ADDRESS or of this machine, or a new one
    try:
        with units.executed_by(_Cluster(ray, run, config, output_dir)):
            return run(config, output_dir)
    finally:
        if ours:
            ray.shutdown()


class _Cluster(units.Executor):
    """Has every unit computed by a task of a Ray cluster."""

    def __init__(self, ray: Any, run: Callable, config: Any, output_dir: Any):
        self._ray = ray
        module = sys.modules[run.__module__].__spec__  # by the name of its file
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        if module is None:
            raise ConfigError(
                "Expected an experiment started as a module, python -m gat_tf.experiments...., "
                f"which other machines can import. Received: the file {sys.argv[0]}"
            )
        folder, shown = os.getcwd(), monitoring.to_tensorboard()
        self._work = (module.name, values, output_dir, folder, shown)
        resources = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        self._task = ray.remote(max_retries=_RETRIES, **resources)(_computed)
        self._running: dict[pathlib.Path, Any] = {}
        self._done: dict[pathlib.Path, dict] = {}

    def compute(self, lock: pathlib.Path, here: Callable[[], dict | None]) -> dict | None:
        if lock not in self._running:
            self._running[lock] = self._task.remote(lock, *self._work)
        return self._done.get(lock)

    def wait(self, held: Sequence[pathlib.Path]) -> None:
        running = {self._running[lock]: lock for lock in held}
        for task in self._ray.wait(list(running))[0]:
            try:
                unit = self._ray.get(task)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            if unit is None:  # its file has gone: once more
                del self._running[running[task]]
            else:
                self._done[running[task]] = unit


def _computed(
    lock: pathlib.Path, module: str, values: dict, output_dir: Any, folder: str, shown: bool
) -> dict | None:
    """A Ray task: runs an experiment up to one unit, and returns that unit."""
    os.chdir(folder)
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):  # TensorFlow would use every CPU
        for kind in ("INTRAOP", "INTEROP"):
            os.environ.setdefault(f"TF_NUM_{kind}_THREADS", "1")
    experiment = importlib.import_module(module)
    unit = _read(lock)  # this may be a repetition
    if unit is None:
        try:
            with monitoring.tensorboard(shown), units.executed_by(_One(lock)):
                experiment.run(experiment.Config(**values), output_dir)
        except _Found as found:
            unit = found.unit
    return unit or _read(lock)


class _Found(Exception):  # noqa: N818, as it is no error
    """The unit that was to be computed is there."""

    def __init__(self, unit: dict):
        super().__init__()
        self.unit = unit


class _One(units.Executor):
    """Computes one unit and ends the run; leaves all others to others."""

    def __init__(self, lock: pathlib.Path):
        self.lock = lock
        self._deadline = math.inf

    def compute(self, lock: pathlib.Path, here: Callable[[], dict | None]) -> dict | None:
        if lock != self.lock:
            return None
        with units.executed_by(units.Executor()):  # its parts too
            while (unit := here()) is None:
                locks.wait([lock])
        raise _Found(unit)

    def wait(self, held: Sequence[pathlib.Path]) -> None:
        if unit := _read(self.lock):  # another process was faster
            raise _Found(unit)
        self._deadline = min(self._deadline, time.monotonic() + _UNREACHED_SECONDS)
        if time.monotonic() >= self._deadline:
            raise RuntimeError(
                f"Expected the run to come to the unit of {self.lock}. Received: one that waits "
                f"for {held[0]}. Do all machines see the same folder?"
            )
        time.sleep(1)


def _read(lock: pathlib.Path) -> dict | None:
    return units.Units(lock.parent.parent).read(lock.name)
