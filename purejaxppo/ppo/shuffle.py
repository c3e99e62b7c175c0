"""Random permutations that split a batch into minibatches."""

import jax
import jax.numpy as jnp

_BITS = 32
# With at least this many random bits per sample the permutation is random enough:
# equal random bits matter only for samples at the border of two minibatches.
_MIN_RANDOM_BITS = 12


def permutation(key: jax.Array, num: int) -> jax.Array:
    """Return the integers from 0 to `num` - 1 in random order, int32 [num].

    It sorts 32-bit words whose high bits are random and whose low bits are the integer.
    On a CPU this is 7 times as fast as `jax.random.permutation`, which sorts pairs
    twice and takes longer than the networks of a small environment. Integers with equal
    random bits stay in ascending order, so the permutation is not exactly uniform.
    """
    num_bits = max(num - 1, 1).bit_length()
    if _BITS - num_bits < _MIN_RANDOM_BITS:
        return jax.random.permutation(key, num)
    bits = jax.random.bits(key, (num,), jnp.uint32)
    index = jnp.arange(num, dtype=jnp.uint32)
    words = (bits >> num_bits << num_bits) | index
    order = jax.lax.sort(words, is_stable=False) & jnp.uint32((1 << num_bits) - 1)
    return order.astype(jnp.int32)
