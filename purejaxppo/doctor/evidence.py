"""What a rule is made of, and the reductions that rules share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from purejaxppo.doctor.log import Log, column, finite

Limits = Mapping[str, float]


class Evidence(NamedTuple):
    """What a rule saw.

    Attributes:
      severity: from 0 to 1.
      metric: where it is seen.
      steps: the first and the last step at which it is seen.
      seen: a clause with the figures.
    """

    severity: float
    metric: str
    steps: tuple[int, int]
    seen: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """One fault, how it is recognised, and what helps.

    Attributes:
      fault: its short name.
      find: (log, limits) -> the evidence, None if the run does not have the fault.
      limits: the thresholds of `find`, by name.
      fatal: no later update can mend it, so that `--strict` stops the run.
      after: the share of the planned steps before which nothing is said, because a
        policy that has not learned yet may still do so.
      updates: the number of updates before which nothing is said.
      meaning: what the evidence means, in words.
      suspect: the likely cause.
      knobs: what to change, the most promising first.
      source: where the rule or its threshold comes from.
    """

    fault: str
    find: Callable[[Log, Limits], Evidence | None]
    limits: Limits
    meaning: str
    suspect: str
    knobs: tuple[str, ...]
    source: str
    fatal: bool = False
    after: float = 0.0
    updates: int = 5


def median(values: np.ndarray) -> float:
    """Return the median of the numbers among `values`; NaN if there are none."""
    values = finite(values)
    return float(np.median(values)) if values.size else float("nan")


def largest(values: np.ndarray) -> float:
    """Return the largest of the numbers among `values`; NaN if there are none."""
    values = finite(values)
    return float(values.max()) if values.size else float("nan")


def upper(values: np.ndarray) -> float:
    """Return the upper quartile of the numbers among `values`; NaN without any."""
    values = finite(values)
    return float(np.quantile(values, 0.75)) if values.size else float("nan")


def late(values: np.ndarray) -> np.ndarray:
    """Return the second half of a series."""
    return values[values.shape[0] // 2 :]


def share(mask: np.ndarray) -> float:
    """Return the share of True."""
    return float(np.mean(mask)) if mask.size else 0.0


def span(log: Log, mask: np.ndarray) -> tuple[int, int]:
    """Return the steps of the first and the last update at which `mask` is True."""
    steps = log.updates["steps"][mask]
    return (int(steps[0]), int(steps[-1])) if steps.size else (0, 0)


def everywhere(log: Log) -> tuple[int, int]:
    """Return the steps of the first and the last update."""
    steps = log.updates["steps"]
    return (int(steps[0]), int(steps[-1])) if steps.size else (0, 0)


def heads(log: Log, suffix: str) -> dict[str, np.ndarray]:
    """Return the column head/NAME/suffix of each head that has it, by NAME."""
    columns = log.updates
    names = [n.split("/") for n in columns if n.startswith("head/")]
    return {
        parts[1]: columns["/".join(parts)]
        for parts in names
        if len(parts) == 3 and parts[2] == suffix
    }


def setting(log: Log, name: str, default: float = float("nan")) -> float:
    """Return a number of the configuration; `default` if it is not recorded."""
    value = log.config.get(name, default)
    try:
        return float(value)  # type: ignore[arg-type] # infinity is the text "inf"
    except (TypeError, ValueError):
        return default


def grade(value: float, low: float, high: float) -> float:
    """Return where `value` lies between `low` and `high`, on a logarithmic scale, 0-1.

    Args:
      value: a positive number.
      low: the value of grade 0.
      high: the value of grade 1; it may be smaller than `low`.
    """
    if not np.isfinite(value):
        return 1.0
    tiny = 1e-30
    position = np.log(max(value, tiny) / low) / np.log(high / low)
    return float(np.clip(position, 0.0, 1.0))


def progress(log: Log) -> float:
    """Return the share of the planned steps that the run has done; 1 if unknown."""
    planned = setting(log, "total_timesteps")
    return 1.0 if log.finished or not planned > 0 else everywhere(log)[1] / planned


def trained(log: Log) -> np.ndarray:
    """Return at which updates the policy may move: those after the critic's warm-up."""
    warmup = setting(log, "critic_warmup", 0.0)
    number = column(log.updates, "update")
    return ~(number <= warmup)


def undecided(log: Log, share: float) -> np.ndarray:
    """Return at which updates the policy still has entropy to lose.

    One that has become deterministic does not move any more, whatever the cause was.

    Args:
      log: the figures of the run.
      share: of the first update's entropy, below which the policy is deterministic.
        Of a continuous head's entropy, which may be negative, nothing is said.
    """
    entropy = column(log.updates, "entropy")
    first = entropy[0] if entropy.size else float("nan")
    return ~((first > 0) & (entropy >= 0) & (entropy < share * first))
