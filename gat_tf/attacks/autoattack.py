"""The standard composition of attacks (Croce and Hein 2020)."""

from __future__ import annotations

from gat_tf.attacks.apgd import APGD
from gat_tf.attacks.base import Attack
from gat_tf.attacks.fab import FAB
from gat_tf.attacks.square import Square


def autoattack(
    epsilon: float,
    norm: float,
    num_classes: int,
    *,
    apgd_steps: int = 100,
    targets: int = 9,
    fab_steps: int = 100,
    queries: int = 5_000,
) -> dict[str, Attack]:
    """Returns AutoAttack's attacks by name, in order.

    Each is meant for the images that withstood the ones before it.

    Paper: [Croce and Hein 2020](https://arxiv.org/abs/2003.01690).

    Args:
        epsilon: Radius of the ball, in units of pixel values.
        norm: 2 or `math.inf`.
        num_classes: Number of classes of the classifier. With fewer than four, APGD-T is left out,
            because the targeted DLR loss compares the four largest logits.
        apgd_steps: Number of steps of each APGD.
        targets: Number of top wrong classes that APGD-T and FAB-T aim at.
        fab_steps: Number of steps of FAB-T per target.
        queries: Number of queries of Square per image.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> composition = attacks.autoattack(8 / 255, math.inf, num_classes=4)
        >>> list(composition)
        ['APGD-CE', 'APGD-T', 'FAB-T', 'Square']
    """
    composition: dict[str, Attack] = {
        "APGD-CE": APGD(epsilon, norm, apgd_steps),
        "APGD-T": APGD(epsilon, norm, apgd_steps, loss="targeted_dlr", targets=targets),
        "FAB-T": FAB(epsilon, norm, fab_steps, targets=targets),
        "Square": Square(epsilon, norm, queries),
    }
    if num_classes < 4:
        del composition["APGD-T"]
    return composition
