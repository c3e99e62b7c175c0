"""The one way in which things are timed here: in turn, round by round.

Each round times everything once, so that what the machine does to one it does to its
neighbours; things are compared within a round, and the ratios do not drift with it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Rates = dict[str, list[float]]  # name -> amount per second, a figure a round


class Block(NamedTuple):
    """One timed piece of work."""

    amount: float  # environment steps, sample passes, ...
    seconds: float


Task = Callable[[], Block | None]


def timed(work: Callable[[], Any], amount: float) -> Task:
    """A task of `work`, which must return only when its results are there."""

    def task() -> Block:
        begin = time.perf_counter()
        work()
        return Block(amount, time.perf_counter() - begin)

    return task


def interleave(tasks: Mapping[str, Task], rounds: int, warm_up: bool = True) -> Rates:
    """Rates of every task, `rounds` times in turn.

    Each round begins with another task, so that none is always behind the same one.
    A task that returns None has dropped out: it is not called again.

    Args:
      tasks: name -> task.
      warm_up: call each once before the first round.
    """
    if warm_up:
        for task in tasks.values():
            task()
    names = list(tasks)
    rates: Rates = {name: [] for name in names}
    dropped: set[str] = set()
    for index in range(rounds):
        shift = index % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            block = None if name in dropped else tasks[name]()
            if block is None:
                dropped.add(name)
            else:
                rates[name].append(block.amount / block.seconds)
    return rates


def median_and_spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    low, middle, high = np.percentile(values, [0, 50, 100])
    return {"median": float(middle), "min": float(low), "max": float(high)}


def spreads(rates: Rates) -> dict[str, dict[str, float]]:
    """Median and spread of every task that has a rate."""
    return {n: median_and_spread(values) for n, values in rates.items() if values}


def ratios_over(rates: Rates, below: str) -> dict[str, dict[str, float]]:
    """Every other task's rate over that of one, as NAME_over_ONE."""
    return {f"{n}_over_{below}": ratio(rates, n, below) for n in rates if n != below}


def ratio(rates: Rates, above: str, below: str) -> dict[str, float]:
    """Median and spread of one rate over another, taken within each round."""
    pairs = zip(rates[above], rates[below], strict=True)
    return median_and_spread([a / b for a, b in pairs])
