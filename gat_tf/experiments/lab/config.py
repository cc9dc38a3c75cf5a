"""Configurations: a frozen dataclass for each experiment, and the folder that is bound to it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import keras

from gat_tf.experiments.lab import devices, files

FORMAT = 2  # of every stored file; another number is another meaning of its fields


class ConfigError(ValueError):
    """A configuration that cannot be run, or a folder with the results of another one."""


_REQUIRED = object()
SEED: dict[str, Any] = {"low": 0, "high": 2**31 - 1}  # what TensorFlow takes


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float = math.inf,
    choices: Collection | None = None,
    rising: bool = False,
    may_be_empty: bool = False,
    check: Callable[[Any], None] | None = None,
    affects_results: bool = True,
    before: Any = _REQUIRED,
) -> Any:
    """A field of a `Config`. What is said of its value holds for each value of a tuple.

    Args:
        default: The paper's value, or ours where the paper has none; the help says which.
        help: Description, for `--help`, which adds the choices.
        low: The smallest number that is allowed. By default 1 for whole numbers and 0 for others.
        high: The largest; infinity itself is not allowed.
        choices: The values that are allowed.
        rising: Whether each value of a tuple must be larger than the one before it.
        may_be_empty: Whether a tuple may be empty.
        check: Raises ConfigError for a value that is not allowed.
        affects_results: Whether a unit's result depends on it; see `run_option`.
        before: For a setting added later: the value that describes the earlier behaviour. A stored
            configuration without the setting has this value.
    """
    metadata = {
        "help": help, "low": low, "high": high, "choices": choices, "rising": rising,
        "may_be_empty": may_be_empty, "check": check, "affects_results": affects_results,
        "before": before,
    }  # fmt: skip
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


# Chooses which units are run, where, and from which folder: no unit's result depends on it, and it
# may differ between runs that share a folder.
run_option = functools.partial(option, affects_results=False)


C = TypeVar("C", bound="Config")


@dataclasses.dataclass(frozen=True)
class Config:
    """The base of all configurations: their values are those that their options allow.

    Raises:
        ConfigError: A value is not allowed.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if value == () and not field.metadata["may_be_empty"]:
                raise ConfigError(f"Expected at least one value in {field.name}. Received: none")
            for one in values:
                _require_allowed(field, one)
            if field.metadata["rising"] and list(values) != sorted(set(values)):
                raise ConfigError(
                    f"Expected {field.name} to rise from one to the next. Received: {value}"
                )

    @classmethod
    def presets(cls: type[C], common: Mapping[str, dict], **own: dict) -> dict[str, C]:
        """Common presets, with an experiment's own settings by the preset's name."""
        return {name: cls(**{**ours, **own.get(name, {})}) for name, ours in common.items()}


def _require_allowed(field: dataclasses.Field, value: Any) -> None:
    rules = field.metadata
    if rules["choices"] is not None:
        require_known(field.name, value, rules["choices"])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low = rules["low"]
        if low is None:
            low = 1 if "int" in str(field.type) else 0
        require_number(field.name, value, low, rules["high"])
    if rules["check"] is not None:
        rules["check"](value)


def fingerprint(config: Config) -> dict:
    """The fields that affect a unit's result, as JSON values."""
    fields = dataclasses.fields(config)
    chosen = {f.name: getattr(config, f.name) for f in fields if f.metadata["affects_results"]}
    return json.loads(json.dumps(chosen))


def _before(config: Config | type[Config]) -> dict:
    """The settings that were added later, with the values that describe the earlier behaviour."""
    fields = dataclasses.fields(config)
    values = {f.name: f.metadata["before"] for f in fields if f.metadata["affects_results"]}
    added = {name: value for name, value in values.items() if value is not _REQUIRED}
    return json.loads(json.dumps(added))


def from_file(config_class: type[C], path: pathlib.Path, experiment: str) -> C:
    """The configuration that `bind_folder` has written into a file.

    Raises:
        ConfigError: The file was written by another experiment or version.
        BrokenFileError: The file is not whole.
    """
    stored = files.read_json(path)
    is_ours = isinstance(stored, dict) and stored.pop("experiment", None) == experiment
    if is_ours:
        stored.pop("format", None)
        stored = {**_before(config_class), **stored}
    names = {f.name for f in dataclasses.fields(config_class) if f.metadata["affects_results"]}
    if not is_ours or stored.keys() != names:
        received = stored if isinstance(stored, dict) else {}
        different = sorted(names ^ received.keys())
        raise ConfigError(
            f"Expected a configuration of {experiment} in {path}. Received: one of another "
            f"experiment or version (it differs in {', '.join(different) or 'the experiment'})."
        )
    return config_class(**{name: _as_tuples(value) for name, value in stored.items()})


def _as_tuples(value):
    """A value with tuples in place of JSON's lists."""
    if isinstance(value, dict):
        return {key: _as_tuples(v) for key, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def bind_folder(
    experiment: str,
    config: Config,
    output_dir: pathlib.Path,
    *,
    flag: str = "output_dir",
    **also: Config,
) -> None:
    """Binds a folder to a configuration: writes it there, or checks that it is the stored one.

    Args:
        experiment: Whose results the folder is for.
        config: The configuration.
        output_dir: Folder of the results.
        flag: The name of the flag that chooses the folder.
        **also: Other configurations that the results depend on, by name.

    Raises:
        ConfigError: The folder holds results of another experiment or configuration, or cannot
            be written.
    """
    path = output_dir / "config.json"

    def together(of):
        others = {f"{name}.{k}": v for name, c in also.items() for k, v in of(c).items()}
        return {**of(config), **others}

    ours = {"experiment": experiment, **together(fingerprint)}
    kept = ("units/*", "search/*", "units.json", "search.json", "results.json")
    if not path.exists() and any(any(output_dir.glob(pattern)) for pattern in kept):
        raise ConfigError(
            f"{output_dir} holds results, but no config.json to tell whose they are. Put it back, "
            f"or choose another --{flag}."
        )
    try:
        if files.create_json(path, {"format": FORMAT, **ours}):
            return
        theirs = files.read_json(path)
    except OSError as error:
        raise ConfigError(f"The output folder {output_dir} cannot be written: {error}") from error
    except files.BrokenFileError as error:
        raise ConfigError(
            f"{output_dir} holds no whole config.json to tell whose results these are. Put it "
            f"back, or choose another --{flag}."
        ) from error
    if theirs.pop("format", None) != FORMAT:
        raise ConfigError(
            f"{output_dir} was written by another version of gat_tf, in another format. Choose "
            f"another --{flag}."
        )
    theirs = {**together(_before), **theirs}
    different = [
        f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    if different:
        raise ConfigError(
            f"{output_dir} holds the results of another configuration, which stay as they are "
            f"({'; '.join(different)}). Choose another --{flag}."
        )


def require_known(name: str, value: Any, known: Collection) -> None:
    """Raises ConfigError unless the value is a known one."""
    if value not in known:
        expected = ", ".join(map(str, known))
        raise ConfigError(f"Expected {name} to be one of {expected}. Received: {value}")


def require_number(name: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError unless the value is finite, from `low` to `high`."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(
            f"Expected {name} to be a finite number in [{low}, {high}]. Received: {value}"
        )


def require_precision(precision: str) -> None:
    """Raises ConfigError unless it is `auto` or the name of a Keras dtype policy."""
    try:
        keras.dtype_policies.get(devices.precision(precision))
    except ValueError as error:
        raise ConfigError(
            "Expected precision to be auto or a Keras dtype policy, such as mixed_bfloat16. "
            f"Received: {precision}"
        ) from error


def settled_precision(precision: str, folder: pathlib.Path) -> str:
    """The precision chosen by `auto`: the folder's, or the best one for this machine."""
    if precision != "auto":
        return precision
    path = folder / "config.json"
    found = files.read_json(path).get("precision") if path.exists() else None
    return found or devices.precision("auto")
