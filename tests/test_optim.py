"""The optimiser by hand: clipping, Adam, decay, schedules, adaptive coefficients."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_trees_close, assert_trees_equal, small_config

from purejaxppo.config import Hypers
from purejaxppo.policy.policy import Params
from purejaxppo.ppo import optim
from purejaxppo.ppo.coefficients import (
    adapt_entropy,
    adapt_learning_rate,
    init_adaptive,
    schedule,
)
from purejaxppo.ppo.types import Task


def _tiny():
    """Named as nothing is in the networks: names must decide nothing."""
    params = Params(
        policy={"critic_like": {"w": jnp.asarray([1.0, 2.0])}},
        critic={"trunk": {"w": jnp.asarray([3.0])}, "head": {"w": jnp.asarray([4.0])}},
    )
    grads = Params(
        policy={"critic_like": {"w": jnp.asarray([3.0, 0.0])}},
        critic={"trunk": {"w": jnp.asarray([4.0])}, "head": {"w": jnp.asarray([12.0])}},
    )
    return params, grads


def _moments(opt_state):
    """Adam's first moments of policy and critic, from inside the chain."""
    inner = opt_state[1].inner_states
    return (
        inner["policy"].inner_state.mu.policy["critic_like"]["w"],
        inner["critic"].inner_state[0].mu.critic,
    )


def _step(hypers, freeze=False, rate=0.1):
    params, grads = _tiny()
    state = optim.init(optim.optimizer(hypers, 0.1), params)
    return optim.step(params, grads, state, hypers, rate, jnp.asarray(freeze))


@pytest.mark.parametrize(
    ("limit", "factor"), [(1.3, 0.1), (13.0, 1.0), (math.inf, 1.0)]
)
def test_gradients_are_clipped_by_their_global_norm(limit, factor):
    """3, 4 and 12 make 13; elementwise clipping would change the direction."""
    _, state, norm = _step(Hypers(max_grad_norm=limit))
    np.testing.assert_allclose(norm, 13.0, rtol=1e-6)
    policy, critic = _moments(state)
    clipped = [policy[0], critic["trunk"]["w"][0], critic["head"]["w"][0]]
    # Adam's first moment after one step is a tenth of the gradient.
    expected = 0.1 * factor * np.asarray([3.0, 4.0, 12.0])
    np.testing.assert_allclose(np.asarray(clipped), expected, rtol=1e-5)


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3, math.inf])
def test_clipping_is_that_of_optax(limit):
    _, grads = _tiny()
    ours, _ = optim.clip_by_global_norm(limit).update(grads, optax.EmptyState())
    theirs, _ = optax.clip_by_global_norm(limit).update(grads, optax.EmptyState())
    assert_trees_close(ours, theirs, rtol=1e-6)


def test_adams_first_step_by_hand():
    """m / (sqrt(v) + ε) = g / (|g| + ε), then the learning rate."""
    params, _, _ = _step(Hypers(max_grad_norm=math.inf, adam_eps=1.0))
    np.testing.assert_allclose(
        params.policy["critic_like"]["w"], [1.0 - 0.1 * 3 / 4, 2.0], rtol=1e-6
    )
    np.testing.assert_allclose(
        params.critic["trunk"]["w"], [3.0 - 0.1 * 4 / 5], rtol=1e-6
    )


def test_weight_decay_is_the_critics_alone():
    hypers = Hypers(max_grad_norm=math.inf, adam_eps=1.0)
    plain, _, _ = _step(hypers)
    decayed, _, _ = _step(hypers.replace(critic_weight_decay=0.5))
    assert_trees_equal(plain.policy, decayed.policy)
    for name, weight in (("trunk", 3.0), ("head", 4.0)):
        difference = plain.critic[name]["w"] - decayed.critic[name]["w"]
        np.testing.assert_allclose(difference, 0.1 * 0.5 * weight, rtol=1e-4)


def test_a_frozen_policy_and_its_nan_stay_out():
    params, grads = _tiny()
    broken = {"critic_like": {"w": jnp.asarray([jnp.nan, jnp.inf])}}
    hypers = Hypers()
    state = optim.init(optim.optimizer(hypers, 0.1), params)
    after, new_state, norm = optim.step(
        params, grads.replace(policy=broken), state, hypers, 0.1, jnp.asarray(True)
    )
    np.testing.assert_allclose(norm, math.hypot(4, 12), rtol=1e-6)
    assert_trees_equal(after.policy, params.policy)
    assert_trees_equal(
        new_state[1].inner_states["policy"], state[1].inner_states["policy"]
    )
    assert float(after.critic["trunk"]["w"][0]) < 3.0


# --- schedules and adaptive coefficients -----------------------------------------


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("kl", [1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.55, 0.1]),
        ("exponential", [1.0, math.sqrt(0.1), 0.1]),
        ("cosine", [1.0, 0.55, 0.1]),
    ],
)
def test_schedules_by_hand(kind, factors):
    for progress, factor in zip([0.0, 0.5, 1.0], factors, strict=True):
        found = schedule(kind, jnp.float32(progress), 0.1)
        np.testing.assert_allclose(found, factor, rtol=1e-4)


def test_cosine_is_flat_at_both_ends_and_exponential_takes_a_final_of_zero():
    early = schedule("cosine", jnp.float32(0.05), 0.0)
    assert 0.99 < float(early) < 1.0
    assert math.isfinite(schedule("exponential", jnp.float32(1.0), 0.0))


def test_learning_rate_follows_kl():
    task = Task(None, None, small_config(learning_rate_schedule="kl"))
    hypers = Hypers(target_kl=0.01)
    adaptive = init_adaptive(["move"])

    def adapted(adaptive, kl, stopped):
        return adapt_learning_rate(
            task, adaptive, hypers, jnp.float32(kl), jnp.asarray(stopped)
        )

    for kl, stopped, scale in (
        (0.03, True, 1 / 1.5),
        (0.016, True, 1 / 1.5),
        (0.014, False, 1.0),
        (0.007, False, 1.0),
        (0.004, False, 1.5),
        # Cut by the limit of entropy: moved too far, whatever the KL.
        (0.004, True, 1 / 1.5),
    ):
        found = adapted(adaptive, kl, stopped)
        np.testing.assert_allclose(found.learning_rate_scale, scale, rtol=1e-6)
    for _ in range(20):
        adaptive = adapted(adaptive, 1.0, True)
    np.testing.assert_allclose(adaptive.learning_rate_scale, 0.01, rtol=1e-5)
    off = Task(None, None, small_config(learning_rate_schedule="linear"))
    same = adapt_learning_rate(
        off, adaptive, hypers, jnp.float32(0), jnp.asarray(False)
    )
    assert_trees_equal(same, adaptive)


def _scales(hypers, entropies):
    """The scales of one head's coefficient as its entropy takes those values."""
    adaptive, scales = init_adaptive(["move"]), []
    for entropy in entropies:
        entropy = {"move": jnp.float32(entropy)}
        adaptive = adapt_entropy(adaptive, hypers, entropy)
        scales.append(float(adaptive.entropy_scale["move"]))
    return scales


def test_entropy_coefficient_rises_below_the_floor_and_relaxes_above():
    scales = _scales(Hypers(entropy_floor=0.5), (0.4, 0.4, 0.6, 0.6, 0.6))
    np.testing.assert_allclose(scales, [1.1, 1.21, 1.1, 1.0, 1.0], rtol=1e-5)
    assert _scales(Hypers(), [-100.0]) == [1.0]


def test_a_head_that_was_never_active_keeps_its_coefficient():
    scales = _scales(Hypers(entropy_floor=0.5), (0.4, math.nan, 0.4))
    np.testing.assert_allclose(scales, [1.1, 1.1, 1.21], rtol=1e-5)


def test_each_head_has_its_own_floor():
    hypers = Hypers(entropy_floor=0.5, head_entropy_floor={"b": 0.1})
    adaptive = init_adaptive(["a", "b"])
    entropy = dict.fromkeys("ab", jnp.float32(0.3))
    adaptive = adapt_entropy(adaptive, hypers, entropy)
    scales = {name: float(x) for name, x in adaptive.entropy_scale.items()}
    assert scales == {"a": pytest.approx(1.1), "b": 1.0}
