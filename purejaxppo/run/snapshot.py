"""The progress of training as text: a progress bar for a terminal, or a plain line."""

import math
from typing import NamedTuple

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_MIN_BAR, _MAX_BAR = 4, 30  # characters
_GAP = 2  # characters between columns


class Snapshot(NamedTuple):
    """Progress and figures of training after its last update.

    Attributes:
      steps, total_steps: of the environment, per seed.
      steps_per_second: environment steps of all seeds per second.
      seconds_left: expected seconds of the remaining updates, without evaluations.
      episode_return: mean return of finished training episodes; NaN if there is none.
      success: their success rate in [0, 1]; None if the environment defines none.
      approx_kl: of the update's last minibatch.
      worst_block: success rate in the worst block of the last evaluation, or the return
        if there is no success rate; None before the first evaluation.
    """

    steps: int
    total_steps: int
    steps_per_second: float
    seconds_left: float
    episode_return: float
    success: float | None
    approx_kl: float
    worst_block: float | None


def columns(snapshot: Snapshot, phase: str = "") -> list[str]:
    """Return the texts after the bar, the most important first.

    A phase replaces the speed and the time left.
    """
    left = f"{duration(snapshot.seconds_left)} left"
    steps = f"{_short(snapshot.steps)}/{_short(snapshot.total_steps)} steps"
    texts = [steps, phase or left]
    success, worst = snapshot.success, snapshot.worst_block
    if success is not None and math.isfinite(success):
        texts.append(f"success {success:.0%}")
    if worst is not None:
        texts.append(f"worst {_figure(worst) if success is None else f'{worst:.0%}'}")
    if math.isfinite(snapshot.episode_return):
        texts.append(f"return {_figure(snapshot.episode_return)}")
    if not phase:
        texts.append(f"{_short(snapshot.steps_per_second)}/s")
    return texts


def row(bar: ProgressBar, texts: list[str], width: int) -> Table | Text:
    """Lay out a bar and as many of the texts as fit into one line.

    Args:
      bar: the bar, whose width is changed.
      texts: the texts after it, the most important first.
      width: width of the line, in characters.

    Returns:
      an object that rich prints as one line.
    """
    while len(texts) > 1 and _bar_width(texts, width) < _MIN_BAR:
        texts = texts[:-1]
    bar_width = min(_bar_width(texts, width), _MAX_BAR)
    text = Text((" " * _GAP).join(texts), no_wrap=True, overflow="crop", end="")
    if bar_width < _MIN_BAR:
        return text
    bar.width = bar_width
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_row(bar, text)
    return grid


def _bar_width(texts: list[str], width: int) -> int:
    return width - sum(len(text) + _GAP for text in texts)


def plain_text(snapshot: Snapshot) -> str:
    """Format a snapshot as a line of plain text."""
    parts = [
        f"{snapshot.steps:>9,} steps",
        f"{snapshot.steps_per_second:,.0f} steps/s",
        f"{duration(snapshot.seconds_left)} left",
        f"return {snapshot.episode_return:.2f}",
    ]
    if snapshot.success is not None:
        parts.append(f"success {snapshot.success:.2f}")
    parts.append(f"kl {snapshot.approx_kl:.3f}")
    if snapshot.worst_block is not None:
        parts.append(f"worst block {snapshot.worst_block:.2f}")
    return "  ".join(parts)


def _figure(number: float) -> str:
    """Format a number with three significant digits, or as an integer from 1000 on."""
    return f"{number:.0f}" if abs(number) >= 999.5 else f"{number:.3g}"


def _short(number: float) -> str:
    """Format a number with three digits and a unit: 950, 45.1k, 1.23M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Format seconds: 41 s, 3:20, 1:02:11."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
