"""Square Attack (Andriushchenko et al. 2020): random search with scores and without gradients."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from gat_tf import checks, losses
from gat_tf._types import Seed
from gat_tf.attacks import iterative, norms
from gat_tf.attacks.base import EpsilonAttack, seed_or_random
from gat_tf.logits import Logits

_FIRST_FRACTION = 0.8  # AutoAttack's p_init; the paper tunes it from 0.05 to 0.8
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


@dataclasses.dataclass(frozen=True, eq=False)
class Square(EpsilonAttack):
    """Random search: redraws square patches of the perturbation and keeps them if the margin rises.

    The margin is the largest wrong logit minus the label's. The attack stops for an image as soon
    as it fools the classifier, and skips images that are already misclassified. Not supported with
    XLA. Thousands of queries need a compiled function, such as those of `gat_tf.evaluation`.

    Under L-infinity the search starts at vertical stripes, and a square becomes +ε or -ε in each
    channel. Under L2 it starts at a tiling, and a square gets two opposite bumps in each channel.
    Their mass is the unused budget plus the mass of a second square, which is set to zero.

    Paper: [Andriushchenko et al. 2020](https://arxiv.org/abs/1912.00049).

    Args:
        epsilon: Radius of the ball in `norm`, in units of pixel values: one number, or a vector
            `[B]` with one per image.
        norm: 2 or `math.inf`.
        queries: Number of perturbations tried per image and run, at least 1: the start and then
            squares, which shrink on a schedule that is scaled to this number.
        restarts: Number of runs; the one with the largest margin is kept.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> attack = attacks.Square(epsilon=0.3, norm=math.inf, queries=5)
        >>> adversarial = attack(model, images, labels)
        >>> bool(np.abs(adversarial - images).max() <= 0.3 + 1e-6)
        True
    """

    queries: int = 5000
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        checks.count("queries", self.queries)
        checks.count("restarts", self.restarts)

    def perturb(
        self, logits: Logits, images: tf.Tensor, labels: tf.Tensor, seed: Seed = None
    ) -> tf.Tensor:
        epsilon = norms.radius(self.epsilon, images)
        seeds = tf.random.split(seed_or_random(seed), self.restarts)

        def unfinished(run, worst):
            return (run < self.restarts) & tf.reduce_any(worst.score <= 0)

        def search(run, worst):
            return run + 1, self._search(logits, images, labels, epsilon, seeds[run], worst)

        clean = losses.logit_margin(logits(images), labels)
        worst = iterative.Best(tf.zeros_like(images), clean)
        return iterative.loop(unfinished, search, (0, worst))[1].perturbation

    def _search(self, logits, images, labels, epsilon, seed, worst):
        """One run for the images not fooled yet; returns the best perturbations of all runs."""
        all_indices, channels = tf.range(tf.shape(images)[0]), tf.shape(images)[3]
        area = tf.cast(tf.reduce_prod(tf.shape(images)[1:3]), tf.float32)
        start_seed, seed = tf.unstack(tf.random.split(seed, 2))

        def margins(index, perturbation):
            x, y = tf.gather(images, index), tf.gather(labels, index)
            return losses.logit_margin(logits(self.apply(x, perturbation)), y)

        def unfinished(i, active, _):
            return (i < self.queries) & (tf.size(active) > 0)

        def query(i, active, found):
            # Drawn for all images, so that each one's do not depend on which are left.
            shape = [tf.size(all_indices), 5 + channels]
            draws = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, i))
            x, delta, radius, draws = (
                tf.gather(t, active) for t in (images, found.perturbation, epsilon, draws)
            )
            side = tf.sqrt(fraction(i, self.queries) * area)
            next_delta = self._clipped(x, self._redrawn(delta, radius, side, draws))
            margin = margins(active, next_delta)
            found = found.update(active, next_delta, margin)
            return i + 1, iterative.kept(active, margin <= 0), found

        active = iterative.kept(all_indices, worst.score <= 0)
        start = self._clipped(images, self._start(images, epsilon, start_seed))
        start = tf.gather(start, active)
        margin = margins(active, start)
        found = iterative.Best.initial(images).update(active, start, margin)
        active = iterative.kept(active, margin <= 0)
        found = iterative.loop(unfinished, query, (1, active, found))[2]
        return worst.update(all_indices, found.perturbation, found.score)

    def _start(self, images, epsilon, seed):
        count, height, width, channels = tf.unstack(tf.shape(images))
        if self.norm == math.inf:  # a sign a column and channel
            signs = norms.random_direction([count, 1, width, channels], math.inf, seed)
            return epsilon * signs * tf.ones_like(images)
        # Up to five tiles along the shorter side, cut off at the edge: a sign for each tile and
        # channel, and one that turns the tile.
        side = tf.maximum(-(-tf.minimum(height, width) // 5), 1)
        rows, columns = tf.range(height), tf.range(width)
        tiles = [(height - 1) // side + 1, (width - 1) // side + 1]
        signs = norms.random_direction([count, *tiles, channels + 1], math.inf, seed)
        signs = tf.gather(tf.gather(signs, rows // side, axis=1), columns // side, axis=2)
        u, v = rows[:, None] % side, columns % side
        bumps = tf.where(signs[..., -1] > 0, _bumps(u, v, side), _bumps(v, u, side))
        return epsilon * norms.direction(signs[..., :-1] * bumps[..., None], 2)

    def _redrawn(self, perturbation, epsilon, side, draws):
        """The perturbations `[n, H, W, C]` with a random square of about `side` pixels redrawn.

        `draws` are uniform in [0, 1), `[n, 5 + C]`.
        """
        count, height, width, channels = tf.unstack(tf.shape(perturbation))
        side = tf.cast(tf.round(side), tf.int32)
        if self.norm == 2:
            side = tf.maximum(side, 3)
            side += 1 - side % 2  # odd, so that bumps have a middle
        side = tf.clip_by_value(side, 1, tf.minimum(height, width))

        def corner(down, right):
            """The first row and column of squares at random places, `[n, 1, 1]` each."""
            free_rows, free_columns = (tf.cast(n - side + 1, tf.float32) for n in (height, width))
            top, left = tf.cast(down * free_rows, tf.int32), tf.cast(right * free_columns, tf.int32)
            return top[:, None, None], left[:, None, None]

        signs = tf.where(draws[:, None, None, 5:] < 0.5, -1.0, 1.0)
        if self.norm == math.inf:
            # Adding ±2ε and projecting to the ball, as in the paper, is setting ±ε.
            top, left = corner(draws[:, 0], draws[:, 1])
            u, v = tf.range(height)[:, None] - top, tf.range(width) - left
            inside = ((u >= 0) & (u < side) & (v >= 0) & (v < side))[..., None]
            return tf.where(inside, epsilon * signs, perturbation)

        def pixels(down, right):
            """The indices of the pixels of squares at random places, `[n, side, side, 3]`."""
            top, left = corner(down, right)
            of_square = tf.range(side)
            indices = (tf.range(count)[:, None, None], top + of_square[:, None], left + of_square)
            shape = [count, side, side]
            return tf.stack([tf.broadcast_to(i, shape) for i in indices], axis=-1)

        # Only the two squares are looked at: most are small.
        redrawn, emptied = pixels(draws[:, 0], draws[:, 1]), pixels(draws[:, 2], draws[:, 3])
        inside = tf.gather_nd(perturbation, redrawn)
        nothing = tf.zeros_like(inside)
        rest = tf.tensor_scatter_nd_update(perturbation, redrawn, nothing)
        unused = tf.maximum(epsilon**2 - norms.power(perturbation)[:, None, None, None], 0.0)
        mass = _mass(inside) + _mass(tf.gather_nd(rest, emptied))
        mass += unused / tf.cast(channels, tf.float32)
        rest = tf.tensor_scatter_nd_update(rest, emptied, nothing)
        bumps = _bumps(tf.range(side)[:, None], tf.range(side), side)
        turn = draws[:, 4, None, None] < 0.5
        bumps = _unit(tf.where(turn, tf.transpose(bumps), bumps)[..., None])
        shape = _unit(signs * bumps + _unit(inside))
        moved = tf.tensor_scatter_nd_update(rest, redrawn, shape * tf.sqrt(mass))
        return norms.project(moved, epsilon, 2)  # which rounding alone has left


def fraction(query: int | tf.Tensor, queries: int) -> tf.Tensor:
    """p, the fraction of the image's pixels in a query's square: 0.8, halved nine times.

    Args:
        query: Number of the query, from 1; the start is number 0.
        queries: Number of queries in a run. With 10,000, p is halved after query 10, 50, 200, 500,
            1000, 2000, 4000, 6000 and 8000; with another number, in proportion.
    """
    halved_after = tf.constant([after * queries // 10_000 for after in _HALVED_AFTER])
    halvings = tf.reduce_sum(tf.cast(query > halved_after, tf.float32))
    return _FIRST_FRACTION * 0.5**halvings


def _bumps(u: tf.Tensor, v: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """The paper's η at row u and column v of a square: a bump above, the negative of one below.
    Each bump falls with the distance d from its middle (the larger of rows and columns) as the sum
    of 1 / j² from j = d + 1 to side // 2 + 1.
    """
    half = side // 2
    below = u >= half
    middle = tf.where(below, half + (side - half) // 2, half // 2)
    distance = tf.maximum(tf.abs(u - middle), tf.abs(v - half))
    sums = tf.cumsum(1 / tf.cast(tf.range(1, half + 2), tf.float32) ** 2)
    sums = tf.concat([[0.0], sums], axis=0)
    height = sums[-1] - tf.gather(sums, distance)
    return tf.where(below, -height, height)


def _mass(values: tf.Tensor) -> tf.Tensor:
    """The sum of squares over each channel, `[n, 1, 1, C]`."""
    return tf.reduce_sum(tf.square(values), (1, 2), keepdims=True)


def _unit(values: tf.Tensor) -> tf.Tensor:
    """Values of L2 norm 1 in each channel; zeros stay."""
    return tf.math.divide_no_nan(values, tf.sqrt(_mass(values)))
