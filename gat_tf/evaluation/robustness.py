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
from collections.abc import Callable

import keras
import numpy as np

from gat_tf import attacks, checks
from gat_tf._types import Data
from gat_tf.attacks import Attack
from gat_tf.evaluation.evaluator import Evaluator, arrays
from gat_tf.evaluation.merging import merged
from gat_tf.evaluation.sanity import pgd_names, sanity_checks, withstood, worst_case
from gat_tf.logits import Logits, logits_of

CHUNK = 500  # images


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


@dataclasses.dataclass
class _Evaluation:
    """The attacks on one chunk of images.

    Attributes:
        rows: Each attack's name and row of the results.
        images: The indices of fooled images that are returned, each with the name of the last
            attack that fools it and the image as that attack leaves it.
    """

    evaluator: Evaluator
    norm: float
    epsilon: float
    budget: Budget
    stage: Callable
    return_images: bool | int
    rows: dict[str, dict] = dataclasses.field(default_factory=dict)
    images: dict[int, tuple[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    @property
    def _candidates(self) -> np.ndarray:
        """The images to return if they are fooled, `[N]` booleans."""
        most = math.inf if self.return_images is True else self.return_images
        return self.evaluator.numbers < most

    def run(self, source: Logits | None) -> dict:
        e, b = self.evaluator, self.budget
        differentiable = e.differentiable
        short, long = pgd_names(b.pgd_steps, b.restarts)
        few = attacks.PGD(self.epsilon, self.norm, min(20, b.pgd_steps))

        self.attack("random noise", attacks.RandomPerturbation(self.epsilon, self.norm))
        if differentiable:
            self.attack("fast gradient", attacks.FastGradient(self.epsilon, self.norm))
            self.attack(short, few)
            many = dataclasses.replace(few, steps=b.pgd_steps, restarts=b.restarts)
            self.attack(long, many)
        if source is not None:
            self.attack(f"{short}, transferred", few, source=source)
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
        tried = e.numbers < b.hard_label_images
        self.attack(
            "HopSkipJump",
            attacks.HopSkipJump(self.epsilon, self.norm, b.hard_label_steps),
            only=e.correct & tried,
            tried=tried,
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
            "worst_case_accuracy": worst_case(list(self.rows.values())),
            "attacks": list(self.rows.values()),
            "composition": list(composition),
            "curve": curve,
            "logits_change": change,
            "zero_gradients": zero,
            "budget": dataclasses.asdict(b),
        }
        if self.return_images:
            result["worst_case_images"] = self._worst_case_images()
        return {**result, "checks": list(sanity_checks(result))}

    def attack(
        self,
        name: str,
        attack: Attack,
        only: np.ndarray | None = None,
        source: Logits | None = None,
        tried: np.ndarray | None = None,
    ) -> np.ndarray:
        """Runs an attack as a stage; returns which images withstand it, `[N]` booleans.

        Args:
            name: Name of the stage.
            attack: The attack.
            only: `[N]` booleans, the images to attack: by default those classified correctly. The
                others count as they do without it.
            source: The model whose gradients the attack follows; by default the evaluated model.
            tried: `[N]` booleans, the images that the accuracy is a share of: by default all.
        """
        e = self.evaluator

        def compute():
            self._announce(name)
            attacked = e.correct if only is None else only
            total = e.size if tried is None else int(tried.sum())
            found = e.attack(attack, attacked, source)
            row = {
                "name": name,
                "attacked": int(attacked.sum()),
                "tried": total,
                "accuracy": float((found.robust & attacked).sum()) / max(total, 1),
                "evaluations": found.evaluations,
                "gradients": found.gradients,
                "seconds": round(found.seconds, 2),
                "standing": "".join("01"[int(robust)] for robust in found.robust),
            }
            if self.return_images:
                fooled = attacked & ~found.robust & self._candidates
                row["fooled"] = _encoded(np.flatnonzero(fooled), found.adversarial[fooled])
            return row

        row = dict(self.stage(name, compute))
        fooled = row.pop("fooled", None)
        if fooled and self.return_images:
            wanted = self._candidates
            self.images |= {i: (name, image) for i, image in _decoded(fooled) if wanted[i]}
        self.rows[name] = row
        return withstood(row)

    def _worst_case_images(self) -> dict:
        index = sorted(self.images)
        images = [self.images[i][1] for i in index]
        shape = (0, *self.evaluator.images.shape[1:])
        return {
            "index": index,
            "attack": [self.images[i][0] for i in index],
            "images": np.stack(images) if images else np.zeros(shape, np.float32),
        }

    def _announce(self, name: str) -> None:
        if self.evaluator.verbose:
            print(name)

    def _curve(self) -> dict:
        """PGD's accuracy against ε, which doubles from a quarter of the evaluation's until the
        accuracy is zero or ε spans the range of the pixels.
        """
        e = self.evaluator
        low, high = e.bounds
        diameter = high - low
        if self.norm == 2:
            diameter *= math.sqrt(e.images[0].size)
        fooled_at = [None if right else 0.0 for right in e.correct]
        epsilons, accuracy = [0.0], [float(e.correct.mean())]
        epsilon, steps = self.epsilon / 8, min(20, self.budget.pgd_steps)
        while accuracy[-1] > 0 and epsilons[-1] < diameter and self.epsilon:
            epsilon = min(2 * epsilon, diameter)
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
