"""Logs, grouped by run and reduced to few points: a median line, and a band.

A point stands for neighbouring rows of all seeds of a run. Its band reaches from their
smallest to their largest value, so that a spike of one update in one seed survives.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Columns, Log

# Of one run; above four they share four times as many, so that the page stays small.
_MOST_POINTS = 400
_AXES = ("steps", "seed", "update")


class Curve(NamedTuple):
    """A metric over the P points of a run. float64 [P], NaN where there is no value.

    Attributes:
      y: the median over seeds, each averaged over the rows of the point.
      low: the smallest value of these rows and seeds.
      high: the largest.
    """

    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Curves(NamedTuple):
    """The metrics of a table of one run.

    Attributes:
      steps: the last step of each point, [P], ascending.
      metrics: name -> curve, without metrics that have no value at all.
    """

    steps: np.ndarray
    metrics: Mapping[str, Curve]


class Run(NamedTuple):
    """A run with all its seeds.

    Attributes:
      label: the shortest name that tells it from the other runs.
      logs: one for each seed.
      findings: what is wrong with each log.
      updates: the metrics of its updates.
      evals: the metrics of its evaluations.
    """

    label: str
    logs: Sequence[Log]
    findings: Sequence[Sequence[Finding]]
    updates: Curves
    evals: Curves


def group(logs: Sequence[Log], findings: Sequence[Sequence[Finding]]) -> list[Run]:
    """Group the logs by the path that they were read from.

    Args:
      logs: in the order in which their runs are shown.
      findings: of each log.
    """
    members: dict[Path, list[int]] = {}
    for index, log in enumerate(logs):
        members.setdefault(log.path, []).append(index)
    points = max(4 * _MOST_POINTS // max(4, len(members)), 50)
    return [
        Run(
            label=label,
            logs=[logs[i] for i in indices],
            findings=[findings[i] for i in indices],
            updates=reduce([logs[i].updates for i in indices], points),
            evals=reduce([logs[i].evals for i in indices], points),
        )
        for label, indices in zip(_labels(list(members)), members.values(), strict=True)
    ]


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of the paths, as many as it takes to tell them apart."""
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    for num in range(1, max(map(len, whole), default=1) + 1):
        labels = ["/".join(parts[-num:]) for parts in whole]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def reduce(tables: Sequence[Columns], num_points: int) -> Curves:
    """Reduce the tables of a run's seeds to at most `num_points` points.

    Args:
      tables: of each seed, with `steps`; a table may be empty.
      num_points: the largest number of points.
    """
    tables = [_with_steps(table) for table in tables if "steps" in table]
    steps = np.unique(np.concatenate([np.zeros(0), *(t["steps"] for t in tables)]))
    num = min(num_points, steps.size)
    starts = (np.arange(num) * steps.size) // max(num, 1)
    names = dict.fromkeys(n for t in tables for n in t if n not in _AXES)
    metrics = {}
    for name in names:
        curve = _curve(_rows(tables, name, steps), starts)
        if np.isfinite(curve.y).any():
            metrics[name] = curve
    ends = np.append(starts[1:], steps.size) - 1
    return Curves(steps[ends] if num else steps, metrics)


def _with_steps(table: Columns) -> Columns:
    """Return the rows whose step is a number."""
    rows = np.isfinite(table["steps"])
    return {name: values[rows] for name, values in table.items()}


def _rows(tables: Sequence[Columns], name: str, steps: np.ndarray) -> np.ndarray:
    """Put a metric of all seeds into one array over all steps, [S, U]."""
    rows = np.full((len(tables), steps.size), np.nan)
    for row, table in zip(rows, tables, strict=True):
        if name in table:
            row[np.searchsorted(steps, table["steps"])] = table[name]
    rows[~np.isfinite(rows)] = np.nan  # infinity cannot be drawn
    return rows


def _curve(rows: np.ndarray, starts: np.ndarray) -> Curve:
    """Reduce [S, U] to points that begin at `starts`."""
    if not starts.size:
        return Curve(*[np.zeros(0)] * 3)
    valid = np.isfinite(rows)
    with np.errstate(all="ignore"):  # 0/0 of a point without values is NaN
        sums = np.add.reduceat(np.where(valid, rows, 0.0), starts, axis=1)
        means = sums / np.add.reduceat(valid.astype(np.float64), starts, axis=1)
    return Curve(
        y=_median(means),
        low=np.fmin.reduce(np.fmin.reduceat(rows, starts, axis=1), axis=0),
        high=np.fmax.reduce(np.fmax.reduceat(rows, starts, axis=1), axis=0),
    )


def _median(means: np.ndarray) -> np.ndarray:
    """Return the median over the first axis; NaN where no row has a number."""
    median = np.full(means.shape[1], np.nan)
    some = np.isfinite(means).any(axis=0)
    median[some] = np.nanmedian(means[:, some], axis=0)
    return median


def config_value(run: Run, name: str) -> object:
    """Return a value of the configuration of a run, None if it is not recorded."""
    return run.logs[0].config.get(name)


def number(value: object) -> float | None:
    """Return a finite number of a record, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def last_step(run: Run) -> float:
    """Return the last step that a run has figures of."""
    ends = [c.steps[-1] for c in (run.updates, run.evals) if c.steps.size]
    return float(max(ends, default=0.0))


def record_text(value: object) -> str:
    """Return a value of a record as text, without its middle if it is long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"
