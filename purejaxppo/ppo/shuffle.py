"""The random order in which the sequences of a batch go into minibatches.

Every minibatch has equally many sequences of each group of environments, and a group is
as small as that allows: one environment where its sequences divide among the
minibatches. So a device that holds whole groups holds its share of every minibatch: no
sample moves between devices, and the order is the same on any number of them.
"""

import jax
import jax.numpy as jnp

from purejaxppo.ppo import shards
from purejaxppo.ppo.reduce import AxisName

_BITS = 32
# With at least this many random bits per sequence the order is random enough: equal
# random bits matter only for sequences at the border of two minibatches.
_MIN_RANDOM_BITS = 12


def group_size(num_envs: int, sequences_per_env: int, num_minibatches: int) -> int:
    """Return the fewest environments whose sequences divide among the minibatches.

    Args:
      num_envs: environments of the batch, N.
      sequences_per_env: sequences of each environment in a rollout.
      num_minibatches: divides `num_envs * sequences_per_env`.
    """
    return next(
        size
        for size in range(1, num_envs + 1)
        if num_envs % size == 0 and size * sequences_per_env % num_minibatches == 0
    )


def minibatches(
    key: jax.Array,
    num_envs: int,
    sequences_per_env: int,
    num_minibatches: int,
    axis_name: AxisName = None,
) -> jax.Array:
    """Deal the sequences of a batch to the minibatches, each to one.

    Args:
      key: the random key of the order.
      num_envs, sequences_per_env, num_minibatches: see `group_size`; of all devices.
      axis_name: the named axis over which environments are sharded, if any; each
        device has whole groups.

    Returns:
      indices into this device's axis of sequences, on which the sequence k of its
      environment n is at k * (number of its environments) + n, int32
      [num_minibatches, sequences].
    """
    size = group_size(num_envs, sequences_per_env, num_minibatches)
    order = permutations(key, num_envs // size, size * sequences_per_env, axis_name)
    num_groups = order.shape[0]
    group = jnp.arange(num_groups, dtype=jnp.int32)[:, None]
    index = order // size * (num_groups * size) + group * size + order % size
    index = index.reshape(num_groups, num_minibatches, -1)
    return jnp.swapaxes(index, 0, 1).reshape(num_minibatches, -1)


def permutations(
    key: jax.Array, rows: int, num: int, axis_name: AxisName = None
) -> jax.Array:
    """Return the integers from 0 to `num` - 1 in random order, int32 [rows, num].

    With `axis_name` only the rows of this device are returned, and sorted.

    It sorts 32-bit words whose high bits are random and whose low bits are the integer.
    On a CPU this is 7 times as fast as `jax.random.permutation`, which sorts pairs
    twice and takes longer than the networks of a small environment. Integers with equal
    random bits stay in ascending order, so a permutation is not exactly uniform.
    """
    num_bits = max(num - 1, 1).bit_length()
    index = jnp.broadcast_to(jnp.arange(num, dtype=jnp.uint32), (rows, num))
    if _BITS - num_bits < _MIN_RANDOM_BITS:
        order = jax.random.permutation(key, index, axis=1, independent=True)
        return shards.own_rows(order.astype(jnp.int32), axis_name)
    bits = jax.random.bits(key, (rows, num), jnp.uint32)
    words = (bits >> num_bits << num_bits) | index
    words = shards.own_rows(words, axis_name)
    order = jax.lax.sort(words, is_stable=False) & jnp.uint32((1 << num_bits) - 1)
    return order.astype(jnp.int32)
