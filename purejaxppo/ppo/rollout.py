"""The rollout: T steps of N environments with the present policy."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import autoreset
from purejaxppo.autoreset import Episode, NextStart, Starts
from purejaxppo.config import Config
from purejaxppo.env import Obs, State
from purejaxppo.policy.heads import Noise, PolicyInput
from purejaxppo.policy.policy import Carries, Policy, Stored
from purejaxppo.ppo import normalize, reduce, shards
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import (
    Metrics,
    Reference,
    Task,
    TrainState,
    Transition,
)


class EpisodeStats(struct.PyTreeNode):
    """Episode statistics of each step, [T, N]; those of an episode if `done`."""

    reward: jax.Array  # float32, as the environment gave it
    terminated: jax.Array  # bool
    truncated: jax.Array  # bool
    episode_return: jax.Array
    episode_length: jax.Array
    metrics: dict[str, jax.Array]
    start_index: jax.Array  # index in the pool of the next episode's start
    no_valid_action: jax.Array  # bool, the mask of an active head allowed too few
    unstable: jax.Array  # bool, an observation or reward could not be used

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended at this step, bool [T, N]."""
        return self.terminated | self.truncated


def policy_input(episodes: Episode, obs_stats: Statistics | None) -> PolicyInput:
    """Build the policy's input from the present states [N] of the environments."""
    state = episodes.state
    return PolicyInput(
        obs=normalize.apply(obs_stats, state.obs),
        start=episodes.start,
        action_mask=state.action_mask,
        active=state.active,
    )


class RolloutCarry(NamedTuple):
    """The carry of the scan over the steps of a rollout."""

    episodes: Episode  # [N, ...]
    carry: Carries  # recurrent state of the policy
    reference_carry: Carries | None  # recurrent state of the frozen reference
    obs_stats: Statistics | None  # of the observations of this rollout only


def rollout(
    task: Task, state: TrainState, starts: Starts | None, key: jax.Array
) -> tuple[TrainState, Transition, EpisodeStats, Statistics | None]:
    """Step the environments T times from their present states.

    Observations are normalised by the statistics from before the rollout. Statistics
    that include this rollout are returned, to be used after the update.

    Args:
      task: environment, policy and configuration.
      state: the state before the rollout.
      starts: the pool of this update; None unless reset is "pool".
      key: the random key of actions and episode starts.

    Returns:
      the state with new episodes and carry, transitions [T, N], episode statistics
      [T, N], and the observation statistics for the next rollout.
    """
    reference = state.reference
    loop = RolloutCarry(
        state.episodes,
        state.carry,
        None if reference is None else reference.carry,
        _empty_statistics(task, state),
    )
    loop, (transitions, reference_obs, stats) = jax.lax.scan(
        functools.partial(_one_step, task, state, starts),
        loop,
        _draw(task, starts, state.episodes.first, key),
    )
    state = state.replace(episodes=loop.episodes, carry=loop.carry)
    if reference is not None:
        transitions = transitions.replace(
            reference_log_prob=_reference_log_prob(
                task.policy, reference, transitions.stored, reference_obs
            )
        )
        reference = reference.replace(carry=loop.reference_carry)
        state = state.replace(reference=reference)
    obs_stats = _merged_statistics(state, loop.obs_stats, task.axis_name)
    return state, transitions, stats, obs_stats


def _empty_statistics(task: Task, state: TrainState) -> Statistics | None:
    """Return empty statistics for the observations of a rollout, None if not needed.

    A rollout has statistics of its own, which are merged once. If each step were merged
    by itself, its share of all samples would soon be too small for float32.
    """
    running = task.config.normalize_observations == "running"
    if not running or state.obs_stats is None:
        return None
    return normalize.init(state.obs_stats.mean)


def _merged_statistics(
    state: TrainState, of_rollout: Statistics | None, axis_name: AxisName
) -> Statistics | None:
    if state.obs_stats is None or of_rollout is None:
        return state.obs_stats
    of_rollout = normalize.over_devices(of_rollout, axis_name)
    return normalize.merge(state.obs_stats, of_rollout)


def _one_step(
    task: Task,
    state: TrainState,
    starts: Starts | None,
    loop: RolloutCarry,
    drawn: tuple[Noise, NextStart],
) -> tuple[RolloutCarry, tuple[Transition, Obs | None, EpisodeStats]]:
    """Step every environment once; `state` is the state before the rollout."""
    env, policy, config = task.env, task.policy, task.config
    episodes, (noise, next_start) = loop.episodes, drawn
    obs_stats = loop.obs_stats
    if obs_stats is not None:  # of this device, so that no step waits for others
        obs_stats = normalize.update(obs_stats, episodes.state.obs)
    inputs = policy_input(episodes, state.obs_stats)
    action, stored, terms, carry = policy.sample(
        state.params, inputs, loop.carry, noise
    )
    reference_obs, reference_carry = _reference_step(
        policy, state.reference, episodes, loop.reference_carry
    )
    limit = autoreset.time_limit(env, config.train_episode_steps)
    episodes, step = jax.vmap(
        lambda episode, action, next_start: autoreset.step(
            env, episode, action, starts, limit, next_start
        )
    )(episodes, action, next_start)
    transition = Transition(
        stored=stored,
        log_prob=terms.log_prob,
        entropy=terms.joint_entropy(),
        reference_log_prob=jnp.zeros_like(step.reward),  # `rollout` fills it in
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        final_obs=normalize.apply(state.obs_stats, step.final_obs),
    )
    stats = EpisodeStats(
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        episode_return=step.episode_return,
        episode_length=step.episode_length,
        metrics=step.metrics,
        start_index=step.start_index,
        no_valid_action=terms.no_valid_action,
        unstable=step.unstable,
    )
    loop = RolloutCarry(episodes, carry, reference_carry, obs_stats)
    return loop, (transition, reference_obs, stats)


def _draw(
    task: Task, starts: Starts | None, first: State | None, key: jax.Array
) -> tuple[Noise, NextStart]:
    """Draw the noise of all actions and the next start of each episode, [T, N].

    Of the N environments only those of this device are returned.

    Random numbers that an environment uses in `step` are not included.
    """
    env, policy, config = task.env, task.policy, task.config
    num_local = shards.num_local(config.num_envs, task.axis_name)
    draw_ahead = autoreset.can_draw_ahead(env, config.num_steps * num_local)

    def one_step(key: jax.Array) -> tuple[Noise, NextStart]:
        key_action, key_env = jax.random.split(key)
        keys = jax.random.split(key_env, config.num_envs)
        noise = policy.noise(key_action, config.num_envs)
        noise, keys = shards.own_rows((noise, keys), task.axis_name)
        draw = jax.vmap(
            lambda key, first: autoreset.draw_next(
                env, config.reset, starts, key, draw_ahead, first
            )
        )
        return noise, draw(keys, first)

    return jax.vmap(one_step)(jax.random.split(key, config.num_steps))


def _reference_step(
    policy: Policy,
    reference: Reference | None,
    episodes: Episode,
    carry: Carries | None,
) -> tuple[Obs | None, Carries | None]:
    """Return observations normalised for the frozen reference, and its next carry.

    The reference has its own observation statistics and recurrent state. Without a
    recurrent core XLA removes the computation of its network here.
    """
    if reference is None or carry is None:
        return None, carry
    inputs = policy_input(episodes, reference.obs_stats)
    _, carry = policy.mode(reference.params, inputs, carry)
    return inputs.obs, carry


def _reference_log_prob(
    policy: Policy, reference: Reference, stored: Stored, obs: Obs | None
) -> jax.Array:
    """Compute log-probs under the reference, [T, N], as one batch of all steps."""
    inputs = stored.inputs.replace(obs=obs)
    stored = stored.replace(inputs=inputs, carry=reference.carry)
    return policy.log_prob(reference.params, stored).joint_log_prob()


def episode_metrics(task: Task, stats: EpisodeStats) -> Metrics:
    """Average the statistics of the episodes that ended in this rollout."""
    config, axis_name = task.config, task.axis_name
    done = stats.done

    def mean_over_ended(x: jax.Array) -> jax.Array:
        return reduce.mean(x.astype(jnp.float32), done, axis_name)

    metrics = {
        "train/episode_return": mean_over_ended(stats.episode_return),
        "train/episode_length": mean_over_ended(stats.episode_length),
        "train/episodes": reduce.total(done.astype(jnp.float32), axis_name),
        "train/distinct_starts": _distinct_starts(stats, config, axis_name),
        "train/no_valid_action": reduce.total(
            stats.no_valid_action.astype(jnp.float32), axis_name
        ),
        "train/unstable": reduce.total(stats.unstable.astype(jnp.float32), axis_name),
    }
    for name, x in stats.metrics.items():
        # A metric of the environment may have the name of one above.
        prefix = "train/episode_" if f"train/{name}" in metrics else "train/"
        metrics[prefix + name] = mean_over_ended(x)
    return metrics


def is_all_unstable(stats: EpisodeStats, axis_name: AxisName) -> jax.Array:
    """Return whether the environments as a whole cannot be learned from, bool [].

    All of them were unstable at one step; a single environment, at every step.

    Args:
      stats: the episode statistics of a rollout, [T, N].
      axis_name: the named axis over which environments are sharded, if any.
    """
    num_steps, num_envs = stats.unstable.shape
    num_unstable = reduce.psum(jnp.sum(stats.unstable, axis=1), axis_name)
    num_envs = reduce.psum(jnp.int32(num_envs), axis_name)
    num_full_steps = jnp.sum(num_unstable == num_envs)
    return num_full_steps >= jnp.where(num_envs == 1, num_steps, 1)


def _distinct_starts(
    stats: EpisodeStats, config: Config, axis_name: AxisName
) -> jax.Array:
    """Count the different states in which the new episodes of this rollout began."""
    if config.reset == "fresh":
        num = reduce.total(stats.done.astype(jnp.int32), axis_name)
        return num.astype(jnp.float32)
    if config.reset == "cached":
        is_used = jnp.any(stats.done, axis=0).astype(jnp.int32)
        return reduce.total(is_used, axis_name).astype(jnp.float32)
    is_used = jnp.zeros((config.num_starts,), bool)
    index = jnp.where(stats.done, stats.start_index, config.num_starts)
    is_used = is_used.at[index.ravel()].set(True, mode="drop")
    # All devices have the same pool, so a start that two of them used is one.
    is_used = reduce.pmax(is_used.astype(jnp.int32), axis_name)
    return jnp.sum(is_used).astype(jnp.float32)
