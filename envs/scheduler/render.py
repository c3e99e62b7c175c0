"""A Gantt chart of an episode: jobs on machines, and each job against its deadline."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..canvas import BLUE, GREY, ORANGE, RED, bare, picture
from .rules import LOST, Board, Limits

WIDTH, HEIGHT = 720, 540
SECONDS_PER_STEP = 0.1


class Bar(NamedTuple):
    """A job on its machine."""

    job: int
    machine: int
    start: int  # tick
    end: int  # tick of its completion
    lanes: list[int]  # units of the machine's resource, from 0


def schedule(boards: Board, limits: Limits) -> list[list[Bar]]:
    """Find out which jobs each step started, and on which machine.

    Args:
      boards: [T + 1].
      limits: the static parameters.

    Returns:
      for each of the T steps its bars: one or none.
    """
    free_from = np.zeros((limits.num_machines, limits.capacity), int)
    steps = []
    for step in range(len(boards.time) - 1):
        before, after = boards.start[step], boards.start[step + 1]
        bars = []
        for job in np.flatnonzero((before != after) & (after >= 0)):
            grown = boards.used[step + 1, :, 0] - boards.used[step, :, 0]
            bar = _place(boards, step, int(job), int(np.argmax(grown)), free_from)
            free_from[bar.machine, bar.lanes] = bar.end
            bars.append(bar)
        steps.append(bars)
    return steps


def _place(
    boards: Board, step: int, job: int, machine: int, free_from: np.ndarray
) -> Bar:
    """Give a job units of its machine: side by side where there are such.

    Args:
      boards: [T + 1].
      step: the step that started the job.
      job: its index.
      machine: the machine on which it runs.
      free_from: [M, C], tick from which each unit of each machine is free.
    """
    start = int(boards.time[step])
    end = start + int(boards.instance.duration[step, job])
    need = int(boards.instance.need[step, job])
    free = np.flatnonzero(free_from[machine] <= start)
    runs = [free[i : i + need] for i in range(len(free) - need + 1)]
    together = [run for run in runs if run[-1] - run[0] == need - 1]
    lanes = together[0] if together else free[:need]
    return Bar(job, machine, start, end, lanes.tolist())


def draw(boards: Board, steps: Sequence[int], limits: Limits) -> Iterator[np.ndarray]:
    """Draw the chart as it is after some steps: uint8 [HEIGHT, WIDTH, 3].

    Args:
      boards: [T + 1].
      steps: indices into `boards`.
      limits: the static parameters.
    """
    started = schedule(boards, limits)
    for step in steps:
        bars = [bar for bars in started[:step] for bar in bars]
        chart = functools.partial(_chart, bars=bars, limits=limits)
        yield picture(WIDTH, HEIGHT, functools.partial(chart, board=_at(boards, step)))


def _chart(figure: Any, board: Board, bars: list[Bar], limits: Limits) -> None:
    """Draw machines above and jobs below, on one axis of time."""
    top = figure.add_axes((0.1, 0.6, 0.88, 0.28))
    bottom = figure.add_axes((0.1, 0.09, 0.88, 0.45), sharex=top)
    _machines(top, board, bars, limits)
    _jobs(bottom, board, bars)
    for axis in (top, bottom):
        axis.axvline(board.time, color="black", linewidth=1)
        bare(axis)
    top.set_xlim(0, board.instance.deadline.max() + limits.patience)
    bottom.set_xlabel("time in ticks; the black line is now")
    figure.suptitle(_summary(board, bars), x=0.01, ha="left", fontsize=11)
    _legend(figure)


def _at(boards: Board, step: int) -> Board:
    instance = boards.instance
    fields = ("arrival", "duration", "deadline", "need", "weight", "bound")
    return boards.replace(
        instance=instance.replace(**{n: getattr(instance, n)[step] for n in fields}),
        time=boards.time[step],
        start=boards.start[step],
        used=boards.used[step],
    )


def is_late(bar: Bar, board: Board) -> bool:
    """Return whether a job completes after its deadline."""
    return bar.end > int(board.instance.deadline[bar.job])


def _summary(board: Board, bars: list[Bar]) -> str:
    late = sum(is_late(bar, board) for bar in bars)
    lost = int(np.sum(board.start == LOST))
    weight = board.instance.weight
    good = [bar.job for bar in bars if not is_late(bar, board)]
    share = float(weight[good].sum() / weight.sum())
    return (
        f"Scheduler, tick {int(board.time)}: of {len(weight)} jobs {len(good)} on time "
        f"({share:.0%} of all weight), {late} late, {lost} lost"
    )


def _color(bar: Bar, board: Board) -> tuple[str, float]:
    """Return colour and opacity: a job of more weight is darker."""
    weight = board.instance.weight
    color = ORANGE if is_late(bar, board) else BLUE
    return color, 0.4 + 0.6 * float(weight[bar.job] / weight.max())


def _machines(axis: Any, board: Board, bars: list[Bar], limits: Limits) -> None:
    """Draw each job as a block: its duration wide, its need of resource high."""
    units = [(bar, lane) for bar in bars for lane in bar.lanes]
    axis.barh(
        [bar.machine * (limits.capacity + 1) + lane for bar, lane in units],
        [bar.end - bar.start for bar, _ in units],
        left=[bar.start for bar, _ in units],
        height=1.0,
        align="edge",
        color=[_color(bar, board) for bar, _ in units],
    )
    for bar in bars:
        low, high = bar.lanes[0], bar.lanes[-1]
        if high - low == len(bar.lanes) - 1:  # an outline only around what is one block
            place = bar.start, bar.machine * (limits.capacity + 1) + low
            _outline(axis, place, bar.end - bar.start, len(bar.lanes))
    heights = np.arange(limits.num_machines) * (limits.capacity + 1)
    axis.set_yticks(
        heights + limits.capacity / 2,
        [f"machine {i + 1}" for i in range(limits.num_machines)],
        fontsize=8,
    )
    for height in heights:
        axis.axhspan(height, height + limits.capacity, color=GREY, alpha=0.12, lw=0)
    axis.set_ylim(heights[-1] + limits.capacity, 0)
    axis.tick_params(axis="x", labelbottom=False)


def _outline(axis: Any, place: tuple[float, float], width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle(place, width, height, fill=False, ec="white", lw=1))


def _jobs(axis: Any, board: Board, bars: list[Bar]) -> None:
    """Draw a row per job: its window from arrival to deadline, and when it runs."""
    instance = board.instance
    known = np.flatnonzero(instance.arrival <= board.time)
    arrival, deadline = instance.arrival[known], instance.deadline[known]
    rows = {"height": 0.8, "align": "center"}
    axis.barh(known + 0.5, deadline - arrival, left=arrival, color=(GREY, 0.3), **rows)
    axis.vlines(deadline, known, known + 1, color="black", lw=1.2)
    lost = np.flatnonzero(board.start == LOST)
    middle = (instance.arrival[lost] + instance.deadline[lost]) / 2
    axis.plot(middle, lost + 0.5, "x", color=RED, markersize=6, mew=2)
    axis.barh(
        [bar.job + 0.5 for bar in bars],
        [bar.end - bar.start for bar in bars],
        left=[bar.start for bar in bars],
        color=[_color(bar, board) for bar in bars],
        **rows,
    )
    axis.set_ylim(len(instance.weight), 0)
    axis.set_yticks([])
    axis.set_ylabel("jobs, earliest deadline first", fontsize=8)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure.legend(
        [
            Patch(color=BLUE),
            Patch(color=ORANGE),
            Line2D([], [], color=RED, marker="x", linestyle="", mew=2),
            Patch(color=GREY, alpha=0.3),
            Line2D([], [], color="black", marker="|", linestyle="", markersize=9),
        ],
        [
            "on time (darker: more weight)",
            "late",
            "lost",
            "from arrival",
            "to deadline",
        ],
        loc="upper left",
        bbox_to_anchor=(0.0, 0.955),
        ncols=5,
        frameon=False,
        fontsize=8,
    )
