"""The command line of an experiment, derived from its configuration."""

from __future__ import annotations

import dataclasses
import io
import sys
import typing
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from absl import app, flags, logging

from gat_tf.data import DatasetNotFoundError
from gat_tf.experiments.lab import executors, files, monitoring
from gat_tf.experiments.lab.config import ConfigError

_ERRORS = (ConfigError, DatasetNotFoundError, files.BrokenFileError, files.FullDiskError)


def main(config_class: type, presets: dict, run: Callable, name: str) -> None:
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
        if types[field.name] is bool:
            flags.DEFINE_bool(field.name, default, text, module_name=module)
            continue
        if default is dataclasses.MISSING:
            default = field.default_factory()
        parser = parser_of(types[field.name])
        flags.DEFINE(parser, field.name, default, text, module_name=module, serializer=parser)
    if "datasets" in types:
        flags.DEFINE_alias("dataset", "datasets", module_name=module)


def parser_of(kind: Any) -> flags.ArgumentParser:
    """Returns the parser of a field's type."""
    return DictParser(kind) if typing.get_origin(kind) is dict else Parser(kind)


class Parser(flags.ArgumentParser, flags.ArgumentSerializer):
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


class DictParser(flags.ArgumentParser, flags.ArgumentSerializer):
    """Text such as gat.c_g=0.3,dropout.rate=0.2 to a dict; several values as in 0.1:0.3:1."""

    def __init__(self, kind):
        self.many = typing.get_origin(typing.get_args(kind)[1]) is tuple

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        try:
            parts = [part.strip() for part in argument.split(",") if part.strip()]
            return {name.strip(): self._value(text) for name, text in (p.split("=") for p in parts)}
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"expected {self.flag_type()}, received {argument!r}") from None

    def _value(self, text):
        values = tuple(float(Fraction(part)) for part in text.split(":"))
        if self.many:
            return values
        (value,) = values
        return value

    def serialize(self, value):
        def text(v):
            return ":".join(map(str, v)) if self.many else str(v)

        return ",".join(f"{name}={text(v)}" for name, v in value.items())

    def flag_type(self):
        return "name=value:value,..." if self.many else "name=value,..."
