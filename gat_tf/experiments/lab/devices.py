"""Where a run computes: distribution strategies, precision, and the machine for the record."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess

import tensorflow as tf

STRATEGIES = ("mirrored", "one_device", "multi_worker")
ONE_MACHINE = STRATEGIES[:2]
_PACKAGE = pathlib.Path(__file__).parents[2]


@functools.cache  # two strategies over the same devices mix up their collective operations
def strategy(name: str) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of that name.

    `mirrored` uses every GPU of this machine (or the CPU), `one_device` the first one, and
    `multi_worker` every machine named in the environment variable TF_CONFIG.
    """
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    return tf.distribute.MirroredStrategy([device.name for device in devices])


_workers = {"several": False}


def use(name: str) -> tf.distribute.Strategy:
    """Returns the strategy of that name, for this process's units from now on."""
    _workers["several"] = name == "multi_worker"
    return strategy(name)


def several_workers() -> bool:
    """Whether several processes train each network together."""
    return _workers["several"]


def is_chief() -> bool:
    """Whether this process writes; of several workers that train together only the first does.

    TF_CONFIG is used only under `multi_worker`: it may be set for something else.
    """
    if not several_workers():
        return True
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {})
    chief = "chief" if "chief" in config.get("cluster", {}) else "worker"
    return task.get("type", chief) == chief and task.get("index", 0) == 0


def precision(name: str) -> str:
    """Returns the Keras dtype policy of that name, which for `auto` depends on the machine.

    `auto` is mixed_bfloat16 on a CPU with instructions for it, where training is several times
    faster, and float32 elsewhere: TensorFlow computes that as TF32 on GPUs that can.
    """
    if name != "auto":
        return name
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return "mixed_bfloat16" if not on_gpu and "avx512_bf16" in _cpu("flags") else "float32"


def environment() -> dict:
    """Versions, devices, and the code that runs, for the record."""
    return {"versions": _VERSIONS, "devices": _devices(), "code": _CODE}


def _devices() -> list[str]:
    gpus = [
        tf.config.experimental.get_device_details(device).get("device_name", device.name)
        for device in tf.config.list_physical_devices("GPU")
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _cpu("model name").strip() or platform.processor() or platform.machine()
    return gpus or [f"CPU: {name}, {cores} cores"]


def _cpu(field: str) -> str:
    """A field of what Linux says of the first CPU; empty elsewhere."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith(field)), "")


def _versions() -> dict[str, str]:
    packages = ("tensorflow", "tensorflow-cpu", "keras", "tensorflow-datasets", "numpy", "gat_tf")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _code() -> dict:
    """The package's sources, as they are when they are imported: they may change while it runs."""
    sources = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        sources.update(f"{path.relative_to(_PACKAGE)}\n".encode())
        sources.update(path.read_bytes())
    return {"digest": sources.hexdigest()[:16], "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """Of the package's own repository; None where it lies in another project's or in none."""
    if not (_PACKAGE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(_PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


_VERSIONS, _CODE = _versions(), _code()
