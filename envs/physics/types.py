"""The data structures that `engine.py` and the engines share."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import mujoco
from flax import struct


class Data(struct.PyTreeNode):
    """The state of one simulated world, with MuJoCo's names. Float32 except `unstable`.

    Attributes:
      qpos: [nq], metres or radians; position and quaternion of free joints.
      qvel: [nv], metres or radians per second.
      time: [], seconds.
      mocap_pos: [nmocap, 3], metres, in the last step.
      mocap_quat: [nmocap, 4], in the last step.
      ctrl: [nu], in the last step.
      qacc_warmstart: [nv], the start of MJX's solver, zero in C. It is part of the
        state, because a resumed run would differ in the last bits without it.
      sensordata: [nsensordata], of this state.
      unstable: bool [], the last step was unstable and this is the state before it.
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
    """The result of an engine's step: the parts of `Data` that the physics changes."""

    qpos: jax.Array
    qvel: jax.Array
    qacc_warmstart: jax.Array
    sensordata: jax.Array


# (data with the new control, number of substeps) -> solution. With 0 substeps only the
# sensors are computed.
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
