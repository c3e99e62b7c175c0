"""Operations on whole pytrees of arrays: select, index, add, merge and swap axes.

A tree is any nesting that JAX knows, with arrays of any type as leaves, typed random
keys included.
"""

from typing import TypeVar

import chex
import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def expand_to(x: jax.Array, ndim: int) -> jax.Array:
    """`x` with axes of size 1 behind its own, `ndim` in all."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def where(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """The leaves of `new` where the condition holds, elsewhere those of `old`.

    A selection and no product: 0 * NaN is NaN.

    Args:
      condition: bool [...], its axes are the leading ones of every leaf.
      new: a tree.
      old: a tree of the same structure, shapes and types.
    """

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        if jnp.issubdtype(jnp.asarray(a).dtype, jax.dtypes.prng_key):
            data = select(jax.random.key_data(a), jax.random.key_data(b))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.where(expand_to(condition, jnp.ndim(a)), a, b)

    return jax.tree.map(select, new, old)


def take(tree: Tree, index: int | slice | jax.Array, axis: int = 0) -> Tree:
    """Every leaf at that index of one of its axes, 0 or 1."""
    chex.assert_scalar_in(axis, 0, 1)
    return jax.tree.map(lambda x: x[index] if axis == 0 else x[:, index], tree)


def unsqueeze(tree: Tree) -> Tree:
    """Every leaf with an axis of size 1 before its own."""
    return jax.tree.map(lambda x: x[None], tree)


def merge_axes(tree: Tree) -> Tree:
    """Leaves [A, B, ...] as [A * B, ...]."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)


def swap_axes(tree: Tree) -> Tree:
    """Leaves [A, B, ...] as [B, A, ...]."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
