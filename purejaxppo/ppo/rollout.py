"""The rollout: scan T steps of N environments with the policy that acts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import autoreset
from purejaxppo.autoreset import Episode, Next, Starts
from purejaxppo.config import Config
from purejaxppo.env import Env
from purejaxppo.policy.heads import Noise, PolicyInput
from purejaxppo.policy.policy import Policy, Stored
from purejaxppo.ppo import normalize, reduce
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import Metrics, Reference, TrainState, Transition


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


def rollout(
    env: Env,
    policy: Policy,
    config: Config,
    state: TrainState,
    starts: Starts | None,
    key: jax.Array,
    axis_name: AxisName = None,
) -> tuple[TrainState, Transition, EpisodeStats, Statistics | None]:
    """T steps from where the environments are.

    Observation statistics stay frozen here; those that include this rollout are the
    last result, for after the update.

    Returns:
      the state with episodes and carry moved on, transitions [T, N], episode
      statistics [T, N], and the statistics for the next rollout.
    """
    limit = autoreset.time_limit(env, config.train_episode_steps)
    moving = config.normalize_observations == "running"

    def one_step(carry, drawn):
        episodes, policy_carry, reference_carry, new_stats = carry
        noise, following = drawn
        if moving:
            new_stats = normalize.update(
                new_stats, episodes.state.obs, axis_name=axis_name
            )
        inputs = policy_input(episodes, state.obs_stats)
        action, stored, terms, policy_carry = policy.sample(
            state.params, inputs, policy_carry, noise
        )
        reference_obs, reference_carry = _reference_step(
            policy, state.reference, episodes, reference_carry
        )
        episodes, step = jax.vmap(
            lambda episode, action, following: autoreset.step(
                env, episode, action, starts, limit, following
            )
        )(episodes, action, following)
        transition = Transition(
            stored=stored,
            log_prob=terms.log_prob,
            entropy=terms.joint_entropy(),
            reference_log_prob=jnp.zeros_like(step.reward),  # see below
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
        carry = (episodes, policy_carry, reference_carry, new_stats)
        return carry, (transition, reference_obs, stats)

    reference = state.reference
    reference_carry = None if reference is None else reference.carry
    (episodes, policy_carry, reference_carry, new_stats), collected = jax.lax.scan(
        one_step,
        (state.episodes, state.carry, reference_carry, state.obs_stats),
        _draw(env, policy, config, starts, key),
    )
    transitions, reference_obs, stats = collected
    state = state.replace(episodes=episodes, carry=policy_carry)
    if reference is not None:
        transitions = transitions.replace(
            reference_log_prob=_reference_log_prob(
                policy, reference, transitions.stored, reference_obs
            )
        )
        state = state.replace(reference=reference.replace(carry=reference_carry))
    return state, transitions, stats, new_stats


def _draw(
    env: Env, policy: Policy, config: Config, starts: Starts | None, key: jax.Array
) -> tuple[Noise, Next]:
    """All that is random about a rollout, [T, N]: of actions, and where episodes start.

    What an environment draws in its own step is not among it.
    """

    ahead = autoreset.fit_ahead(env, config.num_steps * config.num_envs)

    def one_step(key):
        key_action, key_env = jax.random.split(key)
        keys = jax.random.split(key_env, config.num_envs)
        draw = jax.vmap(
            lambda k: autoreset.draw_next(env, config.reset, starts, k, ahead)
        )
        return policy.noise(key_action, config.num_envs), draw(keys)

    return jax.vmap(one_step)(jax.random.split(key, config.num_steps))


def _reference_step(
    policy: Policy, reference: Reference | None, episodes: Episode, carry: Any
) -> tuple[Any, Any]:
    """What the frozen reference sees, by ITS normaliser, and ITS carry moved on.

    Without a recurrent core nothing of its network is computed here.
    """
    if reference is None:
        return None, carry
    inputs = policy_input(episodes, reference.obs_stats)
    _, carry = policy.mode(reference.params, inputs, carry)
    return inputs.obs, carry


def _reference_log_prob(
    policy: Policy, reference: Reference, stored: Stored, obs: Any
) -> jax.Array:
    """Log-prob under the reference, [T, N]: one large batch, not T small ones."""
    inputs = stored.inputs.replace(obs=obs)
    seen = stored.replace(inputs=inputs, carry=reference.carry)
    return policy.log_prob(reference.params, seen).joint_log_prob()


def episode_metrics(
    stats: EpisodeStats, config: Config, axis_name: AxisName = None
) -> Metrics:
    """Figures of the episodes that ended in this rollout: a sanity check only."""
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
