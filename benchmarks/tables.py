"""Figures as tables: the same rows for the terminal and for Markdown."""

from collections.abc import Iterator
from typing import Any, NamedTuple

Figures = dict[str, Any]

_STAGES = ("physics", "rollout", "update", "end_to_end")


class Table(NamedTuple):
    """Cells, the first row the header; sentences below them."""

    rows: list[list[str]]
    notes: list[str]


def file_of(workload: str) -> str:
    """The result file of a workload, without its suffix."""
    return workload.replace("-", "_") + "_speed"


def number(rate: dict[str, float] | None) -> str:
    return f"{rate['median']:,.0f}" if rate else "-"


def spread(ratio: dict[str, float] | None) -> str:
    """Median (smallest to largest)."""
    if ratio is None:
        return "-"
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def mebibytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f}"


def _maybe(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def stages(figures: Figures) -> Table:
    """Steps/s of each stage; compiling, memory and the return as sentences."""
    label = {"physics": f"physics ({figures.get('physics_is', 'mujoco.rollout')})"}
    rows = [["", "steps/s", "of physics alone"]]
    for name in _STAGES:
        if name in figures["steps_per_second"]:
            share = figures["ratios"].get(f"{name}_over_physics")
            rate = number(figures["steps_per_second"][name])
            text = label.get(name, name.replace("_", " "))
            rows.append([text, rate, spread(share) if share else "1"])
    return Table(rows, [*_compiling(figures), *_trained(figures)])


def _compiling(figures: Figures) -> Iterator[str]:
    """Seconds of tracing, lowering and compiling the update."""
    for case, phases in figures.get("compile_seconds", {}).items():
        parts = ", ".join(f"{phase} {s:.1f} s" for phase, s in phases.items())
        yield f"Compiling the update, {case}: {parts}."


def _trained(figures: Figures) -> Iterator[str]:
    trained = figures.get("training")
    if trained is None:
        return
    reached = ", ".join(
        f"{name.removeprefix('eval/').replace('_', ' ')} {value:.2f}"
        for name, value in trained.items()
        if name.startswith("eval/")
    )
    yield (
        f"Trained for {trained['steps']:,} steps in {trained['seconds']:.1f} s: "
        f"{reached}; peak memory {mebibytes(trained['peak_memory_bytes'])} MiB."
    )


def peers(figures: Figures) -> Table:
    """Workers: rates, ratios, compile seconds, memory, returns."""
    header = ["", "steps/s", "ours over it", "compile s", "peak MiB", "return"]
    rows, notes = [header], []
    for name, row in figures["workers"].items():
        if "error" in row:
            rows.append([name, *["-"] * (len(header) - 1)])
            notes.append(f"{name}: {row['error']}.")
            continue
        cells = [
            number(row.get("steps_per_second")),
            "1" if name == "ours" else spread(row.get("ours_over_it")),
            _maybe(row["compile_seconds"], ".1f"),
            mebibytes(row["peak_memory_bytes"]),
            f"{_maybe(row['return'], '.1f')} at {row['steps']:,} steps",
        ]
        rows.append([name, *cells])
    return Table(rows, [*_versions(figures["workers"]), *notes])


def _versions(workers: dict[str, Figures]) -> Iterator[str]:
    """Of what each worker names first and has: the peer itself."""
    named = {}
    for row in workers.values():
        has = {n: v for n, v in row.get("versions", {}).items() if v is not None}
        named |= dict(list(has.items())[:1])
    if named:
        yield "Versions: " + ", ".join(f"{n} {v}" for n, v in named.items()) + "."


def training(figures: Figures) -> Table:
    """Returns reached by training from scratch, to the same number of steps."""
    trained = figures["training"]
    rows = [["", "steps", "seconds", *(f"seed {s}" for s in figures["seeds"])]]
    notes = []
    for name, row in trained.items():
        if "error" in row:
            rows.append([name, *["-"] * (2 + len(figures["seeds"]))])
            notes.append(f"{name}: {row['error']}.")
            continue
        returns = [_maybe(value, ".1f") for value in row["returns"]]
        seconds = f"{row['seconds']['median']:.1f}"
        rows.append([name, f"{row['steps']:,}", seconds, *returns])
    return Table(rows, notes)


def variants(figures: Figures) -> Table:
    """Sample passes/s of the update with one kind of layers and another."""
    rows = [["", "sample passes/s", "ours over it"]]
    for name, rate in figures["passes_per_second"].items():
        ratio = figures["ratios"].get(f"ours_over_{name}")
        rows.append([f"{name} layers", number(rate), spread(ratio) if ratio else "1"])
    return Table(rows, [])


def seeds(name: str, figures: Figures) -> Table:
    """Ways to run several seeds."""
    header = [f"{figures['num_seeds']} seeds, {name}", "steps/s of all"]
    rows = [[*header, "over one by one", "compile s"]]
    for way, rate in figures["steps_per_second"].items():
        ratio = figures["ratios"].get(f"{way}_over_one by one")
        seconds = sum(figures["compile_seconds"][way].values())
        share = spread(ratio) if ratio else "1"
        rows.append([way, number(rate), share, f"{seconds:.1f}"])
    return Table(rows, [])


def startup(figures: Figures) -> Table:
    """Seconds from the command to the end of the first update."""
    header = ["", "run folder, s", "first update, s", "target, s", "compiling, s"]
    rows = [header]
    for case, target in figures["targets"].items():
        run = figures[case]
        phases = [sum(p.values()) for p in run["compile_seconds"].values()]
        folder, first = run["seconds_to_run_folder"], run["seconds_to_first_update"]
        times = f"{first['median']:.1f} ({first['min']:.1f} to {first['max']:.1f})"
        compiling = f"{sum(phases):.1f}"
        cells = [case, f"{folder['median']:.1f}", times, f"{target:.1f}", compiling]
        rows.append(cells)
    return Table(rows, [f"Median (smallest to largest) of {figures['rounds']} starts."])


def tables_of(figures: Figures) -> list[Table]:
    """Every table that these figures make."""
    found = []
    if "end_to_end" in figures.get("steps_per_second", {}):
        found.append(stages(figures))
    if "passes_per_second" in figures:
        found.append(variants(figures))
    if "targets" in figures:
        found.append(startup(figures))
    found += [seeds(n, case) for n, case in figures.get("cases", {}).items()]
    if "peers" in figures:
        found.append(peers(figures["peers"]))
        if "training" in figures["peers"]:
            found.append(training(figures["peers"]))
    if "errors" in figures:
        found.append(Table([], [f"Not measured: {e}" for e in figures["errors"]]))
    return found


def as_text(name: str, figures: Figures) -> str:
    """For the terminal: columns aligned, numbers to the right."""
    blocks = [f"{name}: {figures.get('about', '')}"]
    for table in tables_of(figures):
        widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table.rows
        ]
        blocks.append("\n".join([*lines, *table.notes]))
    return "\n\n".join(blocks) + "\n"


def as_markdown(figures: Figures) -> list[str]:
    """Lines of Markdown, an empty one behind each table and sentence."""
    lines = []
    for table in tables_of(figures):
        if table.rows:
            header, *rest = table.rows
            rule = ["---", *["---:"] * (len(header) - 1)]
            lines += [f"| {' | '.join(row)} |" for row in (header, rule, *rest)]
            lines.append("")
        for note in table.notes:
            lines += [note, ""]
    return lines
