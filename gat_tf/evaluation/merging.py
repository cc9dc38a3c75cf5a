"""The evaluation of all images from the evaluations of chunks of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from gat_tf.evaluation.sanity import sanity_checks, worst_case


def merged(chunks: Sequence[dict]) -> dict:
    """Returns the result of `robustness` for all images from its results for chunks of them.

    Args:
        chunks: The results, in the order of the images.

    Raises:
        ValueError: The classifier gets none of the images right.

    Examples:
        >>> few = evaluation.Budget(pgd_steps=1, restarts=1, apgd_steps=1, targets=1, fab_steps=1,
        ...                         queries=1, hard_label_steps=1, hard_label_images=1)
        >>> chunks = [
        ...     evaluation.robustness(model, part, math.inf, 0.5, budget=few, first=first)
        ...     for first, part in [(0, dataset.take(1)), (4, dataset.skip(1))]
        ... ]
        >>> evaluation.merged(chunks)["images"]
        8
    """
    size = sum(chunk["images"] for chunk in chunks)
    if not any(chunk["clean_accuracy"] for chunk in chunks):
        raise ValueError(
            "Expected a classifier that gets some of the images right. Received: one that gets "
            f"none of {size} right. Are labels, class order and pixel range its own?"
        )
    if len(chunks) == 1:
        return chunks[0]

    rows = [_row(of_chunks) for of_chunks in zip(*(c["attacks"] for c in chunks), strict=True)]
    differentiable = chunks[0]["differentiable"]
    zero = _share([c["zero_gradients"] for c in chunks], chunks) if differentiable else None
    result = {
        **chunks[0],
        "images": size,
        "clean_accuracy": _share([c["clean_accuracy"] for c in chunks], chunks),
        "worst_case_accuracy": worst_case(rows),
        "attacks": rows,
        "curve": _whole_curve(chunks) if differentiable else None,
        "logits_change": max(c["logits_change"] for c in chunks),
        "zero_gradients": zero,
    }
    if "worst_case_images" in result:
        result["worst_case_images"] = _all_images(chunks)
    return {**result, "checks": list(sanity_checks(result))}


def _row(of_chunks: Sequence[dict]) -> dict:
    """An attack's row for all images from its rows for chunks of them."""
    counts = ("attacked", "tried", "evaluations", "gradients")
    sums = {key: sum(row[key] for row in of_chunks) for key in counts}
    robust = sum(round(row["accuracy"] * row["tried"]) for row in of_chunks)
    return {
        **of_chunks[0],
        **sums,
        "accuracy": robust / sums["tried"],
        "seconds": round(sum(row["seconds"] for row in of_chunks), 2),
        "standing": "".join(row["standing"] for row in of_chunks),
    }


def _all_images(chunks: Sequence[dict]) -> dict:
    """The worst-case images of all chunks, numbered through."""
    found = [chunk["worst_case_images"] for chunk in chunks]
    firsts = np.cumsum([0, *(chunk["images"] for chunk in chunks[:-1])])
    return {
        "index": [int(k + i) for k, f in zip(firsts, found, strict=True) for i in f["index"]],
        "attack": [name for f in found for name in f["attack"]],
        "images": np.concatenate([f["images"] for f in found]),
    }


def _share(shares: Sequence[float], chunks: Sequence[dict]) -> float:
    """A share of all images from those of chunks of them, without rounding errors."""
    counts = [round(share * c["images"]) for share, c in zip(shares, chunks, strict=True)]
    return sum(counts) / sum(c["images"] for c in chunks)


def _whole_curve(chunks: Sequence[dict]) -> dict:
    """A chunk's curve ends where its accuracy is zero, and is zero from there on."""
    curves = [chunk["curve"] for chunk in chunks]
    epsilons = max((curve["epsilons"] for curve in curves), key=len)
    accuracies = itertools.zip_longest(*(curve["accuracy"] for curve in curves), fillvalue=0.0)
    accuracy = [_share(at_epsilon, chunks) for at_epsilon in accuracies]
    fooled_at = [epsilon for curve in curves for epsilon in curve["fooled_at"]]
    return {"epsilons": epsilons, "accuracy": accuracy, "fooled_at": fooled_at}
