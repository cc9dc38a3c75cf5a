"""How robust is a Keras classifier? Many attacks, their worst case, and checks for masked
gradients.

    python -m gat_tf.robustness --model=robust.keras --dataset=cifar10 --data_dir=...
    python -m gat_tf.robustness --model=mine.keras --dataset=images.npz
    python -m gat_tf.robustness --model=mine.keras --dataset=folder/ --high=255

The model is any Keras classifier in a .keras file, with probabilities or logits, of images of any
size. The images are a data set of this project; any classification data set of TensorFlow Datasets
by name; an .npz file with `images` `[N, H, W, C]` and `labels` `[N]`; or a folder with a subfolder
of images for each class, in the order of `keras.utils.image_dataset_from_directory`. Of what is
divided into splits, the test split is taken; of what is not, all images, also those that
`gat_tf.data.load` gives for training, and the report says so. The images of a folder are resized to
the model's.
`gat_tf.evaluation.robustness` describes the evaluation. Each chunk of images is a unit of work: any
number of processes may run the same command on one folder. Until a chunk is done, each attack on it
has a file of its own, so that an interrupted evaluation can continue.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import math
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from gat_tf import data, evaluation, reading
from gat_tf.experiments.lab import budget, files, monitoring, results, units
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab.config import ConfigError, option, run_option
from gat_tf.experiments.lab.units import Units
from gat_tf.logits import logits_of
from gat_tf.robustness import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "gat_tf.robustness.command"

_WORST = 10  # images shown that fall first
_TRIED = 50  # images, of which the fooled ones may be shown with what fools them
_RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))  # that Keras's models take
_RANGE_IMAGES = 100  # on which they are compared
_FAR_BETTER = 0.25  # more of these images right: no accident
_UNDIVIDED = (
    "The data set is not divided into splits: all of its images count as test images, also those "
    "that `data.load` gives for training."
)


@dataclasses.dataclass(frozen=True)
class Config(budget.Config):
    """The model, the images and the budget of an evaluation."""

    PRESETS: ClassVar[dict[str, str]] = {
        "paper": "AutoAttack's budgets, for a GPU",
        "quick": "few images and small budgets, minutes on two cores",
    }

    model: str | None = option(None, "File of the classifier, .keras.")
    source: str | None = option(
        None, "File of another classifier, .keras, to transfer attacks from."
    )
    dataset: str = option(
        "cifar10",
        "Data set of TensorFlow Datasets, shapes, an .npz file of images and labels, or a folder "
        "with a subfolder of images for each class. Where images are not divided into splits, all "
        "count as test images, also those that data.load gives for training.",
    )
    data_dir: str | None = run_option(None, "Folder of TensorFlow Datasets.")
    norm: str = option("Linf", "Norm of the perturbations.", choices=budget.NORMS)
    epsilon: float | None = option(
        None,
        "Radius of the ball, in the model's pixel values; by default 8/255 or, in L2, 0.5 "
        "of the range from low to high.",
    )
    from_logits: bool = option(False, "Whether the models give logits, not probabilities.")
    low: float = option(
        0.0,
        "Smallest pixel value that the model takes; 8-bit images are scaled to it.",
        low=-math.inf,
    )
    high: float = option(1.0, "Largest pixel value that the model takes.", low=-math.inf)
    images: int | None = option(
        None,
        "Number of test images, from the first, or of a folder evenly spread; none means all.",
    )
    batch_size: int = option(100, "Number of images attacked at a time.")
    seed: int = option(0, "Seed of the attacks' random choices.", **configs.SEED)
    save_images: bool = option(
        False, "Whether to store the worst-case images, in worst_case_images.npz.", before=False
    )

    def __post_init__(self):
        norms = {name.lower(): name for name in budget.NORMS}
        object.__setattr__(self, "norm", norms.get(self.norm.lower(), self.norm))  # linf, l2
        super().__post_init__()
        if not self.low < self.high:
            raise ConfigError(f"Expected low below high. Received: {self.low} and {self.high}")

    def radius(self) -> float:
        """ε, or the standard one for pixels from `low` to `high`."""
        if self.epsilon is not None:
            return self.epsilon
        return (8 / 255 if self.norm == "Linf" else 0.5) * (self.high - self.low)


PRESETS = {"paper": Config(), "quick": Config(images=100, **budget.FEW)}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Runs the missing parts of the evaluation, and returns and writes the results.

    Args:
        config: Settings.
        output_dir: Folder for the results of this model and configuration only.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: The model or the images cannot be read or do not fit each other, or the folder
            holds the results of another configuration or model.
        DatasetNotFoundError: The data set is not there.
        BrokenFileError: A result in the folder is not whole.
    """
    started = time.time()
    output_dir = pathlib.Path(output_dir)
    if config.model is None:
        raise ConfigError("Expected --model, the .keras file of a classifier. Received: none.")
    model = load_model(config.model)
    source = None if config.source is None else load_model(config.source)
    images, labels = load_images(config, getattr(model, "input_shape", None))
    _require_fitting(model, images, config)
    _require_range(model, images, labels, config)
    configs.bind_folder(NAME, config, output_dir)
    digests = {
        "model": units.digest(pathlib.Path(config.model)),
        "images": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
    }
    if config.source is not None:
        digests["source"] = units.digest(pathlib.Path(config.source))
    kept = Units(output_dir / "units")

    def evaluated(first, name):
        chunk = slice(first, first + config.chunk_size)
        result = evaluation.robustness(
            model,
            (images[chunk], labels[chunk]),
            budget.NORMS[config.norm],
            config.radius(),
            source=source,
            from_logits=config.from_logits,
            bounds=(config.low, config.high),
            budget=config.budget(),
            batch_size=config.batch_size,
            first=first,
            seed=config.seed,
            verbose=int(monitoring.in_terminal()),
            return_images=config.save_images or _TRIED,
            stage=budget.kept_in(Units(kept.path(name, ".parts")), digests),
        )
        pictures.write(kept.path(name, ".npz"), result.pop("worst_case_images"), first, labels)
        return result

    chunks = {f"images-{i:06d}": i for i in range(0, len(labels), config.chunk_size) or [0]}
    tasks = {
        name: units.measured(
            {"images from": first},
            digests,
            functools.partial(evaluated, first, name),
            clear=False,
            title=f"images {first} to {min(first + config.chunk_size, len(labels)) - 1}",
        )
        for name, first in chunks.items()
    }
    try:
        check = units.same_networks(kept.folder, dict.fromkeys(tasks, digests))
        result = _result(kept.complete(tasks, check))
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError | files.BrokenFileError):
            raise
        flagged = str(error).replace("Pass from_logits=True", "Pass --from_logits")
        flagged = flagged.replace("Pass from_logits=False", "Leave out --from_logits")
        raise ConfigError(f"{config.model} on {config.dataset}: {flagged}") from error
    result["divided"] = _is_divided(config)
    names = data.class_names(config.dataset, config.data_dir)
    result["worst"] = _worst(result, images, labels, names)
    fooled = pictures.read([kept.path(name, ".npz") for name in tasks])
    if config.save_images:
        pictures.save(output_dir / "worst_case_images.npz", fooled)
    result["fooled"] = pictures.described(
        fooled,
        images,
        logits_of(model, config.from_logits),
        names,
        (config.low, config.high),
    )
    seconds = time.time() - started
    return results.write(NAME, config, output_dir, kept.read_all(), seconds, **result)


def _result(chunks: dict[str, dict]) -> dict:
    """The evaluation of all images, without what a unit tells of itself."""
    result = evaluation.merged(list(chunks.values()))
    ours = ("images from", "status", "classifiers", "seconds", "environment", "format", "budget")
    return {key: value for key, value in result.items() if key not in ours}


def load_model(path: str) -> keras.Model:
    """Loads a classifier without running any code stored in its file.

    Raises:
        ConfigError: The file is missing, is not a Keras model, or needs code to be run.
    """
    if not pathlib.Path(path).exists():
        raise ConfigError(f"Expected a .keras file of a classifier. Received: no file {path}")
    if pathlib.Path(path).suffix != ".keras":
        raise ConfigError(
            f"Expected a .keras file of a classifier. Received: {path}. Keras may run code that is "
            "in other files, such as .h5. Where you trust it, convert it: "
            "keras.models.load_model(path).save('model.keras')"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises all sorts for a file that it cannot read
        raise ConfigError(
            f"Expected a Keras model in {path} that opens without running code of its own (no "
            f"Lambda layers, no classes that are not registered). Received: {error}"
        ) from error


def load_images(config: Config, input_shape: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The test images scaled to [low, high], `[N, H, W, C]` float32, and their labels `[N]`.

    Args:
        config: Says which.
        input_shape: `(None, H, W, C)` of the model, to which the images of a folder are resized.

    Raises:
        ConfigError: The file, the folder or the data set does not contain images and labels.
        DatasetNotFoundError: The data set is not there.
    """
    known = isinstance(input_shape, tuple) and len(input_shape) == 4
    shape: Any = input_shape if known else (None,) * 4
    size = None if None in shape[1:3] else shape[1:3]
    if config.dataset in data.IMAGE_SIZES:
        size = None  # of its own
    try:
        images, labels = data.load_test(
            config.dataset, config.data_dir, image_size=size, channels=shape[3] or 3
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.dataset not in data.CLASSES and pathlib.Path(config.dataset).expanduser().is_dir():
        turns = _by_turns(labels)  # in a folder one class comes after the other
        images, labels = images[turns], labels[turns]
    images, labels = images[: config.images], labels[: config.images]
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
        images = config.low + (config.high - config.low) * images
        images = np.clip(images, np.float32(config.low), np.float32(config.high))  # of rounding
    return images.astype(np.float32), labels.astype(np.int64)


def _is_divided(config: Config) -> bool:
    """Whether the test images are a split of their own."""
    if config.dataset in data.CLASSES:
        return True
    return "all" not in reading.opened(config.dataset, config.data_dir).splits


def _by_turns(labels: np.ndarray) -> np.ndarray:
    """The indices of the first image of each class, then of the second of each, and so on."""
    turns = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        found = np.flatnonzero(labels == label)
        turns[found] = np.arange(len(found))
    return np.lexsort((labels, turns))


def _require_fitting(model: keras.Model, images: np.ndarray, config: Config) -> None:
    """Raises ConfigError for images of another size, range or other classes than the model's."""
    outputs = len(getattr(model, "outputs", None) or [model])  # a subclassed model names none
    if outputs != 1:
        raise ConfigError(
            f"Expected a classifier, with one output, in {config.model}. Received: {outputs} "
            "outputs. Save the model of the one output: keras.Model(model.inputs, output)"
        )
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, tuple) and len(expected) == 4:
        for ours, theirs in zip(expected[1:], images.shape[1:], strict=True):
            if ours not in (None, theirs):
                raise ConfigError(
                    f"Expected images of shape {expected[1:]}, which {config.model} takes. "
                    f"Received: {images.shape[1:]} in {config.dataset}"
                )
    names = data.class_names(config.dataset, config.data_dir)
    classes = getattr(model, "output_shape", (None, None))[-1]
    classes = 2 if classes == 1 else classes  # of one sigmoid
    if names is not None and isinstance(classes, int) and len(names) != classes:
        raise ConfigError(
            f"Expected the {classes} classes of {config.model} in {config.dataset}. Received: "
            f"{len(names)}, {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}. In a "
            "folder, an empty subfolder keeps the number of a class without images."
        )
    if images.size and not (images.min() >= config.low and images.max() <= config.high):
        raise ConfigError(
            f"Expected pixels from --low={config.low:g} to --high={config.high:g} in "
            f"{config.dataset}. Received: {images.dtype} from {images.min():g} to "
            f"{images.max():g}. Save 8-bit images as uint8, which are scaled, or give --low and "
            "--high as the model takes them."
        )


def _worst(
    result: dict, images: np.ndarray, labels: np.ndarray, names: Sequence[str] | None
) -> list[dict]:
    """Of the correctly classified images, those fooled at the smallest ε."""
    if result["curve"] is None:
        return []
    fooled_at = [(e, i) for i, e in enumerate(result["curve"]["fooled_at"]) if e]
    low, high = result["bounds"]
    found = []
    for epsilon, i in sorted(fooled_at)[:_WORST]:
        pixels = np.round(255 * (images[i] - low) / (high - low)).astype(np.uint8)
        found.append(
            {
                "image": i,
                "label": int(labels[i]),
                "name": f"class {labels[i]}" if names is None else names[labels[i]],
                "epsilon": epsilon,
                "shape": list(pixels.shape),
                "pixels": base64.b64encode(pixels.tobytes()).decode(),
            }
        )
    return found


def _require_range(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, config: Config
) -> None:
    """Raises ConfigError if the model is far better on another common range of pixels."""
    count = min(_RANGE_IMAGES, len(labels))
    spread = np.arange(count) * len(labels) // count  # one class may come after the other
    x, y = images[spread], labels[spread]
    if len(y) < _RANGE_IMAGES // 2 or getattr(model, "output_shape", (None, 1))[-1] == 1:
        return
    unit = (x - config.low) / (config.high - config.low)
    given = (config.low, config.high)
    right = {
        (low, high): float(
            np.mean(np.argmax(model.predict_on_batch(low + (high - low) * unit), axis=1) == y)
        )
        for low, high in dict.fromkeys((given, *_RANGES))
    }
    best = max(right, key=right.__getitem__)
    if right[best] > right[given] + _FAR_BETTER:
        raise ConfigError(
            f"Expected pixels as {config.model} takes them. Received: --low={config.low:g} "
            f"--high={config.high:g}, with which it gets {right[given]:.0%} of {len(y)} images "
            f"right; with --low={best[0]:g} --high={best[1]:g} it gets {right[best]:.0%}."
        )


def table(results: dict) -> str:
    """The table of attacks and the checks, the worst first."""
    low, high = results["bounds"]
    of_255 = f" ({_in_255ths(results['epsilon'])})" if _are_255ths(results) else ""
    lines = [
        f"**{results['config']['model']}** on {results['images']} images of "
        f"{results['config']['dataset']}, {results['norm']} ball of ε = {results['epsilon']:.4g}"
        f"{of_255} on pixels in [{low:g}, {high:g}]: {results['clean_accuracy']:.1%} clean, "
        f"**{results['worst_case_accuracy']:.1%} in the worst case over all attacks**",
        *([] if results.get("divided", True) else ["", _UNDIVIDED]),
        "",
        "| attack | images attacked | robust accuracy | model evaluations | gradients | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["attacks"]:
        inside = " (on what withstood the rest of AutoAttack so far)"
        if row["name"] not in results["composition"][1:]:
            inside = ""
        if row["name"] == "HopSkipJump":
            tried = min(results["config"]["hard_label_images"], results["images"])
            inside = f" (of the first {tried} images)"
        lines.append(
            f"| {row['name']}{inside} | {row['attacked']} | {row['accuracy']:.1%} | "
            f"{row['evaluations']:,} | {row['gradients']:,} | {row['seconds']:.1f} |"
        )
    if results.get("fooled") == []:
        tried = min(_TRIED, results["images"])
        lines += ["", f"No attack fooled any of the first {tried} images, so no picture shows any."]
    config = results["config"]
    used = ", ".join(f"{name} {config[name]}" for name in budget.NAMES)
    lines += ["", f"Seed {config['seed']}; {used}."]
    failed = [c for c in results["checks"] if not c["passed"]]
    lines += [
        "",
        f"{len(failed)} of {len(results['checks'])} checks for masked gradients failed: the "
        "accuracies above may be too high."
        if failed
        else f"All {len(results['checks'])} checks for masked gradients passed.",
        "",
        "| check | | evidence |",
        "|---|---|---|",
        *(
            f"| {c['check']} | {'passed' if c['passed'] else '**failed**'} | {c['evidence']} |"
            for c in sorted(results["checks"], key=lambda c: c["passed"])
        ),
        "",
    ]
    return "\n".join(lines)


def figures(results: dict) -> dict:
    """Returns the figures: each attack, the curve against ε, and the images that fall first; and
    the first fooled images beside what fools them."""
    found = {"robustness": _overview(results)}
    if results.get("fooled"):
        found["robustness_images"] = pictures.figure(results["fooled"], results["bounds"])
    return found


def _are_255ths(results: dict) -> bool:
    """Whether ε is usually written as a fraction of 255."""
    return results["norm"] == "Linf" and list(results["bounds"]) == [0, 1]


def _in_255ths(epsilon: float) -> str:
    return f"{255 * epsilon:.3g}/255"


def _overview(results: dict) -> Figure:
    from gat_tf.plotting import Dots, Line, Mark, Panel, Series, curves, dots, parts, strip

    curve, worst = results["curve"], results["worst"]
    of_255 = _are_255ths(results)
    size = _in_255ths if of_255 else "{:.3g}".format
    norm = results["norm"].replace("inf", "∞")
    heights = (3.2, 1.2) if worst else (3.2,)
    figure, rows = parts(7.2, sum(heights), heights=heights)
    top = rows[0, 0].subfigures(1, 2 if curve else 1, squeeze=False)[0]
    config = results["config"]
    tried = min(config["hard_label_images"], results["images"])
    rows_of = [
        ("clean", results["clean_accuracy"], False),
        *(
            (f"{row['name']} (first {tried} only)", row["accuracy"], True)
            if row["name"] == "HopSkipJump" and tried < results["images"]
            else (row["name"], row["accuracy"], False)
            for row in results["attacks"]
        ),
        ("worst case", results["worst_case_accuracy"], False),
    ]

    def series(part, **look):
        values = [[100 * accuracy] if part is of_part else [] for _, accuracy, of_part in rows_of]
        return Series(None, values, printed="{:.1f}", look=look)

    chart = Dots(
        f"each attack, {norm} {size(results['epsilon'])}",
        [name for name, _, _ in rows_of],
        [series(False), series(True, fillstyle="none")],  # hollow: not of all images
        xlabel="accuracy, % (APGD to Square: one after the other)",
        xlim_left=-3,  # a dot at 0 is drawn whole,
        xlim_right=120,  # and one at 100 with its number
    )
    dots([chart], figure=top[0])
    if curve:
        epsilons, accuracies = list(curve["epsilons"]), [100 * a for a in curve["accuracy"]]
        if epsilons[-1] < results["epsilon"]:  # it ends where it is zero
            epsilons, accuracies = [*epsilons, results["epsilon"]], [*accuracies, 0.0]
        panel = Panel(
            "PGD",
            [Line(epsilons, accuracies)],
            xlabel=f"ε{' · 255' * of_255} in {norm} (dashed: the evaluation's)",
            ylabel="accuracy, %",
            xscale="epsilon",
            x_255=of_255,
            ylim_bottom=0,
            marks=[Mark(x=results["epsilon"])],
        )
        curves([[panel]], figure=top[1])
    if worst:
        images = [
            np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(found["shape"]) / 255
            for found in worst
        ]
        titles = [f"{found['name']}\nε {size(found['epsilon'])}" for found in worst]
        strip(images, titles, label="clean images\nthat fall first", figure=rows[1, 0])
    return figure
