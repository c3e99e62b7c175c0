"""The dense reward of hammer-v3, and what it is made of, as functions of arrays.

The formula is Meta-World's second reward version: caging the object between the
fingers plus bringing the hammer's head to the nail. Every function
is held against the installed original by tests/test_hammer_metaworld.py.
"""

import jax
import jax.numpy as jnp

# Where the head is, from the hammer's origin, in the reward's eyes: the corner of
# the head, and as if the hammer never turned.
HEAD_OFFSET = (0.16, 0.06, 0.0)

OBJECT_RADIUS = 0.015
PAD_THRESHOLD = 0.02
XZ_THRESHOLD = 0.01
HALF_HANDLE = 0.07


def long_tail(
    x: jax.Array, upper: float, margin: jax.Array, lower: float = 0.0
) -> jax.Array:
    """1 within [lower, upper]; outside, 1 / (1 + 9 (distance / margin)²).

    Args:
      x: [...].
      upper: upper bound of the interval.
      margin: [...], distance from the interval at which the value is 0.1; where it is
        0, the value outside is 0.
      lower: lower bound of the interval.
    """
    distance = jnp.where(x < lower, lower - x, x - upper)
    inside = (lower <= x) & (x <= upper)
    # The inner `where` keeps 0 / 0 out of the branch that is not taken.
    scaled = distance / jnp.where(margin == 0, 1.0, margin)
    outside = jnp.where(margin == 0, 0.0, 1.0 / (1.0 + 9.0 * scaled**2))
    return jnp.where(inside, 1.0, outside)


def hamacher(a: jax.Array, b: jax.Array) -> jax.Array:
    """The Hamacher product a b / (a + b - a b) of numbers in [0, 1]; 0 at (0, 0)."""
    below = a + b - a * b
    return jnp.where(below > 0, a * b / jnp.where(below > 0, below, 1.0), 0.0)


def caging(
    effort: jax.Array,
    target: jax.Array,
    target_start: jax.Array,
    left_pad: jax.Array,
    right_pad: jax.Array,
    tcp: jax.Array,
    tcp_start: jax.Array,
) -> jax.Array:
    """How well the fingers hold something, 0 to 1, in Meta-World's high density.

    Args:
      effort: [], the gripper's action, before clipping.
      target: [3], what is to be held, metres like all positions here.
      target_start: [3], where it was at reset.
      left_pad: [3]; only y counts, along which the pads close.
      right_pad: [3], likewise.
      tcp: [3], the middle of the finger tips.
      tcp_start: [3], where that was at reset.
    """

    def closeness(pad_y: jax.Array) -> jax.Array:
        # The margin grows as the object leaves its start: hardly any reward before
        # it is touched, and no pull back afterwards.
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
    """(2 grab + 6 in place) · upright, or 10 once the nail is in and that exceeds 5.

    Args:
      hammer: [3], its origin, metres.
      hammer_quat: [4], its orientation (w, x, y, z).
      grab: [], how well the fingers hold the hammer, 0 to 1.
      goal: [3], where the head shall be, metres.
      success: bool [], the nail is in.
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
    """The hammer's position [3], slid along the handle to beside the hand.

    Caging takes its object for a ball; a handle may be held anywhere.
    """
    near = jnp.abs(hammer[0] - hand[0]) < HALF_HANDLE
    return hammer.at[0].set(jnp.where(near, hand[0], hammer[0]))
