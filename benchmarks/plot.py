"""The results of all workloads in one picture: ratios with their spread as bars."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record, tables
from benchmarks.workloads import WORKLOADS

Figures = dict[str, Any]
Bars = dict[str, dict[str, float]]  # label -> median, min, max
_COLUMNS = 2


class Panel(NamedTuple):
    """What one panel shows."""

    title: str
    axis: str
    bars: Bars


def panels_of(name: str, figures: Figures) -> list[Panel]:
    """A panel for each kind of ratio that a workload has."""
    panels = []
    if "end_to_end" in figures.get("steps_per_second", {}):
        bars = _renamed(figures["ratios"], "_over_physics")
        panels.append(Panel(f"{name}: stages", "of physics alone", bars))
    if "passes_per_second" in figures:
        bars = {k.removeprefix("ours_over_"): v for k, v in figures["ratios"].items()}
        panels.append(Panel(f"{name}: layers", "ours over it", bars))
    for case, of_case in figures.get("cases", {}).items():
        bars = _renamed(of_case["ratios"], "_over_one by one")
        panels.append(Panel(f"{name}: {case}", "over one by one", bars))
    if "peers" in figures:
        rows = figures["peers"]["workers"]
        bars = {n: r["ours_over_it"] for n, r in rows.items() if "ours_over_it" in r}
        panels.append(Panel(f"{name}: peers", "ours over it (steps/s)", bars))
    return [panel for panel in panels if panel.bars]


def _renamed(ratios: Bars, suffix: str) -> Bars:
    return {n.removesuffix(suffix).replace("_", " "): r for n, r in ratios.items()}


def panels() -> list[Panel]:
    """Those of every workload that has a result."""
    found = []
    for name in WORKLOADS:
        path = record.RESULTS / f"{tables.file_of(name)}.json"
        if path.exists():
            found += panels_of(name, json.loads(path.read_text())["results"])
    return found


def draw(path: Path | None = None) -> Path:
    """Draw all panels into results/speed.png, or `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels()
    num_rows = max(1, -(-len(shown) // _COLUMNS))
    figure = Figure(figsize=(5.0 * _COLUMNS, 2.4 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for axis, panel in zip(axes, shown, strict=False):
        _draw(axis, panel)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    path = path or record.RESULTS / "speed.png"
    # Without the library's version in it, a picture of the same figures is the same.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _draw(axis: Any, panel: Panel) -> None:
    names = list(panel.bars)
    medians = [panel.bars[name]["median"] for name in names]
    below = [m - panel.bars[n]["min"] for n, m in zip(names, medians, strict=True)]
    above = [panel.bars[n]["max"] - m for n, m in zip(names, medians, strict=True)]
    axis.barh(
        names, medians, xerr=(below, above), color="#4c78a8", capsize=3, height=0.6
    )
    axis.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
    farthest = max(panel.bars[name]["max"] for name in names)
    for row, (name, median) in enumerate(zip(names, medians, strict=True)):
        axis.annotate(
            f"{median:.2f}",
            (panel.bars[name]["max"], row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_xlim(0, 1.18 * max(farthest, 1.0))
    # One bar is as thick as one of three; the first is on top.
    axis.set_ylim(max(len(names), 3) - 0.5, -0.5)
    axis.set_title(panel.title, loc="left")
    axis.set_xlabel(panel.axis)
    axis.spines[["top", "right"]].set_visible(False)
