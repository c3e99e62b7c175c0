"""Signs in what the environment gave: numbers, observations, masks, episodes."""

import numpy as np

from purejaxppo.doctor.curve import has_learned
from purejaxppo.doctor.evidence import (
    Evidence,
    Limits,
    everywhere,
    grade,
    late,
    median,
    share,
    span,
)
from purejaxppo.doctor.log import Log, column


def unusable_numbers(log: Log, limits: Limits) -> Evidence | None:
    """Observations or rewards that are not finite, or absurd."""
    count = np.nan_to_num(column(log.updates, "train/unstable"))
    bad = count > limits["count"]
    if not bad.any():
        return None
    steps = np.unique(log.updates["steps"])
    size = median(np.diff(steps)) if steps.size > 1 else float(steps[0])
    fraction = float(count.mean() / max(size, 1.0))
    return Evidence(
        0.55 + 0.4 * grade(max(fraction, 1e-9), limits["low"], limits["high"]),
        "train/unstable",
        span(log, bad),
        f"{count.sum():,.0f} steps had an observation or a reward that is not finite "
        f"or above 1e8, in {share(bad):.0%} of the updates",
    )


def no_reward(log: Log, limits: Limits) -> Evidence | None:
    """All rewards of training are 0."""
    reward = column(log.updates, "rewards/max_abs")
    none = reward == 0.0
    if share(none) < limits["share"]:
        return None
    return Evidence(
        0.9,
        "rewards/nonzero",
        span(log, none),
        f"every reward of training was 0, in {share(none):.0%} of the updates",
    )


def invalid_actions(log: Log, limits: Limits) -> Evidence | None:
    """The environment counts invalid actions."""
    found = column(log.updates, "train/invalid_frac")
    bad = found > limits["share"]
    if share(bad) < limits["updates"]:
        return None
    return Evidence(
        0.92,
        "train/invalid_frac",
        span(log, bad),
        f"{median(found[bad]):.1%} of the actions are invalid to the environment",
    )


def no_valid_action(log: Log, limits: Limits) -> Evidence | None:
    """A mask allowed too few actions."""
    count = np.nan_to_num(column(log.updates, "train/no_valid_action"))
    bad = count > limits["count"]
    if not bad.any():
        return None
    return Evidence(
        0.91,
        "train/no_valid_action",
        span(log, bad),
        f"the mask of an active head allowed too few actions at {count.sum():,.0f} "
        f"steps",
    )


def still_observations(log: Log, limits: Limits) -> Evidence | None:
    """Observations do not change within an episode."""
    still = median(column(log.updates, "obs/still"))
    if not still > limits["share"]:
        return None
    return Evidence(
        0.95,
        "obs/still",
        everywhere(log),
        f"{still:.0%} of the observations equal the one before",
    )


def noisy_observations(log: Log, limits: Limits) -> Evidence | None:
    """Observations jump away and back: they belong to other states."""
    # Not the median: a policy that has learned to keep still shows few of them.
    # The median: rare updates of fast movement have spikes in healthy runs, too.
    spikes = median(column(log.updates, "obs/spikes"))
    # What swings back at more steps than that moves so by itself.
    if not limits["share"] < spikes < limits["dynamics"]:
        return None
    learned = has_learned(log)
    return Evidence(
        (0.4 if learned else 0.75) + 0.15 * grade(spikes, limits["share"], 0.2),
        "obs/spikes",
        everywhere(log),
        f"{spikes:.1%} of the observations are far from both the one before and the "
        "one after, which are close to each other",
    )


def normaliser(log: Log, limits: Limits) -> Evidence | None:
    """Normalised observations are not of unit size, or the statistics stand still."""
    if log.config.get("normalize_observations", "off") != "running":
        return None
    samples = column(log.updates, "obs/samples")
    frozen = samples.size > 2 and samples[-1] == samples[0]
    spread = median(late(column(log.updates, "obs/std")))
    clipped = median(late(column(log.updates, "obs/clipped")))
    off = spread > limits["high"] or spread < limits["low"]
    off |= clipped > limits["clipped"]
    if not (frozen or off):
        return None
    return Evidence(
        0.85 if frozen else 0.55,
        "obs/samples" if frozen else "obs/std",
        everywhere(log),
        f"the statistics of observations have {samples[-1]:,.0f} samples at the end "
        f"and had {samples[0]:,.0f} at the start; normalised observations have a "
        f"standard "
        f"deviation of {spread:.2g}, and {clipped:.0%} of them are clipped",
    )


def evaluation_seeds(log: Log, limits: Limits) -> Evidence | None:
    """Evaluations start from other states each time."""
    start = column(log.evals, "eval/start")
    start = start[np.isfinite(start)]
    if start.size < 2:
        return None
    spread = float(np.ptp(start))
    if spread <= limits["relative"] * max(abs(float(start[0])), 1e-6):
        return None
    steps = log.evals["steps"]
    return Evidence(
        0.88,
        "eval/start",
        (int(steps[0]), int(steps[-1])),
        f"the mean size of the first observations is {start.min():.6g} to "
        f"{start.max():.6g} in different evaluations",
    )
