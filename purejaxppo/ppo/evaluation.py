"""Evaluation of a policy on fixed blocks of seeds, separate from training episodes."""

import jax
import jax.numpy as jnp

from purejaxppo import episodes, trees
from purejaxppo.config import Config
from purejaxppo.env import Action, Env, State
from purejaxppo.episodes import Act, Played
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Carries, Params, Policy
from purejaxppo.ppo import normalize, reduce, shards
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.types import Metrics, Task


def make_act(
    policy: Policy,
    params: Params,
    obs_stats: Statistics | None,
    *,
    deterministic: bool = True,
) -> Act[Carries]:
    """Make the function that chooses a policy's actions, for `episodes.play`.

    Args:
      policy: the policy's functions.
      params: the policy's parameters.
      obs_stats: statistics to normalise observations [D] by; None to not normalise.
      deterministic: take the mode of the policy; if False, sample with noise from the
        key of each episode.
    """

    def act(
        carry: Carries, states: State, start: jax.Array, keys: jax.Array
    ) -> tuple[Action, Carries]:
        inputs = PolicyInput(
            obs=normalize.apply(obs_stats, states.obs),
            start=start,
            action_mask=states.action_mask,
            active=states.active,
        )
        if deterministic:
            return policy.mode(params, inputs, carry)
        noise = trees.take(jax.vmap(lambda key: policy.noise(key, 1))(keys), 0, axis=1)
        action, _, _, carry = policy.sample(params, inputs, carry, noise)
        return action, carry

    return act


def play_policy(
    env: Env,
    policy: Policy,
    params: Params,
    obs_stats: Statistics | None,
    keys: jax.Array,
    *,
    deterministic: bool = True,
) -> Played:
    """Play one episode from each key with a policy.

    Args:
      env: one environment.
      policy: the policy's functions.
      params: the policy's parameters.
      obs_stats: statistics to normalise observations [D] by, or None.
      keys: [E], one per episode.
      deterministic: take the mode of the policy; if False, sample.
    """
    act = make_act(policy, params, obs_stats, deterministic=deterministic)
    return episodes.play(env, act, keys, policy.initial_carry(keys.shape[0]))


def evaluate(
    task: Task,
    params: Params,
    obs_stats: Statistics | None,
    *,
    deterministic: bool = True,
) -> Metrics:
    """Evaluate the policy on `eval_blocks` blocks of `eval_episodes` episodes.

    The episodes start from the same keys in every call and every run. Each device plays
    its share of them, and their results alone are gathered.

    Args:
      task: the environment, the policy and the configuration of the blocks.
      params: the policy's parameters.
      obs_stats: statistics to normalise observations [D] by, or None.
      deterministic: take the mode of the policy; if False, sample.

    Returns:
      name -> float32 [], the names beginning with "eval" or "eval_stochastic".
    """
    keys = episode_keys(task.config)
    own = shards.own_rows(_filled_up(keys, task.axis_name), task.axis_name)
    played = play_policy(
        task.env, task.policy, params, obs_stats, own, deterministic=deterministic
    )
    played = shards.all_rows(played, task.axis_name)
    played = trees.take(played, slice(keys.shape[0]))
    prefix = "eval" if deterministic else "eval_stochastic"
    return block_statistics(played, task.config.eval_blocks, prefix)


def _filled_up(keys: jax.Array, axis_name: AxisName) -> jax.Array:
    """Repeat the first keys at the end, so that every device has equally many."""
    num = keys.shape[0]
    missing = -num % reduce.num_devices(axis_name)
    return keys[jnp.arange(num + missing) % num] if missing else keys


def episode_keys(config: Config) -> jax.Array:
    """Return the keys of all episodes of an evaluation, those of block 0 first."""
    num = config.eval_blocks * config.eval_episodes
    return jax.random.split(jax.random.key(config.eval_seed), num)


def block_statistics(played: Played, num_blocks: int, prefix: str) -> Metrics:
    """Compute the mean, the worst block and each block of return and metrics.

    Args:
      played: E episodes, of which the first E / `num_blocks` are block 0.
      num_blocks: number of blocks of equal size.
      prefix: the first part of all names.
    """
    metrics = {
        f"{prefix}/episode_length": jnp.mean(played.length.astype(jnp.float32)),
        f"{prefix}/start": jnp.mean(played.start),
    }
    figures = {"return": played.episode_return, **played.metrics}
    for name, values in figures.items():
        blocks = jnp.mean(values.reshape(num_blocks, -1), axis=1)
        mean_name = "mean_return" if name == "return" else f"episode_{name}"
        metrics[f"{prefix}/{mean_name}"] = jnp.mean(blocks)
        metrics[f"{prefix}/min_block_{name}"] = jnp.min(blocks)
        for index in range(num_blocks):
            metrics[f"{prefix}/block{index}_{name}"] = blocks[index]
    return metrics
