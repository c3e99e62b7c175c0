"""Everything that reduces over samples goes through here.

With `axis_name`, the samples of all devices on that named axis count: the same
program trains on one device or on a mesh (`shard_map`), to float rounding.
"""

import jax
import jax.numpy as jnp

from purejaxppo.trees import Tree

# Axis 1 of a batch, and the environments of a rollout, are what a mesh shards.
AxisName = str | None


def psum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Sum over the named axis alone; itself without one."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def total(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Sum over all elements, and over the named axis if there is one."""
    return psum(jnp.sum(x), axis_name)


def mean(
    x: jax.Array, where: jax.Array | None = None, axis_name: AxisName = None
) -> jax.Array:
    """Mean over all elements, or over those that `where` names.

    NaN where it names none: a head without a valid sample has no mean, and must not
    report a flattering 0.

    Args:
      x: any shape.
      where: bool, of the same shape; None is all.
      axis_name: the named axis whose devices' elements count too.
    """
    if where is None:
        where = jnp.ones(x.shape, bool)
    count = total(where.astype(x.dtype), axis_name)
    return total(jnp.where(where, x, 0.0), axis_name) / count


def moments(
    x: jax.Array, where: jax.Array | None = None, axis_name: AxisName = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and (population) standard deviation, in two passes for accuracy.

    Args:
      x, where, axis_name: see `mean`.
    """
    center = mean(x, where, axis_name)
    variance = mean(jnp.square(x - center), where, axis_name)
    return center, jnp.sqrt(variance)


def maximum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Largest element, also over the named axis."""
    value = jnp.max(x)
    return value if axis_name is None else jax.lax.pmax(value, axis_name)


def minimum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Smallest element, also over the named axis."""
    return -maximum(-x, axis_name)


def tree_mean(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Average of a pytree (gradients) over the named axis; itself without one."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)
