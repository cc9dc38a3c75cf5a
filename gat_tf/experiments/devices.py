"""Where a run computes: distribution strategies, and what to write down about the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess

import tensorflow as tf

STRATEGIES = ("mirrored", "one_device", "multi_worker")
ONE_MACHINE = STRATEGIES[:2]


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


def precision(name: str) -> str:
    """Returns the Keras dtype policy of that name, which for `auto` depends on the machine.

    `auto` is mixed_bfloat16 on a CPU with instructions for it, where training is several times
    faster, and float32 elsewhere: TensorFlow computes that as TF32 on GPUs that can.
    """
    if name != "auto":
        return name
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return "mixed_bfloat16" if not on_gpu and "avx512_bf16" in _cpu_flags() else "float32"


def _cpu_flags() -> list[str]:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def is_chief() -> bool:
    """Whether this process writes the results: always, unless TF_CONFIG says another does."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    task = config.get("task", {})
    chief = "chief" if "chief" in config.get("cluster", {}) else "worker"
    return task.get("type", chief) == chief and task.get("index", 0) == 0


def environment() -> dict:
    """Versions, devices and git revision, for the record."""
    packages = ("tensorflow", "tensorflow-cpu", "keras", "tensorflow-datasets", "numpy", "gat_tf")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = [
        tf.config.experimental.get_device_details(device).get("device_name", device.name)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return {
        "versions": versions,
        "devices": devices or [f"CPU: {_cpu()}, {len(os.sched_getaffinity(0))} cores"],
        "git_revision": _git_revision(),
    }


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_revision() -> str | None:
    folder = pathlib.Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
