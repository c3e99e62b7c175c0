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
    """Count, mean and population variance, per entry of a pytree.

    A float32 count stops at 2^24, and from there on each batch would weigh as much as
    all samples before it should make it weigh less.
    """

    count: jax.Array  # uint32 [2], the low and the high word of a 64-bit number
    mean: chex.ArrayTree
    variance: chex.ArrayTree  # 0 before the first sample


def init(example: chex.ArrayTree) -> Statistics:
    """Statistics of nothing yet; `example` has the shapes of one sample."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example)
    return Statistics(count_of(0), zeros, zeros)


def count_of(number: int) -> jax.Array:
    """The two words of a count."""
    return jnp.asarray([number % 2**32, number // 2**32], jnp.uint32)


def num_samples(stats: Statistics) -> int:
    """How many samples there were; on the host, of one seed."""
    low, high = stats.count
    return int(low) + int(high) * 2**32


def _add_counts(a: jax.Array, b: jax.Array) -> jax.Array:
    low = a[0] + b[0]
    carry = (low < a[0]).astype(jnp.uint32)  # unsigned: what does not fit wraps around
    return jnp.stack([low, a[1] + b[1] + carry])


def _as_float(count: jax.Array) -> jax.Array:
    low, high = count.astype(jnp.float32)
    return low + high * 2.0**32


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of the samples of both (Chan et al. 1983: pairwise, stable).

    The changes are added, so that what is too small for float32 changes nothing.
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
    """Merge a batch.

    Args:
      stats: of the samples before.
      batch: leaves [N, ...].
      weight: float32 [N], 0 leaves a sample out and 1 counts it; None counts all.
      axis_name: the named axis whose devices' samples count too.
    """
    if weight is None:
        weight = jnp.ones(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
    counted = jnp.sum((weight > 0.0).astype(jnp.uint32), dtype=jnp.uint32)
    num = reduce.psum(counted, axis_name)
    divisor = jnp.maximum(num.astype(jnp.float32), 1.0)

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the batch."""
        column = trees.expand_to(weight, x.ndim)
        # where, not a product alone: what is left out may be NaN.
        x = jnp.where(column > 0, x, 0.0)
        total = reduce.psum(jnp.sum(x * column, axis=0), axis_name)
        mean = total / divisor
        deviations = jnp.square(x - mean[None]) * column
        return mean, reduce.psum(jnp.sum(deviations, axis=0), axis_name) / divisor

    leaves, structure = jax.tree.flatten(batch)
    means, variances = zip(*map(moments, leaves), strict=True)
    count = jnp.stack([num, jnp.zeros_like(num)])
    new = Statistics(count, structure.unflatten(means), structure.unflatten(variances))
    return merge(stats, new)


def variance(stats: Statistics) -> chex.ArrayTree:
    """Population variance of each entry; 1 before the first sample."""
    has_samples = jnp.any(stats.count > 0)
    return jax.tree.map(lambda x: jnp.where(has_samples, x, 1.0), stats.variance)


def apply(stats: Statistics | None, obs: Obs) -> Obs:
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
