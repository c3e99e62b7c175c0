"""The best evaluation of each seed of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Best(NamedTuple):
    """The best evaluation so far, of one seed.

    Attributes:
      update: the number of updates before it.
      worst: success rate or return in its worst block.
      mean: success rate or return over all blocks.
    """

    update: int
    worst: float
    mean: float


_NONE = Best(0, -math.inf, -math.inf)  # NaN is not better
Bests = list[Best | None]  # of each seed; None before its first evaluation
Saved = dict[str, float]  # the fields of a `Best` as JSON; empty for None


def to_json(bests: Bests) -> list[Saved]:
    """The inverse of `from_json`."""
    return [best._asdict() if best else {} for best in bests]


def from_json(saved: list[Saved] | Saved, num_seeds: int) -> Bests:
    """Read the best evaluations that a checkpoint holds.

    Args:
      saved: one entry per seed; until version 0.2.0 one entry for all seeds.
      num_seeds: the run's number of seeds.
    """
    of_seeds = saved if isinstance(saved, list) else [saved] * num_seeds
    return [
        Best(int(b["update"]), b["worst"], b["mean"]) if b else None for b in of_seeds
    ]


def updated(
    bests: Bests, update: int, worst: Sequence[float], mean: Sequence[float]
) -> Bests:
    """Compare an evaluation with the best so far; the last of equals is the best.

    Args:
      bests: of each seed.
      update: the number of updates before the evaluation.
      worst: the worst block of each seed.
      mean: the mean over blocks of each seed.
    """
    return [
        Best(update, low, middle) if (low, middle) >= (best or _NONE)[1:] else best
        for best, low, middle in zip(bests, worst, mean, strict=True)
    ]


def sentence(bests: Bests, batch_size: int) -> str | None:
    """Say in one line how good the seeds became; None without an evaluation.

    Args:
      bests: of each seed.
      batch_size: environment steps of an update.
    """
    known = [best for best in bests if best]
    if not known:
        return None
    worst, mean = [b.worst for b in known], [b.mean for b in known]
    steps = sorted(b.update * batch_size for b in known)
    if len(bests) == 1:
        figures = f"best: worst block {worst[0]:.3f}, mean {mean[0]:.3f}"
        return f"{figures}, at {steps[0]:,} steps"
    return (
        f"best of each of {len(bests)} seeds: "
        f"worst block {np.mean(worst):.3f} (lowest {min(worst):.3f}), "
        f"mean {np.mean(mean):.3f} (lowest {min(mean):.3f}), "
        f"at {steps[0]:,} to {steps[-1]:,} steps"
    )


def summary(bests: Bests, seed: int) -> Mapping[str, object]:
    """The entries of summary.json: "best" of a run of one seed, "best_of_seeds".

    Args:
      bests: of each seed.
      seed: the number of the first.
    """
    saved = to_json(bests)
    of_seeds = [{"seed": seed + i, **entry} for i, entry in enumerate(saved)]
    return ({"best": saved[0]} if len(saved) == 1 else {}) | {"best_of_seeds": of_seeds}
