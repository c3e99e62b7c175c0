"""The whole page: text, charts, styles and scripts in one file."""

import base64
import hashlib
import html
import importlib.resources
import json
import os
import stat
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Log
from purejaxppo.report import STILL, catalog, charts, records, sections, vega
from purejaxppo.report.catalog import Chart
from purejaxppo.report.runs import Run, group, last_step

_LARGEST_STILL = 1_000_000  # bytes
_PNG = b"\x89PNG\r\n\x1a\n"


def render(logs: Sequence[Log], findings: Sequence[Sequence[Finding]]) -> bytes:
    """Return the page of some runs, as the content of an HTML file.

    Args:
      logs: the seeds of the runs; those of one run have the same path.
      findings: of each log.
    """
    runs = group(logs, findings)
    faults = charts.marked(runs)
    pool = charts.Pool()
    data: list[dict[str, Any]] = []

    def figures(shown: Sequence[Chart]) -> str:
        first = len(data)
        data.extend(charts.chart_data(c, runs, faults, pool) for c in shown)
        return "".join(_figure(first + i, c) for i, c in enumerate(shown))

    parts = {
        "title": sections.text(sections.title(runs)),
        "headline": sections.headline(runs),
        "stills": "".join(_still(run) for run in runs),
        "findings": sections.findings(faults, runs),
        "charts": figures(catalog.main_charts(runs)),
        "others": "".join(
            f"<details><summary>{sections.text(name)} <small>{len(shown)}</small>"
            f'</summary><div class="charts">{figures(shown)}</div></details>'
            for name, shown in catalog.other_charts(runs).items()
        )
        or "<p>None.</p>",
        "configuration": records.configuration(runs),
        "provenance": records.provenance(runs),
    }
    spec = vega.specification(max(map(last_step, runs), default=0.0))
    template = _resource("page.html")
    return assemble(
        template, parts, {"spec": spec, "charts": data, "series": pool.series}
    )


def _figure(index: int, chart: Chart) -> str:
    # The first is the result of the run.
    is_result = index == 0 and chart.table == "evals"
    return figure(index, chart.title, chart.note, is_wide=is_result)


def figure(index: int, title: str, note: str = "", *, is_wide: bool) -> str:
    """Return the place of a chart, which the page's script fills.

    Args:
      index: of the chart in the page's data.
      title: its title.
      note: a sentence under the title; "" for none.
      is_wide: whether it takes the whole width.
    """
    kind = ' class="wide"' if is_wide else ""
    note = f"<p>{sections.text(note)}</p>" if note else ""
    return (
        f'<figure{kind} data-chart="{index}"><figcaption>'
        f"<h3>{sections.text(title)}</h3>{note}</figcaption>"
        '<ul class="legend"></ul><div class="plot"></div></figure>'
    )


def _still(run: Run) -> str:
    """Return the picture in a run's folder, if there is one."""
    content = read_still(Path(run.logs[0].path) / STILL)
    if not content:
        return ""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<img class="still" alt="{sections.text(run.label)}" src="{source}">'


def read_still(path: Path) -> bytes:
    """Read a PNG of a run; empty if it is none, too large, or a link to elsewhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_STILL:
                return b""
            content = file.read(_LARGEST_STILL)
    except OSError:
        return b""
    return content if content.startswith(_PNG) else b""


def assemble(
    template: str, parts: Mapping[str, str], data: Mapping[str, object]
) -> bytes:
    """Put the parts into a template; a browser runs our two scripts alone.

    Args:
      template: a page with the names of the parts, and those of our scripts and styles.
      parts: name in the template -> HTML.
      data: what the page's script draws.
    """
    library, script = vega.library(), _resource("page.js")
    hashes = " ".join(f"'sha256-{_digest(code)}'" for code in (library, script))
    page = string.Template(template).substitute(
        parts,
        policy=html.escape(
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        style=_resource("page.css"),
        data=to_json(data),
        library=library,
        script=script,
    )
    # A name of a file may hold bytes that are no text.
    return page.encode(errors="replace")


def _resource(name: str) -> str:
    return (
        importlib.resources.files("purejaxppo.report").joinpath(name).read_text("utf-8")
    )


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def to_json(data: object) -> str:
    """Return JSON that cannot end the element it stands in: no `<` is left in it."""
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return encoded.replace("<", "\\u003c")
