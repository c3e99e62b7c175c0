"""Signs that the training batch is not what the rollout was: advantages and returns."""

import numpy as np

from purejaxppo.doctor.curve import has_learned
from purejaxppo.doctor.evidence import (
    Evidence,
    Limits,
    everywhere,
    grade,
    late,
    median,
    setting,
    share,
    span,
)
from purejaxppo.doctor.log import Log, column


def reward_sign(log: Log, limits: Limits) -> Evidence | None:
    """The returns were made of rewards of the opposite sign."""
    return _sign_in_returns(log, limits) or _sign_in_episodes(log, limits)


def _sign_in_episodes(log: Log, limits: Limits) -> Evidence | None:
    """The rewards of training have another sign than the returns of its episodes."""
    length = column(log.updates, "train/episode_length")
    expected = column(log.updates, "train/episode_return") / length
    reward = column(log.updates, "rewards/mean")
    known = np.isfinite(expected * reward)
    if known.sum() < limits["updates"] or np.all(expected[known] == 0.0):
        return None
    x, y = expected[known], reward[known]
    cosine = float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)))
    if not cosine < limits["cosine"]:
        return None
    return Evidence(
        0.99,
        "rewards/mean",
        everywhere(log),
        f"the mean reward that training was given is {median(y):.3g}, that of its "
        f"episodes {median(x):.3g}",
    )


def _sign_in_returns(log: Log, limits: Limits) -> Evidence | None:
    sign = column(log.updates, "consistency/sign")
    wrong = sign < limits["cosine"]
    known = np.isfinite(sign)
    if not known.any() or wrong.sum() < limits["share"] * known.sum():
        return None
    return Evidence(
        0.99,
        "consistency/sign",
        span(log, wrong),
        f"the cosine between the rewards in the returns and those of the environment "
        f"is {median(sign):.2f}",
    )


def advantage_estimation(log: Log, limits: Limits) -> Evidence | None:
    """Returns do not follow from the rewards and values of the rollout."""
    error = column(log.updates, "consistency/rewards")
    wrong = error > limits["error"]
    if share(wrong) < limits["share"]:
        return None
    return Evidence(
        0.96,
        "consistency/rewards",
        span(log, wrong),
        f"the rewards in the returns differ from those of the environment by "
        f"{median(error[wrong]):.0%}, in {share(wrong):.0%} of the updates",
    )


def changed_advantages(log: Log, limits: Limits) -> Evidence | None:
    """The advantages of the loss are not those that were estimated."""
    correlation = column(log.updates, "consistency/advantages")
    spread = column(log.updates, "advantages/used_std")
    constant = spread < limits["std"]  # a correlation with them is not defined
    wrong = (correlation < limits["correlation"]) | constant
    if share(wrong) < limits["share"]:
        return None
    seen = f"have a correlation of {median(correlation):.2f} with returns - values"
    if share(constant) >= limits["share"]:
        seen = f"have a standard deviation of {median(spread):.1g}"
    return Evidence(
        0.96,
        "advantages/used_std" if constant.any() else "consistency/advantages",
        span(log, wrong),
        f"the advantages of the loss {seen}",
    )


def no_bootstrap(log: Log, limits: Limits) -> Evidence | None:
    """Truncated episodes are treated as terminated ones."""
    shares = column(log.updates, "consistency/bootstrap")
    cut = column(log.updates, "train/truncated") > 0
    wrong = cut & (shares < limits["share"])
    blind = setting(log, "gamma") < limits["gamma"]  # no return has a bootstrap
    if cut.any() and wrong.sum() > 0.5 * cut.sum() and not blind:
        return Evidence(
            0.93,
            "consistency/bootstrap",
            span(log, wrong),
            f"{1 - median(shares[cut]):.0%} of the truncated steps have a return that "
            "is their reward alone",
        )
    return _limit_as_termination(log, limits)


def _limit_as_termination(log: Log, limits: Limits) -> Evidence | None:
    """No episode is truncated although episodes are as long as the time limit."""
    limit = setting(log, "max_episode_steps")
    length = column(log.updates, "train/episode_length")
    # First episodes may be truncated early, so that environments do not end in step.
    cut = np.nansum(late(column(log.updates, "train/truncated")))
    at_limit = length >= limit * limits["limit"]
    if not at_limit.any() or cut > 0 or "train/truncated" not in log.updates:
        return None
    return Evidence(
        0.9,
        "train/truncated",
        span(log, at_limit),
        f"episodes are as long as the time limit of {limit:.0f} steps, and none of "
        "them is truncated",
    )


def advantage_scale(log: Log, limits: Limits) -> Evidence | None:
    """Advantages are far from unit size."""
    used = median(late(column(log.updates, "advantages/used_std")))
    if log.config.get("normalize_advantages", "off") == "minibatch":
        return None
    if not used > limits["std"]:
        return None
    return Evidence(
        0.6 + 0.3 * grade(used, limits["std"], limits["worst"]),
        "advantages/used_std",
        everywhere(log),
        f"the advantages in the loss have a standard deviation of {used:.3g}",
    )


def short_horizon(log: Log, limits: Limits) -> Evidence | None:
    """The discount is blind to what happens later in an episode."""
    gamma = setting(log, "gamma")
    length = median(column(log.updates, "train/episode_length"))
    horizon = 1.0 / max(1.0 - gamma, 1e-9)
    if not (gamma < limits["gamma"] and length > limits["episodes"] * horizon):
        return None
    learned = has_learned(log)
    severity = 0.9 * grade(horizon, limits["harmless"], 1.0)
    return Evidence(
        severity if not learned else 0.8 * severity,
        "gamma",
        everywhere(log),
        f"gamma is {gamma:g}, a horizon of {horizon:.1f} steps; episodes have "
        f"{length:.0f}",
    )
