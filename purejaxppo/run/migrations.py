"""Checkpoint formats, and how the arrays of an older one are renamed for the next.

Format 1 (purejaxppo 0.1.0) has one dictionary of parameters, in which the prefix
"critic" of a module's name tells whose they are, and Adam's state of both parts in a
dictionary. Since format 2 `TrainState.params` is `Params(policy, critic)`, and
`TrainState.opt_state` is that of an `optax.chain` whose second transformation is an
`optax.partition`. Since format 3 running statistics count in two words and hold
variances, where they had sums of squared deviations; and the state counts the updates
in a row that did not move the policy.

Whoever changes the structure of `TrainState` counts `FORMAT` up and adds an entry to
`MIGRATIONS`: without one, older runs are refused when they are resumed.
"""

import functools
import re
from collections.abc import Callable, Mapping

import numpy as np

from purejaxppo.run.arrays import Arrays

FORMAT = 3

Metadata = dict[str, object]  # the caller's own; what JSON holds
Migration = Callable[[Arrays, Metadata], tuple[Arrays, Metadata]]

_PARTITION = r".opt_state[1].inner_states"
# A pattern at the start of a tree path -> what stands there in the next format. The
# first that matches is applied; paths that match none stay as they are.
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
    """Arrays under their names in the next format; the metadata stays as it is.

    Args:
      patterns: regular expression, matched at the start of a tree path -> replacement
        of what it matches, with `\\1` for its groups. The first that matches counts.
      arrays: tree path -> array.
      metadata: of the checkpoint.

    Returns:
      arrays and metadata as the next format has them.
    """
    return {_renamed(name, patterns): x for name, x in arrays.items()}, metadata


_STATISTICS = re.compile(r"(?:\.reference)?\.(?:obs|return)_stats(?=\.)")


def _format_3(arrays: Arrays, metadata: Metadata) -> tuple[Arrays, Metadata]:
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
            # One count for each seed, and one or more entries for each count.
            extra = (1,) * (array.ndim - count.ndim)
            array = (array / count.reshape(count.shape + extra)).astype(array.dtype)
        migrated[name] = array
    if ".update_count" in arrays:
        migrated[".still_updates"] = np.zeros_like(arrays[".update_count"])
    return migrated, metadata


# Format -> what makes the next one of it.
MIGRATIONS: dict[int, Migration] = {
    1: functools.partial(rename_arrays, _NAMES_OF_FORMAT_2),
    2: _format_3,
}
