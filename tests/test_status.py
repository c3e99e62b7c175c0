"""What went wrong in an update, as data and as sentences."""

import math

import jax.numpy as jnp
import pytest

from purejaxppo.ppo.status import UpdateStatus, describe, update_status
from purejaxppo.ppo.summary import Summary


@pytest.mark.parametrize(
    ("error", "std", "moves", "nonfinite", "no_action", "unstable", "expected"),
    [
        (0.0, 0.1, True, 0, 0, 0, UpdateStatus.OK),
        (9e-5, 0.1, True, 0, 0, 0, UpdateStatus.OK),
        (2e-4, 0.1, True, 0, 0, 0, UpdateStatus.RATIO),
        (math.nan, 0.1, True, 0, 0, 0, UpdateStatus.RATIO),
        (0.0, 9e-5, True, 0, 0, 0, UpdateStatus.DEGENERATE),
        (0.0, math.nan, True, 0, 0, 0, UpdateStatus.DEGENERATE),
        (0.0, 0.0, False, 0, 0, 0, UpdateStatus.OK),
        (0.0, 0.1, True, 1, 0, 0, UpdateStatus.NONFINITE),
        (0.0, 0.1, True, 0, 3, 0, UpdateStatus.NO_VALID_ACTION),
        (0.0, 0.1, True, 0, 0, 3, UpdateStatus.UNSTABLE),
        (1.0, 0.0, True, 2, 2, 4, UpdateStatus(63)),
    ],
)
def test_status_by_hand(error, std, moves, nonfinite, no_action, unstable, expected):
    summary = Summary(
        approx_kl=jnp.float32(0.0),
        head_entropy={},
        first_ratio_error=jnp.float32(error),
        last_epoch_ratio_std=jnp.float32(std),
        num_nonfinite=jnp.float32(nonfinite),
        logged={},
    )
    num_unstable, all_unstable = jnp.float32(unstable), jnp.asarray(unstable > 3)
    code = update_status(
        summary, jnp.asarray(moves), jnp.float32(no_action), num_unstable, all_unstable
    )
    assert UpdateStatus(int(code)) == expected
    assert code.dtype == jnp.int32
    assert len(describe(int(code))) == bin(expected).count("1")
