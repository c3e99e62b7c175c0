"""C MuJoCo on the CPU's cores, called from inside the jitted program.

All worlds of a step, over all axes of `vmap`, are passed in one call, and are simulated
in float64 by a pool of threads. The result of a world depends only on its `Data`, not
on the batch, its order or the thread, because `mujoco.rollout` sets the full state and
the control of each world, and starts its solver at zero.
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
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Several devices or engines may call at the same time, but share the pool, the workers,
# the buffers and MuJoCo's warning handler.
_call_lock = threading.Lock()


@functools.cache
def thread_pool() -> rollout.Rollout:
    """Return the thread pool of the process, which is started at the first call."""
    return rollout.Rollout(nthread=num_threads())


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress MuJoCo's warning about each unstable world on stderr and in a log file.

    `engine.select_stable` handles unstable worlds, and a metric counts them.
    """
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(handler)


class Simulator:
    """Steps a batch of worlds on the host.

    `rollout` returns the sensors at the START of a substep, so those of the final state
    would need one more substep. They are computed by a step of a second model without
    constraints and forces instead, which takes half as long. This is exact for sensors
    of positions; models with other sensors are refused.
    """

    def __init__(self, model: mujoco.MjModel):
        _require_supported(model)
        disable = mujoco.mjtDisableBit
        self.physics, self.kinematics = copy.copy(model), copy.copy(model)
        # Without MuJoCo's automatic reset an unstable world can be recognised.
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
        """Step every world.

        Args:
          state: [B, 1 + nq + nv]: time, qpos, qvel.
          control: [B, nu + 7 nmocap]: ctrl, mocap positions, mocap quaternions.
          n_substeps: number of steps with this control; 0 to compute sensors only.
          out: array for the result; None for a new array.

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
        """Return the buffers of a batch size, which are allocated once."""
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
    """Return a hash of the content of a model, the same in every process."""
    content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.sha256(content.tobytes()).hexdigest()[:16]


def make_advance(model: mujoco.MjModel) -> Advance:
    """Build the C engine for a model, as a function of `Data` that can be jitted."""
    simulator = Simulator(model)
    ffi.layouts_are_tested()  # its warning comes before anything is compiled
    # The name has a hash of the model, because cached programs outlive the process.
    name = f"purejaxppo_mujoco_{digest(model)}"
    sizes = (model.nq, model.nv, model.nsensordata)
    result = jax.ShapeDtypeStruct((sum(sizes),), jnp.float32)

    def advance(data: Data, n_substeps: int) -> Solution:
        def call(arguments: list[np.ndarray], results: list[np.ndarray]) -> None:
            state, control, out = (
                x.reshape(-1, x.shape[-1]) for x in (*arguments, *results)
            )
            simulator.advance(state, control, n_substeps, out)

        # All arguments in two arrays, since the cost of a call grows with their number.
        state = (data.time[None], data.qpos, data.qvel)
        control = (data.ctrl, data.mocap_pos.ravel(), data.mocap_quat.ravel())
        arguments = (jnp.concatenate(state), jnp.concatenate(control))
        out = ffi.call(f"{name}_{n_substeps}", call, result, arguments)
        qpos, qvel, sensordata = jnp.split(out, np.cumsum(sizes)[:-1].tolist())
        # `rollout` does not return accelerations, and starts its solver at zero. A
        # start from the last accelerations changed neither speed nor error.
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
    """Simulate from `start`; fill `path` [B, substeps, 1 + nq + nv] and `sensors`."""
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
    """Return the number of worlds per chunk, such that each thread has one chunk.

    MuJoCo's default is ten chunks per thread, for a more even load. With few substeps
    the overhead of further chunks is larger than this gain.
    """
    return -(-num_worlds // num_threads())


def _require_supported(model: mujoco.MjModel) -> None:
    """Refuse models with state or sensors that this engine would compute wrongly."""
    if mujoco.mj_stateSize(model, STATE) != 1 + model.nq + model.nv:
        raise ConfigError(
            "model", "activations or plugins", "a state of qpos and qvel alone"
        )
    for i in range(model.nsensor):
        if model.sensor_needstage[i] != mujoco.mjtStage.mjSTAGE_POS:
            raise ConfigError(
                "sensor", model.sensor(i).name, "a sensor of positions (framepos, ...)"
            )
