"""Who touches the nail: the hammer's face, or a finger. From positions alone.

Contacts and forces are an engine's internals; positions are the same in every engine.
"""

import jax
import jax.numpy as jnp

NAIL_AT = (0.24, 0.64, 0.11)  # the nail's own origin before it moves along +y
NAIL_RADIUS, NAIL_HALF_HEIGHT = 0.03, 0.009
DISC_RADIUS = 0.038  # of the hammer's face
PAD_HALF_SIZE = (0.015, 0.003, 0.045)  # along the world's axes, fingers pointing down

# How near counts as touching. Contacts give by up to a millimetre and states are
# seen at 80 Hz only.
TOUCHING = 0.002
CLEARANCE = 0.002
LIFTED = 0.01  # the head's lowest point, above the table
FACING = 0.9  # cosine between the face's normal and the nail's way

Sensors = dict[str, jax.Array]  # name -> [3] in the world, metres


def nail_position(slide: jax.Array) -> jax.Array:
    """The nail's origin in the world [3], after it moved in by `slide` metres."""
    return jnp.stack([jnp.float32(NAIL_AT[0]), NAIL_AT[1] + slide, NAIL_AT[2]])


def face_on_nail(sensors: Sensors, slide: jax.Array) -> jax.Array:
    """Whether the hammer's face, off the table, is against the nail's head: bool []."""
    face, normal = sensors["face"], sensors["face_normal"]
    apart = nail_position(slide - NAIL_HALF_HEIGHT) - face
    # From the face's plane to the nearest corner of the nail's head: of a tilted
    # face, that corner is what touches.
    tilt = jnp.abs(normal[0]) + jnp.abs(normal[2])
    gap = jnp.dot(apart, normal) - NAIL_RADIUS * tilt
    reach = DISC_RADIUS + NAIL_RADIUS
    return (
        (gap < TOUCHING)
        & (gap > -NAIL_HALF_HEIGHT)
        & (jnp.abs(apart[0]) < reach)
        & (jnp.abs(apart[2]) < reach)
        & (normal[1] > FACING)
        & (face[2] > DISC_RADIUS + LIFTED)
    )


def fingers_clear(sensors: Sensors, slide: jax.Array) -> jax.Array:
    """Whether there is air between both fingers and the nail's head: bool []."""
    head = jnp.asarray((NAIL_RADIUS, NAIL_HALF_HEIGHT, NAIL_RADIUS), jnp.float32)
    reach = head + jnp.asarray(PAD_HALF_SIZE, jnp.float32) + CLEARANCE
    nail = nail_position(slide)
    right = jnp.any(jnp.abs(sensors["rightpad"] - nail) > reach)
    left = jnp.any(jnp.abs(sensors["leftpad"] - nail) > reach)
    return right & left
