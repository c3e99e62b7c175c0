"""The terms of PPO's loss, per sample. They see arrays, never a policy.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347. What is minimised is the
mean over samples; `reduce.mean` takes it.
"""

import chex
import jax
import jax.numpy as jnp


def policy_loss(
    log_ratio: jax.Array,
    advantages: jax.Array,
    clip_eps: jax.Array | float,
    dual_clip: jax.Array | float = jnp.inf,
) -> jax.Array:
    """-min(ρ A, clip(ρ, 1-ε, 1+ε) A), with ρ = exp(log_ratio); eq. 7.

    With a finite `dual_clip` c the objective is at least c A where A < 0 (Ye et al.
    2020, https://arxiv.org/abs/1912.09729, eq. 5).

    Args:
      log_ratio: new log-prob minus old one, any shape.
      advantages: of the same shape.
      clip_eps: [], clip range ε.
      dual_clip: [], c; inf switches it off.
    """
    chex.assert_equal_shape([log_ratio, advantages])
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    # The inner where keeps inf * 0 out of the branch that is not taken: its gradient
    # would be NaN all the same.
    negative = jnp.where(advantages < 0, advantages, -1.0)
    bounded = jnp.maximum(objective, dual_clip * negative)
    return -jnp.where(advantages < 0, bounded, objective)


def value_loss(
    value: jax.Array,
    old_value: jax.Array,
    returns: jax.Array,
    value_clip: jax.Array | float = jnp.inf,
) -> jax.Array:
    """Squared error, or with a finite `value_clip` the larger of it and the error of
    the value held within that range of the old one.

    The range is the value's own: values are not probabilities. Off by default, as it
    often hurts (Engstrom et al. 2020, Andrychowicz et al. 2021).

    Args:
      value: of the critic as it is now, any shape.
      old_value: of the critic before the update, of the same shape.
      returns: the targets, of the same shape, without gradient.
      value_clip: [], in units of return; inf switches it off.
    """
    chex.assert_equal_shape([value, old_value, returns])
    near = old_value + jnp.clip(value - old_value, -value_clip, value_clip)
    return jnp.maximum(jnp.square(value - returns), jnp.square(near - returns))


def approx_kl(log_ratio: jax.Array) -> jax.Array:
    """(ρ - 1) - log ρ: unbiased for KL(old || new), never negative.

    Schulman 2020, http://joschu.net/blog/kl-approx.html (k3).
    """
    return jnp.expm1(log_ratio) - log_ratio


def anchor_kl(
    log_ratio: jax.Array, log_prob: jax.Array, reference_log_prob: jax.Array
) -> jax.Array:
    """ρ (log π - log π_ref): importance-weighted reverse KL to a frozen reference.

    Args:
      log_ratio: log-prob minus that of the rollout's policy, any shape.
      log_prob: of the policy as it is now, of the same shape.
      reference_log_prob: of the reference, of the same shape, without gradient.
    """
    chex.assert_equal_shape([log_ratio, log_prob, reference_log_prob])
    return jnp.exp(log_ratio) * (log_prob - reference_log_prob)
