"""What went wrong in an update, as data and as sentences."""

import math

import jax.numpy as jnp
import pytest

from purejaxppo.ppo.status import (
    STILL_UPDATES,
    UpdateStatus,
    count_still,
    describe,
    update_status,
)
from purejaxppo.ppo.summary import Summary


def _summary(error=0.0, std=0.1, rate=1.0, nonfinite=0):
    return Summary(
        approx_kl=jnp.float32(0.0),
        head_entropy={},
        first_ratio_error=jnp.float32(error),
        last_epoch_ratio_std=jnp.float32(std),
        num_nonfinite=jnp.float32(nonfinite),
        stopped=jnp.asarray(False),
        rate_factor=jnp.float32(rate),
        logged={},
    )


@pytest.mark.parametrize(
    ("error", "still", "nonfinite", "no_action", "unstable", "expected"),
    [
        (0.0, 0, 0, 0, 0, UpdateStatus.OK),
        (9e-5, 0, 0, 0, 0, UpdateStatus.OK),
        (2e-4, 0, 0, 0, 0, UpdateStatus.RATIO),
        (math.nan, 0, 0, 0, 0, UpdateStatus.RATIO),
        (0.0, STILL_UPDATES - 1, 0, 0, 0, UpdateStatus.OK),
        (0.0, STILL_UPDATES, 0, 0, 0, UpdateStatus.DEGENERATE),
        (0.0, 100, 0, 0, 0, UpdateStatus.DEGENERATE),
        (0.0, 0, 1, 0, 0, UpdateStatus.NONFINITE),
        (0.0, 0, 0, 3, 0, UpdateStatus.NO_VALID_ACTION),
        (0.0, 0, 0, 0, 3, UpdateStatus.UNSTABLE),
        (1.0, 9, 2, 2, 4, UpdateStatus(63)),
    ],
)
def test_status_by_hand(error, still, nonfinite, no_action, unstable, expected):
    summary = _summary(error=error, nonfinite=nonfinite)
    num_unstable, all_unstable = jnp.float32(unstable), jnp.asarray(unstable > 3)
    code = update_status(
        summary, jnp.int32(still), jnp.float32(no_action), num_unstable, all_unstable
    )
    assert UpdateStatus(int(code)) == expected
    assert code.dtype == jnp.int32
    assert len(describe(int(code))) == bin(expected).count("1")


@pytest.mark.parametrize(
    ("std", "rate", "moves", "still"),
    [
        (0.1, 1.0, True, False),
        (9e-5, 1.0, True, True),
        (0.0, 1.0, True, True),
        (math.nan, 1.0, True, True),
        # The critic's warm-up, or a single step an update.
        (0.0, 1.0, False, False),
        # A tenth of the rate moves the policy by a tenth.
        (2e-5, 0.1, True, False),
        (9e-6, 0.1, True, True),
        # A larger rate than the configuration's asks for no more.
        (2e-4, 50.0, True, False),
        # A rate that has decayed to nothing, or that schedule kl has all but stopped.
        (0.0, 9e-3, True, False),
        (0.0, 0.0, True, False),
    ],
)
def test_updates_that_do_not_move_the_policy_are_counted_in_a_row(
    std, rate, moves, still
):
    summary = _summary(std=std, rate=rate)
    found = count_still(jnp.int32(5), summary, jnp.asarray(moves))
    assert (int(found), found.dtype) == (6 if still else 0, jnp.int32)
