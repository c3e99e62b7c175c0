"""From a rollout to the batch to learn from: values, advantages, returns, sequences."""

import chex
import jax
import jax.numpy as jnp

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.networks import Carry
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import normalize, reduce
from purejaxppo.ppo.gae import gae
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import policy_input
from purejaxppo.ppo.types import Batch, Metrics, Task, TrainState, Transition


def estimate_values(
    task: Task,
    params: Params,
    transitions: Transition,
    carry: Carry,
    last_inputs: PolicyInput,
) -> tuple[jax.Array, jax.Array, Carry]:
    """V(s_t) and V of the true next observation, in batched passes.

    Args:
      task: the policy, whose critic it is.
      params: of the policy that acted.
      transitions: [T, N].
      carry: the critic's carry before the first step, [N, H].
      last_inputs: what the policy sees after the last step, [N].

    Returns:
      value [T, N], next_value [T, N], and the critic's carry before each step.
    """
    value, carries = task.policy.value(params, transitions.stored.inputs, carry)
    done = transitions.terminated | transitions.truncated
    final_value = _final_values(task.policy, params, transitions, carries)
    last_value, _ = task.policy.value(
        params, trees.unsqueeze(last_inputs), trees.take(carries, -1)
    )
    following = jnp.concatenate([value[1:], last_value])
    next_value = jnp.where(done, final_value, following)
    before_each = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), carry, carries
    )
    return value, next_value, before_each


# Ends of episodes whose values are computed in one pass. Few steps are ends, and on a
# CPU a pass over all samples would cost as much as all values of the rollout.
_MIN_GROUP = 128


def _group_size(size: int) -> int:
    """How many of `size` steps are looked at in one pass as possible ends.

    On an accelerator a group costs its launches and a look at the host, whatever its
    rows: there it is a sixteenth of the steps, which most rollouts need once.
    """
    share = 0 if jax.default_backend() == "cpu" else size // 16
    return min(max(_MIN_GROUP, share), size)


def _final_values(
    policy: Policy, params: Params, transitions: Transition, carries: Carry
) -> jax.Array:
    """V of the true last observation where an episode ended, elsewhere 0: [T, N]."""
    done = transitions.terminated | transitions.truncated
    inputs = transitions.stored.inputs.replace(obs=transitions.final_obs)
    rows = trees.merge_axes((inputs, carries))
    size, num_ends, group = done.size, jnp.sum(done), _group_size(done.size)
    ends = jnp.nonzero(done.ravel(), size=size, fill_value=size)[0]

    def add_group(loop: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, position = loop
        index = jax.lax.dynamic_slice(ends, (position,), (group,))
        inputs, carry = jax.tree.map(lambda x: x.at[index].get(mode="clip"), rows)
        inputs = inputs.replace(start=jnp.zeros_like(inputs.start))
        of_group, _ = policy.value(params, trees.unsqueeze(inputs), carry)
        return values.at[index].set(of_group[0], mode="drop"), position + group

    def has_more(loop: tuple[jax.Array, jax.Array]) -> jax.Array:
        return loop[1] < num_ends

    start = (jnp.zeros((size,), jnp.float32), jnp.zeros((), jnp.int32))
    values, _ = jax.lax.while_loop(has_more, add_group, start)
    return values.reshape(done.shape)


def scaled_rewards(
    task: Task, state: TrainState, transitions: Transition, hypers: Hypers
) -> tuple[jax.Array, TrainState]:
    """Rewards over the running std of the discounted return, this rollout included.

    Within a bound: where all returns so far but a few are 0, that std is next to
    nothing, and a first reward of 1 would become one of hundreds or thousands.
    Rewards are no part of the ratio, so these statistics need not wait.

    Args:
      task: the axis to reduce over.
      state: its statistics of returns; without them rewards stay as they are.
      transitions: [T, N].
      hypers: the discount, and the bound.

    Returns:
      rewards [T, N], and the state with new statistics.
    """
    if state.return_stats is None:
        return transitions.reward, state
    done = transitions.terminated | transitions.truncated
    totals, after = normalize.discounted_returns(
        state.discounted_return, transitions.reward, done, hypers.gamma
    )
    stats = normalize.update(
        state.return_stats, totals.ravel(), axis_name=task.axis_name
    )
    variance = jnp.asarray(normalize.variance(stats))
    std = jnp.sqrt(jnp.maximum(variance, 1e-8))
    state = state.replace(return_stats=stats, discounted_return=after)
    limit = hypers.reward_clip
    return jnp.clip(transitions.reward / std, -limit, limit), state


def make_batch(
    task: Task,
    state: TrainState,
    transitions: Transition,
    critic_carry: Carry,
    hypers: Hypers,
) -> tuple[Batch, TrainState, Metrics]:
    """Advantages and returns of a rollout, as sequences to learn from.

    Args:
      task: policy, configuration, and the axis to reduce over.
      state: after the rollout.
      transitions: [T, N].
      critic_carry: the critic's carry before the rollout, [N, H].
      hypers: discount and lambda.

    Returns:
      the batch [L, M], the state with new statistics of returns, and metrics.
    """
    config, axis_name = task.config, task.axis_name
    last_inputs = policy_input(state.episodes, state.obs_stats)
    value, next_value, critic_carries = estimate_values(
        task, state.params, transitions, critic_carry, last_inputs
    )
    chex.assert_shape([value, next_value], (config.num_steps, config.num_envs))
    reward, state = scaled_rewards(task, state, transitions, hypers)
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
    first = trees.take(batch.stored.carry, 0)
    return batch.replace(stored=batch.stored.replace(carry=first))


def _estimate_metrics(
    value: jax.Array, advantages: jax.Array, returns: jax.Array, axis_name: AxisName
) -> Metrics:
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
