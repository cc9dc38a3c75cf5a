"""Adds a record's networks of seed 0 to the package, for `models.pretrained`.

    python -m gat_tf.experiments.publish experiments/table2/full
    python -m gat_tf.experiments.publish runs/robgan-networks runs/robgan-fig8 runs/robgan-table1

The first folder is that of the networks. From Table 2 of the GAT paper these are the full-size
networks of all methods; from Rob-GAN the generator and the fine-tuned classifier. Further folders
are those of experiments that measured the same files: their numbers go into the cards.

Each network has a card, made from the record. `README.md` beside them is a table of the cards.
Weights are in float16, those of Rob-GAN's generator in bfloat16, which keeps its file below 2 MB.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.lab.tables import table
from gat_tf.experiments.lab.units import Units, digest
from gat_tf.experiments.methods import METHODS
from gat_tf.models.pretrained import FOLDER
from gat_tf.models.sampling import num_classes

_ROBGAN_PRESETS = {1: "paper", 0.25: "large"}  # by width


class _Published(NamedTuple):
    """What is published of a unit.

    Attributes:
        name: For `models.pretrained`.
        suffix: Of the network's file.
        network: A key of `gat_tf.models.pretrained.NETWORKS`.
        card: What only networks of this kind have.
    """

    name: str
    suffix: str
    network: str
    card: dict[str, Any]


def publish(
    networks: pathlib.Path, measured: Sequence[pathlib.Path] = (), folder: pathlib.Path = FOLDER
) -> list[str]:
    """Writes weights and cards of a folder's networks of seed 0, and returns their names.

    Args:
        networks: A folder of Table 2's networks at full size, or of Rob-GAN's of the preset `paper`
            or `large`.
        measured: Folders of Rob-GAN's Fig. 8 and Table 1, which measured these networks.
        folder: Of the weights and cards.

    Raises:
        ConfigError: The networks are of another experiment or width.
    """
    config = files.read_json(networks / "config.json")
    of_experiment = {"networks": _of_table2, "robgan.networks": _of_robgan}
    if config["experiment"] not in of_experiment:
        raise ConfigError(
            "Expected a folder of the networks of Table 2 or of Rob-GAN. Received: one of "
            f"{config['experiment']}."
        )
    units = Units(networks / "units")
    measurements = [
        (files.read_json(path / "config.json"), unit)
        for path in measured
        for unit in Units(path / "units").read_all()
    ]
    cards_path = folder / "cards.json"
    cards = files.read_json(cards_path) if cards_path.exists() else {}
    names = []
    for unit_name in units.names():
        unit = units.read(unit_name)
        if unit is None or unit["seed"] != 0 or unit["status"] != "done":
            continue
        published = of_experiment[config["experiment"]](unit, config["width"])
        if published is None:
            continue
        name, suffix, network, card = published
        path = units.path(unit_name, suffix)
        if not path.exists():
            continue
        model = keras.models.load_model(path)
        file = path.with_suffix(".npz").name
        store = _bfloat16 if network == "image_generator" else np.float16
        with files.replacing(folder / file) as temporary:
            arrays: dict[str, Any] = {
                f"{i:02d}": store(w) for i, w in enumerate(model.get_weights())
            }
            np.savez_compressed(temporary, **arrays)
        cards[name] = {
            "file": file,
            "network": network,
            "arguments": _arguments(model, network, config["width"]),
            **{key: unit[key] for key in ("dataset", "seed", "best_epoch", "epochs", "precision")},
            **card,
            **_measured(measurements, digest(path)),
            "environment": unit["environment"],
        }
        names.append(name)
    files.write_json(cards_path, cards)
    with files.replacing(folder / "README.md") as path:
        path.write_text(_table(cards), encoding="utf-8")
    return names


def _of_table2(unit: dict, width: float) -> _Published:
    if width != 1:
        raise ConfigError(f"Expected a record of full-size networks. Received: width {width:g}.")
    dataset, method = unit["dataset"], unit["method"]
    card = {
        "title": METHODS[method].title,
        **{key: unit[key] for key in ("method", "hyperparameters", "test_accuracy")},
        "pixels": [0, 1],
        "command": "python -m gat_tf.experiments.table2 --preset=full "
        f"--dataset={dataset} --methods={method} --seeds=0",
    }
    return _Published(f"{dataset}/{method}", ".keras", "classifier", card)


def _of_robgan(unit: dict, width: float) -> _Published | None:
    if width not in _ROBGAN_PRESETS:
        raise ConfigError(
            f"Expected networks of Rob-GAN of one of the widths {list(_ROBGAN_PRESETS)}. "
            f"Received: width {width:g}."
        )
    if unit.get("gan") == "robgan":
        role, title, suffix, network = "generator", "Rob-GAN", "-generator.keras", "image_generator"
        experiment, choice = "fig8", "--gans=robgan"
    elif unit.get("classifier") == "fine_tuned":
        role, title, suffix, network = "classifier", "Rob-GAN, fine-tuned", ".keras", "class_head"
        experiment, choice = "table1", "--classifiers=fine_tuned"
    else:
        return None
    card = {
        "title": title,
        "pixels": [-1, 1],
        "command": f"python -m gat_tf.experiments.robgan.{experiment} "
        f"--preset={_ROBGAN_PRESETS[width]} --dataset={unit['dataset']} {choice} --seeds=0",
    }
    return _Published(f"{unit['dataset']}/robgan/{role}", suffix, network, card)


def _arguments(model: keras.Model, network: str, width: float) -> dict[str, Any]:
    """The arguments that the function which builds the network needs."""
    if network == "classifier":
        return {"num_classes": model.output_shape[-1]}
    generates = network == "image_generator"
    return {
        "num_classes": num_classes(model) if generates else model.output_shape[-1],
        "image_size": (model.output_shape if generates else model.input_shape)[1],
        "width": width,
    }


def _bfloat16(weights: np.ndarray) -> np.ndarray:
    """The bits of the weights in bfloat16, a type that NumPy does not have."""
    return tf.cast(weights, tf.bfloat16).numpy().view(np.uint16)


def _measured(measurements: Sequence[tuple[dict, dict]], file: str | None) -> dict[str, Any]:
    """What the experiments, configuration and unit, found for the file of a digest."""
    found: dict[str, Any] = {}
    for config, unit in measurements:
        for name in (n for n, of in unit["classifiers"].items() if of == file):
            if "scores" in unit:
                last = unit["scores"][-1]
                found |= {key: last[key] for key in ("inception_score", "frechet_distance")}
                found["score_network"] = unit["score_network"]
            else:
                curve = unit["curves"][name]["test"]
                found["test_accuracy"] = curve["accuracy"][0]
                found["robust_accuracy"] = {
                    "attack": f"PGD-{config['evaluation_steps']}, L∞",
                    **curve,
                }
    return found


def _table(cards: dict[str, dict]) -> str:
    rows = [
        [f"`{name}`", c["title"], _numbers(c), str(c["best_epoch"]), f"`{c['command']}`"]
        for name, c in cards.items()
    ]
    lines = [
        "# Trained networks",
        "",
        "Of the GAT paper these are classifiers of Table 1 at full size, from pixels in [0, 1] to",
        "probabilities. Those of Rob-GAN have pixels in [-1, 1]; its classifier gives logits. All",
        "are of seed 0. Written from the record by `python -m gat_tf.experiments.publish`.",
        "",
        *table(["name", "training", "results", "best epoch", "command"], rows),
    ]
    return "\n".join(lines) + "\n"


def _numbers(card: dict) -> str:
    """What was measured of a network, in words."""
    if "inception_score" in card:
        return (
            f"inception score {card['inception_score']:.2f}, "
            f"Fréchet distance {card['frechet_distance']:.2f}"
        )
    if "robust_accuracy" in card:
        curve = card["robust_accuracy"]
        pairs = zip(curve["epsilons"], curve["accuracy"], strict=True)
        of_each = ", ".join(f"{100 * accuracy:.1f} % at ε {e:g}" for e, accuracy in pairs)
        return f"{curve['attack']}: {of_each}"
    return f"accuracy {100 * card['test_accuracy']:.2f} %" if "test_accuracy" in card else ""


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Expected the folder of the networks. See the top of this file.")
    first, *more = map(pathlib.Path, sys.argv[1:])
    try:
        names = publish(first, more)
    except (ConfigError, FileNotFoundError) as error:
        sys.exit(f"Error: {error}")
    if not names:
        sys.exit(f"Error: Expected trained networks of seed 0 in {first}. Received: none.")
    for published_name in names:
        print(f"{published_name}: published")
