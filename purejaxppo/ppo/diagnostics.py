"""Figures of an update that only a diagnosis needs; they change nothing.

`consistency` compares the batch that the loss was given with the rollout that it came
from. Each of its figures is 1 (or 0) whatever the task, unless a computation is wrong.
"""

import jax
import jax.numpy as jnp
import optax

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.env import Box, executed
from purejaxppo.policy.networks import part_of
from purejaxppo.policy.policy import Params
from purejaxppo.ppo import reduce, shards
from purejaxppo.ppo.normalize import MAX_NORMALIZED, Statistics
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import EpisodeStats
from purejaxppo.ppo.types import Batch, Metrics, Task, Transition

# A continuous action is saturated if it is this close to a bound of [-1, 1].
_BOUND = 0.99
# A hidden unit is dead if its output varies by less than this over the observations.
_DEAD_STD = 0.01
# A unit of tanh is saturated where its output is larger.
_SATURATED = 0.99
# A spike changes the observation by twice the typical distance, and half of that is
# undone by the next step. Here squared.
_SPIKE, _RETURN = 4.0, 0.25
# Of the entries that change at all. In observations of discrete things, where most
# entries stay as they are, going there and back is an ordinary event.
_CHANGED = 0.9
_NUM_UNIT_SAMPLES = 256  # enough for shares in per cent


def diagnostics(
    task: Task,
    before: Params,
    after: Params,
    transitions: Transition,
    batch: Batch,
    episodes: EpisodeStats,
    return_std: jax.Array,
    hypers: Hypers,
) -> Metrics:
    """Measure what a diagnosis needs of one update.

    Args:
      task: policy, configuration, and the axis to reduce over.
      before, after: the parameters before and after the update.
      transitions: the rollout, [T, N].
      batch: the training batch that was made of it, [L, M].
      episodes: the statistics of the episodes, [T, N].
      return_std: float32 [], by which rewards should be divided.
      hypers: discount, λ and the bound of scaled rewards.
    """
    return (
        observations(transitions, task.axis_name)
        | rewards_and_actions(task, transitions, episodes)
        | network(task, before, after, transitions)
        | consistency(task, batch, episodes, return_std, hypers)
    )


def observations(transitions: Transition, axis_name: AxisName) -> Metrics:
    """Measure the observations as the policy saw them, over steps and environments.

    Within episodes, `obs/still` is the share of steps that changed no entry of the
    observation, `obs/autocorrelation` the correlation of an observation with the one
    before. `obs/spikes` is the share of steps whose observation is far from both the
    one before and the one after, measured by the typical change, in nearly all entries,
    while these are close to each other: it belongs to another state.

    Args:
      transitions: the rollout, [T, N].
      axis_name: the named axis over whose devices to reduce.
    """
    obs = part_of(transitions.stored.inputs.obs, "actor")
    obs = obs.reshape((*obs.shape[:2], -1))
    together = ~transitions.stored.inputs.start[1:]  # both steps are of one episode
    change = obs[1:] - obs[:-1]
    mean = reduce.tree_mean(jnp.mean(obs, axis=(0, 1)), axis_name)
    deviation = jnp.mean(jnp.square(obs - mean[None, None]), axis=(0, 1))
    variances = reduce.tree_mean(deviation, axis_name)
    squares = reduce.mean(jnp.mean(jnp.square(change), axis=-1), together, axis_name)
    threes = together[1:] & together[:-1]
    still = jnp.all(change == 0.0, axis=-1).astype(jnp.float32)
    clipped = (jnp.abs(obs) >= MAX_NORMALIZED).astype(jnp.float32)
    return {
        "obs/mean": jnp.sqrt(jnp.mean(jnp.square(mean))),
        "obs/std": jnp.sqrt(jnp.mean(variances)),
        "obs/clipped": reduce.mean(clipped, axis_name=axis_name),
        "obs/still": reduce.mean(still, together, axis_name),
        "obs/autocorrelation": 1.0 - squares / (2.0 * jnp.mean(variances)),
        "obs/spikes": reduce.mean(_spikes(obs, together, axis_name), threes, axis_name),
    }


def _spikes(obs: jax.Array, together: jax.Array, axis_name: AxisName) -> jax.Array:
    """Return 1 where an observation is a spike, [T - 2, N], see `observations`."""
    step = jnp.sum(jnp.square(obs[1:] - obs[:-1]), axis=-1)
    skip = jnp.sum(jnp.square(obs[2:] - obs[:-2]), axis=-1)
    changed = together & (step > 0.0)
    # A geometric mean, which the spikes themselves hardly change.
    logs = jnp.where(changed, jnp.log(jnp.maximum(step, 1e-30)), 0.0)
    count = reduce.total(changed.astype(jnp.float32), axis_name)
    typical = jnp.exp(reduce.total(logs, axis_name) / jnp.maximum(count, 1.0))
    both = jnp.minimum(step[1:], step[:-1])
    differs = (obs[1:] != obs[:-1]) & together[..., None]
    moving = jnp.any(differs, axis=(0, 1)).astype(jnp.int32)
    # Entries that change at all, of the observations of any device.
    num_moving = jnp.sum(reduce.pmax(moving, axis_name))
    num_differs = jnp.sum(differs, axis=-1).astype(jnp.float32)
    entries = num_differs >= _CHANGED * num_moving.astype(jnp.float32)
    is_spike = (both > _SPIKE * typical) & (skip < _RETURN * both)
    is_spike &= entries[1:] & entries[:-1]
    return is_spike.astype(jnp.float32)


def rewards_and_actions(
    task: Task, transitions: Transition, episodes: EpisodeStats
) -> Metrics:
    """Measure rewards, ends of episodes, and continuous actions at their bounds.

    Args:
      task: the heads, and the axis to reduce over.
      transitions: the rollout, [T, N].
      episodes: the statistics of the episodes, [T, N].
    """
    axis_name, reward = task.axis_name, episodes.reward
    mean, std = reduce.moments(reward, axis_name=axis_name)
    metrics = {
        "rewards/mean": mean,
        "rewards/std": std,
        "rewards/max_abs": reduce.maximum(jnp.abs(reward), axis_name),
        "rewards/nonzero": reduce.mean(
            (reward != 0.0).astype(jnp.float32), axis_name=axis_name
        ),
        "train/terminated": _count(transitions.terminated, axis_name),
        "train/truncated": _count(transitions.truncated, axis_name),
    }
    action = executed(task.env.spec, transitions.stored.action)
    for name, head in task.env.spec.heads.items():
        if isinstance(head, Box):
            at_bound = (jnp.abs(action[name]) > _BOUND).astype(jnp.float32)
            share = reduce.mean(at_bound, axis_name=axis_name)
            metrics[f"head/{name}/saturated"] = share
    return metrics


def _count(events: jax.Array, axis_name: AxisName) -> jax.Array:
    return reduce.total(events.astype(jnp.float32), axis_name)


def normalizer(stats: Statistics | None) -> Metrics:
    """Return how many observations are in the statistics that normalise them."""
    if stats is None:
        return {}
    low, high = stats.count.astype(jnp.float32)
    return {"obs/samples": low + high * 2.0**32}


def network(
    task: Task, before: Params, after: Params, transitions: Transition
) -> Metrics:
    """Measure how far an update moved the parameters, and units that carry nothing.

    Args:
      task: the policy.
      before, after: the parameters before and after the update.
      transitions: the rollout, [T, N], whose last observations the units are given.
    """
    change = jax.tree.map(jnp.subtract, after, before)
    metrics = {
        f"{part}/update_norm": optax.tree.norm(getattr(change, part))
        / optax.tree.norm(getattr(before, part))
        for part in ("policy", "critic")
    }
    num_steps = max(1, _NUM_UNIT_SAMPLES // task.config.num_envs)
    stored = jax.tree.map(lambda x: x[-num_steps:, :_NUM_UNIT_SAMPLES], transitions)
    inputs, carry = stored.stored.inputs, stored.stored.carry["actor"]
    hidden = task.policy.hidden(after, inputs, trees.take(carry, 0))
    if not hidden:
        return metrics
    units = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in hidden], axis=1)
    # The first environments of all, which the first devices may have.
    first = shards.first_row(transitions.reward.shape[1], task.axis_name)
    env = first + jnp.arange(stored.reward.shape[1])
    is_sample = jnp.broadcast_to(env < _NUM_UNIT_SAMPLES, stored.reward.shape)
    column = is_sample.reshape(-1, 1)
    count = reduce.total(column.astype(jnp.float32), task.axis_name)

    def mean(x: jax.Array) -> jax.Array:
        """Average over the samples: [samples, units] -> [units]."""
        own = jnp.sum(jnp.where(column, x, 0.0), axis=0)
        return reduce.psum(own, task.axis_name) / count

    spread = jnp.sqrt(mean(jnp.square(units - mean(units)[None])))
    metrics["policy/dead_units"] = jnp.mean((spread < _DEAD_STD).astype(jnp.float32))
    if task.config.activation == "tanh":
        is_saturated = (jnp.abs(units) > _SATURATED).astype(jnp.float32)
        metrics["policy/saturated_units"] = jnp.mean(mean(is_saturated))
    return metrics


def consistency(
    task: Task,
    batch: Batch,
    episodes: EpisodeStats,
    return_std: jax.Array,
    hypers: Hypers,
) -> Metrics:
    """Compare the training batch with the rollout that it was made of.

    From returns and values of the batch follows the reward that estimation must have
    used: r_t = A_t + V_t - γ V_{t+1} - γ λ A_{t+1} within an episode, and r_t = A_t +
    V_t at its terminal step, with A = returns - V.

      consistency/rewards     root mean square of the difference of these rewards from
                              those that the environments gave, relative to the latter.
                              Not 0: rewards of another scale, place or time, another γ
                              or λ, advantages that are summed up in another direction,
                              or ends that were ignored.
      consistency/sign        cosine of the angle between both. -1: the sign is wrong.
      consistency/advantages  correlation of the advantages that the loss was given with
                              A. Not 1: they were changed or reordered.
      consistency/bootstrap   share of the truncated steps whose return is more than
                              their reward. 0: truncation is treated as termination.

    Args:
      task: the configuration, and the axis to reduce over.
      batch: the training batch, [L, M].
      episodes: the statistics of the episodes, [T, N].
      return_std: float32 [], by which rewards should be divided.
      hypers: discount, λ and the bound of scaled rewards.
    """
    axis_name, num_envs = task.axis_name, episodes.reward.shape[1]
    returns, value = (as_steps(x, num_envs) for x in (batch.returns, batch.value))
    advantages, given = returns - value, episodes.reward
    if task.config.normalize_rewards:
        limit = hypers.reward_clip
        given = jnp.clip(given / return_std, -limit, limit)
    later = hypers.gamma * (value[1:] + hypers.gae_lambda * advantages[1:])
    used = returns[:-1] - jnp.where(episodes.terminated[:-1], 0.0, later)
    known = ~episodes.truncated[:-1]

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return reduce.mean(x * y, known, axis_name)

    difference, size = used - given[:-1], product(given[:-1], given[:-1])
    mean_value = reduce.mean(jnp.abs(value), axis_name=axis_name)
    # The second term: what float32 cannot tell from 0 where all rewards are 0.
    unit = jnp.sqrt(size) + 1e-3 * mean_value
    bootstrapped = (jnp.abs(returns - given) > 1e-3 * mean_value).astype(jnp.float32)
    return {
        "advantages/used_std": reduce.moments(batch.advantages, axis_name=axis_name)[1],
        "consistency/rewards": jnp.sqrt(product(difference, difference)) / unit,
        "consistency/sign": product(used, given[:-1])
        / jnp.sqrt(product(used, used) * size),
        "consistency/advantages": _correlation(
            batch.advantages, batch.returns - batch.value, axis_name
        ),
        "consistency/bootstrap": reduce.mean(
            bootstrapped, episodes.truncated, axis_name
        ),
    }


def _correlation(x: jax.Array, y: jax.Array, axis_name: AxisName) -> jax.Array:
    """Return the correlation over all elements; NaN if either is constant."""
    (mean_x, std_x), (mean_y, std_y) = (
        reduce.moments(z, axis_name=axis_name) for z in (x, y)
    )
    covariance = reduce.mean((x - mean_x) * (y - mean_y), axis_name=axis_name)
    return covariance / (std_x * std_y)


def as_steps(x: jax.Array, num_envs: int) -> jax.Array:
    """Undo `batch.as_sequences`: [L, T / L * N] -> [T, N]."""
    x = x.reshape((x.shape[0], -1, num_envs))
    return jnp.swapaxes(x, 0, 1).reshape((-1, num_envs))
