"""PPO's total loss on a minibatch, and the statistics that are measured with it."""

from typing import Any

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

Figure = Any  # a `reduce.Mean` of one device, then float32 [] of all


class Ratio(struct.PyTreeNode):
    """Statistics of the ratio ρ over the valid samples of a minibatch. float32 [].

    The moments are taken about 1, because in float32 mean(ρ²) - mean(ρ)² has no
    accuracy for standard deviations below 3e-4.
    """

    excess: Figure  # mean of ρ - 1
    square: Figure  # mean of (ρ - 1)²
    exploded: jax.Array  # number of samples with ρ above 5
    collapsed: jax.Array  # number of samples with ρ below 0.1


class Largest(struct.PyTreeNode):
    """The largest differences of the ratio ρ from 1 in a minibatch. float32 []."""

    fall: jax.Array  # 1 - ρ
    rise: jax.Array  # ρ - 1
    error: jax.Array  # abs(ρ - 1)
    head_error: dict[str, jax.Array]  # abs(ρ - 1) of the head


class Measures(struct.PyTreeNode):
    """Statistics of a minibatch, before its optimiser step. float32 [].

    The KL stop, the check for non-finite losses, the adaptive coefficients and the
    status use these fields. `logged` is only for the log.

    Over a mesh they are reduced once for all: `minibatch_loss` measures the samples of
    its device, with a `reduce.Mean` for each mean, and `over_devices` makes of these
    the figures of all samples.
    """

    loss: Figure
    approx_kl: Figure
    entropy_change: Figure  # mean absolute change against the rollout policy
    head_entropy: dict[str, Figure]  # NaN for a head without a valid sample
    surrogate: Figure  # mean of (ρ - 1) A, the gain that the loss aims at
    ratio: Ratio
    logged: dict[str, Figure]
    # Of this device also after `over_devices`, for no step depends on it: the epochs
    # reduce it over devices once, for all of their minibatches.
    largest: Largest


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

    Returns:
      the loss of this device's samples, whose mean over devices is that of the
      minibatch, and the statistics of these samples, for `over_devices`.
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
    return loss, measure(batch, terms, hypers, parts | {"loss/total": loss})


def over_devices(
    grads: Params, measures: Measures, axis_name: AxisName
) -> tuple[Params, Measures]:
    """Reduce gradients and statistics over devices, in one call for all of them.

    Args:
      grads: the gradients of the loss of this device's samples.
      measures: the statistics of these samples, from `minibatch_loss`; with any axes.
      axis_name: the named axis over whose devices to reduce.

    Returns:
      the gradients of the loss of all samples, and their statistics: `largest` is
      still that of this device.
    """
    largest = measures.largest
    summed = reduce.tree_sum((grads, measures.replace(largest=None)), axis_name)
    num = reduce.num_devices(axis_name)
    grads = jax.tree.map(lambda g: g if num == 1 else g / num, summed[0])
    return grads, reduce.finished(summed[1]).replace(largest=largest)


def measure(batch: Batch, terms: HeadTerms, hypers: Hypers, parts: Metrics) -> Measures:
    """Compute the statistics of this device's samples, without gradient.

    Args:
      batch: the minibatch, [L, M].
      terms: log-probs and entropies of its actions under the present parameters.
      hypers: the clip range.
      parts: the loss and its terms, for this device's samples.
    """
    terms, parts = jax.lax.stop_gradient((terms, parts))
    valid = any_active(terms)
    # Averaged over devices, so that a non-finite loss skips the step on all of them.
    means = {name: reduce.Mean(x, jnp.ones_like(x)) for name, x in parts.items()}
    log_ratio = terms.joint_log_prob() - joint(batch.log_prob)
    clipped = jnp.abs(jnp.expm1(log_ratio)) > hypers.clip_eps
    entropy = terms.joint_entropy()

    def mean_over_valid(x: jax.Array) -> reduce.Mean:
        return reduce.mean_parts(x, valid)

    head_entropy = {
        name: reduce.mean_parts(terms.entropy[name], active)
        for name, active in terms.active.items()
    }
    head_log_ratio = {n: terms.log_prob[n] - batch.log_prob[n] for n in terms.active}
    logged = means | {
        "entropy": mean_over_valid(entropy),
        "clip_frac": mean_over_valid(clipped.astype(jnp.float32)),
    }
    return Measures(
        loss=means["loss/total"],
        approx_kl=mean_over_valid(losses.approx_kl(log_ratio)),
        entropy_change=mean_over_valid(jnp.abs(entropy - batch.entropy)),
        head_entropy=head_entropy,
        surrogate=mean_over_valid(jnp.expm1(log_ratio) * batch.advantages),
        ratio=_ratio(log_ratio, valid),
        logged=logged | _head_metrics(terms, head_log_ratio, hypers),
        largest=_largest(log_ratio, valid, terms, head_log_ratio),
    )


def any_active(terms: HeadTerms) -> jax.Array:
    """Return whether any head was active, bool [...]: the policy's valid samples."""
    return jnp.any(jnp.stack(list(terms.active.values())), axis=0)


def _ratio(log_ratio: jax.Array, valid: jax.Array) -> Ratio:
    excess = jnp.expm1(log_ratio)

    def count(x: jax.Array) -> jax.Array:
        return jnp.sum((x & valid).astype(jnp.float32))

    return Ratio(
        excess=reduce.mean_parts(excess, valid),
        square=reduce.mean_parts(jnp.square(excess), valid),
        exploded=count(excess > _EXPLODED - 1.0),
        collapsed=count(excess < _COLLAPSED - 1.0),
    )


def _largest(
    log_ratio: jax.Array,
    valid: jax.Array,
    terms: HeadTerms,
    head_log_ratio: dict[str, jax.Array],
) -> Largest:
    excess = jnp.where(valid, jnp.expm1(log_ratio), 0.0)
    return Largest(
        fall=jnp.max(-excess),
        rise=jnp.max(excess),
        error=jnp.max(jnp.abs(excess)),
        head_error={
            name: jnp.max(jnp.abs(jnp.where(terms.active[name], jnp.expm1(x), 0.0)))
            for name, x in head_log_ratio.items()
        },
    )


def _head_metrics(
    terms: HeadTerms, head_log_ratio: dict[str, jax.Array], hypers: Hypers
) -> dict[str, Figure]:
    metrics: dict[str, Figure] = {}
    for name, active in terms.active.items():
        log_ratio = head_log_ratio[name]
        clipped = jnp.abs(jnp.expm1(log_ratio)) > hypers.clip_eps

        def mean_over_active(x: jax.Array, active: jax.Array = active) -> reduce.Mean:
            return reduce.mean_parts(x, active)

        metrics |= {
            f"head/{name}/approx_kl": mean_over_active(losses.approx_kl(log_ratio)),
            f"head/{name}/clip_frac": mean_over_active(clipped.astype(jnp.float32)),
            f"head/{name}/valid": jnp.sum(active.astype(jnp.float32)),
        }
    for name, std in terms.std.items():
        metrics[f"head/{name}/std"] = reduce.mean_parts(std, terms.active[name])
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
