"""Adds a record's networks of seed 0 to the package, for `models.pretrained`.

    python -m gat_tf.experiments.publish experiments/table2/full
    python -m gat_tf.experiments.publish runs/robgan-networks runs/robgan-fig8 runs/robgan-table1

The first folder is that of the networks. From Table 2 of the GAT paper these are the full-size
networks of all methods; from Rob-GAN the generator and the fine-tuned classifier. What was measured
on Rob-GAN's is in the folders of its Fig. 8 and Table 1, which come next.

Each network has a card, made from the record. `README.md` beside them is a table of the cards.
Weights are in float16, those of the generator in bfloat16, which keeps its file below 2 MB.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gat_tf.experiments import settings as table2_settings
from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import Config, ConfigError, fingerprint
from gat_tf.experiments.lab.tables import table
from gat_tf.experiments.lab.units import Units, digest, load_network
from gat_tf.experiments.methods import METHODS
from gat_tf.experiments.robgan import fig8, table1
from gat_tf.experiments.robgan import settings as robgan_settings
from gat_tf.experiments.robgan.methods import CLASSIFIERS, GANS
from gat_tf.models.pretrained import FOLDER
from gat_tf.models.sampling import num_classes


def _presets(settings: Any, *names: str) -> dict[str, Config]:
    return settings.Config.presets({name: settings.PRESETS[name] for name in names})


_TABLE2 = _presets(table2_settings, "full", "paper")
_ROBGAN = _presets(robgan_settings, "large", "paper")
_ERRORS = (ConfigError, files.BrokenFileError)


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
        networks: A folder of Table 2's networks of the preset `full` or `paper`, or of Rob-GAN's of
            the preset `large` or `paper`.
        measured: Folders of Rob-GAN's Fig. 8 and Table 1, which measured these networks.
        folder: Of the weights and cards.

    Raises:
        ConfigError: A folder is of another experiment or preset, a network is missing or damaged,
            or nothing was measured on it.
        BrokenFileError: A file of a folder is not whole.
    """
    config = _config(networks)
    units = Units(networks / "units")
    cards_path = folder / "cards.json"
    cards = files.read_json(cards_path) if cards_path.exists() else {}
    names = []
    for unit_name in units.names():
        unit = units.read(unit_name)
        if unit is None or unit["seed"] != 0 or unit["status"] != "done":
            continue
        published = _published(unit, config)
        if published is None:
            continue
        name, suffix, network, card = published
        path = units.path(unit_name, suffix)
        model = load_network(unit, path)
        if config["experiment"] == "robgan.networks":
            card |= _measured(path, measured, card["command"])
        file = path.with_suffix(".npz").name
        store = _bfloat16 if network == "image_generator" else np.float16
        with files.replacing(folder / file) as temporary:
            arrays: dict[str, Any] = {
                f"{i:02d}": store(w) for i, w in enumerate(model.get_weights())
            }
            np.savez_compressed(temporary, **arrays)
        cards[name] = {
            "file": file,
            "digest": digest(path),
            "network": network,
            "arguments": _arguments(model, network, config["width"]),
            **{key: unit[key] for key in ("dataset", "seed", "best_epoch", "epochs", "precision")},
            **card,
            "environment": unit["environment"],
        }
        names.append(name)
    if not names:
        raise ConfigError(f"Expected trained networks of seed 0 in {networks}. Received: none.")
    files.write_json(cards_path, cards)
    with files.replacing(folder / "README.md") as path:
        path.write_text(readme(cards), encoding="utf-8")
    return names


def _config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise ConfigError(f"Expected the folder of an experiment. Received: no {path}.")
    return files.read_json(path)


def _published(unit: dict, config: dict) -> _Published | None:
    """What is published of a unit of either paper; None for other networks of Rob-GAN."""
    dataset = unit["dataset"]
    if config["experiment"] == "networks":
        method = unit["method"]
        card = {
            "title": METHODS[method].title,
            **{key: unit[key] for key in ("method", "hyperparameters", "test_accuracy")},
            "pixels": [0, 1],
            "command": f"python -m gat_tf.experiments.table2 --preset={_preset(config, _TABLE2)} "
            f"--dataset={dataset} --methods={method} --seeds=0",
        }
        return _Published(f"{dataset}/{method}", ".keras", "classifier", card)
    if config["experiment"] != "robgan.networks":
        raise ConfigError(
            "Expected a folder of the networks of Table 2 or of Rob-GAN. Received: one of "
            f"{config['experiment']}."
        )
    command = f"--preset={_preset(config, _ROBGAN)} --dataset={dataset}"
    if unit.get("gan") == "robgan":
        card = {
            "title": GANS["robgan"].title,
            "pixels": [-1, 1],
            "command": f"python -m {fig8.NAME} {command} --gans=robgan --seeds=0",
        }
        name = f"{dataset}/robgan/generator"
        return _Published(name, "-generator.keras", "image_generator", card)
    if unit.get("classifier") == "fine_tuned":
        card = {
            "title": CLASSIFIERS["fine_tuned"].title,
            "pixels": [-1, 1],
            "command": f"python -m {table1.NAME} {command} --classifiers=fine_tuned --seeds=0",
        }
        return _Published(f"{dataset}/robgan/classifier", ".keras", "class_head", card)
    return None


def _preset(config: dict, presets: dict[str, Config]) -> str:
    """The name of the preset that a folder's networks were trained with, in any precision.

    Raises:
        ConfigError: They were trained with other settings.
    """
    different = {
        name: sorted(
            key
            for key, value in fingerprint(preset).items()
            if key != "precision" and value != config.get(key)
        )
        for name, preset in presets.items()
    }
    nearest = min(different, key=lambda name: len(different[name]))
    if different[nearest]:
        raise ConfigError(
            f"Expected networks of one of the presets {', '.join(presets)}. Received: ones that "
            f"differ from {nearest} in {', '.join(different[nearest])}."
        )
    return nearest


def _measured(path: pathlib.Path, folders: Sequence[pathlib.Path], command: str) -> dict[str, Any]:
    """What Rob-GAN's Fig. 8 or Table 1 found for the network of a file.

    Raises:
        ConfigError: They found nothing for it, or a folder is of another experiment.
    """
    file = digest(path)
    for folder in folders:
        config = _config(folder)
        if config["experiment"] not in (fig8.NAME, table1.NAME):
            raise ConfigError(
                f"Expected a folder of {fig8.NAME} or {table1.NAME}. Received: {folder}, of "
                f"{config['experiment']}."
            )
        of_fig8 = config["experiment"] == fig8.NAME
        for unit in Units(folder / "units").read_all():
            name = unit["gan" if of_fig8 else "classifier"]
            if unit["classifiers"].get(name) == file:
                return _scores(unit) if of_fig8 else _accuracies(unit, name, config)
    raise ConfigError(
        f"Expected a folder with what was measured on {path}. Received: none in "
        f"{', '.join(map(str, folders)) or 'no folder'}. Run `{command}` and pass its output "
        "folder as well."
    )


def _scores(unit: dict) -> dict[str, Any]:
    last = unit["scores"][-1]
    return {
        **{key: last[key] for key in ("inception_score", "frechet_distance")},
        "inception_score_of_real_images": unit["real"]["inception_score"],
        **{key: unit[key] for key in ("score_images", "score_network")},
    }


def _accuracies(unit: dict, name: str, config: dict) -> dict[str, Any]:
    curve, images = unit["curves"][name]["test"], unit["images"]["test"]
    attack = f"PGD-{config['evaluation_steps']}, L∞"
    return {
        "test_accuracy": curve["accuracy"][curve["epsilons"].index(0)],
        "robust_accuracy": {"attack": attack, "images": images, **curve},
    }


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


def readme(cards: dict[str, dict]) -> str:
    """The cards as Markdown."""
    rows = [
        [f"`{name}`", c["title"], _results(c), str(c["best_epoch"]), f"`{c['command']}`"]
        for name, c in cards.items()
    ]
    lines = [
        "# Trained networks",
        "",
        "All are of seed 0. The GAT paper's classifiers are Table 1 at full size, from pixels in",
        "[0, 1] to probabilities. Rob-GAN's classifier gives logits of pixels in [-1, 1], and its",
        "generator draws such pixels. Results are those on test images before the weights were",
        "rounded to 16 bits. Written by `python -m gat_tf.experiments.publish`.",
        "",
        *table(["name", "training", "results", "best epoch", "command"], rows),
    ]
    return "\n".join(lines) + "\n"


def _results(card: dict) -> str:
    """What was measured of a network, in words."""
    if "inception_score" in card:
        return (
            f"inception score {card['inception_score']:.2f} (real images "
            f"{card['inception_score_of_real_images']:.2f}), Fréchet distance "
            f"{card['frechet_distance']:.2f}, {card['score_images']} images, in the eyes of "
            f"{card['score_network']}"
        )
    if "robust_accuracy" in card:
        found = card["robust_accuracy"]
        pairs = zip(found["epsilons"], found["accuracy"], strict=True)
        of_each = ", ".join(f"{100 * accuracy:.1f} % at δmax {e:g}" for e, accuracy in pairs)
        return f"accuracy under {found['attack']}: {of_each}, {found['images']} images"
    return f"accuracy {100 * card['test_accuracy']:.2f} %"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Expected the folder of the networks. See the top of this file.")
    first, *more = map(pathlib.Path, sys.argv[1:])
    try:
        for published_name in publish(first, more):
            print(f"{published_name}: published")
    except _ERRORS as error:
        sys.exit(f"Error: {error}")
