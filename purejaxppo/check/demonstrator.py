"""Checks of a demonstrator's actions: heads, dtypes, ranges and masks."""

import jax
import numpy as np

from purejaxppo.check.signature import expect
from purejaxppo.check.values import may_be_active
from purejaxppo.env import (
    Action,
    Box,
    Choice,
    Custom,
    DemonstratedEnv,
    Discrete,
    Head,
    State,
)
from purejaxppo.errors import ConfigError
from purejaxppo.policy import custom


def check_demonstrator(name: str, env: DemonstratedEnv, state: State) -> None:
    """Check the demonstrator's actions in states [B].

    In states that end an episode the action may have any value.

    Args:
      name: name of the environment.
      env: one environment.
      state: [B].

    Raises:
      ConfigError: the first head whose action is invalid or not allowed.
    """
    field = f"{name}.demonstrator"
    action = jax.jit(jax.vmap(env.demonstrator))(state)
    is_running = ~np.asarray(state.terminated | state.truncated)
    if set(action) != set(env.spec.heads):
        raise ConfigError(field, sorted(action), f"{sorted(env.spec.heads)}")
    for head_name, head in env.spec.heads.items():
        place = f"{field}: {head_name}"
        _check_values(place, head, action[head_name], is_running)
        if head_name in state.action_mask and isinstance(head, Discrete | Choice):
            relevant = is_running & may_be_active(head_name, env.spec.heads, state)
            if np.any(relevant & ~_allowed(head_name, head, state, action)):
                raise ConfigError(place, "a masked action", "what the mask allows")


def _check_values(
    field: str, head: Head, value: jax.Array, is_running: np.ndarray
) -> None:
    """Check dtype and shape in all states [B], and the range where `is_running`."""
    num = value.shape[:1]
    if isinstance(head, Box):
        expect(field, value, "float32", (*num, head.size))
        if not np.all(np.abs(value[is_running]) <= 1.0):
            raise ConfigError(field, value.tolist(), "numbers in [-1, 1]")
        return
    if isinstance(head, Custom):
        expected = custom.action_type(head)
        expect(field, value, str(expected.dtype), (*num, *expected.shape))
        return
    expect(field, value, "int32", (*num, head.k) if isinstance(head, Choice) else num)
    chosen = np.asarray(value).reshape((*num, -1))[is_running]
    if not np.all((chosen >= 0) & (chosen < head.n)):
        raise ConfigError(field, chosen.tolist(), f"numbers within 0 to {head.n - 1}")
    if isinstance(head, Choice) and any(len({*r}) < head.k for r in chosen.tolist()):
        allowed = f"{head.k} different ones of {head.n}"
        raise ConfigError(field, chosen.tolist(), allowed)


def _allowed(
    name: str, head: Discrete | Choice, state: State, action: Action
) -> np.ndarray:
    """Return whether the head's action is allowed or has no effect: bool [B]."""
    mask = np.asarray(state.action_mask[name])
    chosen = np.asarray(action[name]).reshape((len(mask), -1))
    if not isinstance(head, Discrete) or head.parent is None:
        return np.all(np.take_along_axis(mask, chosen, axis=-1), axis=-1)
    choice = np.asarray(action[head.parent])
    if mask.ndim == 3:  # one row for each choice of the parent
        mask = mask[np.arange(len(mask)), choice]
    allowed = np.all(np.take_along_axis(mask, chosen, axis=-1), axis=-1)
    if head.active_when is None:
        return allowed
    return allowed | ~np.isin(choice, head.active_when)
