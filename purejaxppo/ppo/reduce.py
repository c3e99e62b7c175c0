"""Reductions over samples.

With `axis_name` they include the samples of all devices on that named axis. So the
same program trains on one device or on a mesh (`shard_map`), up to float rounding.
"""

import jax
import jax.numpy as jnp

from purejaxppo.trees import Tree

# The environments of a rollout and axis 1 of a batch are sharded over this axis.
AxisName = str | None


def psum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Sum over the named axis only; return `x` if there is none."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def total(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Sum over all elements, and over the named axis if there is one."""
    return psum(jnp.sum(x), axis_name)


def mean(
    x: jax.Array, where: jax.Array | None = None, axis_name: AxisName = None
) -> jax.Array:
    """Average all elements, or those that `where` selects.

    The result is NaN if no element is selected, so that the metrics of a head without a
    valid sample are not reported as 0.

    Args:
      x: any shape.
      where: bool, of the same shape; None selects all elements.
      axis_name: the named axis over whose devices to average.
    """
    if where is None:
        where = jnp.ones(x.shape, bool)
    count = total(where.astype(x.dtype), axis_name)
    return total(jnp.where(where, x, 0.0), axis_name) / count


def moments(
    x: jax.Array, where: jax.Array | None = None, axis_name: AxisName = None
) -> tuple[jax.Array, jax.Array]:
    """Compute mean and population standard deviation, in two passes for accuracy.

    Args:
      x, where, axis_name: see `mean`.
    """
    center = mean(x, where, axis_name)
    variance = mean(jnp.square(x - center), where, axis_name)
    return center, jnp.sqrt(variance)


def maximum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Return the largest element, also over the named axis."""
    value = jnp.max(x)
    return value if axis_name is None else jax.lax.pmax(value, axis_name)


def minimum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Return the smallest element, also over the named axis."""
    return -maximum(-x, axis_name)


def tree_mean(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Average a pytree over the named axis; return it unchanged if there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)
