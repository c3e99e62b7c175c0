"""MuJoCo in NVIDIA Warp, called from inside the jitted program (MJX-Warp).

Warp keeps the contacts of all worlds in one buffer of fixed size. So all axes of `vmap`
(worlds, seeds) are merged into one batch, which one sequence of kernels steps. Warp
also runs on a CPU, which is slow and only meant for tests.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

import copy
import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import warp
from mujoco.mjx.third_party.mujoco_warp import OverflowType

from purejaxppo import trees
from purejaxppo.errors import ConfigError

from .mjx import mjx, permissive_numerics, with_state
from .types import Advance, Data, Solution

if TYPE_CHECKING:
    from mujoco.mjx import Data as MjxData
    from mujoco.mjx import Model as MjxModel

# By default Warp prints its version and the name of each kernel that it compiles.
warp.config.log_level = warp.LOG_WARNING

# Largest number of contacts of a pair of shapes; other pairs: _DEFAULT_CONTACTS.
_SHAPE = mujoco.mjtGeom
_CONTACTS = {
    frozenset((_SHAPE.mjGEOM_PLANE, _SHAPE.mjGEOM_SPHERE)): 1,
    frozenset((_SHAPE.mjGEOM_PLANE, _SHAPE.mjGEOM_CAPSULE)): 2,
    frozenset((_SHAPE.mjGEOM_PLANE, _SHAPE.mjGEOM_CYLINDER)): 4,
    frozenset((_SHAPE.mjGEOM_SPHERE,)): 1,
    frozenset((_SHAPE.mjGEOM_SPHERE, _SHAPE.mjGEOM_CAPSULE)): 1,
    frozenset((_SHAPE.mjGEOM_SPHERE, _SHAPE.mjGEOM_CYLINDER)): 1,
    frozenset((_SHAPE.mjGEOM_SPHERE, _SHAPE.mjGEOM_BOX)): 1,
    frozenset((_SHAPE.mjGEOM_CAPSULE,)): 2,
    frozenset((_SHAPE.mjGEOM_CAPSULE, _SHAPE.mjGEOM_BOX)): 2,
}
_DEFAULT_CONTACTS = 8

# A solver at its iteration limit is not a fault, because the scene sets a low limit.
_EXPECTED_OVERFLOW = int(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)


class Sizes(NamedTuple):
    """The largest part of Warp's buffers that one world can need."""

    contacts: int
    rows: int  # of the constraint Jacobian


def buffer_sizes(model: mujoco.MjModel) -> Sizes:
    """Compute buffer sizes for all contacts, limits and equalities of a world.

    Raises:
      ConfigError: the model does not list its contact pairs, so there is no bound.
    """
    if np.any(model.geom_contype) or np.any(model.geom_conaffinity):
        raise ConfigError(
            "model", "collisions by contype", "a list of <pair>s with the warp engine"
        )
    shapes = [_SHAPE(shape) for shape in model.geom_type]
    contacts = np.array(
        [
            _CONTACTS.get(frozenset((shapes[a], shapes[b])), _DEFAULT_CONTACTS)
            for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)
        ],
        int,
    )
    # A pyramidal cone has two constraint rows per tangential dimension.
    pyramidal = model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    dim = np.maximum(2 * (model.pair_dim - 1), 1) if pyramidal else model.pair_dim
    rows = 6 * model.neq + np.sum(contacts * dim)
    rows += 2 * np.sum(model.jnt_limited) + 2 * np.sum(model.tendon_limited)
    rows += np.sum(model.dof_frictionloss > 0) + np.sum(model.tendon_frictionloss > 0)
    return Sizes(max(int(contacts.sum()), 1), max(int(rows), 1))


def make_advance(model: mujoco.MjModel, graph_mode: int | None = None) -> Advance:
    """Build the Warp engine for a model, as a function of `Data` that can be jitted.

    Args:
      model: a compiled model that lists its contact pairs.
      graph_mode: how CUDA graphs are captured, a `warp.JaxCallableGraphMode`; None for
        Warp's default.

    Raises:
      ConfigError: the model uses a feature that MJX-Warp does not support.
    """
    sizes = buffer_sizes(model)
    physics = put_model(without_sensors(model), graph_mode)
    kinematics = put_model(without_forces(model), graph_mode)

    def advance(data: Data, n_substeps: int) -> Solution:
        simulate = functools.partial(_simulate, physics, kinematics, n_substeps)

        @jax.custom_batching.custom_vmap
        def worlds(data: Data) -> Solution:
            """Step a batch of worlds, [B, ...]."""
            blank = blank_world(model, sizes, len(data.qpos))
            with permissive_numerics():
                return jax.vmap(simulate, (0, None))(data, blank)

        @worlds.def_vmap
        def fold_batch(
            axis_size: int, in_batched: list[Data], data: Data
        ) -> tuple[Solution, Solution]:
            """Merge data [A, B, ...] into a batch of A * B worlds; A is `axis_size`."""
            data = jax.tree.map(
                lambda x, batched: (
                    x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                ),
                data,
                in_batched[0],
            )
            out = worlds(trees.merge_axes(data))
            out = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), out)
            return out, jax.tree.map(lambda _: True, out)

        return trees.take(worlds(trees.unsqueeze(data)), 0)

    return advance


def _simulate(
    physics: "MjxModel",
    kinematics: "MjxModel",
    n_substeps: int,
    data: Data,
    blank: "MjxData",
) -> Solution:
    """Step one world. The contact buffers in `blank` are shared by all worlds."""

    def substep(world: "MjxData", _: None) -> tuple["MjxData", None]:
        return mjx.step(physics, world), None

    world, _ = jax.lax.scan(substep, with_state(blank, data), length=n_substeps)
    # Warp and C compute sensors at the beginning of a substep, so those of the final
    # state are computed here.
    sensed = mjx.forward(kinematics, world)
    lost = (world._impl.overflow & ~_EXPECTED_OVERFLOW) != 0
    return Solution(
        # NaN, so that `select_stable` rejects a state for which contacts were lost.
        qpos=jnp.where(lost, jnp.nan, world.qpos),
        qvel=world.qvel,
        qacc_warmstart=world.qacc_warmstart,
        sensordata=sensed.sensordata,
    )


def blank_world(model: mujoco.MjModel, sizes: Sizes, num_worlds: int) -> "MjxData":
    """Return MJX-Warp's data of one world, with contact buffers for all worlds.

    Args:
      model: a compiled model.
      sizes: buffer sizes of one world.
      num_worlds: number of worlds that share the buffers.
    """
    with jax.ensure_compile_time_eval():
        blank = mjx.make_data(
            model,
            impl="warp",
            device=jax.devices()[0],
            naconmax=num_worlds * sizes.contacts,
            njmax=sizes.rows,
        )
        blank = jax.tree.map(np.asarray, blank)

    def fill(x: np.ndarray) -> jax.Array:
        # Created in the program, because large constants would be stored in it.
        same = x.size and np.all(x == x.flat[0])
        return jnp.full(x.shape, x.flat[0], x.dtype) if same else jnp.asarray(x)

    return jax.tree.map(fill, blank)


def without_sensors(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return the model without sensors, which are computed separately.

    Boxes collide by the algorithm of C MuJoCo, not by Warp's general algorithm.
    """
    physics = copy.copy(model)
    physics.opt.disableflags |= (
        mujoco.mjtDisableBit.mjDSBL_SENSOR | mujoco.mjtDisableBit.mjDSBL_NATIVECCD
    )
    return physics


def without_forces(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return the model without constraints and forces, for sensors of positions."""
    disable = mujoco.mjtDisableBit
    kinematics = copy.copy(model)
    kinematics.opt.disableflags |= (
        disable.mjDSBL_CONSTRAINT
        | disable.mjDSBL_ACTUATION
        | disable.mjDSBL_GRAVITY
        | disable.mjDSBL_SPRING
        | disable.mjDSBL_DAMPER
    )
    return kinematics


def put_model(model: mujoco.MjModel, graph_mode: int | None) -> "MjxModel":
    """Copy the model to JAX's first device.

    Raises:
      ConfigError: the model uses a feature that MJX-Warp does not support.
    """
    try:
        on_device = mjx.put_model(
            model, impl="warp", device=jax.devices()[0], graph_mode=graph_mode
        )
    except NotImplementedError as error:
        raise ConfigError(
            "engine", "warp", f"a model that MJX-Warp knows in full ({error})"
        ) from None
    # By default kernels print a message when the solver reaches its iteration limit.
    return on_device.tree_replace({"opt._impl.warn_overflow": 0})
