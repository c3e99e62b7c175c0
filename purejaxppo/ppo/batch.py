"""From a rollout to the batch to learn from: values, advantages, returns, sequences."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from purejaxppo.config import Config, Hypers
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import normalize, reduce
from purejaxppo.ppo.gae import gae
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import policy_input
from purejaxppo.ppo.types import Batch, Metrics, TrainState, Transition


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


def _ends_together(size: int) -> int:
    """How many of `size` steps are looked at together as possible ends.

    On an accelerator a group costs its launches and a look at the host, whatever its
    rows: there it is a sixteenth of the steps, which most rollouts need once.
    """
    share = 0 if jax.default_backend() == "cpu" else size // 16
    return min(max(_ENDS, share), size)


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
    num_ends, together = jnp.sum(done), _ends_together(size)

    def some(carry):
        values, position = carry
        index = jax.lax.dynamic_slice(ends, (position,), (together,))
        at = jax.tree.map(lambda x: x.at[index].get(mode="clip"), final_inputs)
        at = at.replace(start=jnp.zeros_like(at.start))
        before = jax.tree.map(lambda x: x.at[index].get(mode="clip"), carries)
        some_values, _ = policy.value(
            params, jax.tree.map(lambda x: x[None], at), before
        )
        return values.at[index].set(some_values[0], mode="drop"), position + together

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
        advantages = normalize.standardized(advantages, axis_name)
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
