"""Recorded episodes in HDF5 files, as robomimic and Minari lay them out.

robomimic  data/demo_I/{obs/KEY, actions, rewards, dones}; a step is done at success, at
           the end, or both (https://robomimic.github.io/docs/datasets/overview.html)
Minari     episode_I/{observations, actions, rewards, terminations, truncations}, with
           an observation more than actions; observations and actions are arrays, or
           groups of them (https://minari.farama.org/content/dataset_standards)

A file may come from somebody else: no link in it is followed, nothing outside of it is
read, and a size that it claims is compared with its own before memory is allocated.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from purejaxppo.errors import first_line
from purejaxppo.run.recorded import (
    Format,
    Keys,
    Recorded,
    columns,
    refusal,
    the_only,
)

if TYPE_CHECKING:
    import h5py

# No filter of HDF5 makes much more bytes of one than deflate does.
_MAX_RATIO = 1032


class Layout(NamedTuple):
    """Where a format keeps an episode.

    Attributes:
      root: the group with a group per episode.
      prefix: the name of such a group, before its number.
      observations: the array or group of observations.
      ends: arrays of steps; an episode ends where one of them is not 0.
    """

    root: str
    prefix: str
    observations: str
    ends: tuple[str, ...]


LAYOUTS: Mapping[Format, Layout] = {
    "robomimic": Layout("data", "demo_", "obs", ("dones",)),
    "minari": Layout("", "episode_", "observations", ("terminations", "truncations")),
}


def read(path: Path, format: Format, keys: Keys) -> list[Recorded]:
    """Read all episodes, in the order of their numbers.

    Args:
      path: the file, or the folder of a Minari dataset.
      format: the layout of the file.
      keys: the arrays of each part of the observation.

    Raises:
      ConfigError: the file is missing, damaged, or not laid out like that.
    """
    import h5py

    if path.is_dir():  # as Minari names it within the folder of a dataset
        path = path / "data" / "main_data.hdf5"
    if not path.is_file():  # a pipe or device may have no end
        raise refusal(path, "exists")
    try:
        with h5py.File(path, "r") as file:
            return _Reader(path, file, LAYOUTS[format]).episodes(keys)
    except MemoryError:
        raise refusal(path, "fits into memory") from None
    # The library raises many kinds of error for files that are damaged or none.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise refusal(path, f"is undamaged HDF5 ({first_line(error)})") from None


class _Reader(NamedTuple):
    """An open file and its layout."""

    path: Path
    file: "h5py.File"
    layout: Layout

    def episodes(self, keys: Keys) -> list[Recorded]:
        """Read all episodes; see `read`."""
        root, prefix = self.layout.root, self.layout.prefix
        group = self.group(root) if root else self.file
        pattern = re.compile(rf"{prefix}(\d{{1,18}})", re.ASCII)
        found = {name: pattern.fullmatch(name) for name in _names(group)}
        numbers = {name: int(match[1]) for name, match in found.items() if match}
        if not numbers:
            place = f"{root}/{prefix}0".lstrip("/")
            raise refusal(self.path, f"has {place}; there is {_listed(group)}")
        names = sorted(numbers, key=lambda name: numbers[name])
        return [self.episode(f"{root}/{name}".lstrip("/"), keys) for name in names]

    def episode(self, place: str, keys: Keys) -> Recorded:
        """Read the episode at a place in the file."""
        ends = [self.array(f"{place}/{name}") != 0 for name in self.layout.ends]
        if len({end.shape for end in ends}) > 1:
            names = " and ".join(self.layout.ends)
            raise refusal(self.path, f"has {names} of one length in {place}")
        actions = f"{place}/actions"
        named = {"": actions}
        if not self.is_array(actions):
            names = _names(self.group(actions))
            named = {name: f"{actions}/{name}" for name in names}
        return Recorded(
            name=place.rpartition("/")[2],
            obs={part: self.observations(place, own) for part, own in keys.items()},
            actions={name: self.array(where) for name, where in named.items()},
            reward=self.array(f"{place}/rewards"),
            ended=np.any(ends, axis=0),
        )

    def observations(self, place: str, keys: Sequence[str]) -> np.ndarray:
        """Read the arrays of some keys, one beside the other, [T or T + 1, D]."""
        place = f"{place}/{self.layout.observations}"
        if self.is_array(place):
            if keys:
                raise refusal(self.path, f"has keys in {place}, which is one array")
            return columns(self.array(place))
        group = self.group(place)
        keys = keys or the_only(_names(group))
        arrays = [columns(self.array(f"{place}/{key}")) for key in keys]
        if len({len(array) for array in arrays}) > 1:
            raise refusal(self.path, f"has arrays of one length in {place}")
        return np.concatenate(arrays, axis=1)

    def find(self, place: str) -> "h5py.Group | h5py.Dataset":
        """Find a group or an array by its path, without following a link."""
        import h5py

        found: object = self.file
        for depth, name in enumerate(words := place.split("/"), 1):
            if not isinstance(found, h5py.Group) or name not in found:
                above = "/".join(words[: depth - 1]) or "the file"
                others = _listed(found) if isinstance(found, h5py.Group) else "no group"
                requirement = f"has {'/'.join(words[:depth])}; in {above} there is "
                raise refusal(self.path, requirement + others)
            if not isinstance(found.get(name, getlink=True), h5py.HardLink):
                requirement = f"has {'/'.join(words[:depth])} itself, not a link"
                raise refusal(self.path, requirement)
            found = found[name]
        if not isinstance(found, h5py.Group | h5py.Dataset):
            raise refusal(self.path, f"has a group or an array {place}")
        return found

    def is_array(self, place: str) -> bool:
        """Return whether there is an array at that place, and not a group of them."""
        import h5py

        return isinstance(self.find(place), h5py.Dataset)

    def group(self, place: str) -> "h5py.Group":
        """Find a group by its path."""
        import h5py

        found = self.find(place)
        if not isinstance(found, h5py.Group):
            raise refusal(self.path, f"has a group {place}, not an array")
        return found

    def array(self, place: str) -> np.ndarray:
        """Read an array of numbers, [T, ...], by its path."""
        import h5py

        found = self.find(place)
        if not isinstance(found, h5py.Dataset):
            raise refusal(self.path, f"has an array {place}; it holds {_listed(found)}")
        if found.dtype.kind not in "biuf" or not found.shape or not found.size:
            raise refusal(self.path, f"has numbers, one or more a step, in {place}")
        if found.external or found.is_virtual:
            raise refusal(self.path, f"has {place} in itself, not in another file")
        if found.nbytes > _MAX_RATIO * self.path.stat().st_size:
            requirement = f"has as much as it claims in {place}: {found.nbytes:,} bytes"
            raise refusal(self.path, requirement)
        return found[...]


def _names(group: "h5py.Group") -> list[str]:
    return [str(name) for name in group]


def _listed(group: "h5py.Group") -> str:
    """List what is in a group, a part of it where that is much."""
    names = _names(group)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{', '.join(names[:20])}{more}" if names else "nothing"
