"""The interface of the physics engines: `init` and `step` on one type of data.

An environment uses joint positions, velocities and named sensors, but no internal data
of an engine. So the same environment, checkpoint and policy work on every engine.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

import functools
import importlib.metadata
from types import ModuleType

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from purejaxppo import platforms, trees
from purejaxppo.errors import ConfigError, UnknownName

from .types import Advance, Data, Engine

ENGINES = ("mujoco", "mjx", "warp")

# A state beyond these limits is unstable in any scene: metres or radians, and those per
# second. MuJoCo's own limit, 1e10, is too large for squares and sums in float32.
MAX_QPOS = 1e3
MAX_QVEL = 1e4


def sensor_slices(model: mujoco.MjModel) -> dict[str, slice]:
    """Return the slice of `sensordata` of each sensor, by name."""
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
    """Create the data of one world in the given state.

    Args:
      model: a compiled model.
      advance: the engine.
      qpos: [nq], metres or radians.
      qvel: [nv], metres or radians per second; None for zero.
      mocap_pos: [nmocap, 3], metres; None for the model's positions.
      mocap_quat: [nmocap, 4]; None for the model's orientations.
      sensordata: [nsensordata] of this state; None to compute it by calling the engine.
    """

    def array(
        value: jax.Array | None, default: np.ndarray, shape: tuple[int, ...]
    ) -> jax.Array:
        array = jnp.asarray(default if value is None else value, jnp.float32)
        chex.assert_shape(array, shape)
        return array

    mocap = np.flatnonzero(model.body_mocapid >= 0)
    mocap = mocap[np.argsort(model.body_mocapid[mocap])]
    data = Data(
        qpos=array(qpos, np.zeros(model.nq), (model.nq,)),
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
    """Step one world; if the result is unstable, keep the state and mark it.

    Args:
      model: a compiled model.
      advance: the engine.
      data: the state of the world.
      ctrl: [nu], the controls of the actuators.
      mocap_pos: [nmocap, 3], metres.
      n_substeps: number of time steps of the model with this control.
    """
    chex.assert_shape([ctrl, mocap_pos], [(model.nu,), (model.nmocap, 3)])
    moved = data.replace(ctrl=ctrl, mocap_pos=mocap_pos)
    solution = advance(moved, n_substeps)
    moved = moved.replace(
        **solution._asdict(),
        time=data.time + jnp.float32(n_substeps * model.opt.timestep),
    )
    return select_stable(data, moved)


def select_stable(old: Data, new: Data) -> Data:
    """Return `new` if it is a stable state, else `old` marked as unstable.

    A NaN in one world would make every mean over worlds NaN. The result is a selection,
    not a product, because 0 * NaN is NaN.
    """
    numbers = [leaf for leaf in jax.tree.leaves(new) if leaf.dtype != bool]
    is_stable = (
        jnp.all(jnp.isfinite(jnp.concatenate([x.ravel() for x in numbers])))
        & jnp.all(jnp.abs(new.qpos) < MAX_QPOS)
        & jnp.all(jnp.abs(new.qvel) < MAX_QVEL)
    )
    return trees.where(is_stable, new, old).replace(unstable=~is_stable)


def on_nvidia() -> bool:
    """Return whether JAX's first device is an NVIDIA GPU."""
    try:
        return jax.devices()[0] in jax.devices("cuda")
    except RuntimeError:  # this installation of JAX has no CUDA platform
        return False


def warp_installed() -> bool:
    """Return whether the package warp-lang is installed.

    `import warp` is no proof, because it also succeeds with any folder named `warp`.
    """
    try:
        importlib.metadata.version("warp-lang")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def choose_engine() -> str:
    """Return the name of the fastest engine for JAX's device."""
    if platforms.backend() == "cpu":
        return "mujoco"
    return "warp" if on_nvidia() and warp_installed() else "mjx"


def make_engine(name: str, model: mujoco.MjModel) -> Engine:
    """Build an engine for a model.

    Args:
      name: "mujoco" (C, on the CPU's cores), "mjx" (JAX, for accelerators), "warp"
        (MJX-Warp, for NVIDIA GPUs), or "auto": C if JAX runs on a CPU, Warp on an
        NVIDIA GPU if it is installed, else MJX.
      model: a compiled model that the engine can simulate.

    Raises:
      ConfigError: the engine is unknown, or its package or device is missing.
    """
    if name == "auto":
        name = choose_engine()
    if name not in ENGINES:
        raise UnknownName("engine", name, ("auto", *ENGINES))
    backend_name = platforms.backend()
    if name == "mujoco" and backend_name != "cpu":
        allowed = f"auto, mjx or warp where JAX runs on a {backend_name}"
        raise ConfigError("engine", name, allowed)
    # Jitted, so that rollout, evaluation and demonstrations share one trace, which for
    # MJX takes seconds.
    advance = jax.jit(_backend(name).make_advance(model), static_argnums=1)
    return Engine(
        name,
        model,
        init=functools.partial(init, model, advance),
        step=functools.partial(step, model, advance),
    )


def _backend(name: str) -> ModuleType:
    # Imported here, because the C engine does not need MJX, whose import takes seconds.
    if name == "mjx":
        from . import mjx as backend
    elif name == "warp":
        require_warp()
        from . import warp as backend
    else:
        from . import mujoco as backend
    return backend


def require_warp() -> None:
    """Check that MJX-Warp can run here.

    Warp also runs on a CPU, which is slow and only meant for tests.

    Raises:
      ConfigError: the package is missing, or JAX's device is neither an NVIDIA GPU nor
        a CPU.
    """
    if not warp_installed():
        raise ConfigError(
            "engine", "warp", "mujoco or mjx until purejaxppo[warp] is installed"
        )
    backend = platforms.backend()
    if backend != "cpu" and not on_nvidia():
        raise ConfigError(
            "engine", "warp", f"auto or mjx where JAX runs on a {backend}"
        )
