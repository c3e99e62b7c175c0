"""The update: values, advantages, then epochs of minibatches, with a KL stop."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from purejaxppo.config import Config, Hypers
from purejaxppo.policy.heads import joint
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import losses, normalize, optim, reduce
from purejaxppo.ppo.gae import gae
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import policy_input
from purejaxppo.ppo.types import Adaptive, Batch, Metrics, TrainState, Transition

# Spinning Up and Stable-Baselines3 stop at this multiple of target_kl.
_KL_STOP = 1.5
_EXPLODED, _COLLAPSED = 5.0, 0.1


class Coefs(NamedTuple):
    """The coefficients of this update, schedules applied. Scalars, one per head."""

    learning_rate: jax.Array
    entropy: dict[str, jax.Array]  # per head
    kl: jax.Array
    freeze_policy: jax.Array  # bool: the critic's warm-up


class Learning(NamedTuple):
    """What moves from minibatch to minibatch."""

    params: Params
    opt_state: Any
    stopped: jax.Array  # bool


# --- estimates -------------------------------------------------------------------


def estimate_values(
    policy: Policy,
    params: Params,
    transitions: Transition,
    carry: Any,
    last_inputs: Any,
) -> tuple[jax.Array, jax.Array, Any]:
    """V(s_t) and V of the true next observation, in batched passes.

    Args:
      transitions: [T, N].
      carry: the critic's carry before the first step, [N, H].
      last_inputs: what the policy sees after the last step, [N].

    Returns:
      value [T, N], next_value [T, N], and the critic's carry before each step.
    """
    inputs = transitions.stored.inputs
    value, carries = policy.value(params, inputs, carry)
    done = transitions.terminated | transitions.truncated
    final_value = _final_values(policy, params, transitions, carries)
    after_last = jax.tree.map(lambda x: x[-1], carries)
    last = jax.tree.map(lambda x: x[None], last_inputs)
    last_value, _ = policy.value(params, last, after_last)
    following = jnp.concatenate([value[1:], last_value])
    next_value = jnp.where(done, final_value, following)
    before_each = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), carry, carries
    )
    return value, next_value, before_each


# Ends of episodes whose values are computed together. Few steps are ends, and on a
# CPU a pass over all samples would cost as much as all values of the rollout.
_ENDS = 128


def _final_values(
    policy: Policy, params: Params, transitions: Transition, carries: Any
) -> jax.Array:
    """V of the true last observation where an episode ended, elsewhere 0: [T, N]."""
    done = transitions.terminated | transitions.truncated
    inputs = transitions.stored.inputs

    def flat(tree):
        return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)

    final_inputs = flat(inputs.replace(obs=transitions.final_obs))
    carries = flat(carries)
    size = done.size
    ends = jnp.nonzero(done.ravel(), size=size, fill_value=size)[0]
    num_ends = jnp.sum(done)

    def some(carry):
        values, position = carry
        index = jax.lax.dynamic_slice(ends, (position,), (min(_ENDS, size),))
        at = jax.tree.map(lambda x: x.at[index].get(mode="clip"), final_inputs)
        at = at.replace(start=jnp.zeros_like(at.start))
        before = jax.tree.map(lambda x: x.at[index].get(mode="clip"), carries)
        some_values, _ = policy.value(
            params, jax.tree.map(lambda x: x[None], at), before
        )
        return values.at[index].set(some_values[0], mode="drop"), position + _ENDS

    def more(carry):
        return carry[1] < num_ends

    zeros = jnp.zeros((size,), jnp.float32)
    values, _ = jax.lax.while_loop(more, some, (zeros, jnp.zeros((), jnp.int32)))
    return values.reshape(done.shape)


def scaled_rewards(
    state: TrainState, transitions: Transition, hypers: Hypers, axis_name: AxisName
) -> tuple[jax.Array, TrainState]:
    """Rewards over the running std of the discounted return, this rollout included.

    Rewards are no part of the ratio, so these statistics need not wait.
    """
    if state.return_stats is None:
        return transitions.reward, state
    done = transitions.terminated | transitions.truncated
    totals, after = normalize.discounted_returns(
        state.discounted_return, transitions.reward, done, hypers.gamma
    )
    stats = normalize.update(state.return_stats, totals.ravel(), axis_name=axis_name)
    std = jnp.sqrt(jnp.maximum(normalize.variance(stats), 1e-8))
    state = state.replace(return_stats=stats, discounted_return=after)
    return transitions.reward / std, state


def make_batch(
    policy: Policy,
    config: Config,
    state: TrainState,
    transitions: Transition,
    critic_carry: Any,
    hypers: Hypers,
    axis_name: AxisName = None,
) -> tuple[Batch, TrainState, Metrics]:
    """Advantages and returns of a rollout, as sequences [L, M] to learn from."""
    last_inputs = policy_input(state.episodes, state.obs_stats)
    value, next_value, critic_carries = estimate_values(
        policy, state.params, transitions, critic_carry, last_inputs
    )
    chex.assert_shape([value, next_value], (config.num_steps, config.num_envs))
    reward, state = scaled_rewards(state, transitions, hypers, axis_name)
    advantages, returns = gae(
        reward,
        value,
        next_value,
        transitions.terminated,
        transitions.truncated,
        gamma=hypers.gamma,
        gae_lambda=hypers.gae_lambda,
    )
    metrics = _estimate_metrics(value, advantages, returns, axis_name)
    if config.normalize_advantages == "batch":
        advantages = _normalized(advantages, axis_name)
    stored = transitions.stored
    stored = stored.replace(carry={**stored.carry, "critic": critic_carries})
    batch = Batch(
        stored=stored,
        log_prob=transitions.log_prob,
        entropy=transitions.entropy,
        reference_log_prob=transitions.reference_log_prob,
        advantages=advantages,
        returns=returns,
        value=value,
    )
    return as_sequences(batch, config.window), state, metrics


def _normalized(advantages: jax.Array, axis_name: AxisName) -> jax.Array:
    mean, std = reduce.moments(advantages, axis_name=axis_name)
    return (advantages - mean) / (std + 1e-8)


def as_sequences(batch: Batch, length: int) -> Batch:
    """[T, N, ...] as contiguous sequences [length, T / length * N, ...].

    The split is of the time axis BEFORE environments are merged into it: a plain
    reshape to [length, -1] would take every (T / length)th step instead.
    """

    def split(x: jax.Array) -> jax.Array:
        num_steps, num_envs = x.shape[:2]
        x = x.reshape((num_steps // length, length, num_envs, *x.shape[2:]))
        return jnp.swapaxes(x, 0, 1).reshape((length, -1, *x.shape[3:]))

    batch = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], batch.stored.carry)
    return batch.replace(stored=batch.stored.replace(carry=first))


def _estimate_metrics(value, advantages, returns, axis_name) -> Metrics:
    mean, std = reduce.moments(advantages, axis_name=axis_name)
    _, error_std = reduce.moments(returns - value, axis_name=axis_name)
    return_mean, return_std = reduce.moments(returns, axis_name=axis_name)
    return {
        "advantages/mean": mean,
        "advantages/std": std,
        "returns/mean": return_mean,
        "returns/std": return_std,
        "value/mean": reduce.mean(value, axis_name=axis_name),
        # Undefined where returns do not vary: NaN says so, 0 or 1 would not.
        "value/explained_variance": jnp.where(
            return_std > 0, 1.0 - jnp.square(error_std / return_std), jnp.nan
        ),
    }


# --- one minibatch ---------------------------------------------------------------


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
        advantages = _normalized(advantages, axis_name)

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


# --- epochs ----------------------------------------------------------------------


def coefficients(state: TrainState, config: Config, hypers: Hypers) -> Coefs:
    """Schedules and adaptive factors at this update."""
    # Below 1 at the last update: a rate that ends at 0 still learns until then.
    progress = state.update_count.astype(jnp.float32) / config.num_updates
    rate = optim.schedule(
        config.learning_rate_schedule, progress, hypers.learning_rate_final
    )

    def entropy(head: str) -> jax.Array:
        final = optim.of_head(hypers, "entropy_coef_final", head)
        factor = optim.schedule(config.entropy_schedule, progress, final)
        return optim.of_head(hypers, "entropy_coef", head) * factor

    scales = state.adaptive.entropy_scale
    kl = optim.schedule(config.kl_schedule, progress, hypers.kl_coef_final)
    # Counted from the first update in which the policy moves.
    since = state.update_count - config.critic_warmup + 1
    ramp = jnp.clip(since / (config.learning_rate_warmup + 1), 0.0, 1.0)
    rate *= jnp.where(since > 0, ramp, 1.0)
    return Coefs(
        learning_rate=hypers.learning_rate * rate * state.adaptive.learning_rate_scale,
        entropy={head: entropy(head) * scale for head, scale in scales.items()},
        kl=hypers.kl_coef * kl,
        freeze_policy=state.update_count < config.critic_warmup,
    )


def optimise(
    policy: Policy,
    config: Config,
    state: TrainState,
    batch: Batch,
    hypers: Hypers,
    key: jax.Array,
    axis_name: AxisName = None,
) -> tuple[TrainState, Metrics]:
    """Epochs over the batch: a step per minibatch, or one per epoch on their sum.

    Above 1.5 target_kl, measured before the step, that step and all that would
    follow are skipped; the metrics of the minibatch that said so are kept.
    """
    coefs = coefficients(state, config, hypers)
    expected = expected_valid(policy, state.params, batch, config, axis_name)
    num_sequences = batch.advantages.shape[1]

    def gradient(params: Params, index: jax.Array) -> tuple[Params, Metrics]:
        minibatch = _take(batch, index)
        grads, metrics = jax.grad(minibatch_loss, has_aux=True)(
            params, minibatch, expected, policy, config, coefs, hypers, axis_name
        )
        return reduce.tree_mean(grads, axis_name), metrics

    def must_stop(metrics: Metrics) -> jax.Array:
        return (metrics["approx_kl"] > _KL_STOP * hypers.target_kl) | (
            metrics["entropy_change"] > hypers.entropy_limit
        )

    def apply(learning: Learning, grads: Params, stop: jax.Array, metrics: Metrics):
        params, opt_state, norm = optim.step(
            learning.params,
            grads,
            learning.opt_state,
            hypers,
            coefs.learning_rate,
            coefs.freeze_policy,
        )
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss/total"])
        keep = stop | ~finite
        params, opt_state = jax.tree.map(
            lambda old, new: jnp.where(keep, old, new),
            (learning.params, learning.opt_state),
            (params, opt_state),
        )
        metrics = metrics | {
            "grad_norm": norm,
            "nonfinite": (~finite).astype(jnp.float32),
        }
        return Learning(params, opt_state, stop), metrics | _head_grads(grads)

    def minibatch_step(learning: Learning, index: jax.Array):
        def run(learning):
            grads, metrics = gradient(learning.params, index)
            return apply(learning, grads, must_stop(metrics), metrics)

        return _unless_stopped(learning, run)

    def epoch_by_minibatch(learning: Learning, key: jax.Array):
        return jax.lax.scan(minibatch_step, learning, _shuffled(key))

    def epoch_accumulated(learning: Learning, key: jax.Array):
        def run(learning):
            def add(total, index):
                grads, metrics = gradient(learning.params, index)
                return jax.tree.map(jnp.add, total, grads), metrics

            zeros = jax.tree.map(jnp.zeros_like, learning.params)
            total, metrics = jax.lax.scan(add, zeros, _shuffled(key))
            grads = jax.tree.map(lambda g: g / config.num_minibatches, total)
            # A minibatch without a valid sample has no mean; its loss is finite.
            means = jax.tree.map(jnp.nanmean, metrics)
            means["loss/total"] = jnp.mean(metrics["loss/total"])
            learning, last = apply(learning, grads, must_stop(means), means)
            # One optimiser step, but the statistics of every minibatch.
            shape = (config.num_minibatches,)
            last = jax.tree.map(lambda x: jnp.broadcast_to(x, shape), last)
            return learning, last | metrics

        return _unless_stopped(learning, run)

    def _shuffled(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, num_sequences)
        return order.reshape(config.num_minibatches, -1)

    epoch = epoch_accumulated if config.accumulate_gradients else epoch_by_minibatch
    learning = Learning(state.params, state.opt_state, jnp.zeros((), bool))
    learning, metrics = jax.lax.scan(
        epoch, learning, jax.random.split(key, config.epochs)
    )
    metrics = summarise(metrics, coefs)
    state = state.replace(
        params=learning.params,
        opt_state=learning.opt_state,
        adaptive=_adapt(state.adaptive, config, hypers, coefs, metrics),
    )
    return state, metrics


def _take(batch: Batch, index: jax.Array) -> Batch:
    """The sequences of a minibatch: axis 1 of everything but the carry's axis 0."""
    carry = jax.tree.map(lambda x: x[index], batch.stored.carry)
    rest = batch.replace(stored=batch.stored.replace(carry={}))
    rest = jax.tree.map(lambda x: x[:, index], rest)
    return rest.replace(stored=rest.stored.replace(carry=carry))


def _unless_stopped(learning: Learning, run):
    """Run, or pass through with every metric NaN: "not run" is not a number."""
    shapes = jax.eval_shape(run, learning)[1]

    def skip(learning):
        return learning, jax.tree.map(
            lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes
        )

    return jax.lax.cond(learning.stopped, skip, run, learning)


def _head_grads(grads: Params) -> Metrics:
    """Gradient norm of each head's own output layer."""
    norms = {}
    for name, branch in grads.items():
        if name.startswith("outputs_"):
            squares = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(branch)]
            head = name.removeprefix("outputs_")
            norms[f"head/{head}/grad_norm"] = jnp.sqrt(sum(squares))
    return norms


def _adapt(adaptive: Adaptive, config, hypers, coefs, metrics) -> Adaptive:
    adapted = optim.adapt_learning_rate(
        adaptive, config, hypers, metrics["approx_kl/last"]
    )
    entropy = {name: metrics[f"head/{name}/entropy"] for name in adapted.entropy_scale}
    adapted = optim.adapt_entropy(adapted, hypers, entropy)
    # A policy that is held says nothing by not moving.
    return jax.tree.map(
        lambda old, new: jnp.where(coefs.freeze_policy, old, new), adaptive, adapted
    )


def summarise(per_minibatch: Metrics, coefs: Coefs) -> Metrics:
    """One number each from metrics [epochs, minibatches]; NaN is what did not run."""
    ran = ~jnp.isnan(per_minibatch["nonfinite"])
    num_ran = jnp.sum(ran)
    in_last_epoch = jnp.arange(ran.shape[0])[:, None] == (num_ran - 1) // ran.shape[1]

    def mean(x, among=ran):
        # Of minibatches that ran and had a figure: a head may be valid in some only.
        use = among & ~jnp.isnan(x)
        return jnp.sum(jnp.where(use, x, 0.0)) / jnp.sum(use.astype(x.dtype))

    def last_epoch(x):
        return mean(x, ran & in_last_epoch)

    def last(x):
        x = x.ravel()
        index = jnp.max(jnp.where(jnp.isnan(x), -1, jnp.arange(x.size)))
        return jnp.where(index < 0, jnp.nan, x[index])

    def total(x):
        return jnp.sum(jnp.where(ran, x, 0.0))

    metrics = {
        name: mean(x)
        for name, x in per_minibatch.items()
        if not name.startswith("ratio/") and name != "nonfinite"
    }
    kl = per_minibatch["approx_kl"]

    def std(average):
        excess = average(per_minibatch["ratio/excess"])
        square = average(per_minibatch["ratio/square"])
        return jnp.sqrt(jnp.maximum(square - jnp.square(excess), 0.0))

    del metrics["approx_kl"]
    return metrics | {
        "approx_kl/last": last(kl),
        "approx_kl/mean": mean(kl),
        "approx_kl/max": jnp.nanmax(kl),
        "ratio/mean": 1.0 + mean(per_minibatch["ratio/excess"]),
        "ratio/std": std(mean),
        "ratio/min": jnp.min(jnp.where(ran, per_minibatch["ratio/min"], jnp.inf)),
        "ratio/max": jnp.max(jnp.where(ran, per_minibatch["ratio/max"], -jnp.inf)),
        "ratio/first_minibatch_error": per_minibatch["ratio/error"][0, 0],
        "ratio/last_epoch_std": std(last_epoch),
        "ratio/exploded": total(per_minibatch["ratio/exploded"]),
        "ratio/collapsed": total(per_minibatch["ratio/collapsed"]),
        "update/nonfinite": total(per_minibatch["nonfinite"]),
        "update/epochs": jnp.sum(jnp.any(ran, axis=1)).astype(jnp.float32),
        "update/minibatches": num_ran.astype(jnp.float32),
        "update/learning_rate": coefs.learning_rate,
        "update/kl_coef": coefs.kl,
        **{f"head/{name}/entropy_coef": x for name, x in coefs.entropy.items()},
    }
