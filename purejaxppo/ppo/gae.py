"""Generalised advantage estimation."""

import chex
import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Compute the advantages and value targets of a rollout.

    δ_t = r_t + γ (1 - terminated_t) V(s'_t) - V(s_t)
    A_t = δ_t + γ λ (1 - done_t) A_{t+1},   done = terminated or truncated

    Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16. A truncated step
    bootstraps from the true final observation, a terminated one does not.

    Args:
      reward, value: float [T, N].
      next_value: float [T, N], value of the true next observation, even if the
        environment was reset.
      terminated, truncated: bool [T, N].
      gamma: [], discount γ per step.
      gae_lambda: [], λ.

    Returns:
      advantages and returns (A + V), each [T, N], without gradient.
    """
    chex.assert_rank(reward, 2)
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    chex.assert_type([terminated, truncated], bool)
    done = terminated | truncated
    # A selection, not a product: the value after a terminal state may be non-finite,
    # and 0 * NaN is NaN.
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def backward(advantage, xs):
        delta, done = xs
        advantage = delta + gamma * gae_lambda * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    start = jnp.zeros_like(delta[0])
    _, advantages = jax.lax.scan(backward, start, (delta, done), reverse=True)
    return jax.lax.stop_gradient((advantages, advantages + value))
