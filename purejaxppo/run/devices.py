"""The devices of a run, and what is sharded over them: its seeds or its environments.

Seeds need no word from one another, so they are sharded where their number allows it.
The mesh of a run has one axis, whose name says which of both it is; a run on one device
has none.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxppo.config import Config
from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.ppo import mesh as mesh_lib
from purejaxppo.ppo.types import TrainState
from purejaxppo.run.options import Options
from purejaxppo.trees import Tree

SEEDS = "seeds"  # the axis of a mesh over which seeds are sharded


def choose(config: Config, spec: EnvSpec, options: Options) -> Mesh | None:
    """Choose the devices of a run, and what is sharded over them.

    Args:
      config: the configuration, which has been validated.
      spec: of the environment.
      options: the number of devices, 0 for as many as can be used; and of seeds.

    Returns:
      a mesh with the axis "seeds" or "envs"; None for one device.

    Raises:
      ConfigError: a number of devices that cannot be used.
    """
    asked, available = options.num_devices, jax.device_count()
    if asked > available:
        allowed = f"at most {available}, the number of devices that JAX finds here"
        raise ConfigError("num_devices", asked, allowed)
    if not spec.can_resume:  # the host has their state, which no device shares
        if asked > 1:
            raise ConfigError("num_devices", asked, mesh_lib.only_one(spec))
        return None
    num_seeds = options.num_seeds
    by_seeds = [n for n in range(1, available + 1) if num_seeds % n == 0]
    by_envs = mesh_lib.allowed_devices(config, available)
    num = asked or max(*by_seeds, *by_envs)
    if num == 1:
        return None
    if num in by_seeds:
        return mesh_lib.make_mesh(num, SEEDS)
    if num not in by_envs:
        allowed = mesh_lib.allowed_text(config)
        if num_seeds > 1:
            allowed = f"a divisor of num_seeds {num_seeds}, or {allowed}"
        raise ConfigError("num_devices", num, allowed)
    return mesh_lib.make_mesh(num)


def having(axis: str, mesh: Mesh | None) -> Mesh | None:
    """Return the mesh if it has that axis, else None."""
    return mesh if mesh is not None and axis in mesh.axis_names else None


def count(mesh: Mesh | None) -> int:
    """Return the number of devices of a run."""
    return 1 if mesh is None else mesh.size


def sentences(
    mesh: Mesh | None, options: Options, saved: int | None = None
) -> list[str]:
    """Say what is to be known about the devices of a run, if anything.

    Args:
      mesh: of the run.
      options: the number of devices that was asked for.
      saved: the number of devices at the checkpoint; None for a new run.
    """
    num, available, found = count(mesh), jax.device_count(), []
    unused = num < available and not options.num_devices
    if mesh is not None or unused:
        what = "seeds" if having(SEEDS, mesh) else "environments"
        of = f" of {available}, for no more can share them evenly" if unused else ""
        found.append(f"devices of the {what}: {num}{of}")
    if saved not in (None, num):
        found.append(
            f"saved on {saved} and resumed on {num} devices: from here on the numbers "
            "are those of an uninterrupted run up to float rounding, not to the bit"
        )
    return found


def per_seed(mesh: Mesh | None, tree: Tree) -> Tree:
    """Return shapes of leaves [S, ...], with their sharding if seeds are sharded."""
    spec = PartitionSpec(SEEDS) if having(SEEDS, mesh) else PartitionSpec()
    return tree if mesh is None else with_shardings(mesh, spec, tree)


def state_shapes(
    mesh: Mesh | None, config: Config, num_seeds: int, state: TrainState
) -> TrainState:
    """Return the shapes of a run's state, with their shardings over its mesh.

    Args:
      mesh: of the run.
      config: its configuration.
      num_seeds: S; with several, leaves are [S, ...].
      state: the state, or its shapes.
    """
    if mesh is None or having(SEEDS, mesh):
        return per_seed(mesh, state)
    specs = mesh_lib.state_specs(config)
    if num_seeds > 1:  # behind the axis of seeds
        specs = jax.tree.map(
            lambda spec: PartitionSpec(None, *spec),
            specs,
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )
    return with_shardings(mesh, specs, state)


def with_shardings(mesh: Mesh, specs: object, tree: Tree) -> Tree:
    """Return the shapes of a tree with their shardings.

    Args:
      mesh, specs, tree: see `mesh.shardings`.
    """

    def shape(x: jax.Array, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(shape, tree, mesh_lib.shardings(mesh, specs, tree))


def placed(tree: Tree, shapes: Tree) -> Tree:
    """Move arrays to the devices that their shapes name; to none if they name none."""
    return _where_named(jax.device_put, tree, shapes)


def constrained(tree: Tree, shapes: Tree) -> Tree:
    """Have the results of a program placed as `placed` places them."""
    return _where_named(jax.lax.with_sharding_constraint, tree, shapes)


def _where_named(
    place: Callable[[jax.Array, NamedSharding], jax.Array], tree: Tree, shapes: Tree
) -> Tree:
    def one(x: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        sharding = getattr(shape, "sharding", None)
        return place(x, sharding) if isinstance(sharding, NamedSharding) else x

    return jax.tree.map(one, tree, shapes)
