"""A chart of an episode: the seeds in their slots over time, and the return."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from purejaxppo.env import Action

from ..canvas import BLUE, GREEN, GREY, RED, bare, picture
from .rules import Limits, Seeds

WIDTH, HEIGHT = 720, 480
SECONDS_PER_STEP = 0.5
DUD = "#b0722f"
GERMINATE, BLEND, CULL = 1, 2, 3  # of the head `op`


class Garden(NamedTuple):
    """An episode of T steps as NumPy arrays.

    Attributes:
      seeds: [T + 1, J], in each state.
      acted: [T, J], after the action of each step, before the seeds grow; but the
        vigour of a seed that germinates in the step is not in it.
      applied: bool [T, 4], the op that the action of each step applied.
      action: [T], the actions.
      total: [T + 1], return up to each state.
    """

    seeds: Seeds
    acted: Seeds
    applied: np.ndarray
    action: Action
    total: np.ndarray


def matured(garden: Garden) -> np.ndarray:
    """Return the slots whose seed matures in each step, bool [T, J]."""
    return np.asarray(garden.acted.occupied & ~garden.seeds.occupied[1:])


def draw(garden: Garden, steps: Sequence[int], limits: Limits) -> Iterator[np.ndarray]:
    """Draw the chart as it is after some steps: uint8 [HEIGHT, WIDTH, 3].

    Args:
      garden: the episode.
      steps: indices of states.
      limits: the static parameters.
    """
    for step in steps:
        chart = functools.partial(_chart, garden=garden, step=step, limits=limits)
        yield picture(WIDTH, HEIGHT, chart)


def _chart(figure: Any, garden: Garden, step: int, limits: Limits) -> None:
    """Draw a row per slot above, and the return below, on one axis of time."""
    top = figure.add_axes((0.09, 0.36, 0.89, 0.49))
    bottom = figure.add_axes((0.09, 0.1, 0.89, 0.2), sharex=top)
    _growth(top, garden, step)
    for time in range(step):
        _event(top, garden, time, limits)
        _payments(top, garden, time)
    top.set_yticks(
        np.arange(limits.num_slots) + 0.5,
        [f"slot {i + 1}" for i in range(limits.num_slots)],
    )
    top.set_ylim(limits.num_slots, 0)
    for row in range(limits.num_slots + 1):
        top.axhline(row, color=GREY, lw=0.5)
    top.tick_params(axis="x", labelbottom=False)
    _total(bottom, garden, step)
    for axis in (top, bottom):
        bare(axis)
    top.set_xlim(0, limits.horizon + 1.5)
    bottom.set_xlabel("step")
    title = (
        f"Lifecycle, step {step} of {limits.horizon}: return {garden.total[step]:.2f}"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _legend(figure)


def _growth(axis: Any, garden: Garden, step: int) -> None:
    """Draw each seed after each step: as high as it has grown, pale with less vigour.

    A seed that matures in a step is drawn full.
    """
    time, slot = np.nonzero(garden.acted.occupied[:step])
    ripe, after = matured(garden)[time, slot], (time + 1, slot)
    height = np.where(ripe, 1.0, garden.seeds.progress[after])
    # A new seed's vigour is drawn in its first step, so it is not in `acted`.
    vigour = np.where(ripe, garden.acted.vigour[time, slot], garden.seeds.vigour[after])
    color = [(GREEN if v > 0 else DUD, 0.25 + 0.6 * abs(v)) for v in vigour.tolist()]
    axis.bar(time + 0.5, -0.9 * height, width=1.0, bottom=slot + 0.95, color=color)


def _event(axis: Any, garden: Garden, time: int, limits: Limits) -> None:
    """Mark what the action of a step did."""
    action, applied = garden.action, garden.applied[time]
    if applied[GERMINATE]:
        worth = limits.blueprints[int(action["blueprint"][time])].worth
        place = time + 0.5, int(action["slot"][time]) + 0.5
        axis.text(*place, f"{worth:g}", ha="center", va="center", fontsize=8)
    if applied[CULL]:
        axis.plot(time + 0.5, action["slot"][time] + 0.5, "x", color=RED, ms=9, mew=2)
    if applied[BLEND]:
        rows = np.asarray(limits.pairs[int(action["blend"][time])]) + 0.5
        axis.plot([time + 0.5] * 2, rows, "-o", color=BLUE, lw=2, ms=4)


def _payments(axis: Any, garden: Garden, time: int) -> None:
    """Write beside each seed that matures in a step what it pays."""
    for slot in np.flatnonzero(matured(garden)[time]):
        paid = float(garden.acted.worth[time, slot] * garden.acted.vigour[time, slot])
        color = GREEN if paid > 0 else DUD
        place = time + 1.05, slot + 0.3
        style = {"fontsize": 9, "fontweight": "bold", "va": "center"}
        axis.text(*place, f"{paid:+.1f}", color=color, **style)


def _total(axis: Any, garden: Garden, step: int) -> None:
    axis.step(np.arange(step + 1), garden.total[: step + 1], where="post", color=BLUE)
    axis.axhline(0.0, color=GREY, lw=0.5)
    low, high = garden.total[: step + 1].min(), garden.total[: step + 1].max()
    axis.set_ylim(min(low - 0.05, -0.25), max(high + 0.05, 1.0))
    axis.set_ylabel("return", fontsize=8)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure.legend(
        [
            Patch(color=GREEN),
            Patch(color=DUD),
            Line2D([], [], color="black", marker="$4$", linestyle=""),
            Line2D([], [], color=BLUE, marker="o"),
            Line2D([], [], color=RED, marker="x", linestyle="", mew=2),
        ],
        [
            "good seed, growing",
            "dud (hidden from the policy)",
            "sown, and its worth",
            "blended",
            "culled",
        ],
        loc="upper left",
        bbox_to_anchor=(0.0, 0.945),
        ncols=5,
        frameon=False,
        fontsize=8,
    )
