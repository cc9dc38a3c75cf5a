"""Units computed by a Ray cluster."""

import dataclasses
import sys
import threading
import time
import types

import keras
import linear_networks
import numpy as np
import pytest

from gat_tf.experiments import settings, table2
from gat_tf.experiments.lab import executors, locks, results, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.units import Units

SHARED = {f.name: getattr(linear_networks.NETWORKS, f.name) for f in
          dataclasses.fields(settings.Config)}  # fmt: skip
SEARCH = table2.Config(
    **SHARED | {
        "strategy": "one_device", "epochs": 4, "search": True, "search_epochs": 4,
        "search_window": 1, "search_extensions": 0, "grids": {"fg_l2.epsilon": (0.2, 0.5)},
    },
    datasets=("shapes",), seeds=(0,), methods=("fg_l2",),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    strategy: str = "mirrored"


def test_without_ray_one_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Expected Ray.*`pip install 'gat_tf\[cluster\]'`"):
        executors.run("ray", lambda *_: pytest.fail("it ran"), Config(), tmp_path)


def test_training_over_several_hosts_is_not_rays(tmp_path):
    with pytest.raises(ConfigError, match="Received: multi_worker"):
        executors.run("ray", lambda *_: pytest.fail("it ran"), Config("multi_worker"), tmp_path)


def test_locally_the_run_is_called(tmp_path):
    assert executors.run("local", lambda *given: given, "config", tmp_path) == ("config", tmp_path)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment with the units a, then b with two parts, and c; and what it has computed."""
    module = types.ModuleType("an_experiment")
    computed = []

    def task(name, parts=()):
        def compute():
            inner = Units(tmp_path / "out/units" / f"{name}.parts")
            found = inner.complete({part: task(part) for part in parts})
            computed.append(name)
            return {"value": name, "parts": list(found)}

        return compute

    def run(config, output_dir):
        assert config == Config("one_device")
        made = Units(output_dir / "units")
        made.complete({"a": task("a")})
        made.complete({"b": task("b", ["x", "y"]), "c": task("c")})
        computed.append("the end")

    module.Config, module.run, module.computed = Config, run, computed
    monkeypatch.setitem(sys.modules, "an_experiment", module)
    monkeypatch.setattr(executors, "_UNREACHED_SECONDS", 0)
    monkeypatch.setattr(executors.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    return module


def unit_of_a_task(tmp_path, name):
    lock = tmp_path / "out/units/.locks" / name
    folder = str(tmp_path)
    return executors._computed(
        lock, "an_experiment", {"strategy": "one_device"}, tmp_path / "out", folder, False
    )


def test_task_computes_its_unit_and_nothing_else(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert unit_of_a_task(tmp_path, "a")["value"] == "a"
    assert experiment.computed == ["a"]
    assert unit_of_a_task(tmp_path, "b")["parts"] == ["x", "y"]  # with its parts
    assert experiment.computed == ["a", "x", "y", "b"]
    assert Units(tmp_path / "out/units").names() == ["a", "b"]


def test_repeated_task_finds_what_it_had_written(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert unit_of_a_task(tmp_path, "a")["value"] == "a"
    monkeypatch.setattr(experiment, "run", lambda *_: pytest.fail("it ran again"))
    assert unit_of_a_task(tmp_path, "a")["value"] == "a"


def test_task_waits_for_a_process_that_has_begun_its_unit(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = locks.held(tmp_path / "out/units/.locks/a")
    others.__enter__()
    monkeypatch.setattr(locks, "wait", lambda paths: others.__exit__(None, None, None))
    assert unit_of_a_task(tmp_path, "a")["value"] == "a"


def test_task_whose_unit_is_never_reached_says_so(experiment, tmp_path, monkeypatch):
    """c comes after a, which is not there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=r"the unit of .*c\. Received: .*a\. Do all machines"):
        unit_of_a_task(tmp_path, "c")
    assert experiment.computed == []


def test_after_a_task_units_are_computed_here_again(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unit_of_a_task(tmp_path, "a")
    assert type(units._executors[-1]) is units.Executor
    assert len(units._executors) == 1


def is_held(lock):
    with locks.held(lock) as ours:
        return not ours


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes with a CPU each, and the one that can be killed."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'gat_tf[cluster]'")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    for attempt in range(4):
        found = cluster_utils.Cluster()
        try:
            found.add_node(**node, include_dashboard=False)
            second = found.add_node(**node)
            break
        except Exception:  # Ray gives its own agents 15 s to start, too few beside other tests
            found.shutdown()
            if attempt == 3:
                raise
    ray.init(address=found.address, log_to_driver=False)
    yield found, second
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_killed_node_loses_nothing_and_the_numbers_are_those_of_one_process(
    cluster, tmp_path, monkeypatch
):
    """Table 2 with its search; the node is killed when both are at a unit."""
    monkeypatch.setattr(results, "draw", lambda *_: None)
    nodes, second = cluster
    killed = threading.Event()

    def kill():
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            time.sleep(0.02)
            if sum(map(is_held, tmp_path.glob("ray/*/.locks/*"))) == 2:  # a node has one CPU
                nodes.remove_node(second, allow_graceful=False)
                killed.set()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    found = executors.run("ray", table2.run, SEARCH, tmp_path / "ray")
    killer.join()
    assert killed.is_set()
    alone = table2.run(SEARCH, tmp_path / "alone")
    assert len(found["units"]) == len(alone["units"]) == 1
    for ours, theirs in zip(found["units"], alone["units"], strict=True):
        for field in ("method", "seed", "hyperparameters", "best_epoch", "test_accuracy"):
            assert ours[field] == theirs[field]
    names = {p.relative_to(tmp_path / "alone") for p in (tmp_path / "alone").rglob("*.json")}
    assert names == {p.relative_to(tmp_path / "ray") for p in (tmp_path / "ray").rglob("*.json")}
    assert len(Units(tmp_path / "ray/search").names()) == 2
    for method in SEARCH.methods:
        ours, theirs = (
            keras.models.load_model(tmp_path / folder / f"units/shapes-{method}-seed0.keras")
            for folder in ("ray", "alone")
        )
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
