"""The worst-case images of an evaluation: stored, and shown beside the clean ones."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from gat_tf.experiments.lab import files
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.logits import Logits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("clean", "perturbed")
_SHOWN = 5


def write(path: pathlib.Path, found: dict, first: int, labels: np.ndarray) -> None:
    """Stores the worst-case images of a chunk beside its unit.

    Args:
        path: Of the `.npz` file.
        found: `worst_case_images` of `evaluation.robustness`.
        first: Number of the chunk's first image.
        labels: Of all images, `[N]`.
    """
    index = first + np.array(found["index"], np.int64)
    save(
        path,
        {
            "images": found["images"],
            "labels": labels[index],
            "index": index,
            "attack": np.array(found["attack"], str),
        },
    )


def save(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an `.npz` file: images `[M, H, W, C]`, labels, index and attack `[M]`."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # NumPy 2.0 and 2.1


def read(paths: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
    """The worst-case images of all chunks.

    Raises:
        ConfigError: A chunk's file is missing or damaged.
    """
    chunks = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as stored:
                chunks.append(dict(stored))
        except Exception as error:  # NumPy and zip raise all sorts
            raise ConfigError(
                f"Expected the worst-case images of a unit of work in {path}. Received: no such "
                f"file, or one that is damaged ({type(error).__name__}). Put it back, or delete "
                f"{path.with_suffix('.json')} to attack these images anew."
            ) from error
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def described(
    fooled: dict[str, np.ndarray],
    images: np.ndarray,
    logits: Logits,
    names: Sequence[str] | None,
    bounds: tuple[float, float],
) -> list[dict]:
    """The first fooled images, clean and as an attack leaves them, for `figure` and as JSON.

    Args:
        fooled: What `read` returns.
        images: All clean images, `[N, H, W, C]`.
        logits: Of the model.
        names: Of the classes, or None for their numbers.
        bounds: `(low, high)` of the pixels.
    """
    low, high = bounds

    def name(k):
        return f"class {k}" if names is None else names[k]

    def seen(x):
        p = tf.nn.softmax(logits(tf.constant(x[None])))[0].numpy()
        k = int(np.argmax(p))
        scaled = np.asarray((x - low) / (high - low), "<f2")
        pixels = base64.b64encode(scaled.tobytes()).decode()
        return {"class": k, "name": name(k), "confidence": round(float(p[k]), 4), "pixels": pixels}

    return [
        {
            "image": int(i),
            "label": int(label),
            "name": name(int(label)),
            "attack": str(attack),
            "shape": list(perturbed.shape),
            "clean": seen(images[i]),
            "perturbed": seen(perturbed),
        }
        for i, label, attack, perturbed in zip(
            *(fooled[key][:_SHOWN] for key in ("index", "labels", "attack", "images")), strict=True
        )
    ]


def figure(described: list[dict], bounds: Sequence[float]) -> Figure:
    """Draws what `described` returns: a row for each image.

    Args:
        described: The images, with pixels scaled to [0, 1].
        bounds: `(low, high)` of the model's pixels.
    """
    from gat_tf.plotting import perturbed_images

    def pixels(found, which):
        data = np.frombuffer(base64.b64decode(found[which]["pixels"]), "<f2")
        image = data.reshape(found["shape"]).astype(np.float32)
        return image if image.shape[-1] == 3 else image[..., :1]

    # Only the classes that are named have a part in it.
    names = {found["label"]: found["name"] for found in described}
    names |= {f[which]["class"]: f[which]["name"] for f in described for which in _KINDS}
    column = {k: i for i, k in enumerate(sorted(names))}
    probabilities = np.zeros((2, len(described), len(names)))
    for kind, rows in zip(_KINDS, probabilities, strict=True):
        for row, found in zip(rows, described, strict=True):
            row[column[found[kind]["class"]]] = found[kind]["confidence"]
    clean, perturbed = (np.stack([pixels(f, kind) for f in described]) for kind in _KINDS)
    return perturbed_images(
        clean,
        perturbed - clean,
        np.array([column[found["label"]] for found in described]),
        *probabilities,
        class_names=[names[k] for k in sorted(names)],
        perturbation_name="perturbation" + ("" if tuple(bounds) == (0, 1) else " on [0, 1]"),
        notes=[found["attack"] for found in described],
    )
