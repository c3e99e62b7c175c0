"""Meta-World's observation [39]: one moment, the moment before it, and the goal."""

import jax
import jax.numpy as jnp

from . import contact, scene
from .contact import Sensors

MAX_CLAW_DISTANCE = 0.1  # metres
HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)

Goal = tuple[float, float, float]


def observe(sensors: Sensors, qpos: jax.Array) -> jax.Array:
    """The half of the observation that is about one moment, float32 [18]."""
    distance = jnp.linalg.norm(sensors["rightclaw"] - sensors["leftclaw"])
    gripper = jnp.clip(distance / MAX_CLAW_DISTANCE, 0.0, 1.0)
    nail = contact.nail_position(qpos[scene.NAIL_QPOS])
    upright = jnp.asarray((1.0, 0.0, 0.0, 0.0), jnp.float32)
    hammer = qpos[scene.HAMMER_QPOS]
    return jnp.concatenate([sensors["hand"], gripper[None], hammer, nail, upright])


def join(block: jax.Array, previous: jax.Array, goal: Goal) -> jax.Array:
    """The whole observation, float32 [39].

    Args:
      block: [18], what `observe` gives now.
      previous: [18], what it gave one control step ago.
      goal: where the nail's head shall be, in metres; zeros where it is hidden.
    """
    return jnp.concatenate([block, previous, jnp.asarray(goal, jnp.float32)])


def clip_block(block: jax.Array) -> jax.Array:
    """Meta-World clips hand and gripper, in what it shows but not in what it keeps."""
    low = jnp.asarray((*HAND_LOW, -1.0), jnp.float32)
    high = jnp.asarray((*HAND_HIGH, 1.0), jnp.float32)
    return block.at[:4].set(jnp.clip(block[:4], low, high))
