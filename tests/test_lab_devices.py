"""Where a run computes, as the machine and the environment tell."""

import json
import os
import pathlib

import pytest
import tensorflow as tf

from gat_tf.experiments.lab import devices


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setitem(devices._workers, "several", False)


def as_task(kind, index, **more):
    task = {"type": kind, "index": index}
    return json.dumps({"cluster": {"worker": ["a:1", "b:1"], **more}, "task": task})


@pytest.mark.parametrize("config", [None, "", as_task("worker", 0), as_task("worker", 1), "{"])
def test_tf_config_has_no_effect_unless_several_workers_train(one_process, monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    devices.use("one_device")
    assert devices.is_chief()
    assert not devices.several_workers()


@pytest.mark.parametrize(
    ("config", "chief"),
    [
        (as_task("worker", 0), True),
        (as_task("worker", 1), False),
        (as_task("chief", 0, chief=["c:1"]), True),
        (as_task("worker", 0, chief=["c:1"]), False),
        ("", True),
        ("{}", True),
    ],
)
def test_one_of_several_workers_is_the_chief(one_process, monkeypatch, config, chief):
    monkeypatch.setenv("TF_CONFIG", config)
    monkeypatch.setattr(devices, "strategy", lambda name: name)  # that would wait for the others
    devices.use("multi_worker")
    assert devices.several_workers()
    assert devices.is_chief() is chief
    devices.use("mirrored")
    assert devices.is_chief()


def test_a_strategy_is_made_once_and_has_the_devices(one_process):
    assert devices.strategy("mirrored").num_replicas_in_sync == 2  # the tests have two CPUs
    assert devices.strategy("one_device").num_replicas_in_sync == 1
    assert devices.use("mirrored") is devices.strategy("mirrored")


CPU = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu {}sse\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("cpuinfo", "gpus", "precision"),
    [
        (CPU.format("avx512_bf16 "), [], "mixed_bfloat16"),
        (CPU.format("avx512f "), [], "float32"),
        (CPU.format("avx512_bf16 "), ["GPU:0"], "float32"),
        (None, [], "float32"),
    ],
)
def test_precision_suits_the_machine(monkeypatch, cpuinfo, gpus, precision):
    def read_text(path, *_):
        assert str(path) == "/proc/cpuinfo"
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    assert devices.precision("auto") == precision
    assert devices.precision("mixed_float16") == "mixed_float16"


def test_the_record_names_the_machine_on_any_system(monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_: CPU.format(""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert devices.environment()["devices"] == ["CPU: A CPU, 3 cores"]
    monkeypatch.delattr(os, "sched_getaffinity")  # there is none on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert devices.environment()["devices"] == ["CPU: A CPU, 7 cores"]


def test_the_record_has_versions_and_the_digest_of_the_code():
    found = devices.environment()
    import keras

    assert found["versions"]["keras"] == keras.__version__
    assert len(found["code"]["digest"]) == 16
