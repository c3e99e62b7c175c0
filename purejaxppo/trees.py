"""Operations on all leaves of a pytree: select, index, add, merge and swap axes.

The leaves are arrays of any dtype, including typed random keys.
"""

from typing import TypeVar

import chex
import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def expand_to(x: jax.Array, ndim: int) -> jax.Array:
    """Append axes of size 1 to `x`, so that it has `ndim` axes."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def where(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """Select the elements of `new` where the condition holds, else those of `old`.

    Args:
      condition: bool [...]; its axes are the leading axes of every leaf.
      new: a tree.
      old: a tree of the same structure, shapes and dtypes.
    """

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        if jnp.issubdtype(jnp.asarray(a).dtype, jax.dtypes.prng_key):
            data = select(jax.random.key_data(a), jax.random.key_data(b))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.where(expand_to(condition, jnp.ndim(a)), a, b)

    return jax.tree.map(select, new, old)


def take(tree: Tree, index: int | slice | jax.Array, axis: int = 0) -> Tree:
    """Index every leaf along one axis.

    Args:
      tree: a tree of arrays.
      index: an integer, a slice or an array of integers.
      axis: 0 or 1.
    """
    chex.assert_scalar_in(axis, 0, 1)
    return jax.tree.map(lambda x: x[index] if axis == 0 else x[:, index], tree)


def unsqueeze(tree: Tree) -> Tree:
    """Prepend an axis of size 1 to every leaf."""
    return jax.tree.map(lambda x: x[None], tree)


def merge_axes(tree: Tree) -> Tree:
    """Reshape leaves [A, B, ...] to [A * B, ...]."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)


def swap_axes(tree: Tree) -> Tree:
    """Transpose leaves [A, B, ...] to [B, A, ...]."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
