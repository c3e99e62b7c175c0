"""The share of one device in the environments, which are sharded over a named axis.

Random numbers go by the global number of an environment: a device draws those of all
environments and takes its own rows, so a run does not depend on the number of devices.
A compiler that fuses the draw with the slice computes these rows alone.
"""

import jax

from purejaxppo.ppo.reduce import AxisName, num_devices
from purejaxppo.trees import Tree


def num_local(num: int, axis_name: AxisName = None) -> int:
    """Return how many of `num` environments this device has: all, without an axis."""
    return num // num_devices(axis_name)


def first_row(num: int, axis_name: AxisName = None) -> jax.Array | int:
    """Return the global number of the first of `num` environments of this device."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * num


def own_rows(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Take this device's rows of arrays that have a row for every environment.

    Args:
      tree: leaves [N, ...], the same on all devices.
      axis_name: the named axis over which environments are sharded; None for one
        device, whose rows are all.
    """
    if axis_name is None:
        return tree

    def rows(x: jax.Array) -> jax.Array:
        num = num_local(x.shape[0], axis_name)
        return jax.lax.dynamic_slice_in_dim(x, first_row(num, axis_name), num)

    return jax.tree.map(rows, tree)


def all_rows(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Gather the rows of all devices, in the order of their global numbers.

    Args:
      tree: leaves [N / D, ...] of this device.
      axis_name: see `own_rows`.
    """
    if axis_name is None:
        return tree
    return jax.lax.all_gather(tree, axis_name, tiled=True)
