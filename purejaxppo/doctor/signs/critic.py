"""Signs in the critic."""

import numpy as np

from purejaxppo.doctor.curve import curve, has_learned
from purejaxppo.doctor.evidence import (
    Evidence,
    Limits,
    everywhere,
    grade,
    largest,
    late,
    median,
    setting,
    share,
    span,
)
from purejaxppo.doctor.log import Log, column


def untrained_critic(log: Log, limits: Limits) -> Evidence | None:
    """The critic is not trained at all."""
    critic = column(log.updates, "critic/update_norm")
    policy = column(log.updates, "policy/update_norm")
    still = critic <= limits["ratio"] * policy
    still &= policy > 0
    coefficient = setting(log, "value_coef")
    if share(still) < limits["share"] and coefficient != 0.0:
        return None
    return Evidence(
        0.94,
        "critic/update_norm",
        everywhere(log),
        f"the critic's parameters changed by {median(critic):.1g} of their norm in the "
        f"median update, the policy's by {median(policy):.1g}; value_coef is "
        f"{coefficient:g}",
    )


def critic_overshoot(log: Log, limits: Limits) -> Evidence | None:
    """The critic's steps are far larger than the policy's."""
    # The largest, because Adam's steps shrink once the critic fits.
    moved = largest(column(log.updates, "critic/update_norm"))
    policy = largest(column(log.updates, "policy/update_norm"))
    if not (moved > limits["update_norm"] and moved > limits["ratio"] * policy):
        return None
    explained = median(late(column(log.updates, "value/explained_variance")))
    learned = has_learned(log)
    return Evidence(
        (0.4 if learned else 0.7)
        + 0.2 * grade(moved, limits["update_norm"], limits["worst"]),
        "critic/update_norm",
        everywhere(log),
        f"an update changed the critic's parameters by up to {moved:.2g} of their "
        f"norm, the policy's by {policy:.2g}; the critic explains {explained:.0%} of "
        "the variance of the returns in the second half",
    )


def diverging_critic(log: Log, limits: Limits) -> Evidence | None:
    """The loss of the values grows, and they explain nothing of the returns."""
    loss = column(log.updates, "loss/value")
    part = max(loss.size // 10, 1)
    before, after = (abs(median(x)) for x in (loss[:part], loss[-part:]))
    explained = median(late(column(log.updates, "value/explained_variance")))
    grows = after > limits["growth"] * before and explained < limits["explained"]
    # Adam with a learning rate that is too high is another rule's.
    moved = largest(column(log.updates, "critic/update_norm"))
    if not (grows or share(loss < 0) > limits["share"]) or moved > limits["moved"]:
        return None
    return Evidence(
        0.92,
        "loss/value",
        everywhere(log),
        f"the value loss went from {median(loss[:part]):.3g} to "
        f"{median(loss[-part:]):.3g}, and the critic explains {explained:.0%} of the "
        "variance of the returns in the second half",
    )


def value_out_of_bounds(log: Log, limits: Limits) -> Evidence | None:
    """Values are larger than any return could be."""
    value = column(log.updates, "value/max_abs")
    reward = column(log.updates, "rewards/max_abs")
    gamma = setting(log, "gamma")
    if log.config.get("normalize_rewards", True) or not np.isfinite(reward).any():
        return None
    length = column(log.updates, "train/episode_length")
    steps = max(np.nanmax(length), setting(log, "max_episode_steps", 0.0), 1.0)
    horizon = min(1.0 / max(1.0 - gamma, 1e-9), steps)
    bound = horizon * np.maximum.accumulate(np.nan_to_num(reward))
    above = value > limits["factor"] * np.maximum(bound, 1e-9)
    above &= bound > 0
    if share(late(above)) < limits["share"]:
        return None
    return Evidence(
        0.6,
        "value/max_abs",
        span(log, above),
        f"the largest value is {median(late(value)):.3g}, and no return can be above "
        f"{bound[-1]:.3g}",
    )


def critic_bottleneck(log: Log, limits: Limits) -> Evidence | None:
    """The critic explains nothing of the returns, and the policy does not improve."""
    explained = column(log.updates, "value/explained_variance")
    typical = median(late(explained))
    found = curve(log)
    if not typical < limits["explained"] or found is None:
        return None
    if found.has_learned and not found.has_collapsed:
        return None
    loss = column(log.updates, "loss/value")
    return Evidence(
        0.45 + 0.1 * float(np.clip(-typical, 0.0, 1.0)),
        "value/explained_variance",
        everywhere(log),
        f"the critic explains {typical:.0%} of the variance of the returns in the "
        f"second half, with a value loss of {median(late(loss)):.3g} after "
        f"{median(loss[: max(loss.size // 10, 1)]):.3g} at the start",
    )
