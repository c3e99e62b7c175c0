"""The training batch of a rollout: values, advantages, returns, sequences."""

import chex
import jax
import jax.numpy as jnp

from purejaxppo import platforms, trees
from purejaxppo.config import Hypers
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.networks import Carry
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import normalize, reduce, shards
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
    """Compute V(s_t) and V of the true next observation of each step.

    Args:
      task: the policy and the critic.
      params: the parameters of the rollout.
      transitions: [T, N].
      carry: the critic's recurrent state before the first step, [N, H].
      last_inputs: the policy's input after the last step, [N].

    Returns:
      value [T, N], next_value [T, N], and the critic's carry before each step.
    """
    value, carries = task.policy.value(params, transitions.stored.inputs, carry)
    done = transitions.terminated | transitions.truncated
    final_value = _final_values(task.policy, params, transitions, carries)
    last_value, _ = task.policy.value(
        params, trees.unsqueeze(last_inputs), trees.take(carries, -1)
    )
    shifted_value = jnp.concatenate([value[1:], last_value])
    next_value = jnp.where(done, final_value, shifted_value)
    before_each = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), carry, carries
    )
    return value, next_value, before_each


# Values of final observations are computed in groups of at least this many. Few steps
# end an episode, and a pass over all steps would double the cost of the values.
_MIN_GROUP = 128


def _group_size(size: int) -> int:
    """Return the number of final observations per group, for `size` steps in all.

    On an accelerator the cost of a group hardly depends on its size: it consists of
    kernel launches and a transfer of the loop condition to the host. There a group has
    a sixteenth of the steps, so that most rollouts need one group.
    """
    share = 0 if platforms.backend() == "cpu" else size // 16
    return min(max(_MIN_GROUP, share), size)


def _final_values(
    policy: Policy, params: Params, transitions: Transition, carries: Carry
) -> jax.Array:
    """Compute V of the final observation if a step ended an episode, else 0: [T, N]."""
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
        group_values, _ = policy.value(params, trees.unsqueeze(inputs), carry)
        return values.at[index].set(group_values[0], mode="drop"), position + group

    def has_unprocessed(loop: tuple[jax.Array, jax.Array]) -> jax.Array:
        return loop[1] < num_ends

    start = (jnp.zeros((size,), jnp.float32), jnp.zeros((), jnp.int32))
    values, _ = jax.lax.while_loop(has_unprocessed, add_group, start)
    return values.reshape(done.shape)


def scaled_rewards(
    task: Task, state: TrainState, transitions: Transition, hypers: Hypers
) -> tuple[jax.Array, TrainState]:
    """Divide rewards by the running standard deviation of the discounted return.

    The statistics include this rollout. Unlike observation statistics they need not be
    frozen, because the ratio does not depend on rewards. The result is clipped: if
    almost all returns so far are 0, their standard deviation is close to 0, and the
    first reward of 1 would be scaled to hundreds or thousands.

    Args:
      task: the axis to reduce over.
      state: holds the statistics of returns; without them rewards are not scaled.
      transitions: [T, N].
      hypers: the discount, and the bound.

    Returns:
      rewards [T, N], and the state with new statistics.
    """
    if state.return_stats is None:
        return transitions.reward, state
    done = transitions.terminated | transitions.truncated
    totals, last_total = normalize.discounted_returns(
        state.discounted_return, transitions.reward, done, hypers.gamma
    )
    stats = normalize.update(
        state.return_stats, totals.ravel(), axis_name=task.axis_name
    )
    std = normalize.return_std(stats)
    state = state.replace(return_stats=stats, discounted_return=last_total)
    limit = hypers.reward_clip
    return jnp.clip(transitions.reward / std, -limit, limit), state


def make_batch(
    task: Task,
    state: TrainState,
    transitions: Transition,
    critic_carry: Carry,
    hypers: Hypers,
) -> tuple[Batch, TrainState, Metrics]:
    """Compute advantages and returns of a rollout, and split it into sequences.

    Args:
      task: policy, configuration, and the axis to reduce over.
      state: the state after the rollout.
      transitions: [T, N].
      critic_carry: the critic's recurrent state before the rollout, [N, H].
      hypers: discount and lambda.

    Returns:
      the batch [L, M], the state with new statistics of returns, and metrics.
    """
    config, axis_name = task.config, task.axis_name
    last_inputs = policy_input(state.episodes, state.obs_stats)
    value, next_value, critic_carries = estimate_values(
        task, state.params, transitions, critic_carry, last_inputs
    )
    num_local = shards.num_local(config.num_envs, axis_name)
    chex.assert_shape([value, next_value], (config.num_steps, num_local))
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
    """Split [T, N, ...] into contiguous sequences [length, T / length * N, ...].

    The time axis is split BEFORE it is merged with the axis of environments. A reshape
    to [length, -1] would put every (T / length)th step into a sequence instead.
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
        "value/max_abs": reduce.maximum(jnp.abs(value), axis_name),
        # NaN, because it is undefined if all returns are equal.
        "value/explained_variance": jnp.where(
            return_std > 0, 1.0 - jnp.square(error_std / return_std), jnp.nan
        ),
    }
