"""Detection of contact of the hammer or the fingers with the nail, from positions.

Contacts and forces of the engines are not used, because they differ between engines.
"""

import jax
import jax.numpy as jnp

NAIL_AT = (0.24, 0.64, 0.11)  # the nail's origin before it moves along +y
NAIL_RADIUS, NAIL_HALF_HEIGHT = 0.03, 0.009
DISC_RADIUS = 0.038  # of the hammer's face
PAD_HALF_SIZE = (0.015, 0.003, 0.045)  # along the world's axes, fingers pointing down

# Largest gap, in metres, of surfaces in contact. Contacts are soft by up to a
# millimetre, and states are only available at 80 Hz.
TOUCHING = 0.002
CLEARANCE = 0.002
LIFTED = 0.01  # smallest height of the head's lowest point above the table
MOVING = 1e-4  # metres that a nail moves in a control step, unless it has stopped
FACING = 0.9  # smallest cosine of the face's normal and the nail's axis

Sensors = dict[str, jax.Array]  # name -> [3] in the world, metres


def nail_position(slide: jax.Array) -> jax.Array:
    """Return the nail's origin in the world [3], after it moved by `slide` metres."""
    return jnp.stack([jnp.float32(NAIL_AT[0]), NAIL_AT[1] + slide, NAIL_AT[2]])


def face_on_nail(sensors: Sensors, slide: jax.Array) -> jax.Array:
    """Return whether the lifted hammer's face touches the nail's head: bool []."""
    face, normal = sensors["face"], sensors["face_normal"]
    offset = nail_position(slide - NAIL_HALF_HEIGHT) - face
    # Distance from the face's plane to the nearest corner of the nail's head, which is
    # the point of contact with a tilted face.
    tilt = jnp.abs(normal[0]) + jnp.abs(normal[2])
    gap = jnp.dot(offset, normal) - NAIL_RADIUS * tilt
    reach = DISC_RADIUS + NAIL_RADIUS
    return (
        (gap < TOUCHING)
        & (gap > -NAIL_HALF_HEIGHT)
        & (jnp.abs(offset[0]) < reach)
        & (jnp.abs(offset[2]) < reach)
        & (normal[1] > FACING)
        & (face[2] > DISC_RADIUS + LIFTED)
    )


def fingers_clear(sensors: Sensors, slide: jax.Array) -> jax.Array:
    """Return whether both fingers are clear of the nail's head: bool []."""
    head = jnp.asarray((NAIL_RADIUS, NAIL_HALF_HEIGHT, NAIL_RADIUS), jnp.float32)
    reach = head + jnp.asarray(PAD_HALF_SIZE, jnp.float32) + CLEARANCE
    nail = nail_position(slide)
    right = jnp.any(jnp.abs(sensors["rightpad"] - nail) > reach)
    left = jnp.any(jnp.abs(sensors["leftpad"] - nail) > reach)
    return right & left
