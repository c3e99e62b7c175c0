"""Demonstrations as data, and the requirements that every step of them meets."""

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.env import Action, Box, Choice, Custom, Head, Obs
from purejaxppo.policy import heads as heads_lib
from purejaxppo.policy.heads import Heads, PolicyInput
from purejaxppo.quarantine import MAX_MAGNITUDE


class Demonstrations(struct.PyTreeNode):
    """K episodes of at most L steps, [K, L, ...]; `valid` marks the existing steps."""

    obs: Obs  # raw, not normalised
    action: Action
    action_mask: dict[str, jax.Array]
    active: dict[str, jax.Array]
    reward: jax.Array  # [K, L]
    valid: jax.Array  # bool [K, L]


def faults(heads: Heads, demonstrations: Demonstrations) -> dict[str, jax.Array]:
    """Find the valid steps that cannot be cloned.

    Args:
      heads: head name -> kind.
      demonstrations: [K, L, ...].

    Returns:
      requirement, as in "the file has ..." -> bool [K, L], the steps that violate it.
    """
    observed = demonstrations.obs
    observed = observed if isinstance(observed, dict) else {"": observed}
    numbers = {f"obs/{name}".rstrip("/"): x for name, x in observed.items()}
    numbers["reward"] = demonstrations.reward
    found = {}
    for name, x in numbers.items():
        found |= _finite(name, x, demonstrations) | _bounded(name, x, demonstrations)
    for name, head in heads.items():
        found |= _action_faults(f"action/{name}", head, name, demonstrations)
    for name, allowed in _allowed(heads, demonstrations).items():
        found[f"only allowed actions in action/{name}"] = ~allowed
    return {text: bad & demonstrations.valid for text, bad in found.items()}


def without_faults(heads: Heads, demonstrations: Demonstrations) -> Demonstrations:
    """Mark the steps that cannot be cloned as invalid."""
    valid = demonstrations.valid
    for bad in faults(heads, demonstrations).values():
        valid &= ~bad
    return demonstrations.replace(valid=valid)


def _any(bad: jax.Array, demonstrations: Demonstrations) -> jax.Array:
    """Reduce [K, L, ...] to [K, L]."""
    return jnp.any(bad.reshape(*demonstrations.valid.shape, -1), axis=-1)


def _finite(
    name: str, x: jax.Array, demonstrations: Demonstrations
) -> dict[str, jax.Array]:
    bad = _any(~jnp.isfinite(x), demonstrations)
    return {f"only finite numbers in {name}": bad}


def _bounded(
    name: str, x: jax.Array, demonstrations: Demonstrations
) -> dict[str, jax.Array]:
    bad = _any(jnp.abs(x) > MAX_MAGNITUDE, demonstrations)
    return {f"numbers below {MAX_MAGNITUDE:g} in {name}": bad}


def _action_faults(
    place: str, head: Head, name: str, demonstrations: Demonstrations
) -> dict[str, jax.Array]:
    """Find actions that are out of range; `place` is what a sentence calls them."""
    action = demonstrations.action[name]
    if isinstance(head, Box):
        outside = _any(~(jnp.abs(action) <= 1.0), demonstrations)
        finite = _finite(place, action, demonstrations)
        return finite | {f"{place} within [-1, 1]": outside}
    if isinstance(head, Custom):
        if not jnp.issubdtype(action.dtype, jnp.floating):
            return {}
        finite = _finite(place, action, demonstrations)
        return finite | _bounded(place, action, demonstrations)
    outside = _any((action < 0) | (action >= head.n), demonstrations)
    found = {f"{place} within 0 to {head.n - 1}": outside}
    if isinstance(head, Choice):
        ordered = jnp.sort(action, axis=-1)
        repeated = jnp.any(ordered[..., 1:] == ordered[..., :-1], axis=-1)
        found[f"{head.k} different numbers in {place}"] = repeated
    return found


def _allowed(heads: Heads, demonstrations: Demonstrations) -> dict[str, jax.Array]:
    inputs = PolicyInput(
        obs=demonstrations.obs,
        start=demonstrations.valid,  # only its shape matters here
        action_mask=demonstrations.action_mask,
        active=demonstrations.active,
    )
    return heads_lib.allowed(heads, inputs, demonstrations.action)
