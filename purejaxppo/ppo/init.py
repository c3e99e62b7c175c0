"""The first state of training: episodes, parameters, a cloned policy."""

import dataclasses
from typing import Literal, NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp

from purejaxppo import autoreset, trees
from purejaxppo.autoreset import Episode
from purejaxppo.config import Hypers
from purejaxppo.ppo import coefficients, imitation, normalize, optim, reduce, shards
from purejaxppo.ppo.demonstrations import Demonstrations, without_faults
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.rollout import policy_input, rollout
from purejaxppo.ppo.types import Initial, Metrics, Reference, Task, TrainState

Parts = Literal["both", "policy", "critic"]
Tree = TypeVar("Tree")


class InitKeys(NamedTuple):
    """One key per consumer of `init`."""

    params: jax.Array
    envs: jax.Array
    demonstrations: jax.Array
    cloning: jax.Array
    training: jax.Array
    statistics: jax.Array


def _init_keys(key: jax.Array) -> InitKeys:
    return InitKeys(*jax.random.split(key, len(InitKeys._fields)))


def collect(task: Task, key: jax.Array) -> Demonstrations:
    """Collect the demonstrations that `init` would collect with that key."""
    return imitation.collect(task, _init_keys(key).demonstrations)


def initial_of(state: TrainState, parts: Parts = "both") -> Initial:
    """Select what another training can begin with.

    Args:
      state: a state of training, or its shapes.
      parts: the networks to take. The statistics of observations come with either of
        them, those of returns with the critic.
    """
    params, return_stats = state.params, state.return_stats
    if parts == "policy":
        params, return_stats = params.replace(critic=None), None
    elif parts == "critic":
        params = params.replace(policy=None)
    return Initial(params, state.obs_stats, return_stats)


def has_policy(initial: Initial | None) -> bool:
    """Return whether training begins with a given policy, which replaces cloning."""
    return initial is not None and initial.params.policy is not None


def init(
    task: Task,
    key: jax.Array,
    hypers: Hypers | None = None,
    demonstrations: Demonstrations | None = None,
    initial: Initial | None = None,
) -> tuple[TrainState, Metrics]:
    """Make the first state. If configured, collect demonstrations and clone them.

    Args:
      task: environment, policy and configuration.
      key: the random key of the whole training.
      hypers: the hyperparameters; None for those of the configuration.
      demonstrations: demonstrations to clone; None to collect them.
      initial: parameters and statistics to begin with. If it has a policy, there is no
        cloning, and that policy is the reference of an anchor.

    Returns:
      the state before the first update, and the metrics of cloning. Steps that cannot
      be cloned are left out, and counted by "cloning/refused".
    """
    config, env, policy = task.config, task.env, task.policy
    hypers = config.hypers if hypers is None else hypers
    keys = _init_keys(key)
    episodes = _first_episodes(task, keys.envs)
    params = policy.init(keys.params, policy_input(episodes, None))
    num_local = shards.num_local(config.num_envs, task.axis_name)
    zeros = jnp.zeros((num_local,), jnp.float32)
    return_stats = normalize.init(zeros[0]) if config.normalize_rewards else None
    obs_stats, metrics = _empty_statistics(task, episodes), {}
    if initial is not None:
        params = params.replace(
            policy=_given_or_own(initial.params.policy, params.policy),
            critic=_given_or_own(initial.params.critic, params.critic),
        )
        obs_stats = _given_or_own(initial.obs_stats, obs_stats)
        return_stats = _given_or_own(initial.return_stats, return_stats)
    is_new = initial is None or initial.obs_stats is None  # the statistics are empty
    is_cloned = config.num_demonstrations > 0 and not has_policy(initial)
    if is_cloned:
        if demonstrations is None:
            demonstrations = collect(task, key)
        num_steps = jnp.sum(demonstrations.valid)
        demonstrations = without_faults(env.spec.heads, demonstrations)
        refused = num_steps - jnp.sum(demonstrations.valid)
        if obs_stats is not None and is_new:
            obs_stats = imitation.observation_statistics(demonstrations)
        params, metrics = imitation.clone(
            task, params, obs_stats, demonstrations, keys.cloning
        )
        metrics["cloning/refused"] = refused.astype(jnp.float32)
        # Every device has cloned the same samples. Should a sum of one of them have had
        # another order, they would train different policies from here on.
        params = reduce.tree_mean(params, task.axis_name)
    carry = policy.initial_carry(num_local)
    state = TrainState(
        params=params,
        opt_state=optim.init(optim.optimizer(hypers, 0.0), params),
        obs_stats=obs_stats,
        return_stats=return_stats,
        discounted_return=zeros,
        episodes=episodes,
        carry=carry,
        reference=Reference(params, obs_stats, carry) if config.anchor else None,
        adaptive=coefficients.init_adaptive(env.spec.heads),
        key=keys.training,
        update_count=jnp.zeros((), jnp.int32),
        still_updates=jnp.zeros((), jnp.int32),
    )
    if config.normalize_observations == "running" and is_new and not is_cloned:
        first = _first_statistics(task, state, keys.statistics)
        state = state.replace(obs_stats=first)
    return state, metrics


def _given_or_own(given: Tree | None, own: Tree) -> Tree:
    """Return what is given; one's own if there is none, or no use for it."""
    if given is None or own is None:
        return own
    chex.assert_trees_all_equal_shapes_and_dtypes(given, own)
    return given


def _first_episodes(task: Task, key: jax.Array) -> Episode:
    config, env = task.config, task.env
    limit = autoreset.time_limit(env, config.train_episode_steps)
    keys = shards.own_rows(jax.random.split(key, config.num_envs), task.axis_name)
    return jax.vmap(
        lambda key: autoreset.init(env, config.reset, limit, config.stagger, key)
    )(keys)


def _first_statistics(
    task: Task, state: TrainState, key: jax.Array
) -> Statistics | None:
    """Return the statistics of observations under the initial policy.

    Without them the first rollout would not be normalised. The observations of resets
    are not enough: many elements do not vary between resets, others vary far less than
    later. So this is a whole rollout, whose other results are discarded; its T * N
    steps are not part of total_timesteps. Training starts at the same episodes.

    Args:
      task: environment, policy and configuration.
      state: the state before the first update, with empty statistics.
      key: the key of the rollout.
    """
    # A rollout cannot draw from a pool of starts, which an update would draw first.
    config = dataclasses.replace(task.config, reset="fresh")
    return rollout(task._replace(config=config), state, None, key)[-1]


def _empty_statistics(task: Task, episodes: Episode) -> Statistics | None:
    if task.config.normalize_observations == "off":
        return None
    return normalize.init(trees.take(episodes.state.obs, 0))
