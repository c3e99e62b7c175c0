"""Meta-World's observation [39]: present state, last control step, and goal."""

import jax
import jax.numpy as jnp

from . import contact, scene
from .contact import Sensors

MAX_CLAW_DISTANCE = 0.1  # metres
HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)

Goal = tuple[float, float, float]


def observe(sensors: Sensors, qpos: jax.Array) -> jax.Array:
    """Compute the half of the observation for one control step, float32 [18]."""
    distance = jnp.linalg.norm(sensors["rightclaw"] - sensors["leftclaw"])
    gripper = jnp.clip(distance / MAX_CLAW_DISTANCE, 0.0, 1.0)
    nail = contact.nail_position(qpos[scene.NAIL_QPOS])
    upright = jnp.asarray((1.0, 0.0, 0.0, 0.0), jnp.float32)
    hammer = qpos[scene.HAMMER_QPOS]
    return jnp.concatenate([sensors["hand"], gripper[None], hammer, nail, upright])


def join(block: jax.Array, previous: jax.Array, goal: Goal) -> jax.Array:
    """Concatenate the whole observation, float32 [39].

    Args:
      block: [18], result of `observe` for the present state.
      previous: [18], result of `observe` one control step ago.
      goal: goal position of the nail's head, metres; zeros if it is hidden.
    """
    return jnp.concatenate([block, previous, jnp.asarray(goal, jnp.float32)])


def clip_block(block: jax.Array) -> jax.Array:
    """Clip hand and gripper, as Meta-World does in the observation of a step."""
    low = jnp.asarray((*HAND_LOW, -1.0), jnp.float32)
    high = jnp.asarray((*HAND_HIGH, 1.0), jnp.float32)
    return block.at[:4].set(jnp.clip(block[:4], low, high))
