"""The update: epochs of minibatches, with a stop on KL and on entropy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxppo.config import Config, Hypers
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import optim, reduce, shuffle
from purejaxppo.ppo.minibatch import Coefs, expected_valid, minibatch_loss
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import Adaptive, Batch, Metrics, TrainState

# Spinning Up and Stable-Baselines3 stop at this multiple of target_kl.
_KL_STOP = 1.5


class Learning(NamedTuple):
    """What moves from minibatch to minibatch."""

    params: Params
    opt_state: Any
    stopped: jax.Array  # bool


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
        order = shuffle.permutation(key, num_sequences)
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
