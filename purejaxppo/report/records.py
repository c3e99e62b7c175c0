"""The tables of what a run records: its configuration, versions, machine, command."""

from collections.abc import Iterable, Mapping, Sequence

from purejaxppo.report.runs import Run, record_text
from purejaxppo.report.sections import is_foreign, swatch, text

_DEFAULT, _FLAG = "default", "flag"


def configuration(runs: Sequence[Run]) -> str:
    """Return the values of the configurations; what is not a default comes first."""
    names = dict.fromkeys(name for run in runs for name in run.logs[0].config)
    if not names:
        return "<p>not recorded</p>"
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
    if is_foreign(run):
        found["written by"] = run.logs[0].source
    return found
