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
MAX_NORMALIZED = 10.0
# Smallest variance to divide by, in squared units of the observation, so that an entry
# that is nearly constant (std below 0.01) is not scaled up.
_VARIANCE_FLOOR = 1e-4


class Statistics(struct.PyTreeNode):
    """Count, mean and population variance, per element of a pytree.

    The count has two words, because a float32 count cannot grow by 1 above 2^24.
    Variances are stored instead of sums of squares: a sum that is too large to grow
    while the count does would be a variance that shrinks.
    """

    count: jax.Array  # uint32 [2], low and high word
    mean: chex.ArrayTree
    variance: chex.ArrayTree  # 0 before the first sample


def init(example: chex.ArrayTree) -> Statistics:
    """Return empty statistics for samples with the shapes of `example`."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example)
    return Statistics(count_of(0), zeros, zeros)


def count_of(number: int) -> jax.Array:
    """Return a count as its two words."""
    return jnp.asarray([number % 2**32, number // 2**32], jnp.uint32)


def num_samples(stats: Statistics) -> int:
    """Return the number of samples as a Python integer; for one seed."""
    low, high = stats.count
    return int(low) + int(high) * 2**32


def _add_counts(a: jax.Array, b: jax.Array) -> jax.Array:
    low = a[0] + b[0]
    carry = (low < a[0]).astype(jnp.uint32)  # the sum wrapped around
    return jnp.stack([low, a[1] + b[1] + carry])


def _as_float(count: jax.Array) -> jax.Array:
    low, high = count.astype(jnp.float32)
    return low + high * 2.0**32


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Return the statistics of the samples of both (Chan et al. 1983).

    Mean and variance change by increments: one that is too small for float32 leaves
    them as they are.
    """
    count = _add_counts(a.count, b.count)
    total = jnp.maximum(_as_float(count), 1.0)
    share_a, share_b = _as_float(a.count) / total, _as_float(b.count) / total
    delta = jax.tree.map(jnp.subtract, b.mean, a.mean)
    return Statistics(
        count,
        jax.tree.map(lambda mean, d: mean + d * share_b, a.mean, delta),
        jax.tree.map(
            lambda old, new, d: old + (new - old + jnp.square(d) * share_a) * share_b,
            a.variance,
            b.variance,
            delta,
        ),
    )


def update(
    stats: Statistics,
    batch: chex.ArrayTree,
    weight: jax.Array | None = None,
    axis_name: AxisName = None,
) -> Statistics:
    """Merge a batch into the statistics.

    Args:
      stats: statistics of the earlier samples.
      batch: leaves [N, ...].
      weight: float32 [N], 1 to count a sample and 0 to ignore it; None counts all.
      axis_name: the named axis over whose devices the samples are merged.
    """
    return merge(stats, over_devices(_of_batch(batch, weight), axis_name))


def over_devices(stats: Statistics, axis_name: AxisName) -> Statistics:
    """Return the statistics of the samples of all devices.

    Args:
      stats: the statistics of this device's samples.
      axis_name: the named axis over whose devices to merge; None for one device.
    """
    if axis_name is None:
        return stats
    gathered = jax.lax.all_gather(stats, axis_name)
    first, rest = trees.take(gathered, 0), trees.take(gathered, slice(1, None))
    return jax.lax.scan(lambda a, b: (merge(a, b), None), first, rest)[0]


def _of_batch(batch: chex.ArrayTree, weight: jax.Array | None) -> Statistics:
    """Return the statistics of a batch alone; see `update`."""
    if weight is None:
        weight = jnp.ones(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
    num = jnp.sum((weight > 0.0).astype(jnp.uint32), dtype=jnp.uint32)
    divisor = jnp.maximum(num.astype(jnp.float32), 1.0)

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the variance of the batch."""
        column = trees.expand_to(weight, x.ndim)
        # A selection, not only a product: ignored samples may be NaN.
        x = jnp.where(column > 0, x, 0.0)
        mean = jnp.sum(x * column, axis=0) / divisor
        deviations = jnp.square(x - mean[None]) * column
        return mean, jnp.sum(deviations, axis=0) / divisor

    leaves, structure = jax.tree.flatten(batch)
    means, variances = zip(*map(moments, leaves), strict=True)
    count = jnp.stack([num, jnp.zeros_like(num)])
    means, variances = structure.unflatten(means), structure.unflatten(variances)
    return Statistics(count, means, variances)


def variance(stats: Statistics) -> chex.ArrayTree:
    """Return the population variance of each element; 1 before the first sample."""
    has_samples = jnp.any(stats.count > 0)
    return jax.tree.map(lambda x: jnp.where(has_samples, x, 1.0), stats.variance)


def std(stats: Statistics) -> chex.ArrayTree:
    """Return the number that each element of an observation is divided by."""
    floored = lambda x: jnp.sqrt(jnp.maximum(x, _VARIANCE_FLOOR))  # noqa: E731
    return jax.tree.map(floored, variance(stats))


def apply(stats: Statistics | None, obs: Obs) -> Obs:
    """Compute (obs - mean) / std, clipped, for any leading axes of `obs`.

    If `stats` is None, `obs` is returned unchanged.
    """
    if stats is None:
        return obs

    def normalize_leaf(x, mean, std):
        leading = (1,) * (x.ndim - mean.ndim)
        mean, std = mean.reshape(leading + mean.shape), std.reshape(leading + std.shape)
        return jnp.clip((x - mean) / std, -MAX_NORMALIZED, MAX_NORMALIZED)

    return jax.tree.map(normalize_leaf, obs, stats.mean, std(stats))


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


def return_std(stats: Statistics | None) -> jax.Array:
    """Return the number that rewards are divided by, float32 []; 1 without scaling."""
    if stats is None:
        return jnp.ones((), jnp.float32)
    return jnp.sqrt(jnp.maximum(jnp.asarray(variance(stats)), 1e-8))


def standardized(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Shift and scale `x` to mean 0 and standard deviation 1 over all elements."""
    mean, std = reduce.moments(x, axis_name=axis_name)
    return (x - mean) / (std + 1e-8)
