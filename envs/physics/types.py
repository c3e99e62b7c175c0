"""What passes between the engines and `engine.py`, which loads them when asked to."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import mujoco
from flax import struct


class Data(struct.PyTreeNode):
    """The state of one simulated world, under MuJoCo's names. All float32 but one.

    Attributes:
      qpos: [nq], metres or radians; of free joints position and quaternion.
      qvel: [nv], the same per second.
      time: [], seconds.
      mocap_pos: [nmocap, 3], metres, as last applied.
      mocap_quat: [nmocap, 4], as last applied.
      ctrl: [nu], as last applied.
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


class Init(Protocol):
    """`engine.init` without its first two arguments."""

    def __call__(
        self,
        qpos: jax.Array,
        qvel: jax.Array | None = None,
        mocap_pos: jax.Array | None = None,
        mocap_quat: jax.Array | None = None,
        sensordata: jax.Array | None = None,
    ) -> Data: ...


class Step(Protocol):
    """`engine.step` without its first two arguments."""

    def __call__(
        self, data: Data, ctrl: jax.Array, mocap_pos: jax.Array, n_substeps: int
    ) -> Data: ...


class Engine(NamedTuple):
    """A bound engine. `init` and `step` are for ONE world; `vmap` adds the others."""

    name: str
    model: mujoco.MjModel
    init: Init
    step: Step
