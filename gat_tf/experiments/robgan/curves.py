"""What Rob-GAN's Table 1 and Figs. 2 and 6 share: its classifiers under PGD against δmax."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from gat_tf import attacks, data, evaluation
from gat_tf.experiments.lab.config import option
from gat_tf.experiments.lab.significance import image_error
from gat_tf.experiments.lab.tables import by_dataset, plus_minus, spread
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import Measurement, sampling_error
from gat_tf.experiments.robgan import images, settings
from gat_tf.experiments.robgan.measuring import Runner
from gat_tf.experiments.robgan.methods import BOUNDS, CLASSIFIERS, Network
from gat_tf.experiments.robgan.settings import INF
from gat_tf.logits import Logits

_SWEPT = tuple(n / 100 for n in range(11))


@dataclasses.dataclass(frozen=True)
class Config(settings.Config):
    """Settings of Rob-GAN's Table 1, Fig. 2 and Fig. 6."""

    epsilons: tuple[float, ...] = option(
        _SWEPT,
        "Values of δmax in the figures, of pixels in [-1, 1], rising (paper).",
        high=2,
        rising=True,
    )
    attacked_images: int | None = option(
        None,
        "Number of test images, and of training images, that are attacked; none is as many as "
        "there are test images (ours).",
    )
    evaluation_steps: int = option(20, "Number of PGD steps, each a fifth of δmax (paper).")


PRESETS = Config.presets(
    settings.PRESETS,
    large={"attacked_images": 2_000},
    reduced={"attacked_images": 1_000},
    quick={"attacked_images": 200, "evaluation_steps": 10, "epsilons": _SWEPT[::2]},
)


def run(
    name: str,
    config: Config,
    output_dir: str | pathlib.Path,
    classifiers: Sequence[str],
    splits: Sequence[str],
    epsilons: Mapping[int, Sequence[float]] | None = None,
) -> dict:
    """Computes what is missing of an experiment, and returns and writes its results.

    Args:
        name: Of the experiment's module.
        config: Settings.
        output_dir: Folder of the results.
        classifiers: Of `methods.CLASSIFIERS`, each of which is attacked, a unit of work.
        splits: "train" and "test", or one of them: the images on which it is attacked.
        epsilons: Height of the images to δmax, rising; the settings' if None.
    """
    runner = Runner(name, config, output_dir)
    for dataset in runner.datasets:
        rising = epsilons[runner.networks.size(dataset)] if epsilons else config.epsilons
        runner.measure(
            _measurement(runner, Network(dataset, "classifier", classifier, seed), splits, rising)
            for seed in config.seeds
            for classifier in classifiers
        )
    return runner.write()


def _measurement(
    runner: Runner, network: Network, splits: Sequence[str], epsilons: Sequence[float]
) -> Measurement:
    folder, c, (dataset, _, name, seed) = runner.networks, runner.config, network

    def measured():
        train, _, test, _ = folder.splits(dataset)
        size, count = test.images.shape[1], c.attacked_images or len(test.labels)
        of_split = {"train": train, "test": test}
        chosen = {split: images.first(of_split[split], count, size) for split in splits}
        found = pgd_accuracies(folder.load(network), chosen, epsilons, c.evaluation_steps)
        curves = {
            split: {"epsilons": list(epsilons), "accuracy": accuracies}
            for split, accuracies in found.items()
        }
        return {
            "image_size": size,
            "images": {split: len(attacked.labels) for split, attacked in chosen.items()},
            "curves": {name: curves},
            "trainings": {name: folder.training(network)},
        }

    about = {"dataset": dataset, "classifier": name, "seed": seed}
    return Measurement(f"{dataset}-{name}-seed{seed}", about, {name: network}, measured)


@dataclasses.dataclass(frozen=True, eq=False)
class _StepsOfAFifth(attacks.PGD):
    """PGD in steps of ε/5, whatever the ε of each image: so one compiled function serves all."""

    def _step_size(self, epsilon):
        return epsilon / 5


def pgd_accuracies(
    classifier: keras.Model, splits: dict[str, data.Split], epsilons: Sequence[float], steps: int
) -> dict[str, list[float]]:
    """Accuracies in [0, 1] under PGD as the paper evaluates: sign steps of ε/5, no random start.

    Args:
        classifier: Keras model from images in [-1, 1] to logits.
        splits: Name to images, all of one size.
        epsilons: δmax in L∞, in units of pixel values in [-1, 1].
        steps: Number of PGD steps.

    Returns:
        Name of a split to the accuracy at each δmax.
    """
    logits = Logits(classifier, from_logits=True)
    batches = {name: images.batches(split) for name, split in splits.items()}

    def attack(split: str, epsilon: float) -> Any:
        every: Any = np.full(len(splits[split].labels), epsilon, np.float32)
        return _StepsOfAFifth(every, INF, steps, random_start=False, clip=BOUNDS)

    first = next(iter(splits))
    spec = batches[first].element_spec
    clean = evaluation.correct_function(logits, None, spec)
    attacked = evaluation.correct_function(logits, attack(first, 0.0), spec)

    def accuracy(split: str, epsilon: float) -> Any:
        if not epsilon:
            return evaluation.of_each_image(clean, batches[split]).mean()
        ours = attack(split, epsilon)
        return evaluation.of_each_image(attacked, batches[split], ours).mean()

    return {
        split: [round(float(accuracy(split, epsilon)), 6) for epsilon in epsilons]
        for split in splits
    }


def merged(units: list[dict]) -> dict[str, list[dict]]:
    """Data set to a unit for each seed, which holds the curves of all classifiers of the seed."""
    found: dict = {}
    for unit in units:
        one = found.setdefault((unit["dataset"], unit["seed"]), {**unit})
        for of_classifiers in ("curves", "trainings"):
            one[of_classifiers] = {**one[of_classifiers], **unit[of_classifiers]}
    return by_dataset(list(found.values()))


def measured(units: list[dict]) -> list[str]:
    """The classifiers of merged units, in the order of `CLASSIFIERS`."""
    return [name for name in CLASSIFIERS if having(units, name)]


def having(units: list[dict], *names: str) -> list[dict]:
    """Those of merged units that have all these classifiers."""
    return [u for u in units if u["curves"].keys() >= set(names)]


def accuracies(unit: dict, name: str, split: str) -> np.ndarray:
    """A classifier's accuracy in % at each δmax."""
    return 100 * np.array(unit["curves"][name][split]["accuracy"])


def mean_accuracies(units: list[dict], name: str, split: str) -> np.ndarray:
    """The mean over the δmax of a classifier's accuracy in %, for each seed."""
    return np.array([accuracies(u, name, split).mean() for u in units])


def gaps(units: list[dict], name: str) -> np.ndarray:
    """The mean over the δmax of training accuracy less test accuracy in points, for each seed."""
    return mean_accuracies(units, name, "train") - mean_accuracies(units, name, "test")


def gap_error(units: list[dict], *names: str) -> float:
    """The standard error that the samples of images add to a gap, or to the difference of two.

    The attacked training images are a sample of those that were trained on.
    """
    first = units[0]
    counts, trained_on = first["images"], first["trainings"][names[0]]["train_images"]
    train, test = ([mean_accuracies(units, n, split) for n in names] for split in ("train", "test"))
    population = max(counts["train"], trained_on)
    return math.hypot(
        image_error(*train, images=counts["train"], population=population),
        sampling_error(first["dataset"], counts["test"], *test),
    )


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> "curves" -> classifier -> split -> epsilons; mean and std of the accuracy in %
        at each, std None with one seed.
    """
    return {
        dataset: {
            "curves": {name: _mean_curves(having(ours, name), name) for name in measured(ours)}
        }
        for dataset, ours in merged(units).items()
    }


def _mean_curves(units: list[dict], name: str) -> dict:
    return {
        split: {
            "epsilons": curve["epsilons"],
            **spread([accuracies(u, name, split) for u in units]),
        }
        for split, curve in units[0]["curves"][name].items()
    }


def table(results: dict, dataset: str, paper: dict[str, list[float]]) -> list[str]:
    """The points of a data set's curves as lines of Markdown.

    Args:
        results: Of Table 1, Fig. 2 or Fig. 6.
        dataset: Data set.
        paper: Classifier to the paper's test accuracies in % at the same δmax; may be empty.
    """
    ours = merged(results["units"])[dataset]
    epsilons = next(iter(next(iter(ours[0]["curves"].values())).values()))["epsilons"]
    counts = ", ".join(f"{n} {split}" for split, n in ours[0]["images"].items())
    rows = []
    for name in measured(ours):
        title, those = CLASSIFIERS[name].title, having(ours, name)
        for split in those[0]["curves"][name]:
            columns = np.transpose([accuracies(u, name, split) for u in those]).tolist()
            rows.append([title, split, *map(plus_minus, columns)])
        if name in paper:
            rows.append([f"{title}, the paper's", "test", *(f"{v:.2f}" for v in paper[name])])
    return [
        f"**{dataset}**, accuracy in % under PGD in L∞ against δmax (pixels in [-1, 1]), on "
        f"{counts} images, mean ± standard deviation over {len(ours)} seed(s)",
        "",
        *markdown(["classifier", "images", *(f"{e:g}" for e in epsilons)], rows),
        "",
    ]


def tables(results: dict) -> str:
    """The points of the curves and the verdicts as Markdown, by data set."""
    lines = []
    for dataset, found in results["verdicts"].items():
        lines += [*table(results, dataset, {}), verdicts_markdown(found)]
    return "\n".join(lines)


def panel(dataset: str, curves: dict, paper: dict[str, list[float]]) -> Any:
    """A panel of accuracy against δmax, solid on test images and dashed on training images.

    Args:
        dataset: Data set.
        curves: classifier -> split -> epsilons, mean, std.
        paper: Classifier to the paper's test accuracies in % at the same δmax, open markers.
    """
    from gat_tf.plotting import Mark, Panel, looks

    found = looks(CLASSIFIERS)
    marks = [
        Mark(
            x=epsilon,
            y=accuracy,
            label=f"{CLASSIFIERS[name].title}, the paper's (full size)",
            look={key: found[name][key] for key in ("color", "marker")},
        )
        for name, of_paper in paper.items()
        if name in curves
        for epsilon, accuracy in zip(curves[name]["test"]["epsilons"], of_paper, strict=True)
    ]
    return Panel(
        f"{dataset}: accuracy under PGD",
        [
            line(name, split, curve["epsilons"], curve)
            for name, of_split in curves.items()
            for split, curve in of_split.items()
        ],
        xlabel="δmax in L∞ (pixels in [-1, 1])",
        ylabel="accuracy, %",
        ylim_bottom=0,
        marks=marks,
    )


def line(name: str, split: str, x: Any, curve: dict) -> Any:
    """A line of a classifier on a split, in the same look in every panel."""
    from gat_tf.plotting import Line, looks

    look = looks(CLASSIFIERS)[name] | {"linestyle": "-" if split == "test" else "--"}
    label = f"{CLASSIFIERS[name].title}, {split} images"
    return Line(x, curve["mean"], curve["std"], label, look)


def figure(results: dict, paper: dict[str, dict]) -> Any:
    """Draws accuracy against δmax, a panel for each data set.

    Args:
        results: Of Table 1 or Fig. 6.
        paper: Data set to what `panel` takes.
    """
    from gat_tf import plotting

    panels = [
        panel(dataset, found["curves"], paper.get(dataset, {}))
        for dataset, found in results["summary"].items()
    ]
    return plotting.curves([[p] for p in panels], width=5.6, height=2.9, legend_columns=2)
