"""Training over a mesh of devices: `jax.shard_map` around the functions of PPO.

Inside of it the code sees the environments of one device, and `Task.axis_name` names
the axis over which statistics and gradients are reduced. The partitioner of `jax.jit`
would not do: it cannot split the foreign call in which the C engine steps its worlds.

Every device holds whole groups of environments (see `shuffle`), so that its samples are
its share of each minibatch, and no observation moves between devices.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxppo.config import Config
from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.ppo import shuffle
from purejaxppo.ppo.types import Reference, Task, TrainState
from purejaxppo.trees import Tree

ENVS = "envs"  # the axis of a mesh over which environments are sharded

Function = TypeVar("Function", bound=Callable)


def num_groups(config: Config) -> int:
    """Return the number of groups of environments, which devices have whole.

    A number of devices is allowed if it divides this one.
    """
    sequences = config.num_steps // config.window
    size = shuffle.group_size(config.num_envs, sequences, config.num_minibatches)
    return config.num_envs // size


def allowed_devices(config: Config, most: int | None = None) -> list[int]:
    """Return the numbers of devices, up to `most`, that can share the environments."""
    groups = num_groups(config)
    most = groups if most is None else most
    return [n for n in range(1, min(groups, most) + 1) if groups % n == 0]


def allowed_text(config: Config) -> str:
    """Say which numbers of devices can share the environments, and why."""
    groups = num_groups(config)
    *others, last = map(str, allowed_devices(config))
    numbers = f"{', '.join(others)} or {last}" if others else last
    return (
        f"{numbers}, the divisors of {groups} groups: {config.num_envs // groups} of "
        f"num_envs {config.num_envs} are a group, as that is the fewest which all of "
        f"num_minibatches {config.num_minibatches} have equally many samples of"
    )


def only_one(spec: EnvSpec) -> str:
    """Say why some environments have one device."""
    return f"1, because the environments of {spec.name} live on the host"


def make_mesh(num_devices: int, axis: str = ENVS) -> Mesh:
    """Make a mesh of the first devices, with one axis."""
    return Mesh(jax.devices()[:num_devices], (axis,))


def state_specs(config: Config) -> TrainState:
    """Return which parts of the state are sharded over environments, the others not.

    The shapes of the state do not depend on it, nor does a checkpoint.
    """
    same: Any = PartitionSpec()
    sharded: Any = PartitionSpec(ENVS)
    reference = Reference(params=same, obs_stats=same, carry=sharded)
    return TrainState(
        params=same,
        opt_state=same,
        obs_stats=same,
        return_stats=same,
        discounted_return=sharded,
        episodes=sharded,
        carry=sharded,
        reference=reference if config.anchor else None,
        adaptive=same,
        key=same,
        update_count=same,
        still_updates=same,
    )


def shardings(mesh: Mesh, specs: object, tree: Tree) -> Tree:
    """Return the sharding of every leaf of a tree.

    Args:
      mesh: the devices.
      specs: a `PartitionSpec` for the tree, or a tree of them for parts of it.
      tree: a tree of arrays or shapes.
    """

    def of_part(spec: PartitionSpec, part: object) -> object:
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), part)

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree.map(of_part, specs, tree, is_leaf=is_spec)


def shard(
    task: Task, mesh: Mesh, function: Function, in_specs: object, out_specs: object
) -> Function:
    """Shard a function over the environments of a mesh.

    Args:
      task: the environment, and the configuration of its minibatches.
      mesh: devices with an axis "envs".
      function: a function of one device's part of its arguments.
      in_specs: for each argument what `state_specs` has for a state; or one
        `PartitionSpec` for all of them.
      out_specs: the same for the results.

    Raises:
      ConfigError: the mesh does not fit the environment or the configuration.
    """
    config, spec = task.config, task.env.spec
    if ENVS not in mesh.axis_names:
        allowed = f'a mesh with an axis "{ENVS}"'
        raise ConfigError("mesh", mesh.axis_names, allowed)
    num = mesh.shape[ENVS]
    if num_groups(config) % num:
        raise ConfigError("mesh", num, allowed_text(config))
    if num > 1 and not spec.can_resume:
        raise ConfigError("mesh", num, only_one(spec))
    # What differs between devices is not declared to JAX, which would have to be told
    # at each carry of a scan; so gradients are summed by hand (`minibatch`).
    return jax.shard_map(
        function,
        # An axis of the kind "explicit" would ask for annotations in foreign code.
        mesh=Mesh(mesh.devices, mesh.axis_names),
        in_specs=in_specs,
        out_specs=out_specs,
        check_vma=False,
    )
