"""Signs in the learning curve alone: what is said where no cause is seen."""

import numpy as np

from purejaxppo.doctor.curve import Curve, curve
from purejaxppo.doctor.evidence import Evidence, Limits, grade, median
from purejaxppo.doctor.log import Log, column


def opposite_rewards(log: Log, limits: Limits) -> Evidence | None:
    """Training improves what evaluation sees get worse."""
    found = curve(log)
    trained = column(log.updates, "train/episode_return")
    trained = trained[np.isfinite(trained)]
    if found is None or found.metric != "eval/mean_return" or trained.size < 6:
        return None
    part = max(trained.size // 5, 1)
    first, last = np.median(trained[:part]), np.median(trained[-part:])
    # About the same figure with another sign.
    ratio = last / found.last if found.last else 0.0
    negated = -limits["similar"] < ratio < -1.0 / limits["similar"]
    rises = last - first > limits["rise"] * max(abs(first), 1e-9)
    falls = found.first - found.last > found.margin
    if not ((rises and falls) or negated):
        return None
    return Evidence(
        0.9,
        "train/episode_return",
        (int(found.steps[0]), int(found.steps[-1])),
        f"the return of training episodes went from {first:.3g} to {last:.3g}, that of "
        f"evaluations from {found.first:.3g} to {found.last:.3g}",
    )


def worse_than_untrained(log: Log, limits: Limits) -> Evidence | None:
    """The policy ends worse than it began."""
    found = curve(log)
    if found is None or not found.has_fallen:
        return None
    loss = (found.first - found.last) / max(abs(found.first), found.margin)
    return Evidence(
        0.58 + 0.1 * grade(loss, limits["low"], limits["high"]),
        found.metric,
        _span(found),
        f"the return is {found.last:.4g} at the end and was {found.first:.4g} before "
        "training",
    )


def no_improvement(log: Log, limits: Limits) -> Evidence | None:
    """The policy never improves."""
    found = curve(log)
    if found is None or found.has_learned or found.has_collapsed or found.has_fallen:
        return None
    if found.values.size < limits["points"]:
        return None
    entropy = column(log.updates, "entropy")
    kl = median(column(log.updates, "approx_kl/mean"))
    return Evidence(
        0.4,
        found.metric,
        _span(found),
        f"the return is {found.last:.4g} at the end and was {found.first:.4g} at the "
        f"start, with an entropy of {median(entropy):.2f} and a KL of {kl:.1g} an "
        f"update",
    )


def collapse(log: Log, limits: Limits) -> Evidence | None:
    """The policy improved, and lost more than half of it again."""
    found = curve(log)
    if found is None or not found.has_collapsed:
        return None
    lost = (found.best - found.last) / (found.best - found.first)
    kl = column(log.updates, "approx_kl/max")
    spike = np.nanmax(kl) if np.isfinite(kl).any() else float("nan")
    cause = "with a spike of the KL" if spike > limits["kl"] else "without a large KL"
    return Evidence(
        0.5 + 0.2 * float(np.clip(lost, 0.0, 1.0)),
        found.metric,
        _span(found),
        f"the return rose from {found.first:.4g} to {found.best:.4g} and fell to "
        f"{found.last:.4g}, {cause} ({spike:.2g})",
    )


def sawtooth(log: Log, limits: Limits) -> Evidence | None:
    """The learning curve swings by more than noise."""
    found = curve(log)
    if found is None or found.values.size < limits["points"] or found.has_collapsed:
        return None
    later = found.values[found.values.size // 3 :]
    drops = np.maximum(later[:-1] - later[1:], 0.0)
    height = max(found.best - found.first, found.margin)
    big = drops > max(limits["drop"] * height, found.margin)
    if big.sum() < limits["drops"]:
        return None
    return Evidence(
        0.35,
        found.metric,
        _span(found),
        f"the return fell {big.sum()} times by more than {limits['drop']:.0%} of what "
        "was gained, and rose again",
    )


def brittle(log: Log, limits: Limits) -> Evidence | None:
    """The mean rises while the worst block falls."""
    mean = column(log.evals, "eval/mean_return")
    worst = column(log.evals, "eval/min_block_return")
    found = curve(log)
    if (
        found is None
        or found.metric != "eval/mean_return"
        or worst.size < limits["points"]
    ):
        return None
    half = mean.size // 2
    rise = np.median(mean[-3:]) - np.median(mean[half : half + 3])
    fall = np.median(worst[half : half + 3]) - np.median(worst[-3:])
    if not (rise > found.margin and fall > limits["fall"] * found.margin):
        return None
    return Evidence(
        0.4,
        "eval/min_block_return",
        _span(found),
        f"since the middle of the run the mean return rose by {rise:.3g}, and that of "
        f"the worst block fell by {fall:.3g}",
    )


def _span(found: Curve) -> tuple[int, int]:
    return int(found.steps[0]), int(found.steps[-1])
