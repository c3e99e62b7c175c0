"""Generalised advantage estimation: by hand, against two oracles, identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.ppo.gae import gae

# Three steps of one environment; γ = 0.5, λ = 0.5, so γλ = 0.25.
_REWARD = [1.0, 2.0, 4.0]
_VALUE = [10.0, 20.0, 30.0]
_NEXT_VALUE = [20.0, 30.0, 40.0]
# δ = r + γ V' - V, where V' counts only if the step is not terminated.
_HAND = {
    # δ = [1, -3, -6]; A_2 = -6, A_1 = -3 - 1.5, A_0 = 1 - 1.125
    "no end": ([0, 0, 0], [0, 0, 0], [-0.125, -4.5, -6.0]),
    # step 1 terminated: δ_1 = 2 - 20 = -18, nothing flows over it from behind
    "terminated": ([0, 1, 0], [0, 0, 0], [-3.5, -18.0, -6.0]),
    # step 1 truncated: δ_1 = 2 + 15 - 20 = -3, bootstrapped, but cut off from behind
    "truncated": ([0, 0, 0], [0, 1, 0], [0.25, -3.0, -6.0]),
    # last step terminated: δ_2 = 4 - 30 = -26
    "last": ([0, 0, 1], [0, 0, 0], [-1.375, -9.5, -26.0]),
}


def _column(x, dtype=jnp.float32):
    return jnp.asarray(x, dtype)[:, None]


def _by_hand(case, run=lambda f: f):
    terminated, truncated, _ = _HAND[case]
    function = run(functools.partial(gae, gamma=0.5, gae_lambda=0.5))
    return function(
        _column(_REWARD),
        _column(_VALUE),
        _column(_NEXT_VALUE),
        _column(terminated, bool),
        _column(truncated, bool),
    )


@pytest.mark.parametrize("case", _HAND)
@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_numbers_by_hand(case, run):
    advantages, returns = _by_hand(case, run)
    expected = np.asarray(_HAND[case][2])[:, None]
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)
    np.testing.assert_allclose(returns, expected + np.asarray(_VALUE)[:, None])


def _rollout(seed, num_steps=13, num_envs=6, scale=1.0, origin=0.0):
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    reward = (rng.normal(size=shape) * scale + origin).astype(np.float32)
    value = (rng.normal(size=shape) * scale + origin).astype(np.float32)
    terminated = rng.random(shape) < 0.2
    truncated = (rng.random(shape) < 0.2) & ~terminated
    done = terminated | truncated
    following = np.concatenate([value[1:], rng.normal(size=(1, num_envs))])
    final = (rng.normal(size=shape) * scale + origin).astype(np.float32)
    next_value = np.where(done, final, following).astype(np.float32)
    return reward, value, next_value, terminated, truncated


def _oracle(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """λ-return as the weighted sum of all n-step returns, written out. float64."""
    num_steps, num_envs = reward.shape
    advantages = np.zeros(reward.shape)
    for env in range(num_envs):
        for start in range(num_steps):
            ends = [
                t
                for t in range(start, num_steps)
                if terminated[t, env] or truncated[t, env]
            ]
            last = ends[0] if ends else num_steps - 1
            total, estimates = 0.0, []
            for n, t in enumerate(range(start, last + 1)):
                total += gamma**n * float(reward[t, env])
                bootstrap = 0.0 if terminated[t, env] else float(next_value[t, env])
                estimates.append(total + gamma ** (n + 1) * bootstrap)
            weights = [(1 - gae_lambda) * gae_lambda**n for n in range(len(estimates))]
            # The weight of all longer estimates falls on the longest there is.
            weights[-1] = gae_lambda ** (len(estimates) - 1)
            advantages[start, env] = np.dot(weights, estimates) - value[start, env]
    return advantages


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scale", "origin"), [(1.0, 0.0), (1e3, 0.0), (1e-3, 0.0), (1.0, 50.0)]
)
def test_matches_the_sum_of_n_step_returns(seed, scale, origin):
    rollout = _rollout(seed, scale=scale, origin=origin)
    advantages, returns = jax.jit(gae)(*rollout, gamma=0.9, gae_lambda=0.8)
    expected = _oracle(*rollout, 0.9, 0.8)
    atol = 1e-5 * (scale + abs(origin))
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=atol)
    np.testing.assert_allclose(returns, expected + rollout[1], rtol=1e-4, atol=atol)


def test_oracle_tells_truncation_from_termination():
    """The comparison above is worth something only if the two kinds of end differ."""
    reward, value, next_value, terminated, truncated = _rollout(0)
    swapped, _ = gae(
        reward, value, next_value, truncated, terminated, gamma=0.9, gae_lambda=0.8
    )
    expected = _oracle(reward, value, next_value, terminated, truncated, 0.9, 0.8)
    assert np.abs(swapped - expected).max() > 0.1


def test_matches_rlax_vtrace_with_ratios_of_one():
    import rlax  # of the extra dev; its import takes a second

    reward, value, next_value, terminated, truncated = _rollout(7)
    gamma, gae_lambda = 0.9, 0.8
    done = terminated | truncated
    advantages, _ = gae(
        reward,
        value,
        next_value,
        terminated,
        truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    discount = (gamma * ~terminated).astype(np.float32)
    lambda_t = (gae_lambda * ~done).astype(np.float32)
    vtrace = jax.vmap(rlax.vtrace, in_axes=1, out_axes=1)
    with jax.numpy_dtype_promotion("standard"):
        errors = vtrace(
            value, next_value, reward, discount, np.ones_like(value), lambda_t
        )
    np.testing.assert_allclose(advantages, errors, rtol=1e-4, atol=1e-5)


def test_lambda_zero_is_the_td_error():
    reward, value, next_value, terminated, truncated = _rollout(1)
    advantages, _ = gae(
        reward, value, next_value, terminated, truncated, gamma=0.9, gae_lambda=0.0
    )
    td_error = reward + 0.9 * next_value * ~terminated - value
    np.testing.assert_allclose(advantages, td_error, rtol=1e-5, atol=1e-6)


def test_lambda_one_is_the_discounted_return():
    """Up to the end of the episode or of the rollout, then the bootstrap."""
    reward, value, next_value, terminated, truncated = _rollout(2)
    _, returns = gae(
        reward, value, next_value, terminated, truncated, gamma=0.9, gae_lambda=1.0
    )
    expected = np.zeros_like(reward)
    after = next_value[-1]
    for t in reversed(range(len(reward))):
        after = np.where(truncated[t], next_value[t], after)
        after = np.where(terminated[t], 0.0, after)
        after = reward[t] + 0.9 * after
        expected[t] = after
    np.testing.assert_allclose(returns, expected, rtol=1e-4, atol=1e-5)


def test_order_of_environments_does_not_matter():
    rollout = _rollout(3)
    order = np.random.default_rng(0).permutation(rollout[0].shape[1])
    here, _ = gae(*rollout, gamma=0.9, gae_lambda=0.8)
    there, _ = gae(*(x[:, order] for x in rollout), gamma=0.9, gae_lambda=0.8)
    np.testing.assert_array_equal(here[:, order], there)


def test_vmap_over_gamma_and_lambda():
    rollout = _rollout(4)
    gammas = jnp.asarray([0.5, 0.9, 1.0], jnp.float32)
    lambdas = jnp.asarray([1.0, 0.3, 0.0], jnp.float32)

    def run(gamma, gae_lambda):
        return gae(*rollout, gamma=gamma, gae_lambda=gae_lambda)[0]

    together = jax.vmap(run)(gammas, lambdas)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(gammas[i], lambdas[i]), rtol=1e-6)


def test_nan_behind_a_terminal_state_does_not_leak():
    reward, value, next_value, terminated, truncated = _rollout(5)
    poisoned = np.where(terminated, np.nan, next_value)
    clean, _ = gae(
        reward, value, next_value, terminated, truncated, gamma=0.9, gae_lambda=0.8
    )
    advantages, _ = gae(
        reward, value, poisoned, terminated, truncated, gamma=0.9, gae_lambda=0.8
    )
    np.testing.assert_array_equal(advantages, clean)


def test_no_gradient_flows_into_targets():
    rollout = _rollout(6)

    def total(value):
        advantages, returns = gae(
            rollout[0], value, *rollout[2:], gamma=0.9, gae_lambda=0.8
        )
        return jnp.sum(advantages) + jnp.sum(returns)

    np.testing.assert_array_equal(jax.grad(total)(rollout[1]), 0.0)


def test_flags_must_be_bool():
    """A float mask would select by `where` as well, and hide a wrong polarity."""
    reward, value, next_value, terminated, truncated = _rollout(0)
    with pytest.raises(AssertionError):
        gae(
            reward,
            value,
            next_value,
            terminated.astype(np.float32),
            truncated,
            gamma=0.9,
            gae_lambda=0.8,
        )
