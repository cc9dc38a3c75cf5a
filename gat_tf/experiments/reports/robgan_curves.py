"""Rob-GAN's Table 1 and Figs. 2 and 6: tables, verdicts and figures."""

from __future__ import annotations

import time

import numpy as np

from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import common
from gat_tf.experiments.robgan_networks import CLASSIFIERS

# Table 1, accuracy in % at each δmax; the columns of ImageNet-143 are not certain.
PAPER = {
    ("cifar10", 32): {
        "epsilons": [0, 0.02, 0.04, 0.08],
        "adversarial_training": [81.45, 69.15, 53.74, 23.58],
        "fine_tuned": [81.1, 70.41, 57.43, 30.25],
    },
    ("imagenet143", 64): {
        "epsilons": [0, 0.01, 0.02, 0.03],
        "adversarial_training": [20.05, 18.3, 12.52, 8.32],
        "fine_tuned": [32.4, 25.2, 19.1, 13.7],
    },
}


def write(runner) -> dict:
    """Merges the units of a runner's folder into its results, table and figures."""
    units = common.read_all(runner.output_dir / "units")
    results = {
        "experiment": runner.experiment,
        "config": configs.identity(runner.config),
        "wall_seconds": time.time() - runner.started,
        "summary": summarise(units),
        "verdicts": verdicts(runner.experiment, units),
        "units": units,
    }
    return common.write(results, runner.output_dir, markdown(results), figures(runner.experiment))


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> classifier -> split -> epsilons; mean and std of the accuracy in % at each, std
        None with one seed; and under "lipschitz", for each classifier trained here, split -> mean
        and std of the local Lipschitz value after each epoch.
    """
    summary = {}
    for dataset in dict.fromkeys(u["dataset"] for u in units):
        ours = [u for u in units if u["dataset"] == dataset]
        summary[dataset] = {
            "curves": {
                name: {
                    split: {
                        "epsilons": ours[0]["curves"][name][split]["epsilons"],
                        **_spread([100 * _accuracy(u, name, split) for u in ours]),
                    }
                    for split in curves
                }
                for name, curves in ours[0]["curves"].items()
            },
            "lipschitz": {
                name: {
                    split: _spread([u["trainings"][name]["history"][key] for u in ours])
                    for split in ("train", "test")
                    if (key := f"{split}_lipschitz") in training["history"]
                }
                for name, training in ours[0]["trainings"].items()
                if "test_lipschitz" in training["history"]
            },
        }
    return summary


def _accuracy(unit, name, split) -> np.ndarray:
    return np.array(unit["curves"][name][split]["accuracy"])


def _spread(curves) -> dict:
    values = np.array(curves, np.float64)
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0, ddof=1).tolist() if len(values) > 1 else None,
    }


def verdicts(experiment: str, units: list[dict]) -> dict:
    """The paper's claims by data set, from differences seed by seed."""
    claims_of = {
        "robgan_table1": _table1_claims,
        "robgan_fig2": _fig2_claims,
        "robgan_fig6": _fig6_claims,
    }[experiment]
    return {
        dataset: [
            common.verdict(*claim)
            for claim in claims_of([u for u in units if u["dataset"] == dataset])
        ]
        for dataset in dict.fromkeys(u["dataset"] for u in units)
    }


def _table1_claims(units):
    epsilons = units[0]["curves"]["fine_tuned"]["test"]["epsilons"]
    for i, epsilon in enumerate(epsilons):
        gains = [
            100
            * (_accuracy(u, "fine_tuned", "test") - _accuracy(u, "adversarial_training", "test"))[i]
            for u in units
        ]
        expected = "below" if epsilon == 0 and units[0]["dataset"] == "cifar10" else "above"
        sign = -1 if expected == "below" else 1
        yield (
            f"δmax = {epsilon:g}: Rob-GAN fine-tuned {expected} adversarial training (paper)",
            [sign * gain for gain in gains],
        )


def _fig2_claims(units):
    gaps = [_gap(u, "adversarial_training") for u in units]
    yield "Adversarial training: more accurate on training images than on test images (paper)", gaps
    yield (
        "Adversarial training: local Lipschitz value larger on test images, in % (paper)",
        [_lipschitz_gap(u, "adversarial_training") for u in units],
    )


def _fig6_claims(units):
    yield (
        "Test accuracy under PGD: fine-tuned above not fine-tuned (paper)",
        [
            100
            * float(np.mean(_accuracy(u, "fine_tuned", "test") - _accuracy(u, "robgan", "test")))
            for u in units
        ],
    )
    yield (
        "Gap between training and test images: smaller than adversarial training's (paper)",
        [_gap(u, "adversarial_training") - _gap(u, "fine_tuned") for u in units],
    )


def _gap(unit, name) -> float:
    """Mean over the δmax of the training accuracy less the test accuracy, in points."""
    return 100 * float(np.mean(_accuracy(unit, name, "train") - _accuracy(unit, name, "test")))


def _lipschitz_gap(unit, name) -> float:
    history = unit["trainings"][name]["history"]
    train, test = (history[f"{split}_lipschitz"][-1] for split in ("train", "test"))
    return 100 * (test / train - 1)


def markdown(results: dict) -> str:
    """The curves' points, paper beside ours where there are any, and the verdicts."""
    lines = []
    for dataset, summary in results["summary"].items():
        ours = [u for u in results["units"] if u["dataset"] == dataset]
        curves = summary["curves"]
        epsilons = next(iter(next(iter(curves.values())).values()))["epsilons"]
        images = ", ".join(f"{n} {split}" for split, n in ours[0]["images"].items())
        lines += [
            f"**{dataset}**, accuracy in % under PGD in L∞ against δmax (pixels in [-1, 1]), on "
            f"{images} images, mean ± standard deviation over {len(ours)} seed(s)",
            "",
            f"| classifier | images | {' | '.join(f'{e:g}' for e in epsilons)} |",
            f"|{'---|' * (2 + len(epsilons))}",
        ]
        paper = _paper(results, dataset, ours[0]["image_size"], epsilons)
        for name, by_split in curves.items():
            for split, row in by_split.items():
                stds = row["std"] or [None] * len(epsilons)
                cells = [
                    f"{m:.1f}" + ("" if s is None else f" ± {s:.1f}")
                    for m, s in zip(row["mean"], stds, strict=True)
                ]
                lines.append(f"| {CLASSIFIERS[name]} | {split} | {' | '.join(cells)} |")
            if name in paper:
                cells = [f"{value:.2f}" for value in paper[name]]
                lines.append(f"| {CLASSIFIERS[name]}, the paper's | test | {' | '.join(cells)} |")
        if paper and dataset == "imagenet143":
            lines += [
                "",
                "Which δmax the paper's columns of ImageNet-143 stand for is not certain.",
            ]
        lines += ["", common.verdicts_markdown(results["verdicts"][dataset])]
    return "\n".join(lines)


def _paper(results, dataset, image_size, epsilons) -> dict:
    paper = PAPER.get((dataset, image_size), {})
    if results["experiment"] != "robgan_table1" or paper.get("epsilons") != list(epsilons):
        return {}
    return {name: row for name, row in paper.items() if name != "epsilons"}


def figures(experiment: str) -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    def draw(results):
        paper = {}
        for unit in results["units"]:
            row = PAPER.get((unit["dataset"], unit["image_size"]), {})
            if experiment == "robgan_table1":
                paper[unit["dataset"]] = row
        with_lipschitz = experiment == "robgan_fig2"
        return plotting.gaps(results["summary"], CLASSIFIERS, paper, lipschitz=with_lipschitz)

    return {experiment: draw}
