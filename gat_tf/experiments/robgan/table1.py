"""Table 1 of the Rob-GAN paper: is Rob-GAN more robust than adversarial training?

    python -m gat_tf.experiments.robgan.table1 --preset=quick       # built-in images, minutes
    python -m gat_tf.experiments.robgan.table1 --dataset=cifar10 --data_dir=...     # the paper's

The paper's claim: on CIFAR-10 under PGD-20, the fine-tuned classifier of Rob-GAN has an accuracy of
57.43 % at δmax = 0.04 and 30.25 % at 0.08. Adversarial training of the same network reaches 53.74 %
and 23.58 %. Without an attack they have 81.1 and 81.45 %. δmax is in units of pixel values in
[-1, 1].

Two controls say what the gain comes from: fine-tuning without generated images (λ = 0), and
adversarial training from scratch with a fixed set of them (eq. 6). Each trains as
long as the classifier that it is compared with.

A unit of work is one data set, classifier and seed, on the test images.
"""

from __future__ import annotations

import dataclasses
import pathlib

from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.config import run_option
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import sampling_error
from gat_tf.experiments.robgan import curves
from gat_tf.experiments.robgan.curves import summarise  # noqa: F401
from gat_tf.experiments.robgan.methods import CLASSIFIERS

NAME = "gat_tf.experiments.robgan.table1"
NAMES = ("adversarial_training", "fine_tuned")
CONTROLS = ("fine_tuned_real", "fixed_fakes")
_OF_IMAGENET = (0.0, 0.01, 0.02, 0.03)
EPSILONS = {32: (0.0, 0.02, 0.04, 0.08), 64: _OF_IMAGENET, 128: _OF_IMAGENET}  # by image size
# Accuracy in % at each δmax, by data set and height; the columns of ImageNet-143 are not certain.
PAPER = {
    ("cifar10", 32): {
        "adversarial_training": [81.45, 69.15, 53.74, 23.58],
        "fine_tuned": [81.1, 70.41, 57.43, 30.25],
    },
    ("imagenet143", 64): {
        "adversarial_training": [20.05, 18.3, 12.52, 8.32],
        "fine_tuned": [32.4, 25.2, 19.1, 13.7],
    },
}
# The first above the second: do generated images help, in fine-tuning and from scratch?
BEYOND = (
    ("fine_tuned", "fine_tuned_real"),
    ("fixed_fakes", "adversarial_training"),
    ("fine_tuned", "fixed_fakes"),
)


@dataclasses.dataclass(frozen=True)
class Config(curves.Config):
    """Settings of Rob-GAN's Table 1."""

    classifiers: tuple[str, ...] = run_option(
        (*NAMES, *CONTROLS),
        "Classifiers; the first and the third choice are the paper's.",
        choices=CLASSIFIERS,
    )


_OWN: dict[str, dict] = {"paper": {}, "large": {"attacked_images": None}}
PRESETS = {
    name: Config(**{**vars(preset), **_OWN.get(name, {"classifiers": NAMES})})
    for name, preset in curves.PRESETS.items()
}


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Table 1, and returns and writes its results.

    Args:
        config: Settings. Its data sets and seeds choose the units to compute; the results are
            those of all units in the folder.
        output_dir: Folder of the results, of this configuration alone.

    Returns:
        What `results.json` holds, and the units.

    Raises:
        ConfigError: A folder holds another configuration's results or cannot be written, or a
            network diverged or is missing.
        DatasetNotFoundError: A data set is not there.
        BrokenFileError: A result in a folder is not whole.
        FullDiskError: The disk is full.
    """
    return curves.run(NAME, config, output_dir, config.classifiers, ("test",), EPSILONS)


def verdicts(units: list[dict]) -> dict:
    """Whether fine-tuned Rob-GAN is more accurate at each δmax, by data set."""
    return {
        dataset: decide(_claims(dataset, ours)) for dataset, ours in curves.merged(units).items()
    }


def _claims(dataset: str, units: list[dict]) -> list[Claim]:
    both = curves.having(units, *NAMES)
    claims, count = [], units[0]["images"]["test"]
    epsilons = both[0]["curves"]["fine_tuned"]["test"]["epsilons"] if both else ()
    for i, epsilon in enumerate(epsilons):
        theirs, ours = ([curves.accuracies(u, n, "test")[i] for u in both] for n in NAMES)
        kind = "not below" if epsilon == 0 and dataset == "cifar10" else "above"
        claims.append(
            Claim(
                f"δmax = {epsilon:g}: Rob-GAN fine-tuned {kind} adversarial training",
                [a - b for a, b in zip(ours, theirs, strict=True)],
                kind=kind,
                image_error=sampling_error(dataset, count, ours, theirs),
            )
        )
    for better, worse in BEYOND:
        if both := curves.having(units, better, worse):
            pair = [curves.mean_accuracies(both, name, "test") for name in (better, worse)]
            claims.append(
                Claim(
                    f"Mean over the δmax: {CLASSIFIERS[better].title} above "
                    f"{CLASSIFIERS[worse].title}",
                    pair[0] - pair[1],
                    origin="beyond",
                    image_error=sampling_error(dataset, count, *pair),
                )
            )
    return claims


def table(results: dict) -> str:
    """Table 1, paper beside ours, and the verdicts as Markdown."""
    lines = []
    for dataset in results["summary"]:
        paper = _paper(results, dataset)
        lines += curves.table(results, dataset, paper)
        if paper and dataset == "imagenet143":
            lines += [
                "Which δmax the paper's columns of ImageNet-143 stand for is not certain.",
                "",
            ]
        lines.append(verdicts_markdown(results["verdicts"][dataset]))
    return "\n".join(lines)


def _paper(results: dict, dataset: str) -> dict[str, list[float]]:
    unit = next(u for u in results["units"] if u["dataset"] == dataset)
    return PAPER.get((dataset, unit["image_size"]), {})


def figures(results: dict) -> dict:
    """Returns accuracy against δmax, name to matplotlib figure."""
    paper = {dataset: _paper(results, dataset) for dataset in results["summary"]}
    return {"table1": curves.figure(results, paper)}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-table1")
