"""Units of work, a file each, and the trained networks that they are about."""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Callable

import keras

from gat_tf.experiments import devices, files
from gat_tf.experiments.config import ConfigError


def measure(
    path: pathlib.Path, about: dict, digests: dict[str, str | None], compute: Callable[[], dict]
) -> None:
    """Measures trained networks and writes the results, unless they are there.

    Args:
        path: Of the unit.
        about: What it is: data set, seed and so on.
        digests: Name to the `digest` of each network in it.
        compute: () -> what is measured.

    Raises:
        ConfigError: The unit is there, but of other networks.
        BrokenFileError: The unit is there, but not whole.
    """
    if path.exists():
        require_same_networks(path, digests)
        return
    started = time.time()
    result = {
        **about,
        "status": "done",
        "classifiers": digests,
        **compute(),
        "seconds": round(time.time() - started, 1),
        "environment": devices.environment(),
    }
    if devices.is_chief():
        files.write_json(path, result)
        print(f"{path.stem}: measured in {result['seconds']:.0f} s", flush=True)


def digest(path: pathlib.Path) -> str | None:
    """The SHA-256 of a network's file; None where it is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def load_network(unit: pathlib.Path, path: pathlib.Path) -> keras.Model:
    """Returns a trained network.

    Args:
        unit: The results of its training.
        path: Its file.

    Raises:
        ConfigError: It diverged, or its file is missing.
        BrokenFileError: The results are not whole.
    """
    if not unit.exists():
        raise ConfigError(f"Expected a trained network in {unit}. Received: no such file.")
    results = files.read_json(unit)
    if not isinstance(results, dict) or results.get("status") != "done":
        reason = results.get("reason") if isinstance(results, dict) else None
        raise ConfigError(
            f"Expected a trained network for {unit}. Received: one that was not trained to the "
            f"end: {reason or 'it does not say why.'} Leave out its seed or its method."
        )
    advice = f"Put it back, or delete {unit} to train it anew."
    if not path.exists():
        raise ConfigError(
            f"Expected the network {path}. Received: no such file, though its results are there. "
            f"{advice}"
        )
    try:
        return keras.models.load_model(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Expected a Keras model in {path}. Received: a file that Keras cannot open, truncated "
            f"or changed. {advice}"
        ) from error


def require_same_networks(path: pathlib.Path, digests: dict[str, str | None]) -> None:
    """Raises ConfigError unless a finished unit is of the networks that are there now.

    Args:
        path: Of the unit.
        digests: Name to its network's `digest`; None, a file that is gone, is not compared.

    Raises:
        ConfigError: The unit lacks a network, or one has been trained anew since.
        BrokenFileError: The unit is not whole.
    """
    found = files.read_json(path).get("classifiers", {})
    for name, ours in digests.items():
        if ours is not None and found.get(name) != ours:
            what = "another one" if name in found else "none"
            raise ConfigError(
                f"Expected {path} to be of the {name} that is there now. Received: results of "
                f"{what}. Delete it to compute it anew, or choose another --output_dir."
            )
