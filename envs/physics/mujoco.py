"""C MuJoCo on the CPU's cores, called from inside the jitted program.

All worlds of a step arrive in one call, whatever is vmapped over (worlds, seeds),
and are rolled out in float64 by a pool of threads. A result depends on the world's
`Data` alone: not on the batch, its order, or the thread, because `mujoco.rollout`
sets the full state and the control of each, and starts its solver at zero.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

import contextlib
import copy
import functools
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import rollout

from purejaxppo.errors import ConfigError

from . import ffi
from .types import Advance, Data, Solution

STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
CONTROL = int(
    mujoco.mjtState.mjSTATE_CTRL
    | mujoco.mjtState.mjSTATE_MOCAP_POS
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT
)


class Buffers(NamedTuple):
    """The arrays of one batch size, reused from call to call. Float64, [B, ...]."""

    start: np.ndarray  # [B, 1 + nq + nv]
    control: np.ndarray  # [B, substeps, nu + 7 nmocap]
    last_control: np.ndarray  # [B, 1, nu + 7 nmocap]
    path: np.ndarray  # [B, substeps, 1 + nq + nv]
    end: np.ndarray  # [B, 1 + nq + nv]
    unused_path: np.ndarray  # [B, 1, 1 + nq + nv]
    sensors: np.ndarray  # [B, 1, nsensordata]


def num_threads() -> int:
    """Cores that this process may use, which in a container are not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Two devices of one process, or two engines, may call at the same time; the pool, the
# workers, the buffers and MuJoCo's warning handler are shared.
_call_lock = threading.Lock()


@functools.cache
def thread_pool() -> rollout.Rollout:
    """The process's one pool: started when first needed, and never stopped."""
    return rollout.Rollout(nthread=num_threads())


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Keeps MuJoCo from writing each blown-up world to stderr and to a log file.

    Here that is data: the world is quarantined, and counted.
    """
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(handler)


class Simulator:
    """Steps a batch of worlds on the host.

    `rollout` gives sensors as they are at the START of a substep, so those of the
    final state would cost a substep more. They come from a second model instead,
    without constraints and forces, in a step whose result is thrown away: half of
    that price, and exact for sensors of positions, which is why others are refused.
    """

    def __init__(self, model: mujoco.MjModel):
        _require_supported(model)
        disable = mujoco.mjtDisableBit
        self.physics, self.kinematics = copy.copy(model), copy.copy(model)
        # Without resets a broken world stays visibly broken instead of going home.
        self.physics.opt.disableflags |= (
            disable.mjDSBL_AUTORESET | disable.mjDSBL_SENSOR
        )
        self.kinematics.opt.disableflags |= (
            disable.mjDSBL_AUTORESET
            | disable.mjDSBL_CONSTRAINT
            | disable.mjDSBL_ACTUATION
            | disable.mjDSBL_GRAVITY
            | disable.mjDSBL_SPRING
            | disable.mjDSBL_DAMPER
            | disable.mjDSBL_EULERDAMP
        )
        self.workers = [mujoco.MjData(model) for _ in range(num_threads())]
        self.buffers: dict[tuple[int, int], Buffers] = {}

    def advance(
        self,
        state: np.ndarray,
        control: np.ndarray,
        n_substeps: int,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Steps every world.

        Args:
          state: [B, 1 + nq + nv]: time, qpos, qvel.
          control: [B, nu + 7 nmocap]: ctrl, mocap positions, mocap quaternions.
          n_substeps: steps under that control. 0: sensors of the state as it is.
          out: where the result goes, a new array if left out.

        Returns:
          [B, nq + nv + nsensordata] float32: qpos, qvel, sensordata.
        """
        with _call_lock, suppress_warnings():
            buffers = self._buffers(len(state), n_substeps)
            buffers.start[:] = state
            buffers.control[:] = control[:, None]
            buffers.last_control[:] = control[:, None]
            end = buffers.start
            if n_substeps:
                _rollout(
                    self.physics, self.workers, end, buffers.control, buffers.path, None
                )
                end = buffers.end
                end[:] = buffers.path[:, -1]
            _rollout(
                self.kinematics,
                self.workers,
                end,
                buffers.last_control,
                buffers.unused_path,
                buffers.sensors,
            )
            parts = (end[:, 1:], buffers.sensors[:, 0])
            # A world that explodes past float32 becomes infinite, and is caught.
            with np.errstate(over="ignore", invalid="ignore"):
                if out is None:
                    out = np.empty(
                        (len(state), sum(p.shape[1] for p in parts)), np.float32
                    )
                return np.concatenate(parts, axis=1, out=out, casting="same_kind")

    def _buffers(self, batch: int, n_substeps: int) -> Buffers:
        """The arrays for this call. A run has a few batch sizes, each made once."""
        if (batch, n_substeps) not in self.buffers:
            model, substeps = self.physics, max(n_substeps, 1)
            num_state = mujoco.mj_stateSize(model, STATE)
            num_control = mujoco.mj_stateSize(model, CONTROL)
            self.buffers[batch, n_substeps] = Buffers(
                start=np.zeros((batch, num_state)),
                control=np.zeros((batch, substeps, num_control)),
                last_control=np.zeros((batch, 1, num_control)),
                path=np.zeros((batch, substeps, num_state)),
                end=np.zeros((batch, num_state)),
                unused_path=np.zeros((batch, 1, num_state)),
                sensors=np.zeros((batch, 1, model.nsensordata)),
            )
        return self.buffers[batch, n_substeps]


def digest(model: mujoco.MjModel) -> str:
    """A name for the content of a model, the same in every process."""
    content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.sha256(content.tobytes()).hexdigest()[:16]


def make_advance(model: mujoco.MjModel) -> Advance:
    """The C engine for a model, as a function of `Data` that can be jitted."""
    simulator = Simulator(model)
    # Programs outlive the process (XLA's cache on disk): a name stands for one model.
    name = f"purejaxppo_mujoco_{digest(model)}"
    sizes = (model.nq, model.nv, model.nsensordata)
    result = jax.ShapeDtypeStruct((sum(sizes),), jnp.float32)

    def advance(data: Data, n_substeps: int) -> Solution:
        def call(arguments: list[np.ndarray], results: list[np.ndarray]) -> None:
            state, control, out = (
                x.reshape(-1, x.shape[-1]) for x in (*arguments, *results)
            )
            simulator.advance(state, control, n_substeps, out)

        target = f"{name}_{n_substeps}"
        ffi.register(target, call)
        # One array each way: what a call costs, it costs per array.
        state = (data.time[None], data.qpos, data.qvel)
        control = (data.ctrl, data.mocap_pos.ravel(), data.mocap_quat.ravel())
        out = jax.ffi.ffi_call(target, result, vmap_method="broadcast_all")(
            jnp.concatenate(state), jnp.concatenate(control)
        )
        qpos, qvel, sensordata = jnp.split(out, np.cumsum(sizes)[:-1].tolist())
        # `rollout` keeps its accelerations to itself and starts its solver at zero.
        # Handing it a start made no difference to speed or error.
        return Solution(qpos, qvel, data.qacc_warmstart, sensordata)

    return advance


def _rollout(
    model: mujoco.MjModel,
    workers: list[mujoco.MjData],
    start: np.ndarray,
    control: np.ndarray,
    path: np.ndarray,
    sensors: np.ndarray | None,
) -> None:
    """Fills `path` [B, substeps, 1 + nq + nv] and `sensors` from `start` on."""
    thread_pool().rollout(
        [model] * len(start),
        workers,
        start,
        control,
        control_spec=CONTROL,
        skip_checks=True,
        nstep=control.shape[1],
        state=path,
        sensordata=sensors,
        chunk_size=chunk_size(len(start)),
    )


def chunk_size(num_worlds: int) -> int:
    """Worlds that a thread takes at a time: its share, in one go.

    MuJoCo's default is a tenth of that. For the few substeps of a control step the
    fetching of chunks then costs more than an even load saves.
    """
    return -(-num_worlds // num_threads())


def _require_supported(model: mujoco.MjModel) -> None:
    """Refuses what the kinematic model or the state of `Data` would get wrong."""
    if mujoco.mj_stateSize(model, STATE) != 1 + model.nq + model.nv:
        raise ConfigError(
            "model", "activations or plugins", "a state of qpos and qvel alone"
        )
    for i in range(model.nsensor):
        if model.sensor_needstage[i] != mujoco.mjtStage.mjSTAGE_POS:
            raise ConfigError(
                "sensor", model.sensor(i).name, "a sensor of positions (framepos, ...)"
            )
