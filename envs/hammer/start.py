"""Start states, computed once in C MuJoCo, for all engines.

At each reset Meta-World simulates 250 substeps, in which the arm settles. The state of
the arm does not depend on the random position of the hammer, so it is computed once,
and a reset only moves the hammer.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from typing import Generic, NamedTuple, TypeVar

import jax
import mujoco
import numpy as np

from . import scene

# Position (x, y) of the hammer in the start states; a reset shifts it from here.
HAMMER_AT = (0.0, 0.45)

HAND_AT = (0.0, 0.4, 0.2)
MOCAP_QUAT = (1.0, 0.0, 1.0, 0.0)
NUM_SETTLE_STEPS = 50
OPEN = (-1.0, 1.0)  # actuator controls, fingers apart

# The homework's start: a random position of the hand, then steps with zero action.
COURSE_HAND_AT = (0.1, 0.5, 0.3)
COURSE_HAND_STD = 0.03
NUM_COURSE_IDLE_STEPS = 10
NUM_COURSE_STARTS = 256
COURSE_SEED = 224


Array = TypeVar("Array", np.ndarray, jax.Array)


class Starts(NamedTuple, Generic[Array]):
    """K start states with the hammer at HAMMER_AT. Float32, all of shape [K, ...].

    They are NumPy arrays, which belong to no device, until a reset converts them to JAX
    arrays.

    Attributes:
      qpos, qvel, mocap_pos, sensordata: as in the engine's `Data`.
      previous_qpos, previous_sensordata: one control step before, for the previous half
        of the observation; equal to the present ones if there was no control step.
      tcp: [K, 3], middle of the finger tips, which Meta-World's reward uses.
    """

    qpos: Array
    qvel: Array
    mocap_pos: Array
    sensordata: Array
    previous_qpos: Array
    previous_sensordata: Array
    tcp: Array


def official(model: mujoco.MjModel) -> Starts[np.ndarray]:
    """Compute the single start state of hammer-v3."""
    return _stack([_start(model, np.array(HAND_AT), num_idle_steps=0)])


def course(model: mujoco.MjModel, num: int = NUM_COURSE_STARTS) -> Starts[np.ndarray]:
    """Compute start states of the homework, for a fixed sample of hand positions."""
    rng = np.random.default_rng(COURSE_SEED)
    hands = COURSE_HAND_AT + COURSE_HAND_STD * rng.standard_normal((num, 3))
    return _stack([_start(model, h, NUM_COURSE_IDLE_STEPS) for h in hands])


def _start(
    model: mujoco.MjModel, hand: np.ndarray, num_idle_steps: int
) -> dict[str, np.ndarray]:
    data = mujoco.MjData(model)
    data.mocap_pos[0], data.mocap_quat[0] = hand, MOCAP_QUAT
    data.ctrl[:] = OPEN
    num_substeps = NUM_SETTLE_STEPS * scene.N_SUBSTEPS
    mujoco.mj_step(model, data, nstep=num_substeps)
    # Positions at the start of the last substep, as Meta-World reads them here.
    tcp = _tcp(model, data)
    data.qpos[scene.HAMMER_QPOS][:3] = *HAMMER_AT, 0.0
    data.qvel[scene.HAMMER_QVEL] = 0.0
    mujoco.mj_forward(model, data)
    previous = data.qpos.copy(), data.sensordata.copy()
    low, high = np.array(scene.MOCAP_LOW), np.array(scene.MOCAP_HIGH)
    for _ in range(num_idle_steps):
        previous = data.qpos.copy(), data.sensordata.copy()
        data.ctrl[:] = 0.0
        data.mocap_pos[0] = np.clip(data.mocap_pos[0], low, high)
        mujoco.mj_step(model, data, nstep=scene.N_SUBSTEPS)
        mujoco.mj_forward(model, data)
    return {
        "qpos": data.qpos,
        "qvel": data.qvel,
        "mocap_pos": data.mocap_pos,
        "sensordata": data.sensordata,
        "previous_qpos": previous[0],
        "previous_sensordata": previous[1],
        "tcp": tcp,
    }


def _tcp(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    return (data.sensor("righttip").data + data.sensor("lefttip").data) / 2


def _stack(starts: list[dict[str, np.ndarray]]) -> Starts[np.ndarray]:
    names = starts[0]
    return Starts(
        **{n: np.stack([s[n] for s in starts]).astype(np.float32) for n in names}
    )
