"""Checkpoint formats, and the migration of an older format to the next.

In format 1 (purejaxppo 0.1.0) all parameters are in one dictionary, in which modules of
the critic have the prefix "critic", and the two Adam states are in a dictionary. In
format 2 `TrainState.params` is `Params(policy, critic)`, and `TrainState.opt_state` is
the state of an `optax.chain` whose second transformation is an `optax.partition`. In
format 3 the count of running statistics has two words, their sums of squared deviations
are variances, and `TrainState.still_updates` and `Episode.unstable` exist.

A change of the structure of `TrainState` must increase `FORMAT` and add an entry to
`MIGRATIONS`. Without an entry, older runs cannot be resumed.
"""

import functools
import re
from collections.abc import Callable, Mapping

import numpy as np

from purejaxppo.run.arrays import Arrays

FORMAT = 3

Metadata = dict[str, object]  # JSON values, defined by the caller
Migration = Callable[[Arrays, Metadata], tuple[Arrays, Metadata]]

_PARTITION = r".opt_state[1].inner_states"
# Pattern at the start of a tree path -> its replacement in the next format. The first
# pattern that matches is applied; paths without a match do not change.
_NAMES_OF_FORMAT_2 = {
    r"(\.reference)?\.params(?=\['critic)": r"\1.params.critic",
    r"(\.reference)?\.params(?=\[')": r"\1.params.policy",
    r"\.opt_state\['policy'\]\.count": (rf"{_PARTITION}['policy'].inner_state.count"),
    r"\.opt_state\['policy'\]\.(mu|nu)": (
        rf"{_PARTITION}['policy'].inner_state.\1.policy"
    ),
    r"\.opt_state\['critic'\]\.count": (
        rf"{_PARTITION}['critic'].inner_state[0].count"
    ),
    r"\.opt_state\['critic'\]\.(mu|nu)": (
        rf"{_PARTITION}['critic'].inner_state[0].\1.critic"
    ),
}


def _renamed(name: str, patterns: Mapping[str, str]) -> str:
    for pattern, replacement in patterns.items():
        match = re.match(pattern, name)
        if match:
            return match.expand(replacement) + name[match.end() :]
    return name


def rename_arrays(
    patterns: Mapping[str, str], arrays: Arrays, metadata: Metadata
) -> tuple[Arrays, Metadata]:
    """Rename arrays to their names in the next format.

    Args:
      patterns: regular expression, matched at the start of a tree path -> replacement,
        with `\\1` for groups. Only the first pattern that matches is applied.
      arrays: tree path -> array.
      metadata: the metadata of the checkpoint.

    Returns:
      the renamed arrays, and the unchanged metadata.
    """
    return {_renamed(name, patterns): x for name, x in arrays.items()}, metadata


_STATISTICS = re.compile(r"(?:\.reference)?\.(?:obs|return)_stats(?=\.)")


def _to_format_3(arrays: Arrays, metadata: Metadata) -> tuple[Arrays, Metadata]:
    migrated = {}
    for name, array in arrays.items():
        match = _STATISTICS.match(name)
        field = name[match.end() :] if match else ""
        if match and field == ".count":
            words = [array.astype(np.uint64) % 2**32, array.astype(np.uint64) // 2**32]
            array = np.stack(words, axis=-1).astype(np.uint32)
        elif match and field.startswith(".square"):
            name = match[0] + field.replace(".square", ".variance", 1)
            count = np.maximum(arrays[f"{match[0]}.count"], 1.0)
            # With several seeds there is a count per seed: its axis comes first.
            extra = (1,) * (array.ndim - count.ndim)
            array = (array / count.reshape(count.shape + extra)).astype(array.dtype)
        migrated[name] = array
    if ".update_count" in arrays:
        migrated[".still_updates"] = np.zeros_like(arrays[".update_count"])
    if ".episodes.start" in arrays:
        # Of an older run no start is known to have been broken.
        migrated[".episodes.unstable"] = np.zeros_like(arrays[".episodes.start"])
    return migrated, metadata


# Format -> the function that converts it to the next format.
MIGRATIONS: dict[int, Migration] = {
    1: functools.partial(rename_arrays, _NAMES_OF_FORMAT_2),
    2: _to_format_3,
}
