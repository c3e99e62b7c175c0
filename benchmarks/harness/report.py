"""What is shown of the results, from the files that the benchmarks wrote.

    python -m benchmarks.harness.report

draws results/benchmarks.png and writes what stands between the markers of the READMEs:
one table of the most telling figures in the top one, everything else in
benchmarks/README.md. No figure is typed in; a test holds that they agree.
"""

import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import record, tables
from benchmarks.harness.tables import ratio, span
from benchmarks.learning.runs import STUDIES
from benchmarks.workloads import WORKLOADS

Record = dict[str, Any]
BENCHMARKS = Path(__file__).parents[1]
README = BENCHMARKS.parent / "README.md"
START, END = "<!-- results -->", "<!-- end of results -->"

CAMPAIGNS = {
    "faults": ("Faults: kills, damages and bad input", "python -m benchmarks.faults"),
    "doctor": ("The doctor: planted faults and verdicts", "python tests/faults"),
    "metaworld_transfer": (
        "Policies trained here, in official Meta-World",
        "uv run benchmarks/metaworld_transfer.py",
    ),
    "export_latency": (
        "Exported policies: one action of one environment",
        "python -m benchmarks.export_latency",
    ),
    "sweep": (
        "A sweep by two workers, one of them killed",
        "python -m benchmarks.sweep",
    ),
    "aot": ("Updates compiled for TPUs that are not here", "python -m benchmarks.aot"),
}
# Studies that led to a decision and are not repeated: file -> title.
SETTLED = {
    "layers": "Dense layers: ours and flax's",
    "seeds": "Eight seeds in one process, by three ways",
}


def as_markdown(table: tables.Table) -> list[str]:
    """Format a table as aligned Markdown, an empty line after it and each sentence."""
    lines = []
    if table.rows:
        widths = [max(3, *map(len, column)) for column in zip(*table.rows, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        for row in (table.rows[0], rule, *table.rows[1:]):
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(f"| {' | '.join([row[0].ljust(widths[0]), *cells[1:]])} |")
        lines.append("")
    return lines + [line for note in table.notes for line in (note, "")]


def _all_tables(figures: Record) -> list[str]:
    return [line for t in tables.tables_of(figures) for line in as_markdown(t)]


def as_text(name: str, figures: Record) -> str:
    """Format a workload or study for the terminal."""
    return "\n".join([f"{name}: {figures.get('about', '')}", "", *_all_tables(figures)])


def publish(name: str, figures: Record, write: bool) -> None:
    """Print the figures of a benchmark; if asked to, write them and what is shown."""
    print(as_text(name, figures))
    if write:
        record.write(name, figures)
        main()


def _machine(found: Record) -> str:
    cpu, cores = found["machine"]["cpu"], found["machine"]["cores"]
    names = ("jax", "metaworld", "mujoco")  # the transfer is measured without JAX
    versions = [f"{n} {v}" for n in names if (v := found["versions"].get(n))]
    return ", ".join([f"{cores} cores of {cpu}", *versions])


def section(title: str, about: str, found: Record, command: str) -> list[str]:
    """Format the heading, sentence, tables and origin of one result.

    Args:
      title: of the heading.
      about: a sentence; none if empty.
      found: the record.
      command: what measures it.
    """
    head = [f"### {title}", *(["", about] if about else []), ""]
    origin = f"{command}, {found['date']}, {_machine(found)}"
    return [*head, *_all_tables(found["results"]), origin, ""]


def everything() -> list[str]:
    """Format what benchmarks/README.md shows: learning, speed, settled studies."""
    lines = []
    for name, study in itertools.chain(*(kind.items() for kind in STUDIES.values())):
        if found := record.load(f"learning_{name}"):
            command = f"`{found.get('command_today', found['command'])}`"
            lines += section(study["title"], "", found, command)
    for name, (title, command) in CAMPAIGNS.items():
        if found := record.load(name):
            lines += section(title, "", found, f"`{command}`")
    for name, workload in WORKLOADS.items():
        if found := record.load(record.file_of(name)):
            command = f"`python -m benchmarks {name}`"
            lines += section(name, workload.about, found, command)
    for name, title in SETTLED.items():
        if found := record.load(name):
            lines += section(title, "", found, f"A settled study: {found['how']}")
    return lines


class Figures:
    """Figures for `str.format`, by paths: `{file.key.key}`, a number with a format.

    A spread (median or mean, smallest, largest) is formatted as in the tables.
    """

    def __init__(self, figures: dict[str, Any]):
        self._figures = figures

    def __getattr__(self, key: str) -> Any:
        value = self._figures[key]
        return Figures(value) if isinstance(value, dict) else value

    def __format__(self, form: str) -> str:
        return (ratio if "median" in self._figures else span)(self._figures)


def front() -> list[str]:
    """Format what the top README shows: front.toml with the figures of the records."""
    shown = tomllib.loads((BENCHMARKS / "front.toml").read_text())
    stems = [path.stem for path in record.RESULTS.glob("*.json")]
    files = {stem: Figures(record.results(stem)) for stem in stems}
    rows = [["", "purejaxppo", "compared with", "`python -m ...`"], ["---"] * 4]
    for row in shown["rows"]:
        cells = [row[name].format_map(files) for name in ("measured", "ours", "others")]
        rows.append([*cells, f"`{row['command']}`"])
    machine = f"Measured on {_machine(record.load('hammer_speed') or {})}."
    padded = [[f" {cell} " if cell else " " for cell in row] for row in rows]
    return [*(f"|{'|'.join(row)}|" for row in padded), "", shown["note"], machine, ""]


SECTIONS: dict[Path, Callable[[], list[str]]] = {
    README: front,
    BENCHMARKS / "README.md": everything,
}


def updated(text: str, make_section: Callable[[], list[str]]) -> str:
    """Replace the section between the markers of a README."""
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return before + "\n".join([START, "", *make_section(), END]) + after


def main() -> None:
    """Draw the plot, and write the READMEs that differ from the records."""
    from benchmarks.harness import plot

    print(plot.draw())
    for path, make_section in SECTIONS.items():
        text = path.read_text()
        if (new := updated(text, make_section)) != text:
            path.write_text(new)


if __name__ == "__main__":
    main()
