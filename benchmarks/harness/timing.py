"""How everything is timed: in turn, round by round.

Each round times everything once, so that what the machine does to one it does to its
neighbours; things are compared within a round, and the ratios do not drift with it.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Rates = dict[str, list[float]]  # name -> amount per second, a figure a round
Spread = dict[str, float]  # median, min, max


class Block(NamedTuple):
    """One timed piece of work."""

    amount: float  # environment steps, sample passes, ...
    seconds: float


Task = Callable[[], Block | None]
Work = Callable[[], object]  # returns when its results are there


def timed(work: Work, amount: float) -> Task:
    """Make a task of `work`, which returns when its results are computed."""

    def task() -> Block:
        begin = time.perf_counter()
        work()
        return Block(amount, time.perf_counter() - begin)

    return task


def interleave(
    tasks: Mapping[str, Task], num_rounds: int, warm_up: bool = True
) -> Rates:
    """Time every task `num_rounds` times in turn.

    Each round begins with another task, so that none is always behind the same one.
    A task that returns None has dropped out: it is not called again.

    Args:
      tasks: name -> task.
      num_rounds: how often every task is timed.
      warm_up: call each once before the first round.
    """
    for task in tasks.values() if warm_up else ():
        task()
    names, dropped = list(tasks), set()
    rates: Rates = {name: [] for name in names}
    for index in range(num_rounds):
        shift = index % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            block = None if name in dropped else tasks[name]()
            if block is None:
                dropped.add(name)
            else:
                rates[name].append(block.amount / block.seconds)
    return rates


def median_and_spread(values: list[float]) -> Spread:
    """Compute median, smallest and largest."""
    low, middle, high = np.percentile(values, [0, 50, 100])
    return {"median": float(middle), "min": float(low), "max": float(high)}


def ratio(rates: Rates, numerator: str, denominator: str) -> Spread:
    """Compute median and spread of one rate over another within each round.

    Args:
      rates: of both, for the same rounds.
      numerator, denominator: names of tasks.
    """
    pairs = zip(rates[numerator], rates[denominator], strict=True)
    return median_and_spread([a / b for a, b in pairs])


def figures(rates: Rates, baseline: str) -> dict[str, dict[str, Spread]]:
    """Summarise rates, and the ratio of each to that of the baseline."""
    spreads = {n: median_and_spread(values) for n, values in rates.items() if values}
    ratios = {
        f"{name}_over_{baseline}": ratio(rates, name, baseline)
        for name in rates
        if name != baseline
    }
    return {"steps_per_second": spreads, "ratios": ratios}
