"""Rob-GAN's Figs. 7 and 8: generated images, their diversity and their scores."""

from __future__ import annotations

import pathlib

import numpy as np

from gat_tf.experiments import config as configs
from gat_tf.experiments.reports import common
from gat_tf.experiments.robgan_networks import GANS

_SCORES = {"inception_score": "inception score", "frechet_distance": "Fréchet distance"}


def write(experiment: str, config, output_dir: pathlib.Path, wall_seconds: float) -> dict:
    """Merges the units of a folder into its results, table and figures."""
    units = common.read_all(output_dir / "units")
    summarise = {"robgan_fig7": _diversities, "robgan_fig8": _scores}[experiment]
    claims = {"robgan_fig7": _fig7_claims, "robgan_fig8": _fig8_claims}[experiment]
    by_dataset = {
        dataset: [u for u in units if u["dataset"] == dataset]
        for dataset in dict.fromkeys(u["dataset"] for u in units)
    }
    results = {
        "experiment": experiment,
        "config": configs.identity(config),
        "wall_seconds": wall_seconds,
        "summary": {dataset: summarise(ours) for dataset, ours in by_dataset.items()},
        "verdicts": {
            dataset: [common.verdict(claim, gains) for claim, gains in claims(ours) if gains]
            for dataset, ours in by_dataset.items()
        },
        "units": units,
    }
    return common.write(results, output_dir, markdown(results), figures(experiment))


def _diversities(units) -> dict:
    """Name of a generator, or "real" -> mean and standard deviation over seeds of the classes'."""
    return {
        name: {
            "mean": common.mean_and_std([float(np.mean(u["diversity"][name])) for u in units]),
            "least": common.mean_and_std([float(np.min(u["diversity"][name])) for u in units]),
        }
        for name in units[0]["diversity"]
    }


def _fig7_claims(units):
    def ratio(unit, name):
        return np.mean(unit["diversity"][name]) / np.mean(unit["diversity"]["real"])

    for better, worse, how in (
        ("robgan", "acgan_attack", "with the attack"),
        ("split", "acgan", "without it"),
    ):
        yield (
            "Diversity within a class, in % of real images': split loss above AC-GAN's, "
            f"{how} (paper)",
            [100 * float(ratio(u, better) - ratio(u, worse)) for u in units],
        )


def _scores(units) -> dict:
    """Name of a generator -> epochs, updates of G, and mean and std over seeds of each score."""
    summary = {}
    for name in GANS:
        ours = [u for u in units if u["gan"] == name]
        if ours:
            epochs = [s["epoch"] for s in ours[0]["scores"]]
            summary[name] = {
                "epochs": epochs,
                "updates": [e * ours[0]["steps_per_epoch"] for e in epochs],
                "seeds": [u["seed"] for u in ours],
                **{score: _spread(ours, score) for score in _SCORES},
            }
    return summary


def _spread(units, score) -> dict:
    values = np.array([[s[score] for s in u["scores"]] for u in units])
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0, ddof=1).tolist() if len(values) > 1 else None,
    }


def _fig8_claims(units):
    last = {(u["gan"], u["seed"]): u["scores"][-1]["inception_score"] for u in units if u["scores"]}
    first = {(u["gan"], u["seed"]): u["scores"][0]["inception_score"] for u in units if u["scores"]}

    def gains(scores, better, worse):
        seeds = sorted({s for name, s in scores if name == better and (worse, s) in scores})
        return [scores[better, s] - scores[worse, s] for s in seeds]

    for better, worse in (
        ("robgan", "split"),
        ("acgan_attack", "acgan"),
        ("robgan", "acgan_attack"),
        ("split", "acgan"),
        ("robgan", "sngan"),
    ):
        claim = f"Final inception score: {GANS[better].title} above {GANS[worse].title} (paper)"
        yield claim, gains(last, better, worse)
    yield (
        f"Inception score at the first snapshot: {GANS['robgan'].title} above "
        f"{GANS['split'].title} (paper)",
        gains(first, "robgan", "split"),
    )


def markdown(results: dict) -> str:
    """The tables and verdicts as Markdown, by data set."""
    tables = {"robgan_fig7": (_fig7_table, 1), "robgan_fig8": (_fig8_table, 2)}
    table, digits = tables[results["experiment"]]
    lines = []
    for dataset, summary in results["summary"].items():
        ours = [u for u in results["units"] if u["dataset"] == dataset]
        lines += [*table(dataset, summary, ours), ""]
        lines += [common.verdicts_markdown(results["verdicts"][dataset], "difference", digits)]
    return "\n".join(lines)


def _fig7_table(dataset, summary, units) -> list[str]:
    count = units[0]["images_of_each_class"]
    lines = [
        f"**{dataset}**, root mean square distance of a pixel (in [-1, 1]) between two images of a "
        f"class, {count} images a class, over {len(units)} seed(s); 0 is one fixed image a class",
        "",
        "| images | mean over classes | least class |",
        "|---|---|---|",
    ]
    for name, row in summary.items():
        title = "real test images" if name == "real" else GANS[name].title
        lines.append(f"| {title} | {_cell(row['mean'], 3)} | {_cell(row['least'], 3)} |")
    return lines


def _fig8_table(dataset, summary, units) -> list[str]:
    first = units[0]
    lines = [
        f"**{dataset}**, at the last snapshot, {first['score_images']} images, "
        f"{max(len(row['seeds']) for row in summary.values())} seed(s), in the eyes of "
        f"{first['score_network']}; real test images score "
        f"{first['real']['inception_score']:.2f} ({first['real']['images']} images)",
        "",
        "| training | updates of G | inception score | Fréchet distance |",
        "|---|---|---|---|",
    ]
    for name, row in summary.items():
        cells = [
            _cell((row[s]["mean"][-1], row[s]["std"][-1] if row[s]["std"] else None), 2)
            for s in _SCORES
        ]
        lines.append(f"| {GANS[name].title} | {row['updates'][-1]} | {' | '.join(cells)} |")
    return lines


def _cell(mean_and_std, digits: int) -> str:
    mean, std = mean_and_std
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def figures(experiment: str) -> dict:
    """Name to a function of the results that draws it."""
    from gat_tf import plotting

    titles = {name: setting.title for name, setting in GANS.items()}
    if experiment == "robgan_fig7":
        return {"robgan_fig7": lambda results: plotting.samples(results["units"], titles)}
    return {
        "robgan_fig8": lambda results: plotting.scores(results["summary"], titles, _SCORES),
        "robgan_fig8_training": lambda results: plotting.training(
            _histories(results["units"], titles),
            {
                "discriminator_loss": "loss of D",
                "generator_loss": "loss of G",
                "diversity": "diversity within a class",
            },
        ),
    }


def _histories(units, titles) -> dict:
    """Of the first data set and seed, in the titles' order and so in Fig. 8's colours."""
    first = min((u["dataset"], u["seed"]) for u in units)
    found = {u["gan"]: u["history"] for u in units if (u["dataset"], u["seed"]) == first}
    return {title: found[name] for name, title in titles.items() if name in found}
