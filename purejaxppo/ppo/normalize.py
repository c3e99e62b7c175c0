"""Running statistics: init, update, apply. Frozen while a rollout and its update last.

Were they to move between sampling and learning, the two sides of the ratio would see
different inputs, and the first ratio would not be 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

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
    mean: Any
    square: Any  # sum of squared deviations from the mean


def init(example: Any) -> Statistics:
    """Statistics of nothing yet; `example` has the shapes of one sample."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example)
    return Statistics(jnp.zeros((), jnp.float32), zeros, zeros)


def update(
    stats: Statistics,
    batch: Any,
    weight: jax.Array | None = None,
    axis_name: AxisName = None,
) -> Statistics:
    """Merge a batch, leading axis [N] (Chan et al. 1983: pairwise, stable).

    `weight` [N] of 0 or 1 leaves samples out.
    """
    if weight is None:
        weight = jnp.ones(jax.tree.leaves(batch)[0].shape[0], jnp.float32)

    def psum(x: jax.Array) -> jax.Array:
        return x if axis_name is None else jax.lax.psum(x, axis_name)

    new_count = psum(jnp.sum(weight))
    count = stats.count + new_count

    def merge(mean, square, x):
        column = weight.reshape(weight.shape + (1,) * (x.ndim - 1))
        # where, not a product alone: what is left out may be NaN.
        x = jnp.where(column > 0, x, 0.0)
        x_mean = psum(jnp.sum(x * column, axis=0)) / jnp.maximum(new_count, 1.0)
        x_square = psum(jnp.sum(jnp.square(x - x_mean[None]) * column, axis=0))
        delta = x_mean - mean
        share = new_count / jnp.maximum(count, 1.0)
        return (
            mean + delta * share,
            square + x_square + jnp.square(delta) * stats.count * share,
        )

    merged = jax.tree.map(merge, stats.mean, stats.square, batch)
    is_pair = lambda x: isinstance(x, tuple)  # noqa: E731
    return Statistics(
        count,
        jax.tree.map(lambda pair: pair[0], merged, is_leaf=is_pair),
        jax.tree.map(lambda pair: pair[1], merged, is_leaf=is_pair),
    )


def variance(stats: Statistics) -> Any:
    """Population variance; 1 before the first sample."""
    return jax.tree.map(
        lambda s: jnp.where(stats.count > 0, s / jnp.maximum(stats.count, 1.0), 1.0),
        stats.square,
    )


def apply(stats: Statistics | None, obs: Any) -> Any:
    """(obs - mean) / std, clipped; leading axes are free. None leaves obs alone."""
    if stats is None:
        return obs

    def one(x, mean, var):
        leading = (1,) * (x.ndim - mean.ndim)
        mean = mean.reshape(leading + mean.shape)
        std = jnp.sqrt(jnp.maximum(var, _VARIANCE_FLOOR)).reshape(mean.shape)
        return jnp.clip((x - mean) / std, -_CLIP, _CLIP)

    return jax.tree.map(one, obs, stats.mean, variance(stats))


def discounted_returns(
    before: jax.Array, reward: jax.Array, done: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Running discounted return of each environment, [T, N], and where it ends, [N].

    G_t = r_t + γ G_{t-1}, from 0 after an episode's end: the scale by which rewards
    are divided is the standard deviation of G.
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
