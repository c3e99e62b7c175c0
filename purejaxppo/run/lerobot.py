"""Recorded episodes in a folder of LeRobot's dataset format, versions 2 and 3.

data/chunk-C/*.parquet  a row per frame: episode_index, frame_index, action, arrays of
                        the names observation.*, and where they were recorded
                        next.reward and next.done. In version 2 a file has one episode,
                        in version 3 several
                        (https://huggingface.co/docs/lerobot/lerobot-dataset-v3)

Videos are not read. A folder may come from somebody else: no link in it is followed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from purejaxppo.errors import first_line
from purejaxppo.run.recorded import Keys, Recorded, columns, refusal, the_only

if TYPE_CHECKING:
    import pyarrow

_OBSERVATION = "observation."
_EPISODE, _FRAME = "episode_index", "frame_index"
_REWARD, _DONE, _ACTION = "next.reward", "next.done", "action"


def read(path: Path, keys: Keys) -> list[Recorded]:
    """Read all episodes, in the order of their numbers.

    An episode without `next.done` ends at its last frame; one without `next.reward` has
    rewards of 0.

    Args:
      path: the folder of the dataset, which has the folders data and meta.
      keys: the arrays of each part of the observation, without "observation.".

    Raises:
      ConfigError: the folder is missing, damaged, or not laid out like that.
    """
    paths = sorted(path.glob("data/*/*.parquet"))
    if not paths:
        raise refusal(path, "is the folder of a dataset, with data/chunk-000/*.parquet")
    import pyarrow

    tables = [_table(file) for file in paths]
    try:
        return _episodes(path, pyarrow.concat_tables(tables), keys)
    except pyarrow.ArrowException as error:
        requirement = f"has the same columns in all its files ({first_line(error)})"
        raise refusal(path, requirement) from None


def _table(path: Path) -> "pyarrow.Table":
    import pyarrow
    from pyarrow import parquet

    if path.is_symlink() or not path.is_file():
        raise refusal(path, "is there itself, not a link")
    try:
        return parquet.ParquetFile(path).read()
    except MemoryError:
        raise refusal(path, "fits into memory") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise refusal(path, f"is undamaged Parquet ({first_line(error)})") from None


def _episodes(path: Path, table: "pyarrow.Table", keys: Keys) -> list[Recorded]:
    numbers, frames = (_array(path, table, name) for name in (_EPISODE, _FRAME))
    arrays = {
        name: _array(path, table, name)
        for name in table.column_names
        if name.startswith(_OBSERVATION) and _is_numeric(table, name)
    }
    action, num = _array(path, table, _ACTION), len(table)
    reward, done = np.zeros(num), None
    if _REWARD in table.column_names:
        reward = _array(path, table, _REWARD).reshape(num)
    if _DONE in table.column_names:
        done = _array(path, table, _DONE).reshape(num) != 0
    found = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers.ravel() == number)
        rows = rows[np.argsort(frames.ravel()[rows], kind="stable")]
        ended = np.arange(len(rows)) == len(rows) - 1 if done is None else done[rows]
        obs = {
            part: np.concatenate([x[rows] for x in _chosen(path, arrays, own)], axis=1)
            for part, own in keys.items()
        }
        actions = {"": action[rows]}
        found.append(Recorded(f"episode {number}", obs, actions, reward[rows], ended))
    return found


def _chosen(
    path: Path, arrays: dict[str, np.ndarray], keys: Sequence[str]
) -> list[np.ndarray]:
    there = {name.removeprefix(_OBSERVATION): columns(x) for name, x in arrays.items()}
    keys = keys or the_only(list(there))
    for key in keys:
        if key not in there:
            requirement = f"has {_OBSERVATION}{key}; there is {', '.join(there)}"
            raise refusal(path, requirement)
    return [there[key] for key in keys]


def _is_numeric(table: "pyarrow.Table", name: str) -> bool:
    """Return whether a column holds numbers, one or a list of them a row."""
    from pyarrow import types

    kind = table.schema.field(name).type
    while types.is_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    return types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)


def _array(path: Path, table: "pyarrow.Table", name: str) -> np.ndarray:
    """Return a column of numbers as an array, [T, ...]."""
    if name not in table.column_names or not _is_numeric(table, name):
        numeric = [x for x in table.column_names if _is_numeric(table, x)]
        raise refusal(path, f"has numbers in {name}; there is {', '.join(numeric)}")
    try:
        array = np.array(table.column(name).to_pylist())
    except ValueError:  # lists of different lengths
        array = np.zeros(0, object)
    if array.dtype.kind not in "biuf":  # a number is missing
        raise refusal(path, f"has as many numbers in each row of {name}")
    return array
