"""The learner: init, update, evaluate; and `make_train`, which scans them in one jit.

The command line runs the same `update` in jitted chunks: both are one computation.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxppo import autoreset
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Env
from purejaxppo.policy.policy import Policy, make_policy
from purejaxppo.ppo import evaluation, imitation, normalize, optim
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.imitation import Demonstrations
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import episode_metrics, policy_input, rollout
from purejaxppo.ppo.status import update_status
from purejaxppo.ppo.types import Metrics, Reference, TrainState
from purejaxppo.ppo.update import optimise
from purejaxppo.registry import make_env
from purejaxppo.validation import advice, validate, validate_heads


class InitKeys(NamedTuple):
    """One key per consumer of `init`."""

    params: jax.Array
    envs: jax.Array
    demonstrations: jax.Array
    cloning: jax.Array
    training: jax.Array


def _init_keys(key: jax.Array) -> InitKeys:
    return InitKeys(*jax.random.split(key, len(InitKeys._fields)))


class Learner(NamedTuple):
    """Pure functions over `TrainState`.

    Attributes:
      env, policy, config: what they were bound to.
      collect: (key) -> demonstrations, those that `init` would collect with that key.
      init: (key, hypers, demonstrations=None) -> (state, metrics). Collects
        demonstrations and clones them where the configuration asks for it.
      update: (state, hypers) -> (state, metrics). One rollout and its epochs.
      evaluate: (state, deterministic=True) -> metrics.
    """

    env: Env
    policy: Policy
    config: Config
    collect: Callable[[jax.Array], Demonstrations]
    init: Callable[..., tuple[TrainState, Metrics]]
    update: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[..., Metrics]


def as_arrays(hypers: Hypers) -> Hypers:
    """Every hyperparameter as a float32 array: a weak type would compile twice.

    Behind a barrier, so that XLA never sees a constant: it would fold one, a division
    into a product say, and round otherwise than where the same number is an argument.
    """
    hypers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hypers)
    return jax.lax.optimization_barrier(hypers)


def make_learner(
    config: Config, env: Env | None = None, axis_name: AxisName = None
) -> Learner:
    """Validate, build environment and policy, bind.

    Args:
      config: the static configuration; not changed.
      env: an environment to use instead of the one that `config.env` names.
      axis_name: the named axis over which environments are sharded, if any.

    Raises:
      ConfigError: before anything compiles.
    """
    validate(config)
    env = make_env(config.env, **config.env_kwargs) if env is None else env
    validate_heads(config, env.spec.heads)
    policy = make_policy(env.spec.heads, config)

    def collect(key: jax.Array) -> Demonstrations:
        return imitation.collect(env, config, _init_keys(key).demonstrations)

    def init(
        key: jax.Array,
        hypers: Hypers = config.hypers,
        demonstrations: Demonstrations | None = None,
    ) -> tuple[TrainState, Metrics]:
        keys = _init_keys(key)
        limit = autoreset.time_limit(env, config.train_episode_steps)
        episodes = jax.vmap(
            lambda key: autoreset.init(env, config.reset, limit, config.stagger, key)
        )(jax.random.split(keys.envs, config.num_envs))
        params = policy.init(keys.params, policy_input(episodes, None))
        obs_stats = None
        if config.normalize_observations != "off":
            example = jax.tree.map(lambda x: x[0], episodes.state.obs)
            obs_stats = normalize.init(example)
        metrics: Metrics = {}
        if config.num_demonstrations:
            if demonstrations is None:
                demonstrations = collect(key)
            if obs_stats is not None:
                obs_stats = imitation.observation_statistics(demonstrations)
            params, metrics = imitation.clone(
                policy, config, params, obs_stats, demonstrations, keys.cloning
            )
        zeros = jnp.zeros((config.num_envs,), jnp.float32)
        carry = policy.initial_carry(config.num_envs)
        state = TrainState(
            params=params,
            opt_state=optim.init(params, hypers),
            obs_stats=obs_stats,
            return_stats=normalize.init(zeros[0]) if config.normalize_rewards else None,
            discounted_return=zeros,
            episodes=episodes,
            carry=carry,
            reference=Reference(params, obs_stats, carry) if config.anchor else None,
            adaptive=optim.init_adaptive(env.spec.heads),
            key=keys.training,
            update_count=jnp.zeros((), jnp.int32),
        )
        return state, metrics

    def update(
        state: TrainState, hypers: Hypers = config.hypers
    ) -> tuple[TrainState, Metrics]:
        hypers = as_arrays(hypers)
        key, key_starts, key_rollout, key_epochs = jax.random.split(state.key, 4)
        critic_carry = state.carry["critic"]
        starts = autoreset.draw_starts(env, config.reset, config.num_starts, key_starts)
        state, transitions, stats, obs_stats = rollout(
            env, policy, config, state, starts, key_rollout, axis_name
        )
        batch, state, estimates = make_batch(
            policy, config, state, transitions, critic_carry, hypers, axis_name
        )
        freeze_policy = state.update_count < config.critic_warmup
        state, metrics = optimise(
            policy, config, state, batch, hypers, key_epochs, axis_name
        )
        metrics |= estimates | episode_metrics(stats, config, axis_name)
        metrics["status"] = update_status(
            metrics["ratio/first_minibatch_error"],
            metrics["ratio/last_epoch_std"],
            ~freeze_policy & (_steps_per_update(config) > 1),
            metrics["update/nonfinite"],
            metrics["train/no_valid_action"],
        )
        # Only now: the statistics that this rollout was sampled with served its update.
        state = state.replace(
            obs_stats=obs_stats, key=key, update_count=state.update_count + 1
        )
        return state, metrics

    def evaluate(state: TrainState, deterministic: bool = True) -> Metrics:
        return evaluation.evaluate(
            env,
            policy,
            config,
            state.params,
            state.obs_stats,
            deterministic=deterministic,
        )

    return Learner(env, policy, config, collect, init, update, evaluate)


def _steps_per_update(config: Config) -> int:
    steps = 1 if config.accumulate_gradients else config.num_minibatches
    return config.epochs * steps


def run_updates(
    learner: Learner, state: TrainState, hypers: Hypers, num_updates: int
) -> tuple[TrainState, Metrics]:
    """Scan the update; metrics are stacked, [num_updates]."""

    def body(state: TrainState, _: Any):
        return learner.update(state, hypers)

    return jax.lax.scan(body, state, length=num_updates)


def make_train(config: Config, env: Env | None = None) -> Callable[..., Any]:
    """Build `train(key, hypers=config.hypers) -> (TrainState, metrics)`.

    `train` is pure: jit it, vmap it over keys, vmap it over any leaf of `hypers`.
    Its metrics are those of every update, [num_updates], and under names that start
    with "eval" those of every evaluation, [num_evals]; "cloning/..." are scalars.

    Raises:
      ConfigError: the configuration cannot be used; before anything compiles.
    """
    learner = make_learner(config, env)
    for sentence in advice(config):
        warnings.warn(sentence, stacklevel=2)
    points = config.eval_points

    def train(
        key: jax.Array,
        hypers: Hypers = config.hypers,
        demonstrations: Demonstrations | None = None,
    ) -> tuple[TrainState, Metrics]:
        hypers = as_arrays(hypers)
        state, cloning = learner.init(key, hypers, demonstrations)
        if not points:
            state, metrics = run_updates(learner, state, hypers, config.num_updates)
            return state, cloning | metrics
        gap = config.num_updates // len(points)

        def until_eval(state: TrainState, _: Any):
            state, metrics = run_updates(learner, state, hypers, gap)
            return state, (metrics, learner.evaluate(state))

        # Updates that do not fill a gap come first: the last evaluation is the end.
        state, lead = run_updates(
            learner, state, hypers, config.num_updates - gap * len(points)
        )
        state, (rest, evals) = jax.lax.scan(until_eval, state, length=len(points))
        metrics = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b.reshape(-1)]), lead, rest
        )
        return state, cloning | metrics | evals

    return train
