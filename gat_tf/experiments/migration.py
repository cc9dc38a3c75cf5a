"""Converts folders written by older versions to the current format.

Format 1 had a setting for each hyperparameter of each method (`fg_l2_epsilon`), named experiments
without their package, embedded the units in `results.json`, and knew no digest of the code.
"""

from __future__ import annotations

import pathlib
import re

from gat_tf.experiments.lab import files, results
from gat_tf.experiments.lab.config import FORMAT, ConfigError
from gat_tf.experiments.lab.units import Units
from gat_tf.experiments.methods import METHODS

_EXPERIMENTS = {
    "table2": "gat_tf.experiments.table2",
    "fig2": "gat_tf.experiments.fig2",
    "fig3": "gat_tf.experiments.fig3",
    "fig4": "gat_tf.experiments.fig4",
    "gat_robustness": "gat_tf.experiments.robustness",
    "robustness": "gat_tf.robustness.command",
    "robgan_networks": "robgan.networks",
    **{
        f"robgan_{name}": f"gat_tf.experiments.robgan.{name}"
        for name in ("table1", "fig2", "fig6", "fig7", "fig8")
    },
}
# Format 1's name of a hyperparameter to today's, and of its grid.
_HYPERPARAMETERS = {
    "dropout": "dropout.rate",
    "random_epsilon": "random.epsilon",
    "fg_linf_epsilon": "fg_linf.epsilon",
    "fg_l2_epsilon": "fg_l2.epsilon",
    "c_g": "gat.c_g",
    "generator_learning_rate": "gat.generator_learning_rate",
    "dropout_gat_dropout": "dropout_gat.rate",
    "dropout_gat_c_g": "dropout_gat.c_g",
}
_GRIDS = {
    "dropout.rate": ("dropout_grid",),
    "random.epsilon": ("random_epsilon_grid", "linf_epsilon_grid"),
    "fg_linf.epsilon": ("linf_epsilon_grid",),
    "fg_l2.epsilon": ("l2_epsilon_grid",),
    "gat.c_g": ("c_g_grid",),
    "gat.generator_learning_rate": ("generator_learning_rate_grid",),
    "dropout_gat.rate": ("dropout_gat_dropout_grid", "dropout_grid"),
    "dropout_gat.c_g": ("dropout_gat_c_g_grid",),
}


def migrate(folder: pathlib.Path) -> bool:
    """Converts an experiment's folder to the current format; returns whether it was in an older
    one.

    Raises:
        ConfigError: It holds no configuration that is known.
        BrokenFileError: A file is not whole.
    """
    path = folder / "config.json"
    if not path.exists():
        raise ConfigError(f"Expected a folder of results. Received: {folder} without config.json.")
    config = files.read_json(path)
    if config.get("format", 1) == FORMAT:
        return False
    old = config.pop("experiment", None)
    if old not in _EXPERIMENTS:
        raise ConfigError(f"Expected a known experiment in {path}. Received: {old!r}.")
    for kind in ("units", "search"):
        for unit in sorted((folder / kind).glob("[!.]*.json")):
            _migrate_unit(unit)
    if old == "table2":
        config, bound = _training_config(config), "networks"
    else:
        config, bound = _experiment_config(config), _EXPERIMENTS[old]
    files.write_json(path, {"format": FORMAT, "experiment": bound, **config})
    if (folder / "results.json").exists():
        _migrate_results(folder, _EXPERIMENTS[old], config)
    return True


def _training_config(old: dict) -> dict:
    """Of Table 2: hyperparameters and grids that are not the methods' own."""
    new = {k: v for k, v in old.items() if k not in _HYPERPARAMETERS and not k.endswith("_grid")}
    hyperparameters, grids = {}, {}
    for before, now in _HYPERPARAMETERS.items():
        value = old.get(before)
        if value is not None and value != _own(now).value:
            hyperparameters[now] = value
    for now, names in _GRIDS.items():
        grid = next((old[name] for name in names if old.get(name) is not None), None)
        if grid is not None and tuple(grid) != _own(now).grid:
            grids[now] = grid
    return {**new, "hyperparameters": hyperparameters, "grids": grids}


def _own(name):
    method, _, key = name.partition(".")
    return METHODS[method].hyperparameters[key]


def _experiment_config(old: dict) -> dict:
    """The configuration of an experiment on Table 2's networks, which contains theirs."""
    own = {k: v for k, v in old.items() if not k.startswith("table2.")}
    of_networks = {k.removeprefix("table2."): v for k, v in old.items() if k.startswith("table2.")}
    own.pop("training_steps", None)
    epsilon = own.pop("training_epsilon", None)
    if not of_networks:
        return own
    networks = _training_config(of_networks)
    if epsilon is not None and epsilon != _own("pgd.epsilon").value:
        networks["hyperparameters"]["pgd.epsilon"] = epsilon
    return {**own, **{f"networks.{k}": v for k, v in networks.items()}}


def _migrate_unit(path: pathlib.Path) -> None:
    unit = files.read_json(path)
    if "attack" in unit:  # of PGD training
        unit["hyperparameters"] = unit.pop("attack")
    method = unit.get("method")
    if "hyperparameters" in unit:
        unit["hyperparameters"] = {
            _renamed(k): v for k, v in unit["hyperparameters"].items() if v is not None
        }
    if "environment" in unit:
        unit["environment"] = _environment(unit["environment"])
    name = path.name
    if method is not None:  # a trial is named by its hyperparameters
        name = re.sub(r"(?<=-)([a-z_2]+)(?==)", lambda match: _renamed(match[1]), name)
    files.write_json(path.with_name(name), {"format": FORMAT, **unit})
    if name != path.name:  # only now can the old one go
        files.remove(path)


def _renamed(hyperparameter: str) -> str:
    now = _HYPERPARAMETERS.get(hyperparameter, hyperparameter)
    return now.rpartition(".")[2]


def _environment(old: dict) -> dict:
    if "code" in old:
        return old
    return {
        "versions": old["versions"],
        "devices": old["devices"],
        "code": {"digest": None, "git_revision": old["git_revision"]},
    }


def _migrate_results(folder: pathlib.Path, name: str, config: dict) -> None:
    """Rewrites results.json from the units, as the experiment makes them now."""
    old = files.read_json(folder / "results.json")
    module, units = results.experiment(name), Units(folder / "units").read_all()
    new = {
        "experiment": name,
        "format": FORMAT,
        "config": {k: v for k, v in config.items() if not k.startswith("networks.")},
        "wall_seconds": old["wall_seconds"],
        "environment": _environment(old["environment"]),
    }
    if hasattr(module, "summarise"):
        new |= {"summary": module.summarise(units), "verdicts": module.verdicts(units)}
    else:  # the evaluation of a user's classifier, which is only in results.json
        taken_over = {*new, "units", "table2_config", "summary", "verdicts", "trials"}
        new |= {k: v for k, v in old.items() if k not in taken_over}
    files.write_json(folder / "results.json", new)
