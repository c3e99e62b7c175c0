"""Failure inside jit is data: a code per update, raised on the host."""

import enum

import jax
import jax.numpy as jnp

from purejaxppo.ppo.summary import Summary

# Contract: at the first minibatch parameters have not moved, so ρ = 1 up to rounding.
MAX_FIRST_RATIO_ERROR = 1e-4
# Below this, over a whole epoch, the ratio does not depend on the parameters. It is
# that of the configuration's learning rate: a tenth of it moves the policy by a tenth.
MIN_RATIO_STD = 1e-4
# Of the configuration's rate; below it nothing is expected to move any more.
MIN_RATE_FACTOR = 0.01
# So many updates in a row that do not move the policy are a fault: one may find
# nothing to learn, or no head active.
STILL_UPDATES = 3


class UpdateStatus(enum.IntFlag):
    """What went wrong in an update, several at once; 0 is none."""

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
        "ratio/last_epoch_std is below 1e-4 (times the learning rate's share of its "
        f"full value) {STILL_UPDATES} times in a row: updates do not change the policy "
        "(zero learning rate, dead gradients, no entropy left, or one computation on "
        "both sides of the ratio)"
    ),
    UpdateStatus.NONFINITE: (
        "a minibatch had a loss or gradient that is not finite; its step was skipped"
    ),
    UpdateStatus.NO_VALID_ACTION: "an environment offered a head no valid action",
}


def count_still(
    still_updates: jax.Array, summary: Summary, policy_moves: jax.Array
) -> jax.Array:
    """Updates in a row, to this one, that should have moved the policy and did not.

    Args:
      still_updates: int32 [], of the update before.
      summary: of this update. A ratio of NaN has not moved.
      policy_moves: bool [], False where the ratio is rightly constant: the critic's
        warm-up, or a single optimiser step per update.
    """
    expected = MIN_RATIO_STD * jnp.minimum(summary.rate_factor, 1.0)
    moved = summary.last_epoch_ratio_std >= expected
    has_rate = summary.rate_factor >= MIN_RATE_FACTOR
    is_still = policy_moves & has_rate & ~moved
    return jnp.where(is_still, still_updates + 1, jnp.zeros_like(still_updates))


def update_status(
    summary: Summary, still_updates: jax.Array, num_no_valid_action: jax.Array
) -> jax.Array:
    """Combine the checks of one update into an int32 code.

    Args:
      summary: of the update. NaN counts as a fault.
      still_updates: int32 [], of `count_still`.
      num_no_valid_action: float32 [], steps at which an active head had no choice.
    """
    checks = {
        UpdateStatus.RATIO: ~(summary.first_ratio_error <= MAX_FIRST_RATIO_ERROR),
        UpdateStatus.DEGENERATE: still_updates >= STILL_UPDATES,
        UpdateStatus.NONFINITE: summary.num_nonfinite > 0,
        UpdateStatus.NO_VALID_ACTION: num_no_valid_action > 0,
    }
    code = jnp.zeros((), jnp.int32)
    for flag, failed in checks.items():
        code += jnp.where(failed, jnp.int32(flag), jnp.int32(0))
    return code


def describe(code: int) -> list[str]:
    """The sentences of a status code; none for 0."""
    return [text for flag, text in MESSAGES.items() if UpdateStatus(code) & flag]
