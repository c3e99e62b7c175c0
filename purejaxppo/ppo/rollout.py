"""The rollout: scan T steps of N environments with the policy that acts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import autoreset
from purejaxppo.autoreset import Episode, Next, Starts
from purejaxppo.config import Config
from purejaxppo.env import Obs
from purejaxppo.policy.heads import Noise, PolicyInput
from purejaxppo.policy.policy import Carries, Policy, Stored
from purejaxppo.ppo import normalize, reduce
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.types import (
    Metrics,
    Reference,
    Task,
    TrainState,
    Transition,
)


class EpisodeStats(struct.PyTreeNode):
    """What the steps say about episodes, [T, N]."""

    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    metrics: dict[str, jax.Array]
    start_index: jax.Array
    no_valid_action: jax.Array


def policy_input(episodes: Episode, obs_stats: Statistics | None) -> PolicyInput:
    """What the policy sees of the states [N] that environments are in."""
    state = episodes.state
    return PolicyInput(
        obs=normalize.apply(obs_stats, state.obs),
        start=episodes.start,
        action_mask=state.action_mask,
        active=state.active,
    )


class Moving(NamedTuple):
    """What moves from step to step of a rollout."""

    episodes: Episode  # [N, ...]
    carry: Carries  # of the policy that acts
    reference_carry: Carries | None
    obs_stats: Statistics | None  # of this rollout's observations so far


def rollout(
    task: Task, state: TrainState, starts: Starts | None, key: jax.Array
) -> tuple[TrainState, Transition, EpisodeStats, Statistics | None]:
    """T steps from where the environments are.

    Observation statistics stay frozen here; those that include this rollout are the
    last result, for after the update.

    Args:
      task: environment, policy and configuration.
      state: before the rollout; its parameters act.
      starts: the pool of this update, for reset "pool".
      key: of actions, and of where episodes start.

    Returns:
      the state with episodes and carry moved on, transitions [T, N], episode
      statistics [T, N], and the statistics for the next rollout.
    """
    reference = state.reference
    moving = Moving(
        state.episodes,
        state.carry,
        None if reference is None else reference.carry,
        _no_statistics(task, state),
    )
    moving, (transitions, reference_obs, stats) = jax.lax.scan(
        functools.partial(_one_step, task, state, starts),
        moving,
        _draw(task, starts, key),
    )
    state = state.replace(episodes=moving.episodes, carry=moving.carry)
    if reference is not None:
        transitions = transitions.replace(
            reference_log_prob=_reference_log_prob(
                task.policy, reference, transitions.stored, reference_obs
            )
        )
        reference = reference.replace(carry=moving.reference_carry)
        state = state.replace(reference=reference)
    return state, transitions, stats, _with_this_rollout(state, moving)


def _no_statistics(task: Task, state: TrainState) -> Statistics | None:
    """Those of a rollout before its first step; None where none are taken.

    They start from nothing, and are merged once: step by step, the share of one step
    among all samples of the run would soon be too small for float32.
    """
    running = task.config.normalize_observations == "running"
    if not running or state.obs_stats is None:
        return None
    return normalize.init(state.obs_stats.mean)


def _with_this_rollout(state: TrainState, moving: Moving) -> Statistics | None:
    if state.obs_stats is None or moving.obs_stats is None:
        return state.obs_stats
    return normalize.merge(state.obs_stats, moving.obs_stats)


def _one_step(
    task: Task,
    state: TrainState,
    starts: Starts | None,
    moving: Moving,
    drawn: tuple[Noise, Next],
) -> tuple[Moving, tuple[Transition, Obs | None, EpisodeStats]]:
    """One step of every environment; `state` is that from before the rollout."""
    env, policy, config = task.env, task.policy, task.config
    episodes, (noise, following) = moving.episodes, drawn
    obs_stats = moving.obs_stats
    if obs_stats is not None:
        obs_stats = normalize.update(
            obs_stats, episodes.state.obs, axis_name=task.axis_name
        )
    inputs = policy_input(episodes, state.obs_stats)
    action, stored, terms, carry = policy.sample(
        state.params, inputs, moving.carry, noise
    )
    reference_obs, reference_carry = _reference_step(
        policy, state.reference, episodes, moving.reference_carry
    )
    limit = autoreset.time_limit(env, config.train_episode_steps)
    episodes, step = jax.vmap(
        lambda episode, action, following: autoreset.step(
            env, episode, action, starts, limit, following
        )
    )(episodes, action, following)
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
        done=step.terminated | step.truncated,
        episode_return=step.episode_return,
        episode_length=step.episode_length,
        metrics=step.metrics,
        start_index=step.start_index,
        no_valid_action=terms.no_valid_action,
    )
    moving = Moving(episodes, carry, reference_carry, obs_stats)
    return moving, (transition, reference_obs, stats)


def _draw(task: Task, starts: Starts | None, key: jax.Array) -> tuple[Noise, Next]:
    """All that is random about a rollout, [T, N]: of actions, and where episodes start.

    What an environment draws in its own step is not among it.
    """
    env, policy, config = task.env, task.policy, task.config
    ahead = autoreset.fit_ahead(env, config.num_steps * config.num_envs)

    def one_step(key: jax.Array) -> tuple[Noise, Next]:
        key_action, key_env = jax.random.split(key)
        keys = jax.random.split(key_env, config.num_envs)
        draw = jax.vmap(
            lambda k: autoreset.draw_next(env, config.reset, starts, k, ahead)
        )
        return policy.noise(key_action, config.num_envs), draw(keys)

    return jax.vmap(one_step)(jax.random.split(key, config.num_steps))


def _reference_step(
    policy: Policy,
    reference: Reference | None,
    episodes: Episode,
    carry: Carries | None,
) -> tuple[Obs | None, Carries | None]:
    """What the frozen reference sees, by ITS normaliser, and ITS carry moved on.

    Without a recurrent core nothing of its network is computed here.
    """
    if reference is None or carry is None:
        return None, carry
    inputs = policy_input(episodes, reference.obs_stats)
    _, carry = policy.mode(reference.params, inputs, carry)
    return inputs.obs, carry


def _reference_log_prob(
    policy: Policy, reference: Reference, stored: Stored, obs: Obs | None
) -> jax.Array:
    """Log-prob under the reference, [T, N]: one large batch, not T small ones."""
    inputs = stored.inputs.replace(obs=obs)
    seen = stored.replace(inputs=inputs, carry=reference.carry)
    return policy.log_prob(reference.params, seen).joint_log_prob()


def episode_metrics(task: Task, stats: EpisodeStats) -> Metrics:
    """Figures of the episodes that ended in this rollout: a sanity check only."""
    config, axis_name = task.config, task.axis_name
    done = stats.done

    def over_ended(x: jax.Array) -> jax.Array:
        return reduce.mean(x.astype(jnp.float32), done, axis_name)

    metrics = {
        "train/episode_return": over_ended(stats.episode_return),
        "train/episode_length": over_ended(stats.episode_length),
        "train/episodes": reduce.total(done.astype(jnp.float32), axis_name),
        "train/distinct_starts": _distinct_starts(stats, config),
        "train/no_valid_action": reduce.total(
            stats.no_valid_action.astype(jnp.float32), axis_name
        ),
    }
    metrics |= {f"train/{name}": over_ended(x) for name, x in stats.metrics.items()}
    return metrics


def _distinct_starts(stats: EpisodeStats, config: Config) -> jax.Array:
    """How many different states the new episodes of this rollout began in."""
    if config.reset == "fresh":
        return jnp.sum(stats.done).astype(jnp.float32)
    if config.reset == "cached":
        return jnp.sum(jnp.any(stats.done, axis=0)).astype(jnp.float32)
    taken = jnp.zeros((config.num_starts,), bool)
    index = jnp.where(stats.done, stats.start_index, config.num_starts)
    taken = taken.at[index.ravel()].set(True, mode="drop")
    return jnp.sum(taken).astype(jnp.float32)
