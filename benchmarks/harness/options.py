"""How to measure: what every part of a workload is given."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from purejaxppo.run.progress import Progress

Figures = dict[str, Any]


class Options(NamedTuple):
    """How to measure.

    Attributes:
      rounds: how often things are timed in turn.
      quick: tiny sizes, to see that it runs; the figures mean nothing.
      progress: says what is going on.
      deadline: of `time.monotonic`: nothing long begins after it.
      stored: figures of this workload that are on disk, for parts that go on.
      save: keeps figures that are not yet all.
    """

    rounds: int
    quick: bool
    progress: Progress
    deadline: float = math.inf
    stored: Mapping[str, Any] = MappingProxyType({})
    save: Callable[[Figures], None] = lambda figures: None
