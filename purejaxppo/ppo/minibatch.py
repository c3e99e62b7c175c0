"""One minibatch: PPO's loss as a whole, and what to log of it."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from purejaxppo.config import Config, Hypers
from purejaxppo.policy.heads import joint
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import losses, normalize, reduce
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import Batch, Metrics

_EXPLODED, _COLLAPSED = 5.0, 0.1


class Coefs(NamedTuple):
    """The coefficients of this update, schedules applied. Scalars, one per head."""

    learning_rate: jax.Array
    entropy: dict[str, jax.Array]  # per head
    kl: jax.Array
    freeze_policy: jax.Array  # bool: the critic's warm-up


def minibatch_loss(
    params: Params,
    batch: Batch,
    expected: dict[str, jax.Array],
    policy: Policy,
    config: Config,
    coefs: Coefs,
    hypers: Hypers,
    axis_name: AxisName = None,
) -> tuple[jax.Array, Metrics]:
    """The loss of a minibatch [L, M] and what to log of it.

    Means over valid samples divide by the number `expected` of a minibatch, taken
    from the whole batch: the mean of minibatch gradients is then the gradient of the
    batch, whatever samples fall together.
    """
    terms = policy.log_prob(params, batch.stored)
    value, _ = policy.value(params, batch.stored.inputs, batch.stored.carry["critic"])
    log_prob = terms.joint_log_prob()
    log_ratio = log_prob - joint(batch.log_prob)
    chex.assert_equal_shape([value, log_ratio, batch.advantages, batch.entropy])
    valid = _any(terms.active)
    advantages = batch.advantages
    if config.normalize_advantages == "minibatch":
        advantages = normalize.standardized(advantages, axis_name)

    def over_valid(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(valid, x, 0.0)) / expected["any"]

    loss_policy = over_valid(
        losses.policy_loss(log_ratio, advantages, hypers.clip_eps, hypers.dual_clip)
    )
    loss_value = jnp.mean(
        losses.value_loss(value, batch.value, batch.returns, hypers.value_clip)
    )
    entropy_bonus = sum(
        coefs.entropy[name] * jnp.sum(entropy) / expected[name]
        for name, entropy in terms.entropy.items()
    )
    loss = loss_policy + hypers.value_coef * loss_value - entropy_bonus
    metrics = {"loss/policy": loss_policy, "loss/value": loss_value}
    if config.anchor:
        anchor = over_valid(
            losses.anchor_kl(log_ratio, log_prob, batch.reference_log_prob)
        )
        loss += coefs.kl * anchor
        metrics["reference_kl"] = anchor
    metrics["loss/total"] = loss
    # Of all devices: a loss that is not finite must stop the step on each of them.
    metrics = reduce.tree_mean(metrics, axis_name)
    entropy_change = jnp.abs(terms.joint_entropy() - batch.entropy)
    metrics |= {
        "entropy": reduce.mean(terms.joint_entropy(), valid, axis_name),
        "entropy_change": reduce.mean(entropy_change, valid, axis_name),
    }
    metrics |= _ratio_metrics(log_ratio, valid, hypers, axis_name)
    metrics |= _head_metrics(terms, batch, hypers, axis_name)
    return loss, jax.lax.stop_gradient(metrics)


def _any(active: dict[str, jax.Array]) -> jax.Array:
    return jnp.any(jnp.stack(list(active.values())), axis=0)


def _ratio_metrics(log_ratio, valid, hypers, axis_name) -> Metrics:
    # Moments about 1: mean(ρ²) - mean(ρ)² would lose what is below 3e-4 in float32.
    excess = jnp.expm1(log_ratio)
    clipped = jnp.abs(excess) > hypers.clip_eps

    def over_valid(x):
        return reduce.mean(x, valid, axis_name)

    def count(x):
        return reduce.total((x & valid).astype(jnp.float32), axis_name)

    inside = jnp.where(valid, excess, 0.0)
    return {
        "approx_kl": over_valid(losses.approx_kl(log_ratio)),
        "clip_frac": over_valid(clipped.astype(jnp.float32)),
        "ratio/excess": over_valid(excess),
        "ratio/square": over_valid(jnp.square(excess)),
        "ratio/min": 1.0 + reduce.minimum(inside, axis_name),
        "ratio/max": 1.0 + reduce.maximum(inside, axis_name),
        "ratio/error": reduce.maximum(jnp.abs(inside), axis_name),
        "ratio/exploded": count(excess > _EXPLODED - 1.0),
        "ratio/collapsed": count(excess < _COLLAPSED - 1.0),
    }


def _head_metrics(terms, batch, hypers, axis_name) -> Metrics:
    metrics: Metrics = {}
    for name, active in terms.active.items():
        log_ratio = terms.log_prob[name] - batch.log_prob[name]
        clipped = jnp.abs(jnp.expm1(log_ratio)) > hypers.clip_eps

        def over_active(x, active=active):
            return reduce.mean(x, active, axis_name)

        metrics |= {
            f"head/{name}/approx_kl": over_active(losses.approx_kl(log_ratio)),
            f"head/{name}/entropy": over_active(terms.entropy[name]),
            f"head/{name}/clip_frac": over_active(clipped.astype(jnp.float32)),
            f"head/{name}/valid": reduce.total(active.astype(jnp.float32), axis_name),
        }
    for name, std in terms.std.items():
        metrics[f"head/{name}/std"] = reduce.mean(std, terms.active[name], axis_name)
    return metrics


def expected_valid(
    policy: Policy, params: Params, batch: Batch, config: Config, axis_name: AxisName
) -> dict[str, jax.Array]:
    """Valid samples that a minibatch has on average, per head and for any head.

    Activity comes from the stored inputs and action alone, so XLA drops the network.
    """
    active = policy.log_prob(params, batch.stored).active
    size = batch.advantages.size / config.num_minibatches

    def count(x: jax.Array) -> jax.Array:
        share = reduce.mean(x.astype(jnp.float32), axis_name=axis_name)
        # A head that is never active contributes 0 / tiny = 0, not 0 / 0.
        return jnp.maximum(share * size, 1e-6)

    return {"any": count(_any(active)), **{n: count(x) for n, x in active.items()}}
