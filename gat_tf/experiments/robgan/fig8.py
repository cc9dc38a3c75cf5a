"""Fig. 8 of the Rob-GAN paper: do attack and split loss make the generator better, and sooner?

    python -m gat_tf.experiments.robgan.fig8 --preset=quick         # built-in images, minutes
    python -m gat_tf.experiments.robgan.fig8 --dataset=imagenet143 --data_dir=...   # the paper's

The paper's claims: the inception score rises faster and higher with the attack than without it,
and higher with the split loss than with AC-GAN's; Rob-GAN, which has both, ends above SN-GAN. The
paper's data sets are ImageNet-143 at 64 and 128 pixels (--image_size).

Its reason (eq. 7): a generator that faces a discriminator of a small local Lipschitz value has to
move further to fool it. That value, ‖∂ℓ/∂x‖₂ of the class head's cross-entropy on test images, is
measured after every epoch beside the scores; SN-GAN's discriminator has no class head. A control
(ours) is the split loss with fakes judged at AC-GAN's weight; see Fig. 7.

Inception scores and Fréchet distances depend on the network that looks at the images: by default
Inception v3 of Keras, whose weights have to be downloaded; with --score_network=baseline, Table 2's
baseline classifier of the data set (see --table2_dir); or a Keras classifier of images in [0, 1]
with probabilities in a .keras file. Scores of different networks cannot be compared.

A unit of work is one data set, way of training and seed: its scores at every snapshot.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gat_tf.experiments.lab import flags
from gat_tf.experiments.lab.config import ConfigError, option, run_option
from gat_tf.experiments.lab.tables import by_dataset, of_first_seed, plus_minus, spread
from gat_tf.experiments.lab.tables import table as markdown
from gat_tf.experiments.lab.verdicts import Claim, decide
from gat_tf.experiments.lab.verdicts import markdown as verdicts_markdown
from gat_tf.experiments.measuring import Measurement
from gat_tf.experiments.robgan import settings
from gat_tf.experiments.robgan.measuring import Runner
from gat_tf.experiments.robgan.methods import GANS, Network
from gat_tf.experiments.robgan.scoring import Scorer
from gat_tf.experiments.settings import PRESETS as TABLE2_PRESETS

NAME = "gat_tf.experiments.robgan.fig8"
SCORES = {"inception_score": "inception score", "frechet_distance": "Fréchet distance"}
LEAST = {"inception_score": 1, "frechet_distance": 0}  # neither score can be below
WITH_ATTACK = (("robgan", "split"), ("acgan_attack", "acgan"))  # and without it
WITH_SPLIT_LOSS = (("robgan", "acgan_attack"), ("split", "acgan"))  # and with AC-GAN's
AT_EQUAL_WEIGHT = ("split_equal", "acgan_attack")


@dataclasses.dataclass(frozen=True)
class Config(settings.Config):
    """Settings of Rob-GAN's Fig. 8."""

    gans: tuple[str, ...] = run_option(
        tuple(GANS),
        "Ways of training a generator; all but the last choice are the paper's.",
        choices=GANS,
    )
    score_network: str = option(
        "inception",
        "Network that scores the images: inception (paper), baseline, or a .keras file; see above.",
    )
    score_images: int = option(
        50_000, "Number of generated images that are scored at each snapshot (paper).", low=2
    )
    score_splits: int = option(10, "Number of parts of the inception score (paper).")
    table2_dir: str = run_option(
        "runs/table2",
        "Folder of Table 2, whose baseline is trained there where it is missing, for "
        "--score_network=baseline.",
    )
    table2_preset: str = run_option(
        "paper", "How the baseline is trained in a folder that is empty.", choices=TABLE2_PRESETS
    )

    def __post_init__(self):
        super().__post_init__()
        if self.score_images < self.score_splits:
            raise ConfigError(
                "Expected at least as many score_images as score_splits. "
                f"Received: {self.score_images} and {self.score_splits}"
            )


def _of_table2(preset: str, score_images: int) -> dict:
    return {
        "score_network": "baseline",
        "score_images": score_images,
        "table2_dir": f"runs/table2-{preset}",
        "table2_preset": preset,
    }


PRESETS = Config.presets(
    settings.PRESETS,
    large=_of_table2("full", 10_000),
    reduced=_of_table2("reduced", 2_000),
    quick=_of_table2("quick", 500),
)


def run(config: Config, output_dir: str | pathlib.Path) -> dict:
    """Computes what is missing of Fig. 8, and returns and writes its results.

    Arguments, results and errors are those of `gat_tf.experiments.robgan.table1.run`.
    """
    runner = Runner(NAME, config, output_dir)
    for dataset in runner.datasets:
        scorer = Scorer(runner, dataset)
        measurements = [
            _measurement(scorer, Network(dataset, "gan", name, seed))
            for seed in config.seeds
            for name in config.gans
        ]
        if any(runner.units.read(m.name) is None for m in measurements):
            _ = scorer.network  # one that is missing is found before the training
        runner.measure(measurements)
    return runner.write()


def _measurement(scorer: Scorer, network: Network) -> Measurement:
    dataset, _, name, seed = network
    return Measurement(
        f"{dataset}-{name}-seed{seed}",
        {"dataset": dataset, "gan": name, "seed": seed},
        {name: network},
        functools.partial(scorer.measured, network),
        {"score": scorer.digest},
    )


def summarise(units: list[dict]) -> dict:
    """Means and standard deviations over seeds.

    Returns:
        data set -> way of training -> epochs and updates of G at each snapshot, seeds, and for each
        score mean and std at each snapshot, std None with one seed; the same of the "lipschitz"
        value after each epoch, with the "lipschitz_updates" before it, where D has a class head.
    """
    return {
        dataset: {
            name: _row(found) for name in GANS if (found := [u for u in ours if u["gan"] == name])
        }
        for dataset, ours in by_dataset(units).items()
    }


def _row(units: list[dict]) -> dict:
    row = {
        "epochs": [s["epoch"] for s in units[0]["scores"]],
        "updates": _updates(units[0]),
        "seeds": [u["seed"] for u in units],
        **{score: spread([[s[score] for s in u["scores"]] for u in units]) for score in SCORES},
    }
    if _has_lipschitz(units[0]):
        values = [u["history"]["lipschitz"] for u in units]
        steps = units[0]["steps_per_epoch"]
        row["lipschitz_updates"] = [steps * epoch for epoch in range(1, len(values[0]) + 1)]
        row["lipschitz"] = spread(values)
    return row


def _has_lipschitz(unit: dict) -> bool:
    """SN-GAN has none, nor have records from before it was measured."""
    return "lipschitz" in unit["history"]


def _updates(unit: dict) -> list[int]:
    """The updates of the generator before each snapshot."""
    return [s["epoch"] * unit["steps_per_epoch"] for s in unit["scores"]]


def updates_needed(updates: Sequence[float], scores: Sequence[float], score: float) -> float:
    """The updates after which a curve first reaches a score, on straight lines between snapshots.

    A curve that begins above the score counts with the updates of its first snapshot, which are
    more than it needs. One that never reaches it counts with all its updates, which are too few.
    """
    first = next((i for i, s in enumerate(scores) if s >= score), None)
    if first is None:
        return float(updates[-1])
    around = slice(max(first - 1, 0), first + 1)  # the snapshots before and after
    return float(np.interp(score, scores[around], updates[around]))


def verdicts(units: list[dict]) -> dict:
    """Whether attack and split loss end higher, and the attack's score rises sooner, by data set.

    Beyond the paper: whether the attack lowers the local Lipschitz value of D, on the mean over the
    training, and whether the split loss ends higher at AC-GAN's weight.

    How soon: a generator trained without the attack needs some updates to reach the score that it
    has at its end, and the same seed trained with the attack needs fewer or more to reach it.
    """
    return {dataset: decide(_claims(ours)) for dataset, ours in by_dataset(units).items()}


def _claims(units: list[dict]) -> list[Claim]:
    scored = [u for u in units if u["scores"]]

    def paired(better: str, worse: str, difference: Any, units: Any = scored) -> Any:
        of = {(u["gan"], u["seed"]): u for u in units}
        seeds = sorted({s for name, s in of if name == better and (worse, s) in of})
        return [difference(of[better, s], of[worse, s]) for s in seeds]

    of_paper = (*WITH_ATTACK, *WITH_SPLIT_LOSS, ("robgan", "sngan"))
    higher = [
        Claim(
            f"Final inception score: {GANS[better].title} above {GANS[worse].title}",
            paired(better, worse, lambda a, b: _inception(a)[-1] - _inception(b)[-1]),
            "paper" if (better, worse) in of_paper else "beyond",
            negligible=None,
            unit="",
        )
        for better, worse in (*of_paper, AT_EQUAL_WEIGHT)
    ]
    sooner = [
        Claim(
            f"Updates needed for the inception score that {GANS[worse].title} ends with: fewer by "
            f"{GANS[better].title}",
            paired(better, worse, _saved),
            negligible=None,
            unit="%",
        )
        for better, worse in WITH_ATTACK
    ]
    watched = [u for u in scored if _has_lipschitz(u)]
    smoother = [
        Claim(
            "Local Lipschitz value of D's class head, mean over the training: lower for "
            f"{GANS[better].title} than for {GANS[worse].title}",
            paired(better, worse, lambda a, b: 100 * (1 - _lipschitz(a) / _lipschitz(b)), watched),
            "beyond",
            negligible=None,
            unit="%",
        )
        for better, worse in WITH_ATTACK
    ]
    return [claim for claim in (*higher, *sooner, *smoother) if claim.differences]


def _lipschitz(unit: dict) -> float:
    return float(np.mean(unit["history"]["lipschitz"]))


def _inception(unit: dict) -> list[float]:
    return [s["inception_score"] for s in unit["scores"]]


def _saved(better: Any, worse: Any) -> float:
    """The updates that one generator saves on the way to the other's final score, in % of those."""
    score = _inception(worse)[-1]
    ours, theirs = (updates_needed(_updates(u), _inception(u), score) for u in (better, worse))
    return 100 * (1 - ours / theirs)


def table(results: dict) -> str:
    """The scores at the last snapshot and the verdicts as Markdown, by data set."""
    lines = []
    for dataset, ours in by_dataset(results["units"]).items():
        summary, first = results["summary"][dataset], ours[0]
        rows = []
        for name, row in summary.items():
            last = [u["scores"][-1] for u in ours if u["gan"] == name]
            scores = [plus_minus([of[s] for of in last], 2) for s in SCORES]
            seeds = str(len(row["seeds"]))
            rows.append([GANS[name].title, seeds, str(row["updates"][-1]), *scores])
        lines += [
            f"**{dataset}**, at the last snapshot, {first['score_images']} images, mean ± standard "
            f"deviation over seeds, in the eyes of {first['score_network']}; real test images "
            f"score {first['real']['inception_score']:.2f} ({first['real']['images']} images)",
            "",
            *markdown(["training", "seeds", "updates of G", *SCORES.values()], rows),
            "",
            verdicts_markdown(results["verdicts"][dataset], digits=2),
        ]
    return "\n".join(lines)


def figures(results: dict) -> dict:
    """Returns the scores and D's Lipschitz value against G's updates, and the trainings of a seed.

    Name to matplotlib figure.
    """
    from gat_tf import plotting
    from gat_tf.plotting import Line, Panel

    titles = {name: gan.title for name, gan in GANS.items()}
    looks = plotting.looks(titles)
    xlabel = "updates of the generator"

    def lines(rows: dict, score: str, updates: str, **look: str) -> list:
        return [
            Line(row[updates], **row[score], label=titles[name], look=looks[name] | look)
            for name, row in rows.items()
            if score in row
        ]

    panels = []
    for dataset, rows in results["summary"].items():
        shown = [
            Panel(
                f"{dataset}: {title}",
                lines(rows, score, "updates"),
                xlabel,
                ylim_bottom=LEAST[score],
            )
            for score, title in SCORES.items()
        ]
        if watched := lines(rows, "lipschitz", "lipschitz_updates", marker=""):
            title, ylabel = "local Lipschitz value of D", "mean of ‖∂ℓ/∂x‖₂, test images"
            shown.append(Panel(f"{dataset}: {title}", watched, xlabel, ylabel, yscale="log"))
        panels.append(shown)
    metrics = {
        "discriminator_loss": "loss of D",
        "generator_loss": "loss of G",
        "diversity": "diversity within a class",
    }
    histories = {u["gan"]: u["history"] for u in of_first_seed(results["units"])}
    return {
        "fig8": plotting.curves(panels, width=3.6 * max(map(len, panels)), height=2.9),
        "fig8_training": plotting.training(
            {titles[name]: histories.get(name, {}) for name in GANS}, metrics
        ),
    }


if __name__ == "__main__":
    flags.main(Config, PRESETS, run, "robgan-fig8")
