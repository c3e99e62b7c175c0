"""The parts of the page that are text. All text of a run goes through `text`."""

import html
import math
from collections.abc import Sequence

import numpy as np

from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Log, column
from purejaxppo.report.catalog import success_name
from purejaxppo.report.charts import Marked, run_colour
from purejaxppo.report.runs import (
    Run,
    config_value,
    last_step,
    number,
    record_text,
)


def text(value: object) -> str:
    """Return a value as HTML that shows it and does nothing else."""
    return html.escape(record_text(value))


def swatch(index: int, runs: Sequence[Run]) -> str:
    """Return the mark in the colour of a run, "" on a page of one."""
    if len(runs) == 1:
        return ""
    return f'<span class="swatch" style="background:{run_colour(index)}"></span>'


# --- headline -------------------------------------------------------------------------


def title(runs: Sequence[Run]) -> str:
    """Return the name of the page: the environments, and how many runs."""
    envs = dict.fromkeys(str(config_value(run, "env") or run.label) for run in runs)
    names = ", ".join(envs) if len(envs) <= 3 else f"{len(envs)} environments"
    return names if len(runs) == 1 else f"{names}: {len(runs)} runs"


def headline(runs: Sequence[Run]) -> str:
    """Return the tiles of each run: its best, steps, seeds, speed and state."""
    return "".join(_card(index, runs) for index in range(len(runs)))


def _card(index: int, runs: Sequence[Run]) -> str:
    run = runs[index]
    tiles = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}"
        + (f"<small>{text(detail)}</small>" if detail else "")
        + "</dd></div>"
        for name, value, detail in _tiles(run)
    )
    facts = "".join(f"<small>{text(fact)}</small>" for fact in _facts(run))
    heading = f"<h2>{swatch(index, runs)}{text(run.label)}{facts}</h2>"
    return f'<section class="run">{heading}<dl>{tiles}</dl></section>'


def _facts(run: Run) -> list[str]:
    """Return environment, seeds and state of a run, as far as they are known."""
    seeds = [log.seed for log in run.logs if log.seed is not None]
    word = "seed" if len(seeds) == 1 else f"{len(seeds)} seeds:"
    return [
        *([str(config_value(run, "env"))] if config_value(run, "env") else []),
        *([f"{word} {_numbers(seeds)}"] if seeds else []),
        *([f"written by {run.logs[0].source}"] if is_foreign(run) else []),
        *([_state(run)] if run.logs[0].record else []),
    ]


def is_foreign(run: Run) -> bool:
    """Whether another program wrote the run."""
    return run.logs[0].source != "purejaxppo"


def _state(run: Run) -> str:
    is_finished = any(log.finished for log in run.logs)
    return "finished" if is_finished else "not finished: still training, or stopped"


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return (name, value, detail) of each tile of a run."""
    total = number(config_value(run, "total_timesteps"))
    speed = _middle([column(log.updates, "steps_per_second") for log in run.logs])
    tiles = [
        *_results(run),
        ("Steps", f"{last_step(run):,.0f}", f"of {total:,.0f}" if total else ""),
    ]
    if math.isfinite(speed):
        tiles.append(("Steps per second", f"{speed:,.0f}", "median of updates"))
    return tiles


def _numbers(values: Sequence[int]) -> str:
    """Return numbers as "3", "3, 7" or, if they follow each other, "3 to 7"."""
    if len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:20]))


def _middle(columns: Sequence[np.ndarray]) -> float:
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else math.nan


def _results(run: Run) -> list[tuple[str, str, str]]:
    """Return the tiles of the best worst block and of the last evaluation."""
    success = success_name(run)
    mean = f"eval/episode_{success}" if success else "eval/mean_return"
    worst = f"eval/min_block_{success or 'return'}"
    kind = success or "return"
    bests = [best for log in run.logs if (best := best_evaluation(log, worst, mean))]
    tiles = []
    if bests:
        steps, values = zip(*bests, strict=True)
        when = _range([*map(float, steps)], "{:,.0f}") + " steps"
        spread = f"{_extent(values)}, " if len(values) > 1 else ""
        tiles.append(
            (f"Best worst block, {kind}", f"{np.median(values):.3f}", spread + when)
        )
    last = [x[-1] for log in run.logs if (x := _finite(log, mean)).size]
    if last:
        detail = _extent(last) if len(last) > 1 else ""
        tiles.append((f"Last evaluation, {kind}", f"{np.median(last):.3f}", detail))
    return tiles


def best_evaluation(log: Log, worst: str, mean: str) -> tuple[int, float] | None:
    """Return (steps, worst block) of a seed's best evaluation, as its checkpoint is.

    The evaluation before the first update cannot be the best; of equals, the last is.

    Args:
      log: the figures of the seed.
      worst: the metric of the worst block.
      mean: the metric of all blocks, which decides between equal worst blocks.
    """
    steps, low = column(log.evals, "steps"), column(log.evals, worst)
    rows = np.flatnonzero(np.isfinite(low) & (steps > 0))
    if not rows.size:
        return None
    means = np.nan_to_num(column(log.evals, mean), nan=-np.inf)
    best = max(rows, key=lambda i: (low[i], means[i], steps[i]))
    return int(steps[best]), float(low[best])


def _finite(log: Log, name: str) -> np.ndarray:
    values = column(log.evals, name)
    return values[np.isfinite(values)]


def _extent(values: Sequence[float]) -> str:
    return _range(values, "{:.3f}") + " over seeds"


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


# --- findings -------------------------------------------------------------------------


def findings(faults: Sequence[Marked], runs: Sequence[Run]) -> str:
    """Return the list of what the doctor found."""
    if not faults:
        return '<p class="healthy">The doctor found nothing wrong.</p>'
    rows = "".join(_fault(fault, runs) for fault in faults)
    return f'<ol class="findings">{rows}</ol>'


def _fault(fault: Marked, runs: Sequence[Run]) -> str:
    seed, worst = fault.findings[0]
    kind = "fatal" if worst.fatal else f"severity {worst.severity:.2f}"
    rows = [
        ("seen", f"{worst.seen}{_where(worst)}"),
        ("means", worst.meaning),
        ("suspect", worst.suspect),
        *((("try", worst.knobs),) if worst.knobs else ()),
        *((("source", worst.source),) if worst.source else ()),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{_said(x)}</dd>" for name, x in rows)
    index = runs.index(fault.run)
    who = fault.run.label if len(runs) > 1 else ""
    return (
        f'<li class="{"fatal" if worst.fatal else "warning"}"><h3>'
        f'<span class="badge">{fault.number}</span>{text(worst.fault)} '
        f"<small>{text(kind)} {swatch(index, runs)}{text(who)} "
        f"{text(_seeds(fault, seed))}</small></h3><dl>{listed}</dl></li>"
    )


def _where(finding: Finding) -> str:
    first, last = finding.steps
    steps = f"{first:,} to {last:,}" if last > first else f"{first:,}"
    metric = f"{finding.metric}, " if finding.metric else ""
    return f" ({metric}{steps} steps)"


def _said(value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return text(value)
    return "<ol>" + "".join(f"<li>{text(x)}</li>" for x in value) + "</ol>"


def _seeds(fault: Marked, worst: int | None) -> str:
    """Return which seeds have a fault, "" if the run has one seed alone."""
    if len(fault.run.logs) == 1:
        return ""
    seeds = sorted({seed for seed, _ in fault.findings if seed is not None})
    if len(seeds) <= 1:
        return f"seed {_numbers(seeds)}"
    return f"seeds {_numbers(seeds)}, worst in {worst}"
