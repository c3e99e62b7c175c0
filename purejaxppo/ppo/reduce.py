"""Reductions over samples.

With `axis_name` they include the samples of all devices on that named axis. So the
same program trains on one device or on a mesh (`shard_map`), up to float rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from purejaxppo.trees import Tree

# The environments of a rollout and axis 1 of a batch are sharded over this axis.
AxisName = str | None


class Mean(NamedTuple):
    """A mean that `tree_sum` can still reduce over devices; see `mean_parts`."""

    total: jax.Array
    count: jax.Array


def num_devices(axis_name: AxisName = None) -> int:
    """Return the number of devices on the named axis; 1 if there is none."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


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
    whole, count = mean_parts(x, where)
    if where is None:  # the other devices have as many elements
        return psum(whole, axis_name) / (count * num_devices(axis_name))
    return psum(whole, axis_name) / psum(count, axis_name)


def mean_parts(x: jax.Array, where: jax.Array | None = None) -> Mean:
    """Return the sum and the number of elements, of this device alone.

    Args:
      x, where: see `mean`.
    """
    if where is None:
        where = jnp.ones(x.shape, bool)
    return Mean(jnp.sum(jnp.where(where, x, 0.0)), jnp.sum(where.astype(x.dtype)))


def finished(tree: Tree) -> Tree:
    """Replace each `Mean` of a tree by its number, after the sum over devices."""

    def divide(x: Mean | jax.Array) -> jax.Array:
        return x.total / x.count if isinstance(x, Mean) else x

    return jax.tree.map(divide, tree, is_leaf=lambda x: isinstance(x, Mean))


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
    return pmax(jnp.max(x), axis_name)


def minimum(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Return the smallest element, also over the named axis."""
    return -maximum(-x, axis_name)


def pmax(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Return each element's largest value over the named axis only."""
    return x if axis_name is None else jax.lax.pmax(x, axis_name)


def tree_sum(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Sum a pytree of floats over the named axis, as one vector in one call.

    A call of its own for each leaf would cost its latency each time, unless the
    compiler combines them, which not every backend does.
    """
    return _as_one_vector(jax.lax.psum, tree, axis_name)


def tree_max(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Return each element's largest value over the named axis, as `tree_sum` does."""
    return _as_one_vector(jax.lax.pmax, tree, axis_name)


def _as_one_vector(
    function: Callable[[jax.Array, str], jax.Array], tree: Tree, axis_name: AxisName
) -> Tree:
    if axis_name is None:
        return tree
    vector, restore = ravel_pytree(tree)
    return restore(function(vector, axis_name))


def tree_mean(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Average a pytree over the named axis; return it unchanged if there is none."""
    if axis_name is None:
        return tree
    num = num_devices(axis_name)
    return jax.tree.map(lambda x: x / num, tree_sum(tree, axis_name))
