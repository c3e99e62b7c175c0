"""Which numbers of an environment can be learned from, and what replaces the others.

A single NaN would be one in every mean that it enters: in running statistics, in the
advantages of all samples, in every gradient.
"""

import jax
import jax.numpy as jnp

from purejaxppo.env import Obs

# Observations and rewards of a larger magnitude cannot be used. Their squares, summed
# over all samples, must be finite in float32.
MAX_MAGNITUDE = 1e8


def _is_number_usable(x: jax.Array) -> jax.Array:
    # One comparison for NaN, infinity and large numbers: NaN <= y is False.
    return jnp.abs(x) <= MAX_MAGNITUDE


def is_usable(tree: object) -> jax.Array:
    """Return whether all numbers of one environment's tree can be used, bool []."""
    leaves = [jnp.all(_is_number_usable(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def replace_unusable(obs: Obs) -> Obs:
    """Replace the numbers that cannot be used by 0, for a start has none before it."""
    return jax.tree.map(lambda x: jnp.where(_is_number_usable(x), x, 0.0), obs)
