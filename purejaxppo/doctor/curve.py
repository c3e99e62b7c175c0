"""The learning curve of a run: how good the policy was, and what became of it."""

from typing import NamedTuple

import numpy as np

from purejaxppo.doctor.log import Log, column, finite

_MIN_POINTS = 3
_NUM_BINS = 20  # to which training episodes are averaged where nothing was evaluated


class Curve(NamedTuple):
    """The performance of the policy over training.

    Attributes:
      metric: its name.
      steps: environment steps of each point, [P].
      values: the return, [P].
      noise: the standard error of a point, as far as the log tells it.
      success: the last success rate, NaN where the environment has none.
    """

    metric: str
    steps: np.ndarray
    values: np.ndarray
    noise: float
    success: float

    @property
    def first(self) -> float:
        """The return of the untrained policy, or of the first episodes."""
        return float(self.values[0])

    @property
    def last(self) -> float:
        """The return at the end: the median of the last three points."""
        return float(np.median(self.values[-3:]))

    @property
    def best(self) -> float:
        """The best return that two points in a row reached."""
        pairs = np.minimum(self.values[1:], self.values[:-1])
        return float(max(pairs.max(), self.last))

    @property
    def margin(self) -> float:
        """The difference that is more than noise."""
        return max(3.0 * self.noise, 0.05 * abs(self.first), 1e-9)

    @property
    def has_learned(self) -> bool:
        """Whether the policy is better at the end than at the start, beyond noise."""
        return self.success >= 0.9 or self.last - self.first > self.margin

    @property
    def has_collapsed(self) -> bool:
        """Whether more than half of what was gained is lost at the end."""
        gained, lost = self.best - self.first, self.best - self.last
        return gained > self.margin and lost > max(0.5 * gained, self.margin)

    @property
    def has_fallen(self) -> bool:
        """Whether the policy is worse at the end than before any training."""
        return self.first - self.last > self.margin and not self.has_collapsed


def curve(log: Log) -> Curve | None:
    """Return the learning curve of evaluations, or of training where there are none.

    Returns:
      None if there are too few points to say anything.
    """
    return _of_evaluations(log) or _of_training(log)


def has_learned(log: Log) -> bool:
    """Return whether a log shows that the policy became better, beyond noise."""
    found = curve(log)
    return found is not None and found.has_learned


def _of_evaluations(log: Log) -> Curve | None:
    values = column(log.evals, "eval/mean_return")
    known = np.isfinite(values)
    if known.sum() < _MIN_POINTS:
        return None
    blocks = [
        x[known]
        for name, x in log.evals.items()
        if name.startswith("eval/block") and name.endswith("_return")
    ]
    values = values[known]
    noise = _spread_of_blocks(blocks) if len(blocks) > 1 else _roughness(values)
    success = finite(column(log.evals, "eval/episode_success"))
    last = float(np.median(success[-3:])) if success.size else float("nan")
    steps = log.evals["steps"][known]
    return Curve("eval/mean_return", steps, values, noise, last)


def _of_training(log: Log) -> Curve | None:
    values = column(log.updates, "train/episode_return")
    known = np.isfinite(values)
    if known.sum() < _MIN_POINTS:
        return None
    num_bins = min(_NUM_BINS, int(known.sum()))
    steps = np.array_split(log.updates["steps"][known], num_bins)
    bins = np.array_split(values[known], num_bins)
    means = np.array([x.mean() for x in bins])
    errors = [x.std() / np.sqrt(x.size) for x in bins if x.size > 1]
    noise = float(np.median(errors)) if errors else _roughness(means)
    last = np.array([x[-1] for x in steps])
    return Curve("train/episode_return", last, means, noise, float("nan"))


def _spread_of_blocks(blocks: list[np.ndarray]) -> float:
    """Return the typical standard error of the mean over blocks."""
    spread = np.std(np.stack(blocks), axis=0, ddof=1)
    return float(np.median(spread)) / np.sqrt(len(blocks))


def _roughness(values: np.ndarray) -> float:
    """Return the noise of a curve by how much neighbouring points differ."""
    return float(np.median(np.abs(np.diff(values)))) / np.sqrt(2.0)
