"""From finished units to results.json, tables of the paper against ours, verdicts and figures.

results = reports.load("experiments/fig2/reduced")
reports.markdown(results)                      # the tables and verdicts
reports.figures(results)                       # name -> matplotlib figure
"""

from __future__ import annotations

from gat_tf.experiments.reports import (
    attack_curves,
    common,
    fig2,
    gat_robustness,
    robgan_curves,
    robgan_images,
    robustness,
    table2,
)
from gat_tf.experiments.reports.common import ResultsError, load, made_with

_MARKDOWN = {
    "table2": lambda results: table2.markdown(results["units"]),
    "fig2": fig2.markdown,
    "fig3": attack_curves.markdown,
    "fig4": attack_curves.markdown,
    "robgan_table1": robgan_curves.markdown,
    "robgan_fig2": robgan_curves.markdown,
    "robgan_fig6": robgan_curves.markdown,
    "robgan_fig7": robgan_images.markdown,
    "robgan_fig8": robgan_images.markdown,
    "robustness": robustness.markdown,
    "gat_robustness": gat_robustness.markdown,
}
_FIGURES = {
    "table2": table2.figures,
    "fig2": fig2.figures,
    "fig3": lambda: attack_curves.figures("fig3"),
    "fig4": lambda: attack_curves.figures("fig4"),
    "robgan_table1": lambda: robgan_curves.figures("robgan_table1"),
    "robgan_fig2": lambda: robgan_curves.figures("robgan_fig2"),
    "robgan_fig6": lambda: robgan_curves.figures("robgan_fig6"),
    "robgan_fig7": lambda: robgan_images.figures("robgan_fig7"),
    "robgan_fig8": lambda: robgan_images.figures("robgan_fig8"),
    "robustness": robustness.figures,
    "gat_robustness": gat_robustness.figures,
}


def markdown(results: dict) -> str:
    """Returns the tables of results, paper against ours, and the verdicts, as Markdown."""
    return _MARKDOWN[results["experiment"]](results)


def verdicts_markdown(results: dict) -> str:
    """Returns the verdicts on the paper's claims alone, a table for each data set."""
    return "\n".join(
        f"**{dataset}**\n\n{common.verdicts_markdown(verdicts)}"
        for dataset, verdicts in results["verdicts"].items()
    )


def figures(results: dict) -> dict:
    """Returns the figures of results, name to matplotlib figure."""
    return {name: draw(results) for name, draw in _FIGURES[results["experiment"]]().items()}


__all__ = ["ResultsError", "figures", "load", "made_with", "markdown", "verdicts_markdown"]
