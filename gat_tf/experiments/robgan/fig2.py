"""Fig. 2 of the Rob-GAN paper: what adversarial training gains does not generalise.

    python -m gat_tf.experiments.robgan.fig2 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan.fig2 --dataset=cifar10 --data_dir=...       # the paper's

The paper's claim: under PGD an adversarially trained classifier is far more accurate on its
training images than on test images, at every δmax (left). Its local Lipschitz value ‖∂ℓ/∂x‖₂ is
larger on test images, and this gap grows during training (right).

A unit of work is one data set and seed.
"""

from __future__ import annotations

import pathlib
from typing import Any

from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.tables import spread
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.robgan import curves
from gat_tf.experiments.robgan.curves import PRESETS, Config

NAME = "gat_tf.experiments.robgan.fig2"
TRAINED = "adversarial_training"


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 2, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.robgan.table1.run`.
    """
    return curves.run(NAME, config, output_dir, (TRAINED,), ("train", "test"))


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> "curves", as of `curves.summarise`, and "lipschitz" -> split -> mean and std of
        the local Lipschitz value after each epoch, std None with one seed.
    """
    summary = curves.summarise(units)
    for dataset, ours in curves.merged(units).items():
        summary[dataset]["lipschitz"] = {
            split: spread([_lipschitz(u, split) for u in ours]) for split in ("train", "test")
        }
    return summary


def _lipschitz(unit: dict, split: str) -> list[float]:
    return unit["trainings"][TRAINED]["history"][f"{split}_lipschitz"]


def verdicts(units: list[dict]) -> dict:
    """Whether accuracy is higher, and the Lipschitz value lower, on training images."""
    return {
        dataset: decide(
            [
                Claim(
                    "Adversarial training: more accurate on training images than on test images",
                    curves.gaps(ours, TRAINED),
                    image_error=curves.gap_error(ours, TRAINED),
                ),
                Claim(
                    "Adversarial training: local Lipschitz value larger on test images",
                    [
                        100 * (_lipschitz(u, "test")[-1] / _lipschitz(u, "train")[-1] - 1)
                        for u in ours
                    ],
                    negligible=None,
                    unit="%",
                ),
            ]
        )
        for dataset, ours in curves.merged(units).items()
    }


table = curves.tables


def figures(results: dict) -> dict:
    """Returns accuracy against δmax beside the Lipschitz value, name to matplotlib figure."""
    from gat_tf.plotting import Panel
    from gat_tf.plotting import curves as draw

    def lipschitz(dataset: str, of_split: dict) -> Any:
        return Panel(
            f"{dataset}: local Lipschitz value",
            [
                curves.line(TRAINED, split, range(1, len(curve["mean"]) + 1), curve)
                for split, curve in of_split.items()
            ],
            xlabel="epoch",
            ylabel="mean of ‖∂ℓ/∂x‖₂",
            ylim_bottom=0,
            integer_x=True,
        )

    rows = [
        [curves.panel(dataset, found["curves"], {}), lipschitz(dataset, found["lipschitz"])]
        for dataset, found in results["summary"].items()
    ]
    return {"fig2": draw(rows, height=2.9, legend_columns=2)}


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-fig2")
