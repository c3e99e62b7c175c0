"""The results in one picture: ratios against peers, stages, and learning curves."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import record, tables
from benchmarks.workloads import WORKLOADS

Bars = dict[str, dict[str, float]]  # label -> median, min, max
BLUE, ORANGE, GREY = "#4c78a8", "#f58518", "#8c8c8c"
_PEERS = {"rejax": "Rejax", "sb3": "SB3", "sbx": "SBX", "brax": "Brax PPO"}


def peer_bars() -> Bars:
    """The ratio of ours to each peer of each workload, the largest first."""
    bars = {
        f"{_PEERS.get(peer, peer).replace('sb3,', 'SB3,')} ({name})": ratio
        for name in WORKLOADS
        for peer, ratio in record.ratios_of(name).items()
    }
    return dict(sorted(bars.items(), key=lambda pair: -pair[1]["median"]))


def stage_bars() -> Bars:
    """Steps/s of the hammer's stages."""
    rates = record.results(record.file_of("hammer"))["steps_per_second"]
    labels = {"physics": "physics alone (C)", "end_to_end": "training, end to end"}
    return {labels.get(n, f"{n} alone"): rates[n] for n in tables.STAGES if n in rates}


def learning_curves() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps [K], and shares of success [seeds, K] by name, of the hammer."""
    curves = [seed["curve"] for seed in record.results("learning_hammer")["seeds"]]
    steps = np.array([point["steps"] for point in curves[0]])
    names = {"mean": "all episodes", "worst_block": "worst block"}
    return steps, {
        label: np.array([[point[name] for point in curve] for curve in curves])
        for name, label in names.items()
    }


def draw() -> Path:
    """Draw the panels into results/benchmarks.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(
        [["peers", "stages"], ["peers", "curves"]],
        width_ratios=(1.15, 1),
        height_ratios=(1, 1.35),
    )
    _draw_peers(axes["peers"], peer_bars())
    _draw_stages(axes["stages"], stage_bars())
    _draw_curves(axes["curves"], *learning_curves())
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
    path = record.RESULTS / "benchmarks.png"
    # Without the library's version in it, a picture of the same figures is the same.
    figure.savefig(path, dpi=160, metadata={"Software": None})
    return path


def _bars(
    axis: Any, bars: Bars, colors: list[str], form: str, origin: float = 0.0
) -> None:
    """Horizontal bars from `origin`, the first on top, with spread and median."""
    medians = np.array([bar["median"] for bar in bars.values()])
    below = medians - [bar["min"] for bar in bars.values()]
    above = [bar["max"] for bar in bars.values()] - medians
    error = {"elinewidth": 1.0, "ecolor": "black", "capsize": 2.5}
    rows = np.arange(len(bars))
    style = {"color": colors, "height": 0.7, "error_kw": error}
    axis.barh(rows, medians - origin, left=origin, xerr=(below, above), **style)
    axis.set_yticks(rows, list(bars))
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(bars) - 0.5, -0.5)
    for row, bar in enumerate(bars.values()):
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(format(bar["median"], form), (bar["max"], row), **place)


def _draw_peers(axis: Any, bars: Bars) -> None:
    _bars(axis, bars, [BLUE] * len(bars), ".2f", origin=1.0)
    axis.set_xscale("log")
    axis.axvline(1.0, color="black", linewidth=0.8, linestyle="-")
    largest = max(bar["max"] for bar in bars.values())
    axis.set_xlim(0.7, 1.6 * largest)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= 1.6 * largest]
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.set_title("speed of ours over theirs, same work", loc="left", fontsize=11)


def _draw_stages(axis: Any, bars: Bars) -> None:
    colors = [ORANGE if "end to end" in name else GREY for name in bars]
    _bars(axis, bars, colors, ",.0f")
    axis.set_xlim(0, 1.2 * max(bar["max"] for bar in bars.values()))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axis.set_title("hammer: environment steps/s", loc="left", fontsize=11)


def _draw_curves(axis: Any, steps: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    for (label, values), color in zip(curves.items(), (BLUE, ORANGE), strict=True):
        axis.plot(steps, values.mean(0), color=color, label=label, marker=".")
        low, high = values.min(0), values.max(0)
        axis.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axis.legend(loc="lower right", frameon=False)
    lowest = min(values.min() for values in curves.values())
    axis.set_ylim(max(0.0, lowest - 0.05), 1.02)
    axis.margins(x=0.01)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axis.set_xlabel("environment steps of PPO, after cloning")
    num_seeds = len(curves["worst block"])
    title = f"hammer: success, range of {num_seeds} seeds"
    axis.set_title(title, loc="left", fontsize=11)
