"""Heads for Gymnasium's action spaces, and what its observations must be.

The opposite of `gymnasium_spaces`, which makes Gymnasium's spaces of our heads.
"""

from collections.abc import Callable

import numpy as np
from gymnasium import spaces

from purejaxppo.env import Box, Discrete, Head
from purejaxppo.errors import ConfigError

Decode = Callable[[np.ndarray], object]


def check_observations(field: str, space: spaces.Space) -> None:
    """Check that every observation of a space has the same number of numbers.

    Args:
      field: name of the observations in an error.
      space: the space of the observations.

    Raises:
      ConfigError: they hold a text, a graph or a sequence, for example.
    """
    kinds = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    if isinstance(space, spaces.Dict):
        for name, part in space.items():
            check_observations(f"{field}[{name!r}]", part)
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            check_observations(f"{field}[{index}]", part)
    elif not isinstance(space, kinds):
        allowed = "a Box, Discrete, MultiDiscrete, MultiBinary, or Dict or Tuple of it"
        raise ConfigError(field, space, allowed)


def heads(field: str, space: spaces.Space) -> dict[str, Head]:
    """Return the heads of an action space: one "action", or "action_0", "action_1", ...

    Args:
      field: name of the actions in an error.
      space: the space of the actions.

    Raises:
      ConfigError: actions of another kind, or without finite bounds.
    """
    if isinstance(space, spaces.Box):
        if not np.all(np.isfinite(_half_range(space))):
            raise ConfigError(field, space, "a Box with finite bounds")
        return {"action": Box(int(np.prod(space.shape)))}
    if isinstance(space, spaces.Discrete):
        return {"action": Discrete(int(space.n))}
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.ravel()]
    elif isinstance(space, spaces.MultiBinary):
        sizes = [2] * int(np.prod(space.shape))
    else:
        allowed = "a Box, Discrete, MultiDiscrete or MultiBinary"
        raise ConfigError(field, space, allowed)
    return {f"action_{i}": Discrete(n) for i, n in enumerate(sizes)}


def decoder(space: spaces.Space) -> Decode:
    """Make the function from actions of the heads, one after the other, to an action.

    Args:
      space: the space of the actions, one that `heads` takes.

    Returns:
      a function of a row: float32 [A] in [-1, 1] for a Box, which is scaled to its
      bounds, otherwise int32 [A].
    """
    shape, dtype = space.shape, space.dtype
    assert dtype is not None
    if isinstance(space, spaces.Discrete):
        return lambda row: dtype.type(space.start + row[0])
    if isinstance(space, spaces.MultiDiscrete):
        return lambda row: (row.reshape(shape) + space.start).astype(dtype)
    if not isinstance(space, spaces.Box):
        return lambda row: row.reshape(shape).astype(dtype)
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    half, is_whole = _half_range(space), np.issubdtype(dtype, np.integer)

    def scaled(row: np.ndarray) -> np.ndarray:
        # Rounding can lead beyond the bounds, which some environments refuse.
        action = low + (row.reshape(shape) + 1) * half
        action = np.minimum(np.maximum(action, low), high)  # faster than `clip`
        return (np.rint(action) if is_whole else action).astype(dtype)

    return scaled


def _half_range(space: spaces.Box) -> np.ndarray:
    """Return half of the distance between the bounds, in the precision of actions."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (space.high.astype(np.float32) - space.low.astype(np.float32)) / 2
