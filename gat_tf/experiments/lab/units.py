"""Units of work: claimed, computed, written.

A unit is a JSON file in a folder, with what was trained beside it. Any number of processes, on one
machine or on several that share the folder, may work through the same units: each computes the
units that no other process has begun, and waits only for those it needs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import keras

from gat_tf.experiments.lab import devices, files, locks
from gat_tf.experiments.lab.config import FORMAT, ConfigError

T = TypeVar("T")


class NotYet(Exception):  # noqa: N818, as it is no error
    """Units that are needed are being computed by other processes.

    Attributes:
        held: The locks of those units.
    """

    def __init__(self, held: Sequence[pathlib.Path]):
        super().__init__(f"Others are computing {', '.join(path.name for path in held)}.")
        self.held = held


def shared(steps: Iterable[Callable[[], T]]) -> list[T]:
    """Does work that other processes may be doing too, and waits only where nothing is free.

    Args:
        steps: Functions such as those that call `Units.take`, the most urgent first. One that
            raises NotYet is called again later; until then the others are tried.

    Returns:
        What the steps return, in their order.
    """
    left, found = dict(enumerate(steps)), {}
    while left:
        held: list[pathlib.Path] = []
        for i, step in left.items():
            try:
                found[i] = step()
            except NotYet as not_yet:
                held += not_yet.held
            else:
                del left[i]
                break  # what is more urgent may have become free
        else:
            _executors[-1].wait(held)
    return [found[i] for i in sorted(found)]


class Executor:
    """Computes missing units, in this process.

    A subclass may have them computed elsewhere. A unit is known by the path of its lock.
    """

    def compute(self, lock: pathlib.Path, here: Callable[[], dict | None]) -> dict | None:
        """Returns the unit, or None while it is being computed elsewhere.

        Args:
            lock: Of the unit.
            here: Computes it in this process, unless another process has begun.
        """
        return here()

    def wait(self, held: Sequence[pathlib.Path]) -> None:
        """Returns as soon as one of the units may be there, or be free to be computed."""
        locks.wait(held)


_executors = [Executor()]


@contextlib.contextmanager
def executed_by(executor: Executor) -> Iterator[None]:
    """Has the units computed by another executor inside the `with` block."""
    _executors.append(executor)
    try:
        yield
    finally:
        _executors.pop()


class Units:
    """The units of a folder: one file per unit, or one file for all units of a record.

    Attributes:
        folder: Folder of the files. A record packs them into one file beside it, `<folder>.json`.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._packed = folder.with_name(f"{folder.name}.json")
        self._of_the_chief: dict[str, dict] = {}

    def path(self, name: str, suffix: str = ".json") -> pathlib.Path:
        """The file of a unit, or one beside it."""
        return self.folder / f"{name}{suffix}"

    def read(self, name: str) -> dict | None:
        """Returns a unit, or None if it has not been computed.

        Raises:
            BrokenFileError: Its file is not whole.
        """
        path = self.path(name)
        try:
            found = files.read_json(path)
        except FileNotFoundError:
            return self._of_the_chief.get(name) or self._of_the_record.get(name)
        if not isinstance(found, dict):
            raise files.BrokenFileError(
                f"Expected a unit of work in {path}. Received: {type(found).__name__}. Delete it, "
                "and the next run makes it anew; nothing else is lost."
            )
        return found

    def names(self) -> list[str]:
        """The names of the units that have been computed."""
        # A name that begins with a dot is a file that is still being written.
        return sorted({*self._of_the_record, *(p.stem for p in self.folder.glob("[!.]*.json"))})

    def read_all(self) -> list[dict]:
        """Returns all units that have been computed."""
        return [unit for name in self.names() if (unit := self.read(name)) is not None]

    def complete(
        self,
        tasks: Mapping[str, Callable[..., dict]],
        check: Callable[[str, dict], None] = lambda name, found: None,
        on_computed: Callable[[str], None] = lambda name: None,
    ) -> dict[str, dict]:
        """Computes the missing units, sharing the work with all processes that use this folder.

        Arguments and errors are those of `take`.

        Returns:
            The units of all tasks, by name.
        """
        found = shared(
            functools.partial(self.take, {name: task}, check, on_computed)
            for name, task in tasks.items()
        )
        return {name: unit for units in found for name, unit in units.items()}

    def take(
        self,
        tasks: Mapping[str, Callable[..., dict]],
        check: Callable[[str, dict], None] = lambda name, found: None,
        on_computed: Callable[[str], None] = lambda name: None,
    ) -> dict[str, dict]:
        """Computes the missing units that nobody has begun, and does not wait for the others.

        Args:
            tasks: Name to the function that computes the unit. The folders `<name>.checkpoints` and
                `<name>.parts` are removed as soon as the unit is there.
            check: Raises an error if a unit is not the expected one.
            on_computed: Called with the name of each unit that was missing, when it is there.

        Returns:
            The units of all tasks, by name.

        Raises:
            NotYet: Others are still computing some of them.
        """
        read = {name: self._read_or_compute(name, tasks[name], check, on_computed)
                for name in tasks}  # fmt: skip
        held = [self._lock(name) for name, unit in read.items() if unit is None]
        if held:
            raise NotYet(held)
        return {name: unit for name, unit in read.items() if unit is not None}

    def _read_or_compute(
        self, name: str, compute: Callable, check: Any, on_computed: Any
    ) -> dict | None:
        """The unit; None while another process computes it."""

        def here():
            with self._claimed(name) as ours:
                if not ours:
                    return None
                unit = self.read(name)  # another may have written it before this claim
                if unit is None:
                    unit = {"format": FORMAT, **compute()}
                    self._write(name, unit)
                return unit

        unit = self.read(name)
        if unit is None:
            unit = _executors[-1].compute(self._lock(name), here)
            if unit is not None:
                on_computed(name)
        if unit is not None:
            self._remove_progress(name)
            check(name, unit)
        return unit

    def _remove_progress(self, name: str) -> None:
        """Removes what a finished unit no longer needs, even if its process was killed before."""
        if devices.is_chief():
            for suffix in (".checkpoints", ".parts"):
                files.remove(self.path(name, suffix))

    @contextlib.contextmanager
    def _claimed(self, name: str) -> Iterator[bool]:
        if devices.several_workers():  # all of them compute every unit together
            yield True
        else:
            with locks.held(self._lock(name)) as ours:
                yield ours

    def _lock(self, name: str) -> pathlib.Path:
        return self.folder / ".locks" / name

    def _write(self, name: str, unit: dict) -> None:
        if devices.is_chief():
            files.write_json(self.path(name), unit)
        else:  # the chief's file may not be there yet when it is next read
            self._of_the_chief[name] = unit

    @functools.cached_property
    def _of_the_record(self) -> dict[str, dict]:
        return files.read_json(self._packed) if self._packed.exists() else {}

    def pack(self) -> None:
        """Moves all units into the record's single file; trained networks stay where they are."""
        units = {name: unit for name in self.names() if (unit := self.read(name)) is not None}
        if units:
            files.write_json(self._packed, units)
            self._of_the_record = units
            for name in units:
                files.remove(self.path(name))


def measured(
    about: dict,
    networks: dict[str, str | None],
    compute: Callable[[], dict],
    *,
    clear: bool = True,
    title: str | None = None,
) -> Callable[[], dict]:
    """A task that measures trained networks.

    Args:
        about: What the unit is: data set, seed and so on.
        networks: Name to the `digest` of each network in it.
        compute: () -> what is measured.
        clear: Whether to clear the Keras session afterwards.
        title: What the line at its end calls it; by default the values of `about`.
    """

    def task():
        started = time.time()
        unit = {**about, "status": "done", "classifiers": networks, **compute()}
        unit |= {"seconds": round(time.time() - started, 1), "environment": devices.environment()}
        if clear:
            keras.backend.clear_session()
        name = title or " ".join(str(value) for value in about.values())
        say(f"{name}: measured in {unit['seconds']:.0f} s")
        return unit

    return task


def say(line: str) -> None:
    """Prints a line, on the chief worker only."""
    if devices.is_chief():
        print(line, flush=True)


def digest(path: pathlib.Path) -> str | None:
    """The SHA-256 of a network's file; None where it is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def load_network(unit: dict | None, path: pathlib.Path) -> keras.Model:
    """Returns a trained network.

    Args:
        unit: The results of its training.
        path: Its file.

    Raises:
        ConfigError: It has not been trained to the end, or its file is missing or damaged.
    """
    if unit is None or unit.get("status") != "done":
        reason = "it has not been trained." if unit is None else unit.get("reason")
        raise ConfigError(
            f"Expected a trained network for {path}. Received: one that was not trained to the "
            f"end: {reason or 'it does not say why.'} Leave out its seed or its method."
        )
    advice = f"Put it back, or delete {path.with_suffix('.json')} to train it anew."
    if not path.exists():
        raise ConfigError(
            f"Expected the network {path}. Received: no such file, though its results are there. "
            f"{advice}"
        )
    try:
        return keras.models.load_model(path)
    except Exception as error:  # Keras, zip and HDF5 raise all sorts for a damaged file
        raise ConfigError(
            f"Expected a Keras model in {path}. Received: a file that Keras cannot open, truncated "
            f"or changed ({type(error).__name__}). {advice}"
        ) from error


def same_networks(
    folder: pathlib.Path, networks: dict[str, dict[str, str | None]]
) -> Callable[[str, dict], None]:
    """Returns a check that a finished unit was measured on the current networks.

    Args:
        folder: Of the units.
        networks: Unit's name -> network's name -> its `digest`; None, a file that is gone, is not
            compared.

    Returns:
        A function of a unit's name and the unit; it raises ConfigError if the unit lacks a
        network, or one has been trained anew since.
    """

    def check(name, unit):
        found = unit.get("classifiers", {})
        for network, ours in networks[name].items():
            if ours is not None and found.get(network) != ours:
                received = "another one" if network in found else "none"
                raise ConfigError(
                    f"Expected {folder / name}.json to be of the {network} that is there now. "
                    f"Received: results of {received}. Delete it to compute it anew, or choose "
                    "another --output_dir."
                )

    return check
