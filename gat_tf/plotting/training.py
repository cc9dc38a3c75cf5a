"""Training curves, from the metrics of every epoch."""

from __future__ import annotations

from matplotlib.figure import Figure

from gat_tf.plotting.curves import Line, Panel, curves
from gat_tf.plotting.style import looks

_COLUMNS = 3


def training(
    histories: dict[str, dict[str, list[float | None]]],
    metrics: dict[str, str],
    log: tuple[str, ...] = (),
) -> Figure:
    """Draws metrics against the epoch, with a panel per metric and a line per training.

    Args:
        histories: Name of a training to its history, metric to a value for each epoch; None
            where it was not finite. What a history does not have is left out. A training without
            any of them keeps its place in the order, and so the others keep their `looks`.
        metrics: Metric to the title of its panel.
        log: The metrics whose axis is logarithmic.

    Returns:
        A figure with a panel for each metric, up to three in a row.

    Raises:
        ValueError: No history has any of the metrics.

    Examples:
        >>> history = {"loss": [2.3, 1.9, 1.7], "accuracy": [0.1, 0.3, 0.4]}
        >>> figure = plotting.training({"GAT": history}, {"loss": "loss", "accuracy": "accuracy"})
    """
    shown = {m: title for m, title in metrics.items() if any(m in h for h in histories.values())}
    if not shown:
        raise ValueError(f"Expected histories with some of {list(metrics)}. Received: none of them")
    found = looks(histories)
    panels = []
    for metric, title in shown.items():
        values = {name: h[metric] for name, h in histories.items() if metric in h}
        lines = [
            Line(range(1, len(v) + 1), v, label=name, look={**found[name], "marker": ""})
            for name, v in values.items()
        ]
        yscale = "log" if metric in log else "linear"
        panels.append(Panel(title, lines, xlabel="epoch", yscale=yscale, integer_x=True))
    rows = [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    return curves(rows, height=2.2, legend_columns=4)
