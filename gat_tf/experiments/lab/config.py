"""Configurations: a frozen dataclass for each experiment, and the folder that is bound to it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

import keras

from gat_tf.experiments.lab import devices, files

FORMAT = 2  # of every stored file; another number is another meaning of its fields


class ConfigError(ValueError):
    """A configuration that cannot be run, or a folder with the results of another one."""


_REQUIRED = object()


def option(
    default: Any, help: str, *, affects_results: bool = True, before: Any = _REQUIRED
) -> Any:
    """A field of a configuration.

    Args:
        default: The paper's value, or ours where the paper has none; the help says which.
        help: Description, for `--help`.
        affects_results: Whether a unit's result depends on it. Other fields choose which units are
            run, where, and from which folder. They may differ between runs that share a folder.
        before: For a setting added later: the value that describes the earlier behaviour. A stored
            configuration without the setting has this value.
    """
    metadata = {"help": help, "affects_results": affects_results, "before": before}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fingerprint(config: Any) -> dict:
    """The fields that affect a unit's result, as JSON values."""
    fields = dataclasses.fields(config)
    chosen = {f.name: getattr(config, f.name) for f in fields if f.metadata["affects_results"]}
    return json.loads(json.dumps(chosen))


def _before(config: Any) -> dict:
    """The settings that were added later, with the values that describe the earlier behaviour."""
    fields = dataclasses.fields(config)
    values = {f.name: f.metadata["before"] for f in fields if f.metadata["affects_results"]}
    added = {name: value for name, value in values.items() if value is not _REQUIRED}
    return json.loads(json.dumps(added))


def from_file(config_class: type, path: pathlib.Path, experiment: str) -> Any:
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
    experiment: str, config: Any, output_dir: pathlib.Path, *, flag: str = "output_dir", **also: Any
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
    kinds = ("units", "search")
    has_results = any(
        any(output_dir.glob(f"{kind}/*")) or (output_dir / f"{kind}.json").exists()
        for kind in kinds
    )
    if not path.exists() and (has_results or (output_dir / "results.json").exists()):
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


def require_known(kind: str, names: Any, known: Any) -> None:
    """Raises ConfigError unless there are names, all of them known ones."""
    for name in names or ["none at all"]:
        if name not in known:
            expected = ", ".join(map(str, known))
            raise ConfigError(f"Expected {kind} to be one of {expected}. Received: {name}")


def require_values(config: Any, *names: str) -> None:
    """Raises ConfigError unless there is at least one value in each of the fields."""
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"Expected at least one value in {name}. Received: none")


def require_seeds(seeds: tuple[int, ...]) -> None:
    """Raises ConfigError unless there are seeds, all of them valid in TensorFlow."""
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise ConfigError(f"Expected seeds of at least 0 and below 2**31. Received: {seeds}")


def require_range(config: Any, *fields: tuple[str, float, float]) -> None:
    """Raises ConfigError unless each (name, low, high) holds, of a number or of each of several."""
    for name, low, high in fields:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            if not low <= number <= high or number == math.inf:
                raise ConfigError(
                    f"Expected {name} to be a finite number in [{low}, {high}]. Received: {number}"
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
