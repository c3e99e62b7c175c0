"""A scripted expert: a stateless function of the observation.

It moves the hand above the grip point, lowers it, closes the fingers, moves the hammer
to a safe distance in front of the nail, and then through the nail. If it loses the
hammer, it starts again. Its measured success is in README.md.
"""

import jax
import jax.numpy as jnp

GRIP = (-0.04, 0.0, -0.01)  # grip point, relative to the hammer's origin
STRIKE = (0.05, 0.71, 0.16)  # last target of the hand, well past the nail
BEFORE_NAIL = 0.5  # y of the hand at which the hammer has not reached the nail
HOVER = 0.1  # height of the approach above the grip point
DESCEND = 0.03
GAIN = 10.0  # action per metre: full speed until 10 cm from the target
EFFORT = 0.8

NEAR_XY = 0.04
NEAR_Z = 0.05
CLOSING_Z = 0.1  # height at which the fingers start to close
CLOSED = 0.6  # gripper observation below which it is closed; 0.51 around the handle
LYING_Z = 0.03  # height of the grip point below which the hammer lies on the table
NEAR_XZ = 0.02


def act(obs: jax.Array) -> jax.Array:
    """Return the action [4] for an observation [39]."""
    hand, gripper, hammer = obs[:3], obs[3], obs[4:7]
    grip = hammer + jnp.asarray(GRIP, jnp.float32)
    strike = jnp.asarray(STRIKE, jnp.float32)
    up = jnp.asarray((0.0, 0.0, 1.0), jnp.float32)

    far = jnp.hypot(hand[0] - grip[0], hand[1] - grip[1]) > NEAR_XY
    height = jnp.abs(hand[2] - grip[2])
    # The hammer sometimes slips if it is lifted before the fingers are closed.
    on_table = ((height > NEAR_Z) | (gripper > CLOSED)) & (grip[2] < LYING_Z)
    off_axis = jnp.hypot(hand[0] - strike[0], hand[2] - strike[2]) > NEAR_XZ

    # Never move back in y: past BEFORE_NAIL the hammer may be beside the nail.
    ready = strike.at[1].set(jnp.maximum(hand[1], BEFORE_NAIL))
    target = jnp.where(off_axis, ready, strike)
    target = jnp.where(on_table, grip + DESCEND * up, target)
    target = jnp.where(far, grip + HOVER * up, target)
    # An effort of 0 opens the fingers completely.
    effort = jnp.where(far | (height > CLOSING_Z), 0.0, EFFORT)
    move = jnp.clip(GAIN * (target - hand), -1.0, 1.0)
    return jnp.concatenate([move, effort[None]])
