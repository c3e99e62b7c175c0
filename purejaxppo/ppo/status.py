"""Checks of an update inside jit: a status code, which the host reports."""

import enum

import jax
import jax.numpy as jnp

from purejaxppo.ppo.summary import Summary

# At the first minibatch the parameters have not changed, so ρ = 1 up to rounding.
MAX_FIRST_RATIO_ERROR = 1e-4
# If the standard deviation of ρ over an epoch is smaller than this, the ratio does not
# depend on the parameters. For a learning rate below that of the configuration the
# threshold is lower in proportion.
MIN_RATIO_STD = 1e-4
# Below this fraction of the configuration's learning rate the policy need not change.
MIN_RATE_FACTOR = 0.01
# This many updates in a row without a change of the policy are a fault. A single one
# is not: it may have found nothing to learn, or no active head.
STILL_UPDATES = 3


class UpdateStatus(enum.IntFlag):
    """The faults of an update, as flags that can be combined; 0 for none."""

    OK = 0
    RATIO = 1
    DEGENERATE = 2
    NONFINITE = 4
    NO_VALID_ACTION = 8
    UNSTABLE = 16
    ALL_UNSTABLE = 32


# No later update can mend these: a run stops at them with and without `strict`.
FATAL = UpdateStatus.ALL_UNSTABLE

MESSAGES = {
    UpdateStatus.ALL_UNSTABLE: (
        "all environments gave an observation or reward that is not finite or above "
        "1e8 at the same step (a single one: at every step), so there is nothing to "
        "learn from"
    ),
    UpdateStatus.RATIO: (
        "ratio/first_minibatch_error is above 1e-4: a log-prob of the rollout cannot "
        "be re-evaluated by the loss"
    ),
    UpdateStatus.DEGENERATE: (
        "ratio/last_epoch_std is below 1e-4 (times the learning rate's share of its "
        f"full value) {STILL_UPDATES} times in a row: updates do not change the policy "
        "(zero learning rate, dead gradients, no entropy left, or one computation on "
        "both sides of the ratio)"
    ),
    UpdateStatus.NONFINITE: (
        "a minibatch had a loss or gradient that is not finite; its step was skipped"
    ),
    UpdateStatus.NO_VALID_ACTION: "an environment offered a head no valid action",
    UpdateStatus.UNSTABLE: (
        "an environment gave an observation or reward that is not finite or above "
        "1e8; its episode was cut there"
    ),
}


def count_still(
    still_updates: jax.Array, summary: Summary, policy_moves: jax.Array
) -> jax.Array:
    """Count the latest updates in a row that failed to change the policy.

    Args:
      still_updates: int32 [], the count before this update.
      summary: statistics of this update. A ratio of NaN counts as no change.
      policy_moves: bool [], False if the ratio must be constant: in the critic's
        warm-up, or with a single optimiser step per update.
    """
    expected = MIN_RATIO_STD * jnp.minimum(summary.rate_factor, 1.0)
    moved = summary.last_epoch_ratio_std >= expected
    has_rate = summary.rate_factor >= MIN_RATE_FACTOR
    is_still = policy_moves & has_rate & ~moved
    return jnp.where(is_still, still_updates + 1, jnp.zeros_like(still_updates))


def update_status(
    summary: Summary,
    still_updates: jax.Array,
    num_no_valid_action: jax.Array,
    num_unstable: jax.Array,
    all_unstable: jax.Array,
) -> jax.Array:
    """Combine the checks of one update into an int32 code.

    Args:
      summary: statistics of the update. NaN counts as a fault.
      still_updates: int32 [], from `count_still`.
      num_no_valid_action: float32 [], number of steps at which the mask of an active
        head allowed too few actions.
      num_unstable: float32 [], number of steps with unusable numbers.
      all_unstable: bool [], no environment could be learned from.
    """
    checks = {
        UpdateStatus.RATIO: ~(summary.first_ratio_error <= MAX_FIRST_RATIO_ERROR),
        UpdateStatus.DEGENERATE: still_updates >= STILL_UPDATES,
        UpdateStatus.NONFINITE: summary.num_nonfinite > 0,
        UpdateStatus.NO_VALID_ACTION: num_no_valid_action > 0,
        UpdateStatus.UNSTABLE: num_unstable > 0,
        UpdateStatus.ALL_UNSTABLE: all_unstable,
    }
    code = jnp.zeros((), jnp.int32)
    for flag, failed in checks.items():
        code += jnp.where(failed, jnp.int32(flag), jnp.int32(0))
    return code


# The names under which the doctor finds the same, so that it is said once.
_VERDICTS = {
    UpdateStatus.RATIO: "log_prob",
    UpdateStatus.DEGENERATE: "degenerate_ratio",
    UpdateStatus.NO_VALID_ACTION: "empty_mask",
    UpdateStatus.UNSTABLE: "unusable_numbers",
}


def verdicts(code: int) -> list[str]:
    """Return the doctor's names of the faults in a status code."""
    return [name for flag, name in _VERDICTS.items() if UpdateStatus(code) & flag]


def describe(code: int) -> list[str]:
    """Return the messages of the faults in a status code."""
    return [text for flag, text in MESSAGES.items() if UpdateStatus(code) & flag]
