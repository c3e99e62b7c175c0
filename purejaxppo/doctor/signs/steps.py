"""Signs in the ratio and in the size of the optimiser's steps."""

import numpy as np

from purejaxppo.doctor.curve import has_learned
from purejaxppo.doctor.evidence import (
    Evidence,
    Limits,
    everywhere,
    grade,
    heads,
    largest,
    median,
    setting,
    share,
    span,
    trained,
    undecided,
    upper,
)
from purejaxppo.doctor.log import Log, column


def unevaluable_log_prob(log: Log, limits: Limits) -> Evidence | None:
    """The ratio of the first minibatch is not 1, before any step."""
    errors = column(log.updates, "ratio/first_minibatch_error")
    bad = errors > limits["error"]
    if not bad.any():
        return None
    worst = {
        name: float(np.nanmax(x))
        for name, x in heads(log, "first_ratio_error").items()
        if np.any(x > limits["error"])
    }
    named = ", ".join(sorted(worst, key=lambda n: -worst[n]))
    where = f" in the head {named}" if named else ""
    return Evidence(
        1.0,
        "ratio/first_minibatch_error",
        span(log, bad),
        f"the ratio is off from 1 by up to {np.nanmax(errors):.2g} before the first "
        f"step of an update{where}, in {share(bad):.0%} of the updates",
    )


def no_learning_rate(log: Log, limits: Limits) -> Evidence | None:
    """The optimiser's steps have no length."""
    rate = column(log.updates, "update/learning_rate")
    moved = column(log.updates, "policy/update_norm")
    critic = column(log.updates, "critic/update_norm")
    frozen = (moved == 0.0) & (critic == 0.0) & trained(log)
    still = (rate <= limits["rate"]) | frozen
    if share(still) < limits["share"]:
        return None
    return Evidence(
        1.0,
        "update/learning_rate",
        span(log, still),
        f"learning rate {median(rate):.2g}, and the policy's parameters changed by "
        f"{median(moved[still]):.2g} of their norm in the median update",
    )


def degenerate_ratio(log: Log, limits: Limits) -> Evidence | None:
    """The ratio stays 1 although steps were taken."""
    spread = column(log.updates, "ratio/last_epoch_std")
    rate = column(log.updates, "update/learning_rate")
    several = column(log.updates, "update/minibatches") > 1
    top = np.nanmax(rate) if np.isfinite(rate).any() else float("nan")
    relative = np.minimum(rate / top, 1.0) if top > 0 else rate
    is_still = spread < limits["std"] * relative
    is_still &= several & trained(log) & (relative > limits["rate"])
    is_still &= undecided(log, limits["entropy"])
    if share(is_still) < limits["share"] or median(rate) <= 0:
        return None
    gradient = median(column(log.updates, "policy/grad_norm")[is_still])
    return Evidence(
        0.98,
        "ratio/last_epoch_std",
        span(log, is_still),
        f"the ratio's standard deviation in the last epoch is "
        f"{median(spread[is_still]):.1g} in {share(is_still):.0%} of the updates, with "
        f"a learning rate of {median(rate):.2g} and a policy gradient of norm "
        f"{gradient:.2g}",
    )


def loss_sign(log: Log, limits: Limits) -> Evidence | None:
    """The update makes the surrogate objective worse."""
    gain = column(log.updates, "surrogate/after")
    gain = gain - np.nan_to_num(column(log.updates, "surrogate/before"))
    spread = column(log.updates, "ratio/last_epoch_std")
    known = np.isfinite(gain) & trained(log) & (spread > limits["std"])
    if known.sum() < limits["updates"]:
        return None
    falls = known & (gain < 0)
    fraction = falls.sum() / known.sum()
    if fraction < limits["share"]:
        return None
    size = median(gain[known] / spread[known])
    if size > -limits["size"]:
        return None
    return Evidence(
        0.97,
        "surrogate/after",
        span(log, falls),
        f"the surrogate objective fell in {fraction:.0%} of the updates, by "
        f"{-median(gain[known]):.2g} in the median",
    )


def _mean_and_largest_kl(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Return both of each update; other programs log the last minibatch's alone."""
    mean = column(log.updates, "approx_kl/mean")
    mean = np.where(np.isfinite(mean), mean, column(log.updates, "approx_kl/last"))
    largest_kl = column(log.updates, "approx_kl/max")
    return mean, np.where(np.isfinite(largest_kl), largest_kl, mean)


def overshoot(log: Log, limits: Limits) -> Evidence | None:
    """Updates change the policy by far more than the clip range means to allow."""
    kl, highest = _mean_and_largest_kl(log)
    clipped = column(log.updates, "clip_frac")
    moved = column(log.updates, "policy/update_norm")
    # A policy that a few updates have made deterministic has no KL after that: so the
    # largest figures count, too.
    found = {
        "approx_kl/mean": upper(kl) / limits["kl"],
        "approx_kl/max": largest(highest) / limits["spike"],
        "clip_frac": upper(clipped) / limits["clip_frac"],
        "policy/update_norm": largest(moved) / limits["update_norm"],
    }
    metric = max(found, key=lambda name: np.nan_to_num(found[name]))
    excess = found[metric]
    if not excess > 1.0:
        return None
    learned = has_learned(log)
    severity = (0.3 if learned else 0.7) + 0.25 * grade(excess, 1.0, limits["worst"])
    big = highest > min(limits["spike"], 3.0 * limits["kl"])
    seen = (
        f"the largest KL of an update is {largest(highest):.2g}, the upper quartile of "
        f"the mean KL {upper(kl):.2g} and of the clip fraction {upper(clipped):.2f}"
    )
    if np.isfinite(moved).any():
        seen += "; an update changed the policy's parameters by up to "
        seen += f"{largest(moved):.2g} of their norm"
    return Evidence(
        severity,
        metric,
        span(log, big) if big.any() else everywhere(log),
        seen,
    )


def slow(log: Log, limits: Limits) -> Evidence | None:
    """Updates hardly change the policy, and it does not improve."""
    kl, highest = _mean_and_largest_kl(log)
    moved = column(log.updates, "policy/update_norm")
    active = trained(log) & undecided(log, limits["entropy"])
    typical = median(kl[active])
    if not typical < limits["kl"] or largest(highest) > limits["moved"]:
        return None
    learned = has_learned(log)
    if learned and not typical < limits["if_learned"]:
        return None
    severity = 0.3 if learned else 0.5
    severity += 0.35 * grade(typical, limits["kl"], limits["worst"])
    seen = f"the KL of the median update is {typical:.1g}"
    if np.isfinite(moved).any():
        seen += f", and its change of the policy's parameters {median(moved):.1g} of "
        seen += "their norm"
    return Evidence(severity, "approx_kl/mean", everywhere(log), seen)


def small_batch(log: Log, limits: Limits) -> Evidence | None:
    """An update has few samples."""
    steps = np.unique(log.updates["steps"])
    size = median(np.diff(steps)) if steps.size > 1 else float("nan")
    recorded = setting(log, "num_envs") * setting(log, "num_steps")
    size = recorded if np.isfinite(recorded) else size
    if log.source != "purejaxppo" or not size < limits["samples"]:
        return None
    learned = has_learned(log)
    if learned and not size < limits["if_learned"]:
        return None
    severity = (0.25 if learned else 0.55) + 0.3 * grade(
        size, limits["samples"], limits["worst"]
    )
    return Evidence(
        severity,
        "steps",
        everywhere(log),
        f"an update has {size:,.0f} samples, of {setting(log, 'num_envs'):.0f} "
        f"environments and {setting(log, 'num_steps'):.0f} steps",
    )
