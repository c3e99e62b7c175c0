"""PPO's total loss on a minibatch, and the statistics that are measured with it."""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.config import Hypers
from purejaxppo.policy.heads import HeadTerms, joint
from purejaxppo.policy.policy import Params
from purejaxppo.ppo import losses, normalize, reduce
from purejaxppo.ppo.coefficients import Coefficients
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import Batch, Metrics, Task

_EXPLODED, _COLLAPSED = 5.0, 0.1


class Ratio(struct.PyTreeNode):
    """Statistics of the ratio ρ over the valid samples of a minibatch. float32 [].

    The moments are taken about 1, because in float32 mean(ρ²) - mean(ρ)² has no
    accuracy for standard deviations below 3e-4.
    """

    excess: jax.Array  # mean of ρ - 1
    square: jax.Array  # mean of (ρ - 1)²
    minimum: jax.Array
    maximum: jax.Array
    error: jax.Array  # largest abs(ρ - 1)
    exploded: jax.Array  # number of samples with ρ above 5
    collapsed: jax.Array  # number of samples with ρ below 0.1


class Measures(struct.PyTreeNode):
    """Statistics of a minibatch, before its optimiser step. float32 [].

    The KL stop, the check for non-finite losses, the adaptive coefficients and the
    status use these fields. `logged` is only for the log.
    """

    loss: jax.Array
    approx_kl: jax.Array
    entropy_change: jax.Array  # mean absolute change against the rollout policy
    head_entropy: dict[str, jax.Array]  # NaN for a head without a valid sample
    head_ratio_error: dict[str, jax.Array]  # largest abs(ρ - 1) of the head
    surrogate: jax.Array  # mean of (ρ - 1) A, the gain that the loss aims at
    ratio: Ratio
    logged: Metrics


def minibatch_loss(
    params: Params,
    task: Task,
    batch: Batch,
    num_valid: jax.Array,
    coefficients: Coefficients,
    hypers: Hypers,
) -> tuple[jax.Array, Measures]:
    """Compute the loss of a minibatch, and its statistics.

    Means over valid samples are sums divided by the average number of valid samples per
    minibatch. So the mean of the minibatch gradients is the gradient of the batch,
    however the samples are split into minibatches.

    The entropy of every head is averaged over the samples of the joint policy, as the
    policy loss is, and it is 0 where the head is inactive. If it were averaged over the
    head's own samples, a head that is rarely active would be pushed harder than the
    others, by the inverse of its share of the samples.

    Args:
      params: the parameters, for which the gradient is taken.
      task: the policy, its configuration, and the axis to reduce over.
      batch: the minibatch, [L, M].
      num_valid: the result of `average_num_valid`, float32 [].
      coefficients: coefficients of entropy and KL anchor in this update.
      hypers: clip ranges and the coefficient of the value loss.
    """
    policy, config, axis_name = task.policy, task.config, task.axis_name
    terms = policy.log_prob(params, batch.stored)
    value, _ = policy.value(params, batch.stored.inputs, batch.stored.carry["critic"])
    log_prob = terms.joint_log_prob()
    log_ratio = log_prob - joint(batch.log_prob)
    chex.assert_equal_shape([value, log_ratio, batch.advantages, batch.entropy])
    valid = any_active(terms)
    advantages = batch.advantages
    if config.normalize_advantages == "minibatch":
        advantages = normalize.standardized(advantages, axis_name)

    def mean_over_valid(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(valid, x, 0.0)) / num_valid

    loss_policy = mean_over_valid(
        losses.policy_loss(log_ratio, advantages, hypers.clip_eps, hypers.dual_clip)
    )
    loss_value = jnp.mean(
        losses.value_loss(value, batch.value, batch.returns, hypers.value_clip)
    )
    entropy_bonus = sum(
        coefficients.entropy[name] * mean_over_valid(entropy)
        for name, entropy in terms.entropy.items()
    )
    loss = loss_policy + hypers.value_coef * loss_value - entropy_bonus
    parts = {"loss/policy": loss_policy, "loss/value": loss_value}
    if config.anchor:
        anchor = mean_over_valid(
            losses.anchor_kl(log_ratio, log_prob, batch.reference_log_prob)
        )
        loss += coefficients.kl * anchor
        parts["reference_kl"] = anchor
    return loss, measure(task, batch, terms, hypers, parts | {"loss/total": loss})


def measure(
    task: Task, batch: Batch, terms: HeadTerms, hypers: Hypers, parts: Metrics
) -> Measures:
    """Compute the statistics of a minibatch, without gradient.

    Args:
      task: the axis to reduce over.
      batch: the minibatch, [L, M].
      terms: log-probs and entropies of its actions under the present parameters.
      hypers: the clip range.
      parts: the loss and its terms, for this device's samples.
    """
    # Before the reductions, because a maximum over devices has no derivative.
    terms, parts = jax.lax.stop_gradient((terms, parts))
    axis_name, valid = task.axis_name, any_active(terms)
    # Averaged over devices, so that a non-finite loss skips the step on all of them.
    parts = reduce.tree_mean(parts, axis_name)
    log_ratio = terms.joint_log_prob() - joint(batch.log_prob)
    clipped = jnp.abs(jnp.expm1(log_ratio)) > hypers.clip_eps
    entropy = terms.joint_entropy()

    def mean_over_valid(x: jax.Array) -> jax.Array:
        return reduce.mean(x, valid, axis_name)

    head_entropy = {
        name: reduce.mean(terms.entropy[name], active, axis_name)
        for name, active in terms.active.items()
    }
    head_log_ratio = {n: terms.log_prob[n] - batch.log_prob[n] for n in terms.active}
    logged = parts | {
        "entropy": mean_over_valid(entropy),
        "clip_frac": mean_over_valid(clipped.astype(jnp.float32)),
    }
    return Measures(
        loss=parts["loss/total"],
        approx_kl=mean_over_valid(losses.approx_kl(log_ratio)),
        entropy_change=mean_over_valid(jnp.abs(entropy - batch.entropy)),
        head_entropy=head_entropy,
        head_ratio_error={
            name: reduce.maximum(
                jnp.abs(jnp.where(terms.active[name], jnp.expm1(x), 0.0)), axis_name
            )
            for name, x in head_log_ratio.items()
        },
        surrogate=mean_over_valid(jnp.expm1(log_ratio) * batch.advantages),
        ratio=_ratio(log_ratio, valid, axis_name),
        logged=logged | _head_metrics(terms, head_log_ratio, hypers, axis_name),
    )


def any_active(terms: HeadTerms) -> jax.Array:
    """Return whether any head was active, bool [...]: the policy's valid samples."""
    return jnp.any(jnp.stack(list(terms.active.values())), axis=0)


def _ratio(log_ratio: jax.Array, valid: jax.Array, axis_name: AxisName) -> Ratio:
    excess = jnp.expm1(log_ratio)
    valid_excess = jnp.where(valid, excess, 0.0)

    def count(x: jax.Array) -> jax.Array:
        return reduce.total((x & valid).astype(jnp.float32), axis_name)

    return Ratio(
        excess=reduce.mean(excess, valid, axis_name),
        square=reduce.mean(jnp.square(excess), valid, axis_name),
        minimum=1.0 + reduce.minimum(valid_excess, axis_name),
        maximum=1.0 + reduce.maximum(valid_excess, axis_name),
        error=reduce.maximum(jnp.abs(valid_excess), axis_name),
        exploded=count(excess > _EXPLODED - 1.0),
        collapsed=count(excess < _COLLAPSED - 1.0),
    )


def _head_metrics(
    terms: HeadTerms,
    head_log_ratio: dict[str, jax.Array],
    hypers: Hypers,
    axis_name: AxisName,
) -> Metrics:
    metrics: Metrics = {}
    for name, active in terms.active.items():
        log_ratio = head_log_ratio[name]
        clipped = jnp.abs(jnp.expm1(log_ratio)) > hypers.clip_eps

        def mean_over_active(x: jax.Array, active: jax.Array = active) -> jax.Array:
            return reduce.mean(x, active, axis_name)

        metrics |= {
            f"head/{name}/approx_kl": mean_over_active(losses.approx_kl(log_ratio)),
            f"head/{name}/clip_frac": mean_over_active(clipped.astype(jnp.float32)),
            f"head/{name}/valid": reduce.total(active.astype(jnp.float32), axis_name),
        }
    for name, std in terms.std.items():
        metrics[f"head/{name}/std"] = reduce.mean(std, terms.active[name], axis_name)
    return metrics


def average_num_valid(task: Task, params: Params, batch: Batch) -> jax.Array:
    """Count the samples in which any head was active, per minibatch, on average.

    Activity depends only on the stored inputs and actions, so XLA removes the
    computation of the network.

    Args:
      task: the policy, and the number of minibatches per batch.
      params: any parameters of the policy.
      batch: the whole batch, [L, M].

    Returns:
      the number, float32 []. It is positive: without an active head the means that it
      divides are 0, not 0 / 0.
    """
    terms = task.policy.log_prob(params, batch.stored)
    active = any_active(terms).astype(jnp.float32)
    share = reduce.mean(active, axis_name=task.axis_name)
    size = batch.advantages.size / task.config.num_minibatches
    return jnp.maximum(share * size, 1e-6)
