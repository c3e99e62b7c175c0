"""The parts of the page that are text. All text of a run goes through `text`."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

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

_DEFAULT, _FLAG = "default", "flag"
_NOT_RECORDED = "not recorded"


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
        *([f"written by {run.logs[0].source}"] if _is_foreign(run) else []),
        *([_state(run)] if run.logs[0].record else []),
    ]


def _is_foreign(run: Run) -> bool:
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


# --- configuration and provenance -----------------------------------------------------


def configuration(runs: Sequence[Run]) -> str:
    """Return the values of the configurations; what is not a default comes first."""
    names = dict.fromkeys(name for run in runs for name in run.logs[0].config)
    if not names:
        return f"<p>{_NOT_RECORDED}</p>"
    changed = [name for name in names if _is_changed(name, runs)]
    others = [name for name in names if name not in changed]
    table = _table([_setting(name, runs) for name in changed])
    rest = _table([_setting(name, runs) for name in others])
    summary = f"{len(others)} values are the defaults"
    folded = f"<details><summary>{summary}</summary>{rest}</details>"
    return (table if changed else "") + (folded if others else "")


def _source(name: str, run: Run) -> str:
    sources = run.logs[0].record.get("sources")
    source = sources.get(name) if isinstance(sources, Mapping) else None
    return source if isinstance(source, str) else _DEFAULT


def _is_changed(name: str, runs: Sequence[Run]) -> bool:
    """Whether a value is no default somewhere, or differs between the runs."""
    values = {record_text(run.logs[0].config.get(name)) for run in runs}
    return len(values) > 1 or any(_source(name, run) != _DEFAULT for run in runs)


def _setting(name: str, runs: Sequence[Run]) -> str:
    values = [run.logs[0].config.get(name) for run in runs]
    sources = [_source(name, run) for run in runs]
    is_flag = _FLAG in sources or len(set(map(record_text, values))) > 1
    source = ", ".join(dict.fromkeys(sources))
    cells = f"<td>{_values(values, runs)} <small>{text(source)}</small></td>"
    kind = ' class="changed"' if is_flag else ""
    return f"<tr{kind}><th>{text(name)}</th>{cells}</tr>"


def _values(values: Sequence[object], runs: Sequence[Run]) -> str:
    """Return one value, or that of each run if they differ."""
    if len(set(map(record_text, values))) == 1:
        return f"<code>{text(values[0])}</code>"
    return "".join(
        f'<span class="of-run">{swatch(i, runs)}<code>{text(value)}</code></span>'
        for i, value in enumerate(values)
    )


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def provenance(runs: Sequence[Run]) -> str:
    """Return versions, machine and command of each run."""
    named = [_provenance(run) for run in runs]
    names = dict.fromkeys(name for values in named for name in values)
    rows = {name: _values([v.get(name, "-") for v in named], runs) for name in names}
    return _table(f"<tr><th>{text(n)}</th><td>{x}</td></tr>" for n, x in rows.items())


def _provenance(run: Run) -> dict[str, object]:
    record = run.logs[0].record
    command, machine = record.get("command"), record.get("machine")
    versions = record.get("versions")
    found: dict[str, object] = {"run": str(run.logs[0].path)}
    if isinstance(command, list):
        found["command"] = " ".join(map(str, command))
    for name in ("revision", "uncommitted", "xla_flags"):
        if record.get(name):
            found[name] = record[name]
    for values in (machine, versions):
        found |= values if isinstance(values, Mapping) else {}
    if _is_foreign(run):
        found["written by"] = run.logs[0].source
    return found
