"""The terms of PPO's loss, per sample, as functions of arrays.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347. The loss is their mean over
samples, see `minibatch`.
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
    """Compute -min(ρ A, clip(ρ, 1-ε, 1+ε) A), with ρ = exp(log_ratio); eq. 7.

    With a finite `dual_clip` c the objective is at least c A where A < 0 (Ye et al.
    2020, https://arxiv.org/abs/1912.09729, eq. 5).

    Args:
      log_ratio: new minus old log-prob, any shape.
      advantages: A, of the same shape.
      clip_eps: [], clip range ε.
      dual_clip: [], c; inf disables this bound.
    """
    chex.assert_equal_shape([log_ratio, advantages])
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    # Without the inner `where` the branch that is not selected could be inf * 0, whose
    # NaN would reach the gradient.
    negative = jnp.where(advantages < 0, advantages, -1.0)
    bounded = jnp.maximum(objective, dual_clip * negative)
    return -jnp.where(advantages < 0, bounded, objective)


def value_loss(
    value: jax.Array,
    old_value: jax.Array,
    returns: jax.Array,
    value_clip: jax.Array | float = jnp.inf,
) -> jax.Array:
    """Compute the squared error of values, optionally with clipping.

    With a finite `value_clip` it is the larger of the errors of the value and of the
    value clipped to that distance from the old value. Clipping is off by default, as it
    often hurts (Engstrom et al. 2020, Andrychowicz et al. 2021).

    Args:
      value: of the present critic, any shape.
      old_value: of the critic before the update, of the same shape.
      returns: the targets, of the same shape, without gradient.
      value_clip: [], in units of return, not of ρ; inf disables clipping.
    """
    chex.assert_equal_shape([value, old_value, returns])
    clipped = old_value + jnp.clip(value - old_value, -value_clip, value_clip)
    return jnp.maximum(jnp.square(value - returns), jnp.square(clipped - returns))


def approx_kl(log_ratio: jax.Array) -> jax.Array:
    """Compute (ρ - 1) - log ρ, an unbiased, non-negative estimate of KL(old || new).

    Schulman 2020, http://joschu.net/blog/kl-approx.html (k3).
    """
    return jnp.expm1(log_ratio) - log_ratio


def anchor_kl(
    log_ratio: jax.Array, log_prob: jax.Array, reference_log_prob: jax.Array
) -> jax.Array:
    """Compute ρ (log π - log π_ref), an estimate of the reverse KL to a reference.

    ρ is the importance weight of actions that were sampled by the rollout's policy.

    Args:
      log_ratio: log ρ, new minus old log-prob, any shape.
      log_prob: log π, under the present parameters, of the same shape.
      reference_log_prob: log π_ref, of the same shape, without gradient.
    """
    chex.assert_equal_shape([log_ratio, log_prob, reference_log_prob])
    return jnp.exp(log_ratio) * (log_prob - reference_log_prob)
