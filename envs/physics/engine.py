"""What a physics engine is: one kind of data, `init` and `step`, whoever computes.

An environment sees joint positions, velocities and named sensors, never an engine's
internals; so the same environment, checkpoint and policy run on every engine.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from purejaxppo.errors import ConfigError, UnknownName

ENGINES = ("mujoco", "mjx", "warp")

# A state past these is an explosion, whatever the scene: metres or radians, and
# those per second. MuJoCo's own limit is 1e10, which float32 observations, squares
# and sums do not survive.
MAX_QPOS = 1e3
MAX_QVEL = 1e4


class Data(struct.PyTreeNode):
    """The state of one simulated world, under MuJoCo's names. All float32 but one.

    Attributes:
      qpos: [nq], qvel: [nv], time: [] in seconds.
      mocap_pos: [nmocap, 3], mocap_quat: [nmocap, 4], ctrl: [nu], as last applied.
      qacc_warmstart: [nv], where MJX starts its solver, zero on C. Part of the state:
        without it a resumed run would differ in the last bits.
      sensordata: [nsensordata], of this very state.
      unstable: bool [], the last step blew up and this is the state before it.
    """

    qpos: jax.Array
    qvel: jax.Array
    time: jax.Array
    mocap_pos: jax.Array
    mocap_quat: jax.Array
    ctrl: jax.Array
    qacc_warmstart: jax.Array
    sensordata: jax.Array
    unstable: jax.Array


class Solution(NamedTuple):
    """What an engine computes in a step: the parts of `Data` that physics changes."""

    qpos: jax.Array
    qvel: jax.Array
    qacc_warmstart: jax.Array
    sensordata: jax.Array


# (data with the new control, number of substeps) -> solution. No substeps: sensors
# of the state as it is.
Advance = Callable[[Data, int], Solution]


class Engine(NamedTuple):
    """A bound engine. `init` and `step` are for ONE world; `vmap` adds the others."""

    name: str
    model: mujoco.MjModel
    init: Callable[..., Data]
    step: Callable[..., Data]


def sensor_slices(model: mujoco.MjModel) -> dict[str, slice]:
    """Sensor name -> where its numbers are in `sensordata`."""
    starts, sizes = model.sensor_adr, model.sensor_dim
    return {
        model.sensor(i).name: slice(int(start), int(start + size))
        for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
    }


def init(
    model: mujoco.MjModel,
    advance: Advance,
    qpos: jax.Array,
    qvel: jax.Array | None = None,
    mocap_pos: jax.Array | None = None,
    mocap_quat: jax.Array | None = None,
    sensordata: jax.Array | None = None,
) -> Data:
    """A world in the given state; what is left out is zero, or the model's own.

    Sensors that are not given are computed, at the price of a call of the engine.
    """

    def array(value, default, shape):
        value = jnp.asarray(default if value is None else value, jnp.float32)
        chex.assert_shape(value, shape)
        return value

    mocap = np.flatnonzero(model.body_mocapid >= 0)
    mocap = mocap[np.argsort(model.body_mocapid[mocap])]
    data = Data(
        qpos=array(qpos, None, (model.nq,)),
        qvel=array(qvel, np.zeros(model.nv), (model.nv,)),
        time=jnp.zeros((), jnp.float32),
        mocap_pos=array(mocap_pos, model.body_pos[mocap], (model.nmocap, 3)),
        mocap_quat=array(mocap_quat, model.body_quat[mocap], (model.nmocap, 4)),
        ctrl=jnp.zeros(model.nu, jnp.float32),
        qacc_warmstart=jnp.zeros(model.nv, jnp.float32),
        sensordata=array(sensordata, np.zeros(model.nsensordata), (model.nsensordata,)),
        unstable=jnp.zeros((), bool),
    )
    if sensordata is None:
        data = data.replace(sensordata=advance(data, 0).sensordata)
    return data


def step(
    model: mujoco.MjModel,
    advance: Advance,
    data: Data,
    ctrl: jax.Array,
    mocap_pos: jax.Array,
    n_substeps: int,
) -> Data:
    """Applies a control for `n_substeps`, or stays where it is if that blows up."""
    chex.assert_shape([ctrl, mocap_pos], [(model.nu,), (model.nmocap, 3)])
    moved = data.replace(ctrl=ctrl, mocap_pos=mocap_pos)
    solution = advance(moved, n_substeps)
    moved = moved.replace(
        **solution._asdict(),
        time=data.time + jnp.float32(n_substeps * model.opt.timestep),
    )
    return quarantine(data, moved)


def quarantine(before: Data, after: Data) -> Data:
    """`after`, or where that is no sane state `before`, marked as unstable.

    A NaN must not get past this line: one in one world is one in the mean over all
    worlds. `where` and not a product: 0 * NaN is NaN.
    """
    numbers = [leaf for leaf in jax.tree.leaves(after) if leaf.dtype != bool]
    # One comparison for NaN, infinity and explosion alike: NaN < x is False.
    sane = (
        jnp.all(jnp.isfinite(jnp.concatenate([x.ravel() for x in numbers])))
        & jnp.all(jnp.abs(after.qpos) < MAX_QPOS)
        & jnp.all(jnp.abs(after.qvel) < MAX_QVEL)
    )
    kept = jax.tree.map(lambda new, old: jnp.where(sane, new, old), after, before)
    return kept.replace(unstable=~sane)


def make_engine(name: str, model: mujoco.MjModel) -> Engine:
    """The engine of that name, bound to a model.

    Args:
      name: "mujoco" (C, on the CPU's cores), "mjx" (JAX, for accelerators), "warp"
        (NVIDIA), or "auto": C where JAX runs on a CPU, MJX elsewhere.
      model: a compiled model that the engine can simulate.

    Raises:
      ConfigError: an unknown engine, or one whose packages are missing.
    """
    if name == "auto":
        name = "mujoco" if jax.default_backend() == "cpu" else "mjx"
    if name not in ENGINES:
        raise UnknownName("engine", name, ("auto", *ENGINES))
    if name == "warp":
        raise ConfigError(
            "engine", name, "mujoco or mjx in this version, which has no warp engine"
        )
    # Here, not above: importing MJX takes seconds that the C engine does not need.
    if name == "mjx":
        from . import mjx as backend
    else:
        from . import mujoco as backend
    advance = backend.make_advance(model)

    def bound_init(*args, **kwargs) -> Data:
        return init(model, advance, *args, **kwargs)

    def bound_step(data, ctrl, mocap_pos, n_substeps) -> Data:
        return step(model, advance, data, ctrl, mocap_pos, n_substeps)

    return Engine(name, model, bound_init, bound_step)
