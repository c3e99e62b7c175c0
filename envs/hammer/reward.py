"""The dense reward of hammer-v3 and its terms, as functions of arrays.

The formula is Meta-World's second reward version: caging the object between the
fingers plus bringing the hammer's head to the nail. tests/test_hammer_metaworld.py
compares every function with Meta-World.
"""

import jax
import jax.numpy as jnp

# The head's position relative to the hammer's origin, as assumed by the reward: a
# corner of the head, for a hammer that is not rotated.
HEAD_OFFSET = (0.16, 0.06, 0.0)

OBJECT_RADIUS = 0.015
PAD_THRESHOLD = 0.02
XZ_THRESHOLD = 0.01
HALF_HANDLE = 0.07


def long_tail(
    x: jax.Array, upper: float, margin: jax.Array, lower: float = 0.0
) -> jax.Array:
    """Compute 1 within [lower, upper], outside 1 / (1 + 9 (distance / margin)²).

    Args:
      x: [...].
      upper: upper bound of the interval.
      margin: [...], distance from the interval at which the value is 0.1; if it is 0,
        the value outside is 0.
      lower: lower bound of the interval.
    """
    distance = jnp.where(x < lower, lower - x, x - upper)
    inside = (lower <= x) & (x <= upper)
    # The inner `where` avoids 0 / 0 in the branch that is not selected.
    scaled = distance / jnp.where(margin == 0, 1.0, margin)
    outside = jnp.where(margin == 0, 0.0, 1.0 / (1.0 + 9.0 * scaled**2))
    return jnp.where(inside, 1.0, outside)


def hamacher(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the Hamacher product a b / (a + b - a b) in [0, 1]; 0 at (0, 0)."""
    denominator = a + b - a * b
    positive = denominator > 0
    return jnp.where(positive, a * b / jnp.where(positive, denominator, 1.0), 0.0)


def caging(
    effort: jax.Array,
    target: jax.Array,
    target_start: jax.Array,
    left_pad: jax.Array,
    right_pad: jax.Array,
    tcp: jax.Array,
    tcp_start: jax.Array,
) -> jax.Array:
    """Compute how well the fingers hold an object, in [0, 1].

    This is Meta-World's caging reward with `high_density`. Positions are in metres.

    Args:
      effort: [], the gripper's action, before clipping.
      target: [3], position of the object.
      target_start: [3], position of the object at reset.
      left_pad: [3], position of the left pad; only y, the closing direction, is used.
      right_pad: [3], position of the right pad; only y is used.
      tcp: [3], the middle of the finger tips.
      tcp_start: [3], the middle of the finger tips at reset.
    """

    def closeness(pad_y: jax.Array) -> jax.Array:
        # The margin is the distance of the pad from the object's start, so the reward
        # is small before the object is moved, and does not pull it back afterwards.
        margin = jnp.abs(jnp.abs(pad_y - target_start[1]) - PAD_THRESHOLD)
        gap = jnp.abs(pad_y - target[1])
        return long_tail(gap, PAD_THRESHOLD, margin, lower=OBJECT_RADIUS)

    def distance_xz(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.hypot(a[0] - b[0], a[2] - b[2])

    in_y = hamacher(closeness(left_pad[1]), closeness(right_pad[1]))
    margin = distance_xz(target_start, tcp_start) - XZ_THRESHOLD
    in_xz = long_tail(distance_xz(tcp, target), XZ_THRESHOLD, margin)
    caged = hamacher(in_y, in_xz)
    gripping = jnp.where(caged > 0.97, jnp.clip(effort, 0.0, 1.0), 0.0)
    return (hamacher(caged, gripping) + caged) / 2


def dense(
    hammer: jax.Array,
    hammer_quat: jax.Array,
    grab: jax.Array,
    goal: jax.Array,
    success: jax.Array,
) -> jax.Array:
    """Compute (2 grab + 6 in place) · upright, or 10 on success if that exceeds 5.

    Args:
      hammer: [3], the hammer's origin, metres.
      hammer_quat: [4], the hammer's orientation (w, x, y, z).
      grab: [], how well the fingers hold the hammer, 0 to 1.
      goal: [3], goal position of the hammer's head, metres.
      success: bool [], the nail is driven in.
    """
    head = hammer + jnp.asarray(HEAD_OFFSET, jnp.float32)
    distance = jnp.linalg.norm(goal - head)
    lifted = (head[2] > 0.02).astype(jnp.float32)
    in_place = 0.1 * lifted + 0.9 * long_tail(distance, 0.02, jnp.float32(0.2))
    upright = jnp.asarray((1.0, 0.0, 0.0, 0.0), jnp.float32)
    turned = jnp.linalg.norm(hammer_quat - upright)
    reward = (2.0 * grab + 6.0 * in_place) * jnp.maximum(1.0 - turned / 0.4, 0.0)
    return jnp.where(success & (reward > 5.0), 10.0, reward)


def grab_target(hand: jax.Array, hammer: jax.Array) -> jax.Array:
    """Return the point [3] of the hammer's handle that is nearest to the hand.

    The caging reward assumes a small object, but a handle can be held at any point.
    """
    near = jnp.abs(hammer[0] - hand[0]) < HALF_HANDLE
    return hammer.at[0].set(jnp.where(near, hand[0], hammer[0]))
