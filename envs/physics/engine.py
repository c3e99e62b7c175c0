"""What a physics engine is: one kind of data, `init` and `step`, whoever computes.

An environment sees joint positions, velocities and named sensors, never an engine's
internals; so the same environment, checkpoint and policy run on every engine.
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

from purejaxppo import trees
from purejaxppo.errors import ConfigError, UnknownName

from .types import Advance, Data, Engine

ENGINES = ("mujoco", "mjx", "warp")

# A state past these is an explosion, whatever the scene: metres or radians, and
# those per second. MuJoCo's own limit is 1e10, which float32 observations, squares
# and sums do not survive.
MAX_QPOS = 1e3
MAX_QVEL = 1e4


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
    """One world in the given state; what is left out is zero, or the model's own.

    Args:
      model: a compiled model.
      advance: the engine.
      qpos: [nq], metres or radians.
      qvel: [nv], the same per second; None is at rest.
      mocap_pos: [nmocap, 3], metres; None is where the model has them.
      mocap_quat: [nmocap, 4]; None is as the model has them.
      sensordata: [nsensordata] of that state; None computes them, at the price of a
        call of the engine.
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
    """Steps one world, or leaves it where it is if that blows up.

    Args:
      model: a compiled model.
      advance: the engine.
      data: the world.
      ctrl: [nu], what the actuators are told.
      mocap_pos: [nmocap, 3], metres.
      n_substeps: how many of the model's time steps under that control.
    """
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
    return trees.where(sane, after, before).replace(unstable=~sane)


def on_nvidia() -> bool:
    """Whether JAX's first device is an NVIDIA GPU."""
    try:
        return jax.devices()[0] in jax.devices("cuda")
    except RuntimeError:  # this JAX knows no such platform
        return False


def warp_installed() -> bool:
    """Whether NVIDIA Warp's package is installed: a folder `warp` imports as well."""
    try:
        importlib.metadata.version("warp-lang")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def choose_engine() -> str:
    """The fastest engine for the device that JAX runs on."""
    if jax.default_backend() == "cpu":
        return "mujoco"
    return "warp" if on_nvidia() and warp_installed() else "mjx"


def make_engine(name: str, model: mujoco.MjModel) -> Engine:
    """The engine of that name, bound to a model.

    Args:
      name: "mujoco" (C, on the CPU's cores), "mjx" (JAX, for accelerators), "warp"
        (MJX-Warp, for NVIDIA GPUs), or "auto": C where JAX runs on a CPU, Warp on an
        NVIDIA GPU where it is installed, MJX elsewhere.
      model: a compiled model that the engine can simulate.

    Raises:
      ConfigError: an unknown engine, or one whose package or device is missing.
    """
    if name == "auto":
        name = choose_engine()
    if name not in ENGINES:
        raise UnknownName("engine", name, ("auto", *ENGINES))
    backend_name = jax.default_backend()
    if name == "mujoco" and backend_name != "cpu":
        allowed = f"auto, mjx or warp where JAX runs on a {backend_name}"
        raise ConfigError("engine", name, allowed)
    # Jitted, so that rollout, evaluation and demonstrations share one trace of it: that
    # of MJX takes seconds.
    advance = jax.jit(_backend(name).make_advance(model), static_argnums=1)
    return Engine(
        name,
        model,
        init=functools.partial(init, model, advance),
        step=functools.partial(step, model, advance),
    )


def _backend(name: str) -> ModuleType:
    # Imported here: importing MJX takes seconds that the C engine does not need.
    if name == "mjx":
        from . import mjx as backend
    elif name == "warp":
        require_warp()
        from . import warp as backend
    else:
        from . import mujoco as backend
    return backend


def require_warp() -> None:
    """Refuses what MJX-Warp cannot run on, before it says so in its own way.

    Raises:
      ConfigError: the package is missing, or JAX's device is neither an NVIDIA GPU
        nor the CPU, where Warp runs too: slowly, to be tested.
    """
    if not warp_installed():
        raise ConfigError(
            "engine", "warp", "mujoco or mjx until purejaxppo[warp] is installed"
        )
    backend = jax.default_backend()
    if backend != "cpu" and not on_nvidia():
        raise ConfigError(
            "engine", "warp", f"auto or mjx where JAX runs on a {backend}"
        )
