"""Gymnasium's spaces of our heads and observations, and its actions as ours.

One head is a space by itself: a `Box` head a Box, `Discrete` a Discrete, and `Choice` a
MultiDiscrete of k different values. Several heads of the last two kinds are one
MultiDiscrete, in the order of the heads. If one of several is a `Box`, they are a Dict.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from purejaxppo.env import Box, Choice, Discrete, Env, Head
from purejaxppo.errors import ConfigError
from purejaxppo.quarantine import MAX_MAGNITUDE


def action_space(heads: Mapping[str, Head]) -> spaces.Space:
    """Build the action space of one environment.

    Raises:
      ConfigError: a `Custom` head, whose actions have no known range.
    """
    if len(heads) == 1:
        ((name, head),) = heads.items()
        return _space(name, head)
    if _are_joint(heads):
        return spaces.MultiDiscrete([n for x in heads.values() for n in _sizes(x)])
    return spaces.Dict({name: _space(name, head) for name, head in heads.items()})


def observation_space(env: Env) -> spaces.Space:
    """Build the observation space; larger numbers do not leave the auto-reset."""
    obs = jax.eval_shape(env.reset, jax.random.key(0)).obs
    boxes = jax.tree.map(
        lambda x: spaces.Box(-MAX_MAGNITUDE, MAX_MAGNITUDE, x.shape, np.float32), obs
    )
    return spaces.Dict(boxes) if isinstance(boxes, dict) else boxes


def head_actions(
    heads: Mapping[str, Head], actions: Any, num_envs: int
) -> dict[str, np.ndarray]:
    """Split N actions into those of the heads, with the heads' dtypes.

    Args:
      heads: head name -> head.
      actions: of `action_space(heads)`, batched as Gymnasium does: [N, ...], of a Dict
        each of its entries.
      num_envs: N.

    Raises:
      ConfigError: actions of another shape.
    """
    if _are_joint(heads):
        actions = _columns(heads, np.asarray(actions))
    elif len(heads) == 1:
        actions = dict.fromkeys(heads, actions)
    arrays = {}
    for name, head in heads.items():
        dtype = np.float32 if isinstance(head, Box) else np.int32
        arrays[name] = np.asarray(actions[name], dtype)
        _check_shape(f"actions of {name}", arrays[name], (num_envs, *_shape(head)))
    return arrays


def flat_masks(
    heads: Mapping[str, Head], masks: Mapping[str, np.ndarray], num_envs: int
) -> np.ndarray:
    """Join the masks of the heads, for a space without Dict: bool [N, sum of sizes].

    It allows too much, as it must be known before an action is: of a head with a parent
    what any choice of the parent allows, and of a choice each card at every place.

    Args:
      heads: head name -> head, none of them continuous.
      masks: head name -> bool [N, ...], of the heads that have a mask.
      num_envs: N.
    """
    parts = []
    for name, head in heads.items():
        mask = masks.get(name, np.ones((num_envs, _sizes(head)[0]), bool))
        mask = mask if mask.ndim == 2 else mask.any(axis=1)
        parts.append(np.tile(mask, len(_sizes(head))))
    return np.concatenate(parts, axis=1)


def _columns(heads: Mapping[str, Head], actions: np.ndarray) -> dict[str, np.ndarray]:
    """Split the columns of a joint MultiDiscrete: [N, k] of a Choice, [N] otherwise."""
    ends = np.cumsum([len(_sizes(head)) for head in heads.values()])
    _check_shape("actions", actions, (len(actions), ends[-1]))
    parts = np.split(actions, ends[:-1], axis=1)
    return {
        name: part if isinstance(head, Choice) else part[:, 0]
        for (name, head), part in zip(heads.items(), parts, strict=True)
    }


def _check_shape(field: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        value = f"an array of shape {[*array.shape]}"
        raise ConfigError(field, value, f"one of shape {[*map(int, shape)]}")


def _shape(head: Head) -> tuple[int, ...]:
    """Return the shape of one action of a head."""
    if isinstance(head, Box):
        return (head.size,)
    return (head.k,) if isinstance(head, Choice) else ()


def _are_joint(heads: Mapping[str, Head]) -> bool:
    """Return whether the heads are several of which none is continuous."""
    kinds = Discrete | Choice
    return len(heads) > 1 and all(isinstance(head, kinds) for head in heads.values())


def _space(name: str, head: Head) -> spaces.Space:
    if isinstance(head, Box):
        return spaces.Box(-1.0, 1.0, (head.size,), np.float32)
    if isinstance(head, Discrete):
        return spaces.Discrete(head.n)
    if isinstance(head, Choice):
        return spaces.MultiDiscrete(_sizes(head))
    raise ConfigError(f"heads.{name}", head, "a Box, a Discrete or a Choice")


def _sizes(head: Head) -> list[int]:
    """Return how many values each entry of a discrete head's action can have."""
    assert isinstance(head, Discrete | Choice)
    return [head.n] * (head.k if isinstance(head, Choice) else 1)
