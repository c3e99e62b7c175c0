"""A scripted expert: a function of the observation, so it recovers by starting over.

In words: over the grip point, down, fingers shut, to the height of the nail and a
safe distance before it, then through it. Measured success is in README.md.
"""

import jax
import jax.numpy as jnp

GRIP = (-0.04, 0.0, -0.01)  # where to hold, from the hammer's origin
STRIKE = (0.05, 0.71, 0.16)  # where the hand ends up, well past the nail
BEFORE_NAIL = 0.5  # the hand's y at which the hammer is still short of the nail
HOVER = 0.1  # approach height over the grip point
DESCEND = 0.03
GAIN = 10.0  # action per metre: full speed until 10 cm from the target
EFFORT = 0.8

NEAR_XY = 0.04
NEAR_Z = 0.05
CLOSING_Z = 0.1  # the fingers start to close this high, to be shut on arrival
CLOSED = 0.6  # gripper observation; around the handle it is 0.51
LYING_Z = 0.03  # a grip point below this is that of a hammer on the table
NEAR_XZ = 0.02


def act(obs: jax.Array) -> jax.Array:
    """The action [4] for an observation [39]."""
    hand, gripper, hammer = obs[:3], obs[3], obs[4:7]
    grip = hammer + jnp.asarray(GRIP, jnp.float32)
    strike = jnp.asarray(STRIKE, jnp.float32)
    up = jnp.asarray((0.0, 0.0, 1.0), jnp.float32)

    far = jnp.hypot(hand[0] - grip[0], hand[1] - grip[1]) > NEAR_XY
    height = jnp.abs(hand[2] - grip[2])
    # Lifted before the fingers are shut, the hammer sometimes slips.
    on_table = ((height > NEAR_Z) | (gripper > CLOSED)) & (grip[2] < LYING_Z)
    aside = jnp.hypot(hand[0] - strike[0], hand[2] - strike[2]) > NEAR_XZ

    # Never back in y: a hammer that is past BEFORE_NAIL may be beside the nail.
    ready = strike.at[1].set(jnp.maximum(hand[1], BEFORE_NAIL))
    target = jnp.where(aside, ready, strike)
    target = jnp.where(on_table, grip + DESCEND * up, target)
    target = jnp.where(far, grip + HOVER * up, target)
    # An effort of 0 drives the fingers to their open stop.
    effort = jnp.where(far | (height > CLOSING_Z), 0.0, EFFORT)
    move = jnp.clip(GAIN * (target - hand), -1.0, 1.0)
    return jnp.concatenate([move, effort[None]])
