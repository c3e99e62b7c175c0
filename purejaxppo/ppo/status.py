"""Checks of an update inside jit: a status code, which the host reports."""

import enum

import jax
import jax.numpy as jnp

from purejaxppo.ppo.summary import Summary

# At the first minibatch the parameters have not changed, so ρ = 1 up to rounding.
MAX_FIRST_RATIO_ERROR = 1e-4
# If the standard deviation of ρ over an epoch is smaller than this, the ratio does not
# depend on the parameters.
MIN_RATIO_STD = 1e-4


class UpdateStatus(enum.IntFlag):
    """The faults of an update, as flags that can be combined; 0 for none."""

    OK = 0
    RATIO = 1
    DEGENERATE = 2
    NONFINITE = 4
    NO_VALID_ACTION = 8


MESSAGES = {
    UpdateStatus.RATIO: (
        "ratio/first_minibatch_error is above 1e-4: a log-prob of the rollout cannot "
        "be re-evaluated by the loss"
    ),
    UpdateStatus.DEGENERATE: (
        "ratio/last_epoch_std is below 1e-4: the update does not change the policy "
        "(zero learning rate, dead gradients, no entropy left, or one computation on "
        "both sides of the ratio)"
    ),
    UpdateStatus.NONFINITE: (
        "a minibatch had a loss or gradient that is not finite; its step was skipped"
    ),
    UpdateStatus.NO_VALID_ACTION: "an environment offered a head no valid action",
}


def update_status(
    summary: Summary, policy_moves: jax.Array, num_no_valid_action: jax.Array
) -> jax.Array:
    """Combine the checks of one update into an int32 code.

    Args:
      summary: statistics of the update. NaN counts as a fault.
      policy_moves: bool [], False if the ratio must be constant: in the critic's
        warm-up, or with a single optimiser step per update.
      num_no_valid_action: float32 [], number of steps at which the mask of an active
        head allowed too few actions.
    """
    ratio_error, ratio_std = summary.first_ratio_error, summary.last_epoch_ratio_std
    checks = {
        UpdateStatus.RATIO: ~(ratio_error <= MAX_FIRST_RATIO_ERROR),
        UpdateStatus.DEGENERATE: policy_moves & ~(ratio_std >= MIN_RATIO_STD),
        UpdateStatus.NONFINITE: summary.num_nonfinite > 0,
        UpdateStatus.NO_VALID_ACTION: num_no_valid_action > 0,
    }
    code = jnp.zeros((), jnp.int32)
    for flag, failed in checks.items():
        code += jnp.where(failed, jnp.int32(flag), jnp.int32(0))
    return code


def describe(code: int) -> list[str]:
    """Return the messages of the faults in a status code."""
    return [text for flag, text in MESSAGES.items() if UpdateStatus(code) & flag]
