"""The report of a study: one page with its trials, which needs no network.

The scripts, styles and charts are those of the report of runs (`report.page`).
"""

import html
import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from purejaxppo.report import charts, vega
from purejaxppo.report.page import assemble, figure
from purejaxppo.report.sections import text
from purejaxppo.run.folder import Record
from purejaxppo.sweep import outcome
from purejaxppo.sweep import plan as plan_lib
from purejaxppo.sweep.outcome import Trial, show
from purejaxppo.sweep.plan import Plan
from purejaxppo.sweep.space import Choice, Interval

_CURVES = 5  # of the best trials, in colour
_MOST_CURVES = 60  # of the others
_GREY = "#94a3b8"
_ENDED = ("complete", "pruned")  # states with a score that means something


def render(
    plan: Plan,
    trials: Sequence[Trial],
    importances: Mapping[str, float],
    provenance: Mapping[str, object],
) -> bytes:
    """Return the page of a study, as the content of an HTML file.

    Args:
      plan: of the study.
      trials: all of them.
      importances: name of a parameter -> its share in the score; may be empty.
      provenance: the command, versions and machine, by name.
    """
    pool = charts.Pool()
    drawn = list(_charts(plan, trials, pool))
    axes = [chart.pop("specification") for chart in drawn]
    parts = {
        "title": text(f"{plan.resolved.config.env}: {len(trials)} trials"),
        "headline": _headline(plan, trials),
        "best": _best(plan, trials),
        "charts": "".join(
            figure(i, str(chart["title"]), is_wide=i == 0)
            for i, chart in enumerate(drawn)
        ),
        "parameters": _parameters(plan, trials, importances),
        "trials": _trials(plan, trials),
        "provenance": _table([], provenance.items()),
    }
    specs = {c["axis"]: s for c, s in zip(drawn, axes, strict=True) if "axis" in c}
    last = max(
        (float(steps[-1]) for steps, _ in _curves_of(trials).values()), default=0.0
    )
    data = {
        "spec": vega.specification(last),
        "specs": specs,
        "charts": drawn,
        "series": pool.series,
    }
    template = importlib.resources.files("purejaxppo.sweep").joinpath("page.html")
    return assemble(template.read_text("utf-8"), parts, data)


def _curves_of(trials: Sequence[Trial]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the steps [K] and scores [K, S] of each trial that was evaluated."""
    return {
        trial.number: (np.array(found.steps), np.array(found.scores))
        for trial in trials
        if (found := trial.outcome) and found.steps
    }


# --- charts ---------------------------------------------------------------------------


def _charts(plan: Plan, trials: Sequence[Trial], pool: charts.Pool) -> Iterable[Record]:
    """Return the charts as data; `specification` is that of a chart's own axis."""
    ended = [x for x in trials if x.state in _ENDED]
    numbers = [float(x.number) for x in ended]
    last = float(max((x.number for x in trials), default=0))
    lines = _dots(ended, numbers, pool)
    if not plan.speed:
        lines.append(_best_so_far(ended, pool))
    axis = {"axis": "trial", "specification": vega.specification(last + 0.5, -0.5)}
    yield _chart(f"Score ({plan.score}) of each trial", lines) | axis
    curves = _curves(plan, trials, pool)
    yield _chart("Learning curves", curves) | {"specification": None}
    if plan.speed:
        speeds = [x.outcome.steps_per_second for x in ended if x.outcome]
        axis = vega.specification(1.05 * max(speeds, default=1.0))
        chart = _chart("Score over steps per second", _dots(ended, speeds, pool))
        yield chart | {"axis": "steps/s", "specification": axis}
    for parameter in plan.space:
        if isinstance(parameter, Interval):
            values = [float(x.drawn[parameter.name]) for x in ended]
            axis = vega.specification(parameter.high, parameter.low, log=parameter.log)
            chart = _chart(f"Score over {parameter.name}", _dots(ended, values, pool))
            yield chart | {"axis": parameter.name, "specification": axis}


def _chart(title: str, lines: Sequence[Record]) -> Record:
    return {"title": title, "lines": lines, "rules": [], "spans": []}


def _line(
    label: str,
    colour: str,
    style: str,
    x: Sequence[float],
    y: Sequence[float],
    pool: charts.Pool,
) -> Record:
    """Return a line as data for the page's script.

    Args:
      label: its name in the legend.
      colour: of the line.
      style: "main", "thin" or "dots".
      x, y: its points.
      pool: receives the series.
    """
    series = {"x": pool.add(np.array(x, float)), "y": pool.add(np.array(y, float))}
    return {"label": label, "run": "", "colour": colour, "style": style} | series


def _dots(
    trials: Sequence[Trial], x: Sequence[float], pool: charts.Pool
) -> list[Record]:
    """Return complete and pruned trials as dots.

    Args:
      trials: those that have ended.
      x: where each of them is.
      pool: receives the series.
    """
    lines = []
    for state, colour in zip(_ENDED, (charts.run_colour(0), _GREY), strict=True):
        ends = zip(x, trials, strict=True)
        at = [where for where, trial in ends if trial.state == state]
        scores = [trial.score for trial in trials if trial.state == state]
        if at:
            lines.append(_line(state, colour, "dots", at, scores, pool))
    return lines


def _best_so_far(trials: Sequence[Trial], pool: charts.Pool) -> Record:
    complete = [x for x in trials if x.state == "complete"]
    scores = np.array([x.score for x in complete])
    # A step at each trial that is better.
    highest = np.repeat(np.maximum.accumulate(scores), 2)[:-1].tolist()
    numbers = np.repeat([float(x.number) for x in complete], 2)[1:].tolist()
    return _line("best so far", charts.run_colour(1), "thin", numbers, highest, pool)


def _curves(plan: Plan, trials: Sequence[Trial], pool: charts.Pool) -> list[Record]:
    """Return the learning curves: of the best in colour, of others in grey."""
    found = _curves_of(trials)
    ordered = sorted(trials, key=_rank, reverse=True)
    numbers = [trial.number for trial in ordered if trial.number in found]
    lines = []
    for place, number in enumerate(numbers[: _CURVES + _MOST_CURVES]):
        steps, scores = found[number]
        is_best = place < _CURVES
        label = f"trial {number}" if is_best else "others"
        colour = charts.run_colour(place) if is_best else _GREY
        style = "main" if is_best else "thin"
        line = _line(
            label, colour, style, steps.tolist(), scores.mean(1).tolist(), pool
        )
        if is_best and scores.shape[1] > 1:
            ends = {"low": scores.min(1), "high": scores.max(1)}
            line |= {name: pool.add(values) for name, values in ends.items()}
        lines.append(line)
    return lines


def _rank(trial: Trial) -> tuple[bool, float]:
    score = trial.score if math.isfinite(trial.score) else -math.inf
    return trial.state == "complete", score


# --- text -----------------------------------------------------------------------------


def _headline(plan: Plan, trials: Sequence[Trial]) -> str:
    """Return the tiles: the best score, and how many trials ended how."""
    states = [trial.state for trial in trials]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    seconds = sum(x.outcome.seconds for x in trials if x.outcome)
    compiling = sum(x.outcome.compile_seconds for x in trials if x.outcome)
    best = outcome.best(list(trials), plan.speed)
    tiles = [
        (f"Best {plan.score}", f"{best[0].score:.4g}" if best else "-", ""),
        *((f"Trials {state}", str(count), "") for state, count in counts.items()),
        ("Seeds of each", str(plan.options.num_seeds), f"from {plan.options.seed}"),
        ("Time of all trials", f"{seconds:,.0f} s", f"{compiling:,.0f} s compiling"),
    ]
    rows = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(detail)}</small>"
        "</dd></div>"
        for name, value, detail in tiles
    )
    return f'<section class="run"><dl>{rows}</dl></section>'


def _best(plan: Plan, trials: Sequence[Trial]) -> str:
    best = outcome.best(list(trials), plan.speed)
    if not best:
        return "<p>No trial is complete.</p>"
    return "".join(
        f"<p>Trial {trial.number}: {text(plan.score)} {_score(trial)}, "
        f"{_speed(trial)} steps/s. It is trained by<br>"
        # Not by `text`, which shortens it.
        f"<code>{html.escape(plan_lib.train_command(plan, trial.drawn))}</code></p>"
        for trial in best
    )


def _score(trial: Trial) -> str:
    return f"{trial.score:.4g}" if math.isfinite(trial.score) else "-"


def _speed(trial: Trial) -> str:
    speed = trial.outcome.steps_per_second if trial.outcome else math.nan
    return f"{speed:,.0f}" if math.isfinite(speed) else "-"


def _parameters(
    plan: Plan, trials: Sequence[Trial], importances: Mapping[str, float]
) -> str:
    """Return the importance of each parameter, and the scores of each choice."""
    rows = sorted(
        ((p.name, p.text, importances.get(p.name)) for p in plan.space),
        key=lambda row: -(row[2] or 0.0),
    )
    header = ["parameter", "space", "importance (PED-ANOVA)"]
    table = _table(
        header,
        [(n, space, "-" if x is None else f"{x:.2f}") for n, space, x in rows],
    )
    choices = [
        (p.name, word, *_of_choice([x for x in trials if x.drawn.get(p.name) == word]))
        for p in plan.space
        if isinstance(p, Choice)
        for word in p.corners
    ]
    header = ["parameter", "choice", "trials", "complete", f"mean {plan.score}", "best"]
    return table + (_table(header, choices) if choices else "")


def _of_choice(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the counts and scores of the trials that drew a choice."""
    scores = [x.score for x in trials if x.state == "complete"]
    mean = f"{np.mean(scores):.4g}" if scores else "-"
    best = f"{max(scores):.4g}" if scores else "-"
    return str(len(trials)), str(len(scores)), mean, best


def _trials(plan: Plan, trials: Sequence[Trial]) -> str:
    names = [parameter.name for parameter in plan.space]
    header = ["trial", "ended", plan.score, *names, "steps/s", "s", "why not complete"]
    rows = [
        (
            x.number,
            x.state,
            _score(x),
            *(show(x.drawn.get(name, "-")) for name in names),
            _speed(x),
            f"{x.outcome.seconds:.1f}" if x.outcome else "-",
            x.outcome.reason if x.outcome else "",
        )
        for x in sorted(trials, key=lambda x: (*_rank(x), -x.number), reverse=True)
    ]
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table; without a header it is one of names and values."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    kind = "td" if header else "th"
    body = ""
    for first, *others in rows:
        cells = "".join(f"<td>{text(cell)}</td>" for cell in others)
        body += f"<tr><{kind}>{text(first)}</{kind}>{cells}</tr>"
    if not header:
        return f"<table>{body}</table>"
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
