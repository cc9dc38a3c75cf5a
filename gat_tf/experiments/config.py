"""Configurations: a frozen dataclass a runner, and the command line derived from it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
import typing
from fractions import Fraction

from absl import app, flags, logging

from gat_tf.data import DatasetNotFoundError
from gat_tf.experiments import files


class ConfigError(ValueError):
    """A configuration that cannot be run, or a folder that holds another one's results."""


_REQUIRED = object()


def option(default, help: str, *, shard: bool = False, before=_REQUIRED):
    """A field of a configuration.

    Args:
        default: The paper's value, or ours where the paper has none; the help says which.
        help: What it is.
        shard: Whether it only says which units are run, where and from what folder: fields that
            may differ between runs that share an output folder.
        before: For a setting that was added later: the value that stands for what was done before
            there was a choice. A stored configuration that lacks the setting has this value.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "shard": shard, "before": before}
    )


def identity(config) -> dict:
    """The fields that decide what a unit's result is, as JSON knows them."""
    fields = dataclasses.fields(config)
    chosen = {f.name: getattr(config, f.name) for f in fields if not f.metadata["shard"]}
    return json.loads(json.dumps(chosen))


def _before(config) -> dict:
    """The settings that were added later, with what was done before there was a choice."""
    fields = dataclasses.fields(config)
    values = {f.name: f.metadata["before"] for f in fields if not f.metadata["shard"]}
    added = {name: value for name, value in values.items() if value is not _REQUIRED}
    return json.loads(json.dumps(added))


def from_file(config_class, path: pathlib.Path, experiment: str):
    """The configuration that `claim_folder` has written into a file.

    Raises:
        ConfigError: The file was written by another experiment or version.
        BrokenFileError: The file is not whole.
    """
    identity = files.read_json(path)
    is_ours = isinstance(identity, dict) and identity.pop("experiment", None) == experiment
    if is_ours:
        identity = {**_before(config_class), **identity}
    names = {f.name for f in dataclasses.fields(config_class) if not f.metadata["shard"]}
    if not is_ours or identity.keys() != names:
        received = identity if isinstance(identity, dict) else {}
        different = sorted(names ^ received.keys())
        raise ConfigError(
            f"Expected a configuration of {experiment} in {path}. Received: one of another "
            f"experiment or version (it differs in {', '.join(different) or 'the experiment'})."
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in identity.items()}
    return config_class(**values)


def claim_folder(
    experiment: str, config, output_dir: pathlib.Path, *, flag: str = "output_dir", **also
) -> None:
    """Writes the configuration into the folder, or checks that it is the one that is there.

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

    ours = {"experiment": experiment, **together(identity)}
    has_results = any(any(output_dir.glob(f"{kind}/*")) for kind in ("units", "search"))
    results = output_dir / "results.json"
    if has_results or results.exists():
        try:
            theirs = {**together(_before), **files.read_json(path)}
        except (OSError, files.BrokenFileError) as error:
            raise ConfigError(
                f"{output_dir} holds results, but no whole config.json to tell whose they are "
                f"({type(error).__name__}). Put it back, or choose another --{flag}."
            ) from error
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
        return
    try:
        files.write_json(path, ours)
    except OSError as error:
        raise ConfigError(f"The output folder {output_dir} cannot be written: {error}") from error


def require_known(kind: str, names, known) -> None:
    """Raises ConfigError unless there are names, all of them known ones."""
    for name in names or ["none at all"]:
        if name not in known:
            expected = ", ".join(map(str, known))
            raise ConfigError(f"Expected {kind} to be one of {expected}. Received: {name}")


def require_values(config, *names: str) -> None:
    """Raises ConfigError unless there is at least one value in each of the fields."""
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"Expected at least one value in {name}. Received: none")


def require_seeds(seeds: tuple[int, ...]) -> None:
    """Raises ConfigError unless there are seeds, all of them such as TensorFlow takes."""
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise ConfigError(f"Expected seeds of at least 0 and below 2**31. Received: {seeds}")


def require_range(config, *fields: tuple[str, float, float]) -> None:
    """Raises ConfigError unless each (name, low, high) holds, of a number or of each of several."""
    for name, low, high in fields:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high or number == math.inf:
                raise ConfigError(
                    f"Expected {name} to be a finite number in [{low}, {high}]. Received: {number}"
                )


def main(config_class, presets: dict, run, name: str) -> None:
    """Runs an experiment from the command line.

    Args:
        config_class: The configuration's dataclass.
        presets: Name to configuration; `"paper"` is the default.
        run: (config, output_dir) -> results.
        name: Of the experiment: results go to `runs/<name>` unless `--output_dir` says otherwise.
    """
    _define_flags(config_class, presets, name)

    def with_flags(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            if argv[1:]:
                raise ConfigError(f"Expected flags only. Received: {' '.join(argv[1:])}")
            preset = flags.FLAGS.preset
            given = {
                f.name: flags.FLAGS[f.name].value
                for f in dataclasses.fields(config_class)
                if flags.FLAGS[f.name].present
            }
            config = dataclasses.replace(presets[preset], **given)
            default = f"runs/{name}" + ("" if preset == "paper" else f"-{preset}")
            run(config, flags.FLAGS.output_dir or default)
        except (ConfigError, DatasetNotFoundError, files.BrokenFileError) as error:
            sys.exit(f"Error: {error}")
        except KeyboardInterrupt:
            print("Stopped. The same command continues with what is missing.", file=sys.stderr)
            sys.exit(130)

    app.run(with_flags)


def _define_flags(config_class, presets, name):
    module = sys.argv[0]  # so that --help shows them
    flags.DEFINE_enum(
        "preset",
        "paper",
        list(presets),
        "; ".join(f"{key}: {doc}" for key, doc in config_class.PRESETS.items()),
        module_name=module,
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        f"Folder of the results; runs/{name} for the paper preset, runs/{name}-PRESET for others.",
        module_name=module,
    )
    types = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        text = field.metadata["help"]
        if types[field.name] is bool:
            flags.DEFINE_bool(field.name, field.default, text, module_name=module)
            continue
        parser = _Parser(types[field.name])
        flags.DEFINE(parser, field.name, field.default, text, module_name=module, serializer=parser)
    if "datasets" in types:
        flags.DEFINE_alias("dataset", "datasets", module_name=module)


class _Parser(flags.ArgumentParser, flags.ArgumentSerializer):
    """Text to a value of a field's type: 1/3, 0:10 and 1,2,3 are understood; none is None."""

    def __init__(self, kind):
        self.optional = type(None) in typing.get_args(kind)
        if self.optional:
            (kind,) = set(typing.get_args(kind)) - {type(None)}
        self.many = typing.get_origin(kind) is tuple
        self.item = typing.get_args(kind)[0] if self.many else kind

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        if self.optional and argument.lower() == "none":
            return None
        try:
            if self.many:
                parts = [part.strip() for part in argument.split(",") if part.strip()]
                return tuple(value for part in parts for value in self._items(part))
            return self._item(argument)
        except (KeyError, ValueError, ZeroDivisionError):
            raise ValueError(f"expected {self.flag_type()}, received {argument!r}") from None

    def _items(self, text):
        if self.item is int and ":" in text:
            start, stop = text.split(":")
            return range(int(start), int(stop))
        return [self._item(text)]

    def _item(self, text):
        if self.item is bool:
            return {"true": True, "false": False}[text.lower()]
        return float(Fraction(text)) if self.item is float else self.item(text)

    def serialize(self, value):
        return ",".join(map(str, value)) if self.many and value is not None else str(value)

    def flag_type(self):
        return f"{self.item.__name__}{'s, separated by commas' if self.many else ''}"
