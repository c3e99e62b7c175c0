"""The charts of a page as data: series of numbers, and lines that refer to them.

A series is stored once, because several lines share their steps, and the band of one
line is the value of another.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from purejaxppo.doctor.finding import Finding
from purejaxppo.report.catalog import Chart, Line
from purejaxppo.report.runs import Curves, Run, config_value, number

# Readable on white and on black, and apart for the colour-blind.
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#d946ef", "#eab308", "#06b6d4", "#f43f5e")
FATAL, WARNING = "#ef4444", "#f59e0b"
_THIN = "#94a3b8"
_DIGITS = 5  # significant digits of a value, far beyond what an eye can see


class Marked(NamedTuple):
    """A kind of fault in one run, which may show in several seeds.

    Attributes:
      number: its number on the page, from 1.
      run: the run that has it.
      findings: (seed, finding), the most severe first.
    """

    number: int
    run: Run
    findings: Sequence[tuple[int | None, Finding]]

    @property
    def colour(self) -> str:
        """The colour of its spans."""
        return FATAL if self.findings[0][1].fatal else WARNING


class Pool:
    """The series of a page.

    Attributes:
      series: lists of numbers, None where there is no value.
    """

    def __init__(self) -> None:
        self.series: list[list[float | None]] = []
        self._index: dict[bytes, int] = {}

    def add(self, values: np.ndarray) -> int:
        """Return the index of a series, which is added if it is a new one."""
        key = values.tobytes()
        if key not in self._index:
            self._index[key] = len(self.series)
            self.series.append([_rounded(x) for x in values.tolist()])
        return self._index[key]


# A fault that shows in this share of a run is one of the whole run.
_WHOLE = 0.8


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:  # a step
        return int(value)
    return float(f"{value:.{_DIGITS}g}")


def run_colour(index: int) -> str:
    """Return the colour of a run on a page with several."""
    return COLOURS[index % len(COLOURS)]


def marked(runs: Sequence[Run]) -> list[Marked]:
    """Number the faults of all runs, the most severe first.

    The same fault in several seeds of a run has one number.
    """
    groups: dict[tuple[int, str, str], list[tuple[int | None, Finding]]] = {}
    for i, run in enumerate(runs):
        for log, findings in zip(run.logs, run.findings, strict=True):
            for finding in findings:
                key = (i, finding.fault, finding.metric)
                groups.setdefault(key, []).append((log.seed, finding))
    for group in groups.values():
        group.sort(key=lambda item: _rank(item[1]), reverse=True)
    ordered = sorted(groups.items(), key=lambda x: _rank(x[1][0][1]), reverse=True)
    return [Marked(i, runs[k[0]], g) for i, (k, g) in enumerate(ordered, 1)]


def _rank(finding: Finding) -> tuple[bool, float]:
    return finding.fatal, finding.severity


def chart_data(
    chart: Chart, runs: Sequence[Run], faults: Sequence[Marked], pool: Pool
) -> dict[str, Any]:
    """Return a chart as data for the page's script.

    Args:
      chart: what it shows.
      runs: all runs of the page.
      faults: those that are marked where they show.
      pool: receives the series.
    """
    lines = [
        drawn
        for i, run in enumerate(runs)
        for j, line in enumerate(_present(chart, runs))
        if (drawn := _line(line, j, i, runs, getattr(run, chart.table), pool))
    ]
    return {
        "title": chart.title,
        "lines": lines,
        "rules": _rules(chart, runs),
        "spans": _spans(chart, faults),
    }


def _present(chart: Chart, runs: Sequence[Run]) -> list[Line]:
    """Return the lines of which any run has figures; one alone is the main one."""
    tables = [getattr(run, chart.table).metrics for run in runs]
    lines = [line for line in chart.lines if any(line.metric in t for t in tables)]
    return lines if len(lines) > 1 else [x._replace(style="main") for x in lines]


def _line(
    line: Line, place: int, index: int, runs: Sequence[Run], curves: Curves, pool: Pool
) -> dict[str, Any] | None:
    """Return a line of one run as data, None if the run lacks its metric.

    Args:
      line: what it shows.
      place: its place in the chart, which chooses its colour on a page of one run.
      index: the run's index, which chooses its colour on a page of several.
      runs: all runs of the page.
      curves: the table of the run.
      pool: receives the series.
    """
    metrics = curves.metrics
    if line.metric not in metrics:
        return None
    curve = metrics[line.metric]
    low = metrics.get(line.low, curve).low
    high = metrics.get(line.high, curve).high
    several = len(runs) > 1
    colour = run_colour(index) if several else _own_colour(line, place)
    drawn = {
        "label": line.label,
        "run": runs[index].label if several else "",
        "colour": colour,
        "style": line.style,
        "x": pool.add(curves.steps),
        "y": pool.add(curve.y),
    }
    if line.style != "thin" and not np.array_equal(low, high, equal_nan=True):
        drawn |= {"low": pool.add(low), "high": pool.add(high)}
    return drawn


def _own_colour(line: Line, place: int) -> str:
    return _THIN if line.style == "thin" else run_colour(place)


def _rules(chart: Chart, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the horizontal lines, each value of the configurations once."""
    found = {}
    for rule in chart.rules:
        for run in runs:
            value = number(config_value(run, rule.value))
            if value is not None:
                y = _rounded(rule.factor * value + rule.offset)
                found[y, rule.label] = {"y": y, "label": rule.label}
    return list(found.values())


def _spans(chart: Chart, faults: Sequence[Marked]) -> list[dict[str, Any]]:
    """Return where faults show, on the chart of their metric and on evaluations.

    On evaluations a fault of the whole run is not marked: it would shade everything.
    """
    names = {x for line in chart.lines for x in (line.metric, line.low, line.high)}
    of_evaluation = chart.title.startswith("Evaluation")
    return [
        {
            "first": int(finding.steps[0]),
            "last": int(finding.steps[1]),
            "colour": fault.colour,
            "label": str(fault.number) if place == 0 else "",
        }
        for fault in faults
        for place, (_, finding) in enumerate(fault.findings)
        if (of_evaluation and _is_part(fault, finding))
        or finding.metric in names - {""}
    ]


def _is_part(fault: Marked, finding: Finding) -> bool:
    """Return whether a fault shows in a part of its run only."""
    first, last = finding.steps
    end = max(float(log.updates["steps"][-1]) for log in fault.run.logs)
    return last - first < _WHOLE * end
