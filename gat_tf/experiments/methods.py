"""The rows of Table 2 of the GAT paper."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of Table 2.

    Attributes:
        title: As the paper prints it.
        paper: Test accuracy in %, mean and standard deviation over 50 initialisations, by data set.
        searched: The configuration's hyperparameters that are the method's own, each with the
            field that holds its grid, in the order in which they are searched.
        after: The method whose search result this one starts from.
    """

    title: str
    paper: dict[str, tuple[float, float]]
    searched: dict[str, str] = dataclasses.field(default_factory=dict)
    after: str | None = None


def _paper(*values):
    return dict(zip(("cifar10", "cifar100"), values, strict=True))


METHODS = {
    "baseline": Method("Baseline", _paper((77.48, 0.46), (44.32, 0.63))),
    "dropout": Method("Dropout", _paper((78.49, 0.64), (46.29, 0.61)), {"dropout": "dropout_grid"}),
    "random": Method(
        "Random perturbation",
        _paper((77.59, 0.57), (44.43, 0.71)),
        {"random_epsilon": "random_epsilon_grid"},
    ),
    "fg_linf": Method(
        "Adv. training (FG, L∞)",
        _paper((78.12, 0.59), (45.16, 0.73)),
        {"fg_linf_epsilon": "linf_epsilon_grid"},
    ),
    "fg_l2": Method(
        "Adv. training (FG, L2)",
        _paper((77.99, 0.45), (45.67, 0.63)),
        {"fg_l2_epsilon": "l2_epsilon_grid"},
    ),
    "gat": Method(
        "Adv. training (GAT)",
        _paper((80.33, 0.44), (50.44, 0.56)),
        {"c_g": "c_g_grid", "generator_learning_rate": "generator_learning_rate_grid"},
    ),
    "dropout_gat": Method(
        "Dropout + GAT",
        _paper((81.62, 0.34), (50.71, 0.49)),
        {
            "dropout_gat_dropout": "dropout_gat_dropout_grid",
            "dropout_gat_c_g": "dropout_gat_c_g_grid",
        },
        after="gat",
    ),
}

# Not in the paper: what every defence is compared with (Madry et al. 2018).
PGD_TITLE = "Adv. training (PGD)"
