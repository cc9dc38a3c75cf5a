"""Evaluates a classifier's robustness: many attacks, their worst case, and checks for masked
gradients.

A single attack gives only an upper bound of the robust accuracy. Here every image is attacked in
many ways, and the results are compared: if a stronger attack succeeds less often than a weaker one,
gradients are masked.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from gat_tf import attacks, checks
from gat_tf._types import Data
from gat_tf.attacks import Attack
from gat_tf.evaluation.evaluator import Evaluator, arrays
from gat_tf.logits import Logits, logits_of

INF = math.inf
CHUNK = 500  # images
_CURVE = (0.25, 0.5, 1.0, 2.0)  # multiples of ε; beyond, ε doubles until the accuracy is 0
_TOLERANCE = 0.01  # one image in a hundred: less is noise
_ROUNDING = 1e-3  # of the largest logit, between two calls of a model without random numbers
_STARTS = 0.05  # of the images may fall to further random starts alone
_SMALLEST = {"Linf": 1 / 1000, "L2": 1 / 4000}  # ε that is no mistake, of the range or the diagonal


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget per image of the attacks of `robustness`; the defaults are AutoAttack's.

    Paper: [Croce and Hein 2020](https://arxiv.org/abs/2003.01690).

    Args:
        pgd_steps: Number of steps of the longer PGD. The shorter PGD has 20 steps, or `pgd_steps`
            if that is fewer.
        restarts: Number of random starts of the longer PGD.
        apgd_steps: Number of steps of each APGD.
        targets: Number of wrong classes that APGD-T and FAB-T aim at, one after the other.
        fab_steps: Number of steps of FAB-T per target.
        queries: Number of queries of Square.
        hard_label_steps: Number of steps of HopSkipJump.
        hard_label_images: HopSkipJump attacks only the first `hard_label_images` images.

    Examples:
        >>> evaluation.Budget().queries
        5000
        >>> few = evaluation.Budget(pgd_steps=20, restarts=1, queries=500)
    """

    pgd_steps: int = 100
    restarts: int = 5
    apgd_steps: int = 100
    targets: int = 9
    fab_steps: int = 100
    queries: int = 5_000
    hard_label_steps: int = 20
    hard_label_images: int = 100

    def __post_init__(self):
        for field in dataclasses.fields(self):
            checks.count(field.name, getattr(self, field.name))


@checks.in_a_pair
def robustness(
    model: keras.Model,
    dataset: Data,
    norm: float,
    epsilon: float,
    *,
    source: keras.Model | None = None,
    from_logits: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
    budget: Budget = Budget(),
    batch_size: int = 100,
    chunk_size: int = CHUNK,
    first: int | None = None,
    seed: int = 0,
    verbose: int = 0,
    return_images: bool | int = False,
    stage: Callable[[str, Callable[[], dict]], dict] = lambda name, compute: compute(),
) -> dict:
    """Returns a classifier's accuracy under many attacks, and the results of known checks.

    The composition is that of AutoAttack (Croce and Hein 2020): APGD on the cross-entropy, targeted
    APGD on the DLR loss, targeted FAB and Square, each on the images that withstood the attacks
    before it. In addition there are random noise, the fast gradient, PGD with few and with many
    steps and restarts, transfer from another model, and an attack that sees only the predicted
    class.

    Papers: [Croce and Hein 2020](https://arxiv.org/abs/2003.01690); for the checks
    [Carlini et al. 2019](https://arxiv.org/abs/1902.06705).

    Args:
        model: Keras classifier from images to probabilities or logits `[B, K]`.
        dataset: (images, labels) batches: images `[B, H, W, C]` within `bounds`, labels `[B]`; or
            two arrays (images, labels). All are kept in memory.
        norm: 2 or `math.inf`.
        epsilon: Radius of the ball, in units of pixel values: 8/255 where they go from 0 to 1, 8
            where they go from 0 to 255. A check looks whether it fits `bounds`.
        source: Another classifier of the same images, against which PGD is run for a transfer
            attack.
        from_logits: Whether the models give logits instead of probabilities.
        bounds: `(low, high)` of the pixels.
        budget: Budget of the attacks.
        batch_size: Images attacked at a time.
        chunk_size: Images are evaluated in chunks of this size, each on its own, so that processes
            can share them.
        first: If the images are one chunk of a larger set: its first image's number there, from 0.
            `merged` makes of the chunks' results what this function returns for the whole set.
        seed: Seed of the attacks' random choices.
        verbose: 0 for silence, 1 for Keras's progress bar per attack, 2 for one line at its end.
            Both show the share of attacked images that withstand it.
        return_images: Whether to return the worst-case images too: True for those of all images, a
            number for those of the first so many images.
        stage: Called with the name of each part and a function that computes it. It may store the
            function's result, a dictionary for JSON, and return the stored result in a later run.

    Returns:
        norm, epsilon, bounds, images, image_shape, clean_accuracy, differentiable,
        worst_case_accuracy (each image counts as its worst attack leaves it); attacks: a list of
        name, attacked (how many images), tried (out of how many), accuracy (the share of these that
        withstand it and, in the composition, every attack before it), evaluations (images through
        the model), gradients (input gradients), seconds, standing (a string with 1 for each image
        that withstands it and 0 for each other; an image that was not attacked counts as it does
        clean); curve: epsilons, accuracy, fooled_at (per image, or None); logits_change and
        zero_gradients, which checks look at; checks: a list of check, passed, evidence; budget.
        With `return_images` also worst_case_images, a dictionary of index (`[M]`, which images are
        fooled), attack (`[M]`, the name of the last attack that fools each) and images
        (`[M, H, W, C]` float32, as that attack leaves them; those misclassified without an attack
        are not among them).

    Raises:
        ValueError: The model, the dataset or an argument is not as described above.

    Examples:
        >>> few = evaluation.Budget(pgd_steps=2, restarts=1, apgd_steps=2, targets=1, fab_steps=2,
        ...                         queries=2, hard_label_steps=1, hard_label_images=1)
        >>> result = evaluation.robustness(model, dataset, math.inf, 0.5, budget=few)
        >>> result["clean_accuracy"], result["worst_case_accuracy"]
        (1.0, 0.0)
    """
    checks.norm(norm)
    checks.number("epsilon", epsilon, low=0)
    checks.count("chunk_size", chunk_size)
    if source is not None:
        source = logits_of(source, from_logits)

    def evaluated(images, labels, first, stage):
        evaluator = Evaluator(
            model,
            (images, labels),
            from_logits=from_logits,
            bounds=bounds,
            batch_size=batch_size,
            seed=seed,
            first=first,
            verbose=verbose,
        )
        if source is not None:
            evaluator.require_same_classes(source)
        evaluation = _Evaluation(evaluator, norm, float(epsilon), budget, stage, return_images)
        return evaluation.run(source)

    def stage_of(start):
        if len(labels) <= chunk_size:
            return stage
        return lambda name, compute: stage(f"{name}, images from {start}", compute)

    images, labels = arrays(model, dataset, from_logits, bounds)
    if first is not None:
        return evaluated(images, labels, first, stage)
    return merged(
        [
            evaluated(images[i : i + chunk_size], labels[i : i + chunk_size], i, stage_of(i))
            for i in range(0, len(labels), chunk_size)
        ]
    )


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

    def mean(values):
        return sum(v * chunk["images"] for v, chunk in zip(values, chunks, strict=True)) / size

    rows = [_row(of_chunks) for of_chunks in zip(*(c["attacks"] for c in chunks), strict=True)]
    differentiable = chunks[0]["differentiable"]
    zero = mean([c["zero_gradients"] for c in chunks]) if differentiable else None
    result = {
        **chunks[0],
        "images": size,
        "clean_accuracy": _share([c["clean_accuracy"] for c in chunks], chunks),
        "worst_case_accuracy": _worst_case(rows),
        "attacks": rows,
        "curve": _whole_curve(chunks) if differentiable else None,
        "logits_change": max(c["logits_change"] for c in chunks),
        "zero_gradients": zero,
    }
    if "worst_case_images" in result:
        result["worst_case_images"] = _all_images(chunks)
    return {**result, "checks": list(_checks(result, Budget(**result["budget"])))}


def _row(of_chunks: Sequence[dict]) -> dict:
    """An attack's row for all images from its rows for chunks of them."""
    tried = sum(row["tried"] for row in of_chunks)
    robust = sum(round(row["accuracy"] * row["tried"]) for row in of_chunks)
    sums = {key: sum(row[key] for row in of_chunks)
            for key in ("attacked", "evaluations", "gradients", "seconds")}  # fmt: skip
    return {
        **of_chunks[0],
        **sums,
        "tried": tried,
        "accuracy": robust / tried,
        "seconds": round(sums["seconds"], 2),
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


def _share(accuracies: Sequence[float], chunks: Sequence[dict]) -> float:
    """An accuracy on all images from those on chunks of them, without rounding errors."""
    right = [round(a * c["images"]) for a, c in zip(accuracies, chunks, strict=True)]
    return sum(right) / sum(c["images"] for c in chunks)


def _whole_curve(chunks: Sequence[dict]) -> dict:
    """A chunk's curve ends where its accuracy is zero, and is zero from there on."""
    curves = [chunk["curve"] for chunk in chunks]
    epsilons = max((curve["epsilons"] for curve in curves), key=len)
    accuracy = []
    for i in range(len(epsilons)):
        at = [curve["accuracy"][i] if i < len(curve["accuracy"]) else 0.0 for curve in curves]
        accuracy.append(_share(at, chunks))
    fooled_at = [epsilon for curve in curves for epsilon in curve["fooled_at"]]
    return {"epsilons": epsilons, "accuracy": accuracy, "fooled_at": fooled_at}


class _Evaluation:
    def __init__(
        self,
        evaluator: Evaluator,
        norm: float,
        epsilon: float,
        budget: Budget,
        stage: Callable,
        return_images: bool | int,
    ):
        self.evaluator = evaluator
        self.norm = norm
        self.epsilon = epsilon
        self.budget = budget
        self.stage = stage
        self.rows: dict[str, dict] = {}
        self._return_images = bool(return_images)
        count = evaluator.size
        if return_images is not True:
            count = int(np.clip(int(return_images) - evaluator.first, 0, count))
        self._candidates = np.arange(evaluator.size) < count
        self._images: dict[int, tuple[str, np.ndarray]] = {}  # index to the attack and its image

    def run(self, source: Logits | None) -> dict:
        e, b = self.evaluator, self.budget
        differentiable = e.differentiable
        few = min(20, b.pgd_steps)

        def pgd(steps, restarts=1):
            return attacks.PGD(self.epsilon, self.norm, steps, restarts=restarts)

        self.attack("random noise", attacks.RandomPerturbation(self.epsilon, self.norm))
        if differentiable:
            self.attack("fast gradient", attacks.FastGradient(self.epsilon, self.norm))
            self.attack(f"PGD-{few}", pgd(few))
            self.attack(f"PGD-{b.pgd_steps}, {b.restarts} starts", pgd(b.pgd_steps, b.restarts))
        if source is not None:
            self.attack(f"PGD-{few}, transferred", pgd(few), source=source)
        composition = attacks.autoattack(
            self.epsilon,
            self.norm,
            e.classes,
            apgd_steps=b.apgd_steps,
            targets=b.targets,
            fab_steps=b.fab_steps,
            queries=b.queries,
        )
        if not differentiable:
            composition = {"Square": composition["Square"]}
        robust = e.correct
        for name, attack in composition.items():
            robust = robust & self.attack(name, attack, only=robust)
        tried = int(np.clip(b.hard_label_images - e.first, 0, e.size))
        self.attack(
            "HopSkipJump",
            attacks.HopSkipJump(self.epsilon, self.norm, b.hard_label_steps),
            only=e.correct & (np.arange(e.size) < tried),
            of=tried,
        )
        curve = self.stage("curve", self._curve) if differentiable else None
        change = self.stage("same logits", lambda: {"change": e.change()})["change"]
        zero = None
        if differentiable:
            zero = self.stage("gradients", self._zero_gradients)["zero_gradients"]
        result = {
            "norm": "L2" if self.norm == 2 else "Linf",
            "epsilon": self.epsilon,
            "bounds": list(e.bounds),
            "images": e.size,
            "image_shape": list(e.images.shape[1:]),
            "clean_accuracy": float(e.correct.mean()),
            "differentiable": differentiable,
            "worst_case_accuracy": _worst_case(list(self.rows.values())),
            "attacks": list(self.rows.values()),
            "composition": list(composition),
            "curve": curve,
            "logits_change": change,
            "zero_gradients": zero,
            "budget": dataclasses.asdict(b),
        }
        if self._return_images:
            result["worst_case_images"] = self._worst_case_images()
        return {**result, "checks": list(_checks(result, b))}

    def attack(
        self,
        name: str,
        attack: Attack,
        only: np.ndarray | None = None,
        source: Logits | None = None,
        of: int | None = None,
    ) -> np.ndarray:
        """Runs an attack as a stage; returns which images withstand it, `[N]` booleans.

        Args:
            name: Name of the stage.
            attack: The attack.
            only: `[N]` booleans, the images to attack: by default those classified correctly. The
                others count as they do without it.
            source: The model whose gradients the attack follows; by default the evaluated model.
            of: Number of images in the accuracy's denominator; by default all.
        """
        e = self.evaluator

        def compute():
            self._announce(name)
            attacked = e.correct if only is None else only
            tried = e.size if of is None else of
            found = e.attack(attack, attacked, source)
            row = {
                "name": name,
                "attacked": int(attacked.sum()),
                "tried": tried,
                "accuracy": float((found.robust & attacked).sum()) / max(tried, 1),
                "evaluations": found.evaluations,
                "gradients": found.gradients,
                "seconds": round(found.seconds, 2),
                "standing": "".join("01"[int(robust)] for robust in found.robust),
            }
            if self._return_images:
                fooled = attacked & ~found.robust & self._candidates
                row["fooled"] = _encoded(np.flatnonzero(fooled), found.adversarial[fooled])
            return row

        row = dict(self.stage(name, compute))
        fooled = row.pop("fooled", None)
        if fooled and self._return_images:
            self._images |= {
                i: (name, image) for i, image in _decoded(fooled) if self._candidates[i]
            }
        self.rows[name] = row
        return withstood(row)

    def _worst_case_images(self) -> dict:
        index = sorted(self._images)
        images = [self._images[i][1] for i in index]
        shape = (0, *self.evaluator.images.shape[1:])
        return {
            "index": index,
            "attack": [self._images[i][0] for i in index],
            "images": np.stack(images) if images else np.zeros(shape, np.float32),
        }

    def _announce(self, name: str) -> None:
        if self.evaluator.verbose:
            print(name)

    def _curve(self) -> dict:
        """PGD's accuracy against ε, until it is zero or ε spans the range of the pixels."""
        e = self.evaluator
        low, high = e.bounds
        diameter = high - low
        if self.norm == 2:
            diameter *= math.sqrt(e.images[0].size)
        fooled_at = [None if right else 0.0 for right in e.correct]
        epsilons, accuracy = [0.0], [float(e.correct.mean())]
        epsilon, multiples = self.epsilon, iter(_CURVE)
        while accuracy[-1] > 0 and epsilons[-1] < diameter and self.epsilon:
            multiple = next(multiples, None)
            epsilon = 2 * epsilons[-1] if multiple is None else multiple * self.epsilon
            epsilon = min(epsilon, diameter)
            steps = min(20, self.budget.pgd_steps)
            self._announce(f"PGD-{steps}, ε = {epsilon:.3g}")
            robust = e.attack(attacks.PGD(epsilon, self.norm, steps)).robust
            epsilons.append(epsilon)
            accuracy.append(float(robust.mean()))
            for i in np.flatnonzero(~robust):
                fooled_at[i] = epsilon if fooled_at[i] is None else fooled_at[i]
        return {"epsilons": epsilons, "accuracy": accuracy, "fooled_at": fooled_at}

    def _zero_gradients(self) -> dict:
        lengths = self.evaluator.gradient_norms()
        return {"zero_gradients": float(np.mean(lengths == 0))}


def _encoded(index: np.ndarray, images: np.ndarray) -> dict:
    """Images and their numbers, for JSON, to the bit."""
    pixels = base64.b64encode(images.astype("<f4").tobytes()).decode()
    return {"index": index.tolist(), "shape": list(images.shape), "pixels": pixels}


def _decoded(found: dict) -> list[tuple[int, np.ndarray]]:
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), "<f4").reshape(found["shape"])
    return list(zip(found["index"], pixels, strict=True))


def withstood(row: dict) -> np.ndarray:
    """Which images withstood an attack, `[N]` booleans, from its row of the results."""
    return np.array([digit == "1" for digit in row["standing"]])


def _epsilon_fits(result: dict) -> tuple[bool, str]:
    """Whether ε is in the units of the pixels, and the evidence.

    It is not if nobody could see the whole perturbation, or if all images could become one grey: in
    L∞ below a thousandth of the range or from half of it on. In L2 the range is the diagonal, the
    range times the root of the number of values; usual radii are a smaller part of it, hence a
    four-thousandth. ε = 0 is meant.
    """
    (low, high), norm, epsilon = result["bounds"], result["norm"], result["epsilon"]
    extent = high - low
    usual = f"8/255 of this range would be {8 / 255 * extent:.4g}"
    if norm == "L2":
        usual = f"0.5 of this range, which is usual, would be {0.5 * extent:.4g}"
        extent *= math.sqrt(math.prod(result["image_shape"]))
    passed = epsilon == 0 or _SMALLEST[norm] * extent <= epsilon < extent / 2
    evidence = f"ε = {epsilon:.4g} on pixels from {low:g} to {high:g}; {usual}"
    return passed, evidence


def _worst_case(rows: Sequence[dict]) -> float:
    return float(np.all([withstood(row) for row in rows], axis=0).mean())


def _checks(result: dict, budget: Budget) -> Iterator[dict]:
    """The signs of masked gradients that Carlini et al. (2019) and others list; and a wrong ε."""
    rows = {row["name"]: row for row in result["attacks"]}
    accuracy = {name: row["accuracy"] for name, row in rows.items()}

    def found(check, passed, evidence):
        return {"check": check, "passed": bool(passed), "evidence": evidence}

    def not_weaker(check, strong, weak):
        evidence = f"{strong}: {accuracy[strong]:.1%}, {weak}: {accuracy[weak]:.1%} withstand them"
        return found(check, accuracy[strong] <= accuracy[weak] + _TOLERANCE, evidence)

    yield found(
        "the model has input gradients",
        result["differentiable"],
        "gradient attacks run" if result["differentiable"] else "none: only attacks without them",
    )
    change = result["logits_change"]
    evidence = f"they change by {change:.1%} of the largest between two calls"
    if change > _ROUNDING:
        evidence += ": average gradients over calls, with the `samples` of PGD and APGD"
    yield found("the model gives the same logits twice", change <= _ROUNDING, evidence)
    if "image_shape" in result:  # results from before this check lack it
        yield found("ε fits the range of the pixels", *_epsilon_fits(result))
    if not result["differentiable"]:
        return
    short, long = (
        f"PGD-{min(20, budget.pgd_steps)}",
        f"PGD-{budget.pgd_steps}, {budget.restarts} starts",
    )
    yield not_weaker("a gradient is no weaker than noise", short, "random noise")
    yield not_weaker("iterative is no weaker than single-step", short, "fast gradient")
    yield not_weaker("more steps and starts are no weaker", long, short)
    gained = accuracy[short] - accuracy[long]
    yield found(
        "random starts and further steps do not matter too much",
        gained <= _STARTS,
        f"{gained:.1%} of the images fall to them alone",
    )
    if f"{short}, transferred" in rows:
        yield not_weaker("white-box is no weaker than transfer", short, f"{short}, transferred")
    white = [row for name, row in rows.items() if row["gradients"] and "transferred" not in name]
    robust = np.all([withstood(row) for row in white], axis=0)
    for name in ("Square", "HopSkipJump"):
        # Of the images that it was tried on: HopSkipJump sees the first few alone.
        tried = result["images"]
        if name == "HopSkipJump":
            tried = min(tried, budget.hard_label_images)
        beyond = float(np.sum(robust & ~withstood(rows[name]))) / tried
        yield found(
            f"{name}, without gradients, is no stronger than all gradient attacks",
            beyond <= _TOLERANCE,
            f"{beyond:.1%} of the images fall to it alone",
        )
    curve = result["curve"]
    yield found(
        "accuracy reaches zero as ε grows",
        curve["accuracy"][-1] == 0 or result["epsilon"] == 0,
        f"{curve['accuracy'][-1]:.1%} at ε = {curve['epsilons'][-1]:.3g}",
    )
    rise = max(np.diff(curve["accuracy"]), default=0.0)
    yield found("accuracy does not rise with ε", rise <= _TOLERANCE, f"by {max(rise, 0):.1%}")
    share = result["zero_gradients"]
    yield found(
        "the loss's gradient does not vanish",
        share <= _TOLERANCE,
        f"it is exactly zero on {share:.1%} of the images",
    )
