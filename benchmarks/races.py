"""Races between workers, read from races.toml."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.compare import Competitor

Common = dict[str, Any]
_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())

# What --quick puts in the place of a configuration's keys.
FEW: Common = _DATA["quick"]


class Race(NamedTuple):
    """Competitors by their name in the tables, and the configuration that they share.

    Attributes:
      seeds: of trainings from scratch; none where only speed is compared.
      stages: whether our side is also taken apart.
    """

    about: str
    configuration: Common
    competitors: dict[str, Competitor]
    seeds: tuple[int, ...]
    stages: bool


def configuration(name: str) -> Common:
    """Read the keys of a configuration and of those that it builds on."""
    keys = dict(_DATA["configurations"][name])
    base = keys.pop("base", None)
    return (configuration(base) if base else {}) | keys


def _race(name: str, race: Common) -> Race:
    workers = {n: Competitor(**worker) for n, worker in _DATA["workers"].items()}
    return Race(
        race["about"],
        configuration(race.get("configuration", name)),
        {label: workers[worker] for label, worker in race["competitors"].items()},
        tuple(race.get("seeds", ())),
        race.get("stages", False),
    )


RACES = {name: _race(name, race) for name, race in _DATA["races"].items()}
