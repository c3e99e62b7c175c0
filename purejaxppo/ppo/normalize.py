"""Running statistics: init, update, apply. Frozen while a rollout and its update last.

Were they to move between sampling and learning, the two sides of the ratio would see
different inputs, and the first ratio would not be 1.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Obs
from purejaxppo.ppo import reduce
from purejaxppo.ppo.reduce import AxisName

# Observations are clipped to this many standard deviations.
_CLIP = 10.0
# Variance floor, in squared units of the observation: an entry that hardly moves
# (std below 0.01) is centred, not blown up.
_VARIANCE_FLOOR = 1e-4


class Statistics(struct.PyTreeNode):
    """Count, mean and sum of squared deviations, per entry of a pytree."""

    count: jax.Array  # float32 []
    mean: chex.ArrayTree
    square: chex.ArrayTree  # sum of squared deviations from the mean


def init(example: chex.ArrayTree) -> Statistics:
    """Statistics of nothing yet; `example` has the shapes of one sample."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example)
    return Statistics(jnp.zeros((), jnp.float32), zeros, zeros)


def update(
    stats: Statistics,
    batch: chex.ArrayTree,
    weight: jax.Array | None = None,
    axis_name: AxisName = None,
) -> Statistics:
    """Merge a batch (Chan et al. 1983: pairwise, stable).

    Args:
      stats: of the samples before.
      batch: leaves [N, ...].
      weight: float32 [N], 0 leaves a sample out and 1 counts it; None counts all.
      axis_name: the named axis whose devices' samples count too.
    """
    if weight is None:
        weight = jnp.ones(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
    num = reduce.psum(jnp.sum(weight), axis_name)
    count = stats.count + num
    share = num / jnp.maximum(count, 1.0)

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean of the batch, and sum of squared deviations from it."""
        column = trees.expand_to(weight, x.ndim)
        # where, not a product alone: what is left out may be NaN.
        x = jnp.where(column > 0, x, 0.0)
        total = reduce.psum(jnp.sum(x * column, axis=0), axis_name)
        mean = total / jnp.maximum(num, 1.0)
        deviations = jnp.square(x - mean[None]) * column
        return mean, reduce.psum(jnp.sum(deviations, axis=0), axis_name)

    leaves, structure = jax.tree.flatten(batch)
    means, squares = zip(*map(moments, leaves), strict=True)
    delta = jax.tree.map(jnp.subtract, structure.unflatten(means), stats.mean)
    return Statistics(
        count,
        jax.tree.map(lambda mean, d: mean + d * share, stats.mean, delta),
        jax.tree.map(
            lambda old, new, d: old + new + jnp.square(d) * stats.count * share,
            stats.square,
            structure.unflatten(squares),
            delta,
        ),
    )


def variance(stats: Statistics) -> chex.ArrayTree:
    """Population variance of each entry; 1 before the first sample."""
    return jax.tree.map(
        lambda s: jnp.where(stats.count > 0, s / jnp.maximum(stats.count, 1.0), 1.0),
        stats.square,
    )


def apply(stats: Statistics | None, obs: Obs) -> Obs:
    """(obs - mean) / std, clipped; leading axes are free. None leaves obs alone."""
    if stats is None:
        return obs

    def normalize_leaf(x, mean, var):
        leading = (1,) * (x.ndim - mean.ndim)
        mean = mean.reshape(leading + mean.shape)
        std = jnp.sqrt(jnp.maximum(var, _VARIANCE_FLOOR)).reshape(mean.shape)
        return jnp.clip((x - mean) / std, -_CLIP, _CLIP)

    return jax.tree.map(normalize_leaf, obs, stats.mean, variance(stats))


def discounted_returns(
    before: jax.Array, reward: jax.Array, done: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Running discounted return of each environment, [T, N], and where it ends, [N].

    G_t = r_t + γ G_{t-1}, from 0 after an episode's end: the scale by which rewards
    are divided is the standard deviation of G.

    Args:
      before: float32 [N], G where the last rollout ended.
      reward: float32 [T, N].
      done: bool [T, N], the episode ended at that step.
      gamma: the discount.
    """

    def step(total, xs):
        reward, done = xs
        total = reward + gamma * total
        return jnp.where(done, 0.0, total), total

    after, totals = jax.lax.scan(step, before, (reward, done))
    return totals, after


def standardized(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """x with mean 0 and standard deviation 1 over all of its elements."""
    mean, std = reduce.moments(x, axis_name=axis_name)
    return (x - mean) / (std + 1e-8)
