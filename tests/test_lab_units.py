"""Units of work, shared by any number of processes."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import pytest

from gat_tf.experiments.lab import budget, files, locks, units
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.units import Units


@pytest.fixture
def made(tmp_path):
    return Units(tmp_path / "units")


def task(value, calls=None):
    def compute():
        if calls is not None:
            calls.append(value)
        return {"value": value}

    return compute


def values(found):
    return {name: unit["value"] for name, unit in found.items()}


def test_what_is_missing_alone_is_computed(made):
    calls, told, checked = [], [], []
    made.complete({"b": task(2, calls)})
    tasks = {name: task(value, calls) for name, value in (("c", 3), ("b", 0), ("a", 1))}
    found = made.complete(tasks, lambda name, unit: checked.append(name), told.append)
    assert list(values(found).items()) == [("c", 3), ("b", 2), ("a", 1)]  # in the tasks' order
    assert calls == [2, 3, 1]
    assert told == ["c", "a"]
    assert checked == ["c", "b", "a"]
    assert made.names() == ["a", "b", "c"]
    assert [unit["value"] for unit in made.read_all()] == [1, 2, 3]
    assert made.complete({}) == {}


def test_unit_that_another_writes_just_before_the_claim_is_taken(made, monkeypatch):
    @contextlib.contextmanager
    def held(path):
        files.write_json(made.path("a"), {"value": 1})  # and has let go of its own claim
        yield True

    monkeypatch.setattr(locks, "held", held)
    calls = []
    assert values(made.complete({"a": task(2, calls)})) == {"a": 1}
    assert calls == []


def test_unit_that_fails_its_check_ends_the_run_and_stays(made):
    made.complete({"a": task(1)})

    def check(name, unit):
        raise ConfigError(f"{name} is {unit['value']}")

    with pytest.raises(ConfigError, match="a is 1"):
        made.complete({"a": task(2)}, check)
    assert made.read("a")["value"] == 1


def test_waits_for_what_another_computes(made, monkeypatch):
    waited = []

    def wait(paths):
        waited.append([path.name for path in paths])
        files.write_json(made.path("b"), {"value": 2})

    monkeypatch.setattr(locks, "wait", wait)
    with locks.held(made.folder / ".locks" / "b"):
        found = made.complete({"a": task(1), "b": task(0)})
    assert values(found) == {"a": 1, "b": 2}
    assert waited == [["b"]]


def test_the_first_lock_that_is_free_ends_the_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", pytest.fail)
    with locks.held(tmp_path / "a"):
        locks.wait([tmp_path / "a", tmp_path / "b"])


def test_what_a_unit_no_longer_needs_goes_when_it_is_written(made):
    for suffix in (".checkpoints", ".parts"):
        files.write_json(made.path("a", suffix) / "x.json", 1)

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.complete({"a": fails})
    assert made.read("a") is None
    assert made.path("a", ".checkpoints").exists()
    made.complete({"a": task(1)})
    assert {p.name for p in made.folder.iterdir()} == {"a.json", ".locks"}
    # As a process leaves them that is killed between writing the unit and removing them.
    for suffix in (".checkpoints", ".parts"):
        files.write_json(made.path("a", suffix) / "x.json", 1)
    made.complete({"a": task(2)})
    assert {p.name for p in made.folder.iterdir()} == {"a.json", ".locks"}


def test_what_is_being_written_is_no_unit(made):
    made.complete({"a": task(1)})
    (made.folder / ".123-b.json").write_text("{")
    assert made.names() == ["a"]


@pytest.mark.parametrize(("content", "message"), [('{"valu', "truncated"), ("[1]", "list")])
def test_damaged_unit_is_named_and_the_others_stay(made, content, message):
    made.complete({"a": task(1), "b": task(2)})
    made.path("b").write_text(content)
    for read in (lambda: made.read("b"), made.read_all, lambda: made.complete({"b": task(3)})):
        with pytest.raises(files.BrokenFileError, match=rf"units/b\.json.*{message}.*Delete it"):
            read()
    assert made.read("a")["value"] == 1
    made.path("b").unlink()
    assert values(made.complete({"a": task(0), "b": task(3)})) == {"a": 1, "b": 3}


def test_packed_units_are_read_as_before_and_new_ones_beside_them(made, tmp_path):
    made.complete({"a": task(1), "c": task([3.5, None])})
    made.path("a", ".keras").write_text("what was trained")
    before = made.read_all()
    made.pack()
    assert {p.name for p in made.folder.iterdir()} == {"a.keras", ".locks"}
    for ours in (made, Units(made.folder)):
        assert ours.read_all() == before
        assert ours.names() == ["a", "c"]
    calls = []
    ours = Units(made.folder)
    found = ours.complete({"a": task(0, calls), "b": task(2, calls)})
    assert values(found) == {"a": 1, "b": 2}
    assert calls == [2]
    assert [u["value"] for u in Units(made.folder).read_all()] == [1, 2, [3.5, None]]
    ours.pack()
    assert list(json.loads((tmp_path / "units.json").read_text())) == ["a", "b", "c"]
    assert [u["value"] for u in ours.read_all()] == [1, 2, [3.5, None]]


def test_a_record_of_nothing_is_not_written(made, tmp_path):
    made.pack()
    assert not list(tmp_path.iterdir())


def test_units_of_other_networks_are_refused(made):
    check = units.same_networks(made.folder, {"a": {"gat": "1", "source": None}})
    check("a", {"classifiers": {"gat": "1"}})
    check("a", {"classifiers": {"gat": "1", "source": "gone since", "more": "3"}})
    with pytest.raises(
        ConfigError, match=r"units/a\.json to be of the gat.*Received: results of a"
    ):
        check("a", {"classifiers": {"gat": "2"}})
    with pytest.raises(ConfigError, match="Received: results of none"):
        check("a", {"classifiers": {"fg_l2": "1"}})
    with pytest.raises(ConfigError, match="Received: results of none"):
        check("a", {})


def test_measured_unit_says_what_of_and_with_what(capsys):
    unit = units.measured(
        {"dataset": "shapes", "seed": 3}, {"gat": "1"}, lambda: {"height": 2}, clear=False
    )()
    assert (unit["dataset"], unit["seed"], unit["height"]) == ("shapes", 3, 2)
    assert unit["classifiers"] == {"gat": "1"}
    assert unit["status"] == "done"
    assert unit["seconds"] >= 0
    assert unit["environment"]["versions"]["keras"] == keras.__version__
    assert capsys.readouterr().out.startswith("shapes 3: measured in ")


def test_digest_is_of_what_is_in_the_file(tmp_path):
    (tmp_path / "abc").write_text("abc")
    # The example of FIPS 180-2.
    assert units.digest(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert units.digest(tmp_path / "none") is None


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "a.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (None, "it has not been trained. Leave out"),
        ({"status": "failed", "reason": "nan in epoch 3."}, r"nan in epoch 3\. Leave out"),
        ({}, "it does not say why"),
    ],
)
def test_network_that_was_not_trained_to_the_end_is_named(network, unit, message):
    with pytest.raises(ConfigError, match=message):
        units.load_network(unit, network)


def test_network_whose_file_is_lost_or_damaged_is_named(network):
    done = {"status": "done"}
    assert units.load_network(done, network).count_params() == 3
    network.write_bytes(network.read_bytes()[:500])
    with pytest.raises(ConfigError, match=r"a\.keras\. Received.*cannot open.*delete .*a\.json"):
        units.load_network(done, network)
    network.unlink()
    with pytest.raises(ConfigError, match=r"a\.keras\. Received: no such file.*Put it back"):
        units.load_network(done, network)


def test_lock_is_held_by_one_and_free_again_afterwards(tmp_path):
    path = tmp_path / "folder" / "lock"
    with locks.held(path) as ours:
        assert ours
        with locks.held(path) as theirs:
            assert not theirs
        with locks.held(path) as theirs:  # a failed try releases nothing
            assert not theirs
    with locks.held(path) as ours:
        assert ours
    locks.wait([path])


def test_a_step_that_waits_for_others_lets_the_next_go_on(made, monkeypatch):
    """Others hold b at first; c follows from b, and d from nothing."""
    calls, waited = [], []
    others = contextlib.ExitStack()
    others.enter_context(locks.held(made.folder / ".locks" / "b"))

    def wait(paths):
        waited.append([path.name for path in paths])
        assert made.names() == ["a", "d"]  # nothing that is free is left
        others.close()

    monkeypatch.setattr(locks, "wait", wait)

    def follows():
        value = made.take({"b": task(2, calls)})["b"]["value"]
        return made.take({"c": task(value + 1, calls)})

    def step(name, value):
        return lambda: made.take({name: task(value, calls)})

    found = units.shared([step("a", 1), step("b", 2), follows, step("d", 4)])
    assert [values(of_step) for of_step in found] == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]
    assert calls == [1, 4, 2, 3]
    assert waited == [["b", "b"]]
    assert units.shared([]) == []


def test_what_is_most_urgent_is_taken_as_soon_as_it_is_free(made):
    """The first step is free again after the second, and goes before the third."""
    order = []

    def first():
        order.append("first")
        if "second" not in order:
            raise units.NotYet([made.folder / "never"])

    def other(name):
        return lambda: order.append(name)

    units.shared([first, other("second"), other("third")])
    assert order == ["first", "second", "first", "third"]


def test_what_others_compute_is_not_waited_for(made):
    calls = []
    with locks.held(made.folder / ".locks" / "a"), pytest.raises(units.NotYet, match="a") as told:
        made.take({"a": task(1, calls), "b": task(2, calls)})
    assert calls == [2]  # all that is free
    assert [path.name for path in told.value.held] == ["a"]
    assert values(made.take({"a": task(1), "b": task(3)})) == {"a": 1, "b": 2}


def test_a_worker_that_does_not_write_knows_what_it_has_computed(made, monkeypatch):
    """The chief may not have written it when the next unit needs it."""
    monkeypatch.setattr(units.devices, "several_workers", lambda: True)
    monkeypatch.setattr(units.devices, "is_chief", lambda: False)
    calls = []
    for _ in range(2):
        assert values(made.take({"a": task(1, calls)})) == {"a": 1}
    assert calls == [1]
    assert made.read("a")["value"] == 1
    assert not made.path("a").exists()


def test_file_system_that_cannot_lock_is_named(tmp_path, monkeypatch):
    def refuse(*of_the_lock):
        raise OSError(errno.ENOLCK, "No locks available")

    if sys.platform == "win32":
        monkeypatch.setattr(locks.msvcrt, "locking", refuse)
    else:
        monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with (
        pytest.raises(ConfigError, match=r"can lock files.*lock, where.*No locks available"),
        locks.held(tmp_path / "lock"),
    ):
        pass


# A process that works through the units a, b, c and d, writing a line for each that it computes.
WORKER = """
import os, pathlib, sys, time, types

# Without TensorFlow and Keras, which take seconds to load and have no part in this.
keras = types.ModuleType("keras")
keras.Model = keras.dtype_policies = object
for name in ("tensorflow", "keras"):
    sys.modules[name] = keras if name == "keras" else types.ModuleType(name)
devices = types.ModuleType("gat_tf.experiments.lab.devices")
devices.is_chief, devices.several_workers = lambda: True, lambda: False
sys.modules[devices.__name__] = devices
for name in ("gat_tf", "gat_tf.experiments", "gat_tf.experiments.lab"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [os.path.join({root!r}, *name.split("."))]
sys.modules["gat_tf.experiments.lab"].devices = devices

from gat_tf.experiments.lab.units import Units

def task(name):
    def compute():
        with open({log!r}, "a") as log:
            log.write(f"{{name}} {{os.getpid()}}\\n")
        time.sleep({seconds})
        return {{"value": name, "by": os.getpid()}}
    return compute

pathlib.Path({log!r} + f".{{os.getpid()}}").touch()
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
found = Units(pathlib.Path({folder!r})).complete({{name: task(name) for name in "abcd"}})
assert [unit["value"] for unit in found.values()] == list("abcd")
"""


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a worker; they all begin when `go` is there."""
    processes = []

    def start(seconds):
        code = WORKER.format(
            root=os.path.dirname(os.path.dirname(__file__)),
            log=str(tmp_path / "log"),
            go=str(tmp_path / "go"),
            folder=str(tmp_path / "units"),
            seconds=seconds,
        )
        command = [sys.executable, "-c", textwrap.dedent(code)]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition, process=None):
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_compute_each_unit_exactly_once(start, tmp_path, made):
    workers = [start(seconds=0.2) for _ in range(2)]
    for worker in workers:
        wait_for((tmp_path / f"log.{worker.pid}").exists, worker)
    (tmp_path / "go").touch()
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    computed = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(name for name, _ in computed) == ["a", "b", "c", "d"]
    assert {int(pid) for _, pid in computed} == {worker.pid for worker in workers}  # they share
    assert {name: str(made.read(name)["by"]) for name, _ in computed} == dict(computed)


def test_unit_of_a_killed_process_is_computed_by_another(start, tmp_path, made):
    (tmp_path / "go").touch()
    killed = start(seconds=600)
    wait_for((tmp_path / "log").exists, killed)  # it is at work on a
    waiting = start(seconds=0)
    wait_for(lambda: len(made.names()) == 3, waiting)  # b, c and d; a is the other's
    assert made.read("a") is None
    killed.send_signal(signal.SIGKILL)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert made.read("a")["by"] == waiting.pid


def test_parts_of_an_evaluation_belong_to_its_networks(made):
    computed = []

    def stage(digest, value):
        kept = budget.kept_in(made, {"model": digest})
        return kept("PGD-20, L∞", lambda: computed.append(value) or value)

    assert stage("a", 1) == stage("a", 2) == 1
    with pytest.raises(ConfigError, match="the model that is there now"):
        stage("b", 3)
    assert computed == [1]
