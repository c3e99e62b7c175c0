"""Start states, computed once in C MuJoCo, whatever engine then runs the episode.

Meta-World settles the arm for 250 substeps at each reset and stops before it rests.
The result does not depend on anything random but the hammer's place, and the table
is the same everywhere; so it is computed here once, and a reset moves the hammer.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from typing import Generic, NamedTuple, TypeVar

import jax
import mujoco
import numpy as np

from . import scene

# Where the baked hammer lies; a reset shifts it from here.
HAMMER_AT = (0.0, 0.45)

HAND_AT = (0.0, 0.4, 0.2)
MOCAP_QUAT = (1.0, 0.0, 1.0, 0.0)
NUM_SETTLE_STEPS = 50
OPEN = (-1.0, 1.0)  # actuator controls, fingers apart

# The homework's start: the hand about here, and some steps of doing nothing.
COURSE_HAND_AT = (0.1, 0.5, 0.3)
COURSE_HAND_STD = 0.03
NUM_COURSE_IDLE_STEPS = 10
NUM_COURSE_STARTS = 256
COURSE_SEED = 224


Array = TypeVar("Array", np.ndarray, jax.Array)


class Starts(NamedTuple, Generic[Array]):
    """K start states with the hammer at HAMMER_AT. Float32, all of shape [K, ...].

    NumPy's, so that they belong to no device before a program uses them; JAX's where
    a reset has taken one of them.

    Attributes:
      qpos: as in the engine's `Data`, like the next three.
      qvel: the same.
      mocap_pos: the same.
      sensordata: the same.
      previous_qpos: one control step before, for the previous half of the observation;
        the same as now where there was none.
      previous_sensordata: the same.
      tcp: [K, 3], middle of the finger tips, as Meta-World's reward remembers it.
    """

    qpos: Array
    qvel: Array
    mocap_pos: Array
    sensordata: Array
    previous_qpos: Array
    previous_sensordata: Array
    tcp: Array


def official(model: mujoco.MjModel) -> Starts[np.ndarray]:
    """The one start of hammer-v3."""
    return _stack([_start(model, np.array(HAND_AT), num_idle_steps=0)])


def course(model: mujoco.MjModel, num: int = NUM_COURSE_STARTS) -> Starts[np.ndarray]:
    """Starts of the homework's protocol: a fixed sample of its random hand."""
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
    # Positions of the last substep's start: what Meta-World reads here.
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
