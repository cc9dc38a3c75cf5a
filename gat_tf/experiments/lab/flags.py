"""The command line of an experiment, derived from its configuration."""

from __future__ import annotations

import dataclasses
import io
import sys
import typing
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from absl import app, flags, logging

from gat_tf.data import DatasetNotFoundError
from gat_tf.experiments.lab import executors, files, monitoring
from gat_tf.experiments.lab.config import C, ConfigError

_ERRORS = (ConfigError, DatasetNotFoundError, files.BrokenFileError, files.FullDiskError)


def main(
    config_class: type[C], presets: dict[str, C], run: Callable[[C, str], dict], name: str
) -> None:
    """Runs an experiment from the command line.

    Args:
        config_class: The configuration's dataclass.
        presets: Name to configuration; `"paper"` is the default.
        run: (config, output_dir) -> results.
        name: Of the experiment: results go to `runs/<name>` unless `--output_dir` says otherwise.
    """
    _define_flags(config_class, presets, name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Windows has no ε in its files by default
            stream.reconfigure(encoding="utf-8")

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
            for field, value in given.items():
                if isinstance(value, dict):  # over those of the preset
                    given[field] = {**getattr(presets[preset], field), **value}
            config = dataclasses.replace(presets[preset], **given)
            default = f"runs/{name}" + ("" if preset == "paper" else f"-{preset}")
            output_dir = flags.FLAGS.output_dir or default
            with monitoring.tensorboard(flags.FLAGS.tensorboard):
                executors.run(flags.FLAGS.executor, run, config, output_dir)
        except _ERRORS as error:
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
    flags.DEFINE_bool(
        "tensorboard",
        False,
        "Whether every training is written for TensorBoard, into tensorboard/ beside the networks.",
        module_name=module,
    )
    flags.DEFINE_enum(
        "executor",
        "local",
        executors.EXECUTORS,
        "Who computes the units: this process, or the tasks of a Ray cluster, each with a GPU or "
        "a CPU of its own.",
        module_name=module,
    )
    types = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        text, default = field.metadata["help"], field.default
        if choices := field.metadata["choices"]:
            text += f" Choices: {', '.join(map(str, choices))}."
        if types[field.name] is bool:
            flags.DEFINE_bool(field.name, default, text, module_name=module)
            continue
        if default is dataclasses.MISSING:
            default = field.default_factory()
        parser = Parser(types[field.name])
        flags.DEFINE(parser, field.name, default, text, module_name=module, serializer=parser)
    if "datasets" in types:
        flags.DEFINE_alias("dataset", "datasets", module_name=module)


class Parser(flags.ArgumentParser, flags.ArgumentSerializer):
    """Text to a value of a field's type.

    1/3, 0:10 and 1,2,3 are understood, and none is None. A dict is written as gat.c_g=0.3,... and
    several values in it as 0.1:0.3:1.
    """

    def __init__(self, kind: Any):
        self.kind = kind

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        try:
            return _parsed(self.kind, argument)
        except (KeyError, ValueError, ZeroDivisionError):
            raise ValueError(f"expected {self.flag_type()}, received {argument!r}") from None

    def serialize(self, value):
        return _text(value, ",")

    def flag_type(self):
        item, *others = typing.get_args(self.kind) or (self.kind,)
        if typing.get_origin(self.kind) is dict:
            many = typing.get_origin(others[0]) is tuple
            return "name=value:value,..." if many else "name=value,..."
        many = typing.get_origin(self.kind) is tuple
        return f"{item.__name__}{'s, separated by commas' if many else ''}"


def _parsed(kind: Any, text: str) -> Any:
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        (kind,) = set(arguments) - {type(None)}
        return None if text.lower() == "none" else _parsed(kind, text)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if typing.get_origin(kind) is dict:
        pairs = (part.split("=") for part in parts)
        return {name.strip(): _of_dict(arguments[1], value) for name, value in pairs}
    if typing.get_origin(kind) is tuple:
        return tuple(value for part in parts for value in _items(arguments[0], part))
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    return float(Fraction(text)) if kind is float else kind(text)


def _of_dict(kind: Any, text: str) -> Any:
    if kind is float:
        return _parsed(float, text)
    return tuple(_parsed(float, part) for part in text.split(":"))


def _items(kind: Any, text: str) -> Iterable:
    if kind is int and ":" in text:
        start, stop = text.split(":")
        return range(int(start), int(stop))
    return [_parsed(kind, text)]


def _text(value: Any, separator: str) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={_text(v, ':')}" for name, v in value.items())
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)
