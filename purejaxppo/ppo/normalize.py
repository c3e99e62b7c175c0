"""Running statistics of observations and returns: init, update, apply.

Observation statistics are frozen during a rollout and the update from it. If they
changed in between, the two log-probs of the ratio would have different inputs, and the
ratio would not be 1 before the first step.
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
# Smallest variance to divide by, in squared units of the observation, so that an entry
# that is nearly constant (std below 0.01) is not scaled up.
_VARIANCE_FLOOR = 1e-4


class Statistics(struct.PyTreeNode):
    """Count, mean and sum of squared deviations, per element of a pytree."""

    count: jax.Array  # float32 []
    mean: chex.ArrayTree
    square: chex.ArrayTree  # sum of squared deviations from the mean


def init(example: chex.ArrayTree) -> Statistics:
    """Return empty statistics for samples with the shapes of `example`."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example)
    return Statistics(jnp.zeros((), jnp.float32), zeros, zeros)


def update(
    stats: Statistics,
    batch: chex.ArrayTree,
    weight: jax.Array | None = None,
    axis_name: AxisName = None,
) -> Statistics:
    """Merge a batch into the statistics by the stable formula of Chan et al. 1983.

    Args:
      stats: statistics of the earlier samples.
      batch: leaves [N, ...].
      weight: float32 [N], 1 to count a sample and 0 to ignore it; None counts all.
      axis_name: the named axis over whose devices the samples are merged.
    """
    if weight is None:
        weight = jnp.ones(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
    num = reduce.psum(jnp.sum(weight), axis_name)
    count = stats.count + num
    share = num / jnp.maximum(count, 1.0)

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean of the batch, and the sum of squared deviations from it."""
        column = trees.expand_to(weight, x.ndim)
        # A selection, not only a product: ignored samples may be NaN.
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
    """Return the population variance of each element; 1 before the first sample."""
    return jax.tree.map(
        lambda s: jnp.where(stats.count > 0, s / jnp.maximum(stats.count, 1.0), 1.0),
        stats.square,
    )


def apply(stats: Statistics | None, obs: Obs) -> Obs:
    """Compute (obs - mean) / std, clipped, for any leading axes of `obs`.

    If `stats` is None, `obs` is returned unchanged.
    """
    if stats is None:
        return obs

    def normalize_leaf(x, mean, var):
        leading = (1,) * (x.ndim - mean.ndim)
        mean = mean.reshape(leading + mean.shape)
        std = jnp.sqrt(jnp.maximum(var, _VARIANCE_FLOOR)).reshape(mean.shape)
        return jnp.clip((x - mean) / std, -_CLIP, _CLIP)

    return jax.tree.map(normalize_leaf, obs, stats.mean, variance(stats))


def discounted_returns(
    initial: jax.Array, reward: jax.Array, done: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Compute the running discounted return G of each environment.

    G_t = r_t + γ G_{t-1}, which restarts from 0 after an episode's end. Rewards are
    divided by the standard deviation of G.

    Args:
      initial: float32 [N], G at the end of the last rollout.
      reward: float32 [T, N].
      done: bool [T, N], the episode ended at that step.
      gamma: the discount.

    Returns:
      G at each step, [T, N], and G from which the next rollout starts, [N].
    """

    def step(total, xs):
        reward, done = xs
        total = reward + gamma * total
        return jnp.where(done, 0.0, total), total

    last, totals = jax.lax.scan(step, initial, (reward, done))
    return totals, last


def standardized(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Shift and scale `x` to mean 0 and standard deviation 1 over all elements."""
    mean, std = reduce.moments(x, axis_name=axis_name)
    return (x - mean) / (std + 1e-8)
