"""MuJoCo in JAX (the JAX implementation of MJX), for accelerators.

On a CPU it is only meant for tests: the C engine is about twenty times faster.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import mujoco

from purejaxppo.errors import ConfigError
from purejaxppo.numerics import import_mjx, permissive_numerics

from .types import Advance, Data, Solution

if TYPE_CHECKING:
    from mujoco.mjx import Data as MjxData

mjx = import_mjx()


def with_state(world: "MjxData", data: Data) -> "MjxData":
    """Return MJX's data with the state and control of `data`."""
    return world.replace(
        time=data.time,
        qpos=data.qpos,
        qvel=data.qvel,
        mocap_pos=data.mocap_pos,
        mocap_quat=data.mocap_quat,
        ctrl=data.ctrl,
        qacc_warmstart=data.qacc_warmstart,
    )


def make_advance(model: mujoco.MjModel) -> Advance:
    """Build the MJX engine for a model, as a function of `Data` that can be jitted.

    Raises:
      ConfigError: the model uses a feature that MJX-JAX does not support.
    """
    try:
        device_model = mjx.put_model(model, impl="jax")
    except NotImplementedError as error:
        raise ConfigError(
            "engine", "mjx", f"a model that MJX knows in full ({error})"
        ) from None
    blank = mjx.make_data(model, impl="jax")

    def substep(world: "MjxData", _: None) -> tuple["MjxData", None]:
        return mjx.step(device_model, world), None

    def advance(data: Data, n_substeps: int) -> Solution:
        world = with_state(blank, data)
        with permissive_numerics():
            world, _ = jax.lax.scan(substep, world, length=n_substeps)
            # MJX and C compute sensors at the beginning of a substep, so those of the
            # final state are computed here.
            sensed = mjx.sensor_pos(device_model, mjx.kinematics(device_model, world))
        return Solution(
            qpos=world.qpos,
            qvel=world.qvel,
            qacc_warmstart=world.qacc_warmstart,
            sensordata=sensed.sensordata.astype(jnp.float32),
        )

    return advance
