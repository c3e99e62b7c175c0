"""Recorded episodes of other programs, in whatever format they are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from purejaxppo.errors import ConfigError

Format = Literal["robomimic", "minari", "lerobot"]
# Part of the observation, "" alone or "actor" and "critic" -> its arrays, one after the
# other; none for the only one there is.
Keys = Mapping[str, Sequence[str]]


class Recorded(NamedTuple):
    """A recorded episode of T steps.

    Attributes:
      name: as its file has it.
      obs: part -> [T or T + 1, D]: "" alone, or "actor" and "critic".
      actions: name -> [T, ...]; "" where the file has one array of actions.
      reward: [T].
      ended: bool [T], the step terminated or truncated the episode.
    """

    name: str
    obs: dict[str, np.ndarray]
    actions: dict[str, np.ndarray]
    reward: np.ndarray
    ended: np.ndarray


def refusal(path: Path, requirement: str) -> ConfigError:
    """Return the error of a file that does not meet a requirement."""
    return ConfigError("source", str(path), f"a file that {requirement}")


def the_only(keys: Sequence[str]) -> Sequence[str]:
    """Return what is there to observe if that is one array.

    Raises:
      ConfigError: there are several, of which some must be named.
    """
    if len(keys) != 1:
        order = "in the order in which the environment observes them"
        allowed = f"some of {', '.join(keys)}, {order}"
        raise ConfigError("observations", (), allowed)
    return keys


def columns(array: np.ndarray) -> np.ndarray:
    """Return numbers per step as columns, [T, D]."""
    return array.reshape(len(array), -1) if array.ndim != 2 else array
