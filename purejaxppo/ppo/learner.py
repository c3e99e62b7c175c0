"""The learner: init, update, evaluate; and `make_train`, which scans them in one jit.

Free functions with the task first, `make_learner` validates and binds. The command
line runs the same `update` in jitted chunks: both are one computation.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from purejaxppo import autoreset, trees
from purejaxppo.autoreset import Episode
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Env
from purejaxppo.policy.policy import make_policy
from purejaxppo.ppo import coefficients as coefficients_lib
from purejaxppo.ppo import evaluation, imitation, normalize, optim
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.epochs import run_epochs
from purejaxppo.ppo.imitation import Demonstrations
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.reduce import AxisName
from purejaxppo.ppo.rollout import episode_metrics, policy_input, rollout
from purejaxppo.ppo.status import update_status
from purejaxppo.ppo.summary import Summary, summarise
from purejaxppo.ppo.types import Batch, Metrics, Reference, Task, TrainState
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


def as_arrays(hypers: Hypers) -> Hypers:
    """Every hyperparameter as a float32 array: a weak type would compile twice.

    Behind a barrier, so that XLA never sees a constant: it would fold one, a division
    into a product say, and round otherwise than where the same number is an argument.
    """
    hypers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hypers)
    return jax.lax.optimization_barrier(hypers)


def make_task(
    config: Config, env: Env | None = None, axis_name: AxisName = None
) -> Task:
    """Validate the configuration, build environment and policy.

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
    return Task(env, make_policy(env.spec.heads, config), config, axis_name)


def collect(task: Task, key: jax.Array) -> Demonstrations:
    """The demonstrations that `init` would collect with that key."""
    return imitation.collect(task, _init_keys(key).demonstrations)


def init(
    task: Task,
    key: jax.Array,
    hypers: Hypers | None = None,
    demonstrations: Demonstrations | None = None,
) -> tuple[TrainState, Metrics]:
    """The first state. Collects demonstrations and clones them where asked to.

    Args:
      task: what is trained.
      key: of everything random in the whole of training.
      hypers: the numbers of PPO; None: those of the configuration.
      demonstrations: to clone instead of collecting them.

    Returns:
      the state before the first update, and the metrics of cloning.
    """
    config, env, policy = task.config, task.env, task.policy
    hypers = config.hypers if hypers is None else hypers
    keys = _init_keys(key)
    episodes = _first_episodes(task, keys.envs)
    params = policy.init(keys.params, policy_input(episodes, None))
    obs_stats, metrics = _empty_statistics(task, episodes), {}
    if config.num_demonstrations:
        if demonstrations is None:
            demonstrations = collect(task, key)
        if obs_stats is not None:
            obs_stats = imitation.observation_statistics(demonstrations)
        params, metrics = imitation.clone(
            task, params, obs_stats, demonstrations, keys.cloning
        )
    zeros = jnp.zeros((config.num_envs,), jnp.float32)
    carry = policy.initial_carry(config.num_envs)
    state = TrainState(
        params=params,
        opt_state=optim.init(optim.optimizer(hypers, 0.0), params),
        obs_stats=obs_stats,
        return_stats=normalize.init(zeros[0]) if config.normalize_rewards else None,
        discounted_return=zeros,
        episodes=episodes,
        carry=carry,
        reference=Reference(params, obs_stats, carry) if config.anchor else None,
        adaptive=coefficients_lib.init_adaptive(env.spec.heads),
        key=keys.training,
        update_count=jnp.zeros((), jnp.int32),
    )
    return state, metrics


def _first_episodes(task: Task, key: jax.Array) -> Episode:
    config, env = task.config, task.env
    limit = autoreset.time_limit(env, config.train_episode_steps)
    return jax.vmap(
        lambda key: autoreset.init(env, config.reset, limit, config.stagger, key)
    )(jax.random.split(key, config.num_envs))


def _empty_statistics(task: Task, episodes: Episode) -> Statistics | None:
    if task.config.normalize_observations == "off":
        return None
    return normalize.init(trees.take(episodes.state.obs, 0))


def update(
    task: Task, state: TrainState, hypers: Hypers | None = None
) -> tuple[TrainState, Metrics]:
    """One update: roll out, estimate advantages, optimise, measure.

    Args:
      task: what is trained.
      state: from `init` or the update before.
      hypers: the numbers of PPO; None: those of the configuration.

    Returns:
      the state for the next update, and the metrics of this one.
    """
    hypers = as_arrays(task.config.hypers if hypers is None else hypers)
    key, key_starts, key_rollout, key_epochs = jax.random.split(state.key, 4)
    before, config = state, task.config
    starts = autoreset.draw_starts(
        task.env, config.reset, config.num_starts, key_starts
    )
    state, transitions, episodes, obs_stats = rollout(task, state, starts, key_rollout)
    batch, state, estimates = make_batch(
        task, state, transitions, before.carry["critic"], hypers
    )
    state, summary = optimise(task, state, batch, hypers, key_epochs)
    metrics = summary.logged | estimates | episode_metrics(task, episodes)
    metrics["status"] = update_status(
        summary, _policy_moves(task, before), metrics["train/no_valid_action"]
    )
    # Only now: the statistics that this rollout was sampled with served its update.
    state = state.replace(
        obs_stats=obs_stats, key=key, update_count=state.update_count + 1
    )
    return state, metrics


def optimise(
    task: Task, state: TrainState, batch: Batch, hypers: Hypers, key: jax.Array
) -> tuple[TrainState, Summary]:
    """The epochs of one update, and what follows from them for the next.

    Args:
      task: what is trained.
      state: after the rollout.
      batch: what is learned from, [L, M].
      hypers: the numbers of PPO, as arrays.
      key: of the order of samples.

    Returns:
      the state with new parameters, optimiser and adaptive factors, and a summary.
    """
    coefficients = coefficients_lib.coefficients(task, state, hypers)
    after, outcomes = run_epochs(task, state, batch, coefficients, hypers, key)
    summary = summarise(outcomes, coefficients)
    adaptive = coefficients_lib.adapt(
        task, state, hypers, summary.approx_kl, summary.head_entropy
    )
    return after.replace(adaptive=adaptive), summary


def _policy_moves(task: Task, state: TrainState) -> jax.Array:
    """Whether ratios should leave 1 in this update: not while the critic warms up, and
    not where a single step follows the only look at them."""
    warm = state.update_count >= task.config.critic_warmup
    return warm & (_steps_per_update(task.config) > 1)


def _steps_per_update(config: Config) -> int:
    steps = 1 if config.accumulate_gradients else config.num_minibatches
    return config.epochs * steps


def evaluate(task: Task, state: TrainState, deterministic: bool = True) -> Metrics:
    """Figures of the policy on the fixed seed blocks of evaluation.

    Args:
      task: environment, policy, and the blocks' configuration.
      state: its parameters and observation statistics.
      deterministic: the mode of the policy, or samples from it.
    """
    return evaluation.evaluate(
        task, state.params, state.obs_stats, deterministic=deterministic
    )


def run_updates(
    task: Task, state: TrainState, hypers: Hypers, num_updates: int
) -> tuple[TrainState, Metrics]:
    """Scan the update.

    Args:
      task: what is trained.
      state: before the first of these updates.
      hypers: the numbers of PPO.
      num_updates: how many.

    Returns:
      the state after them, and the metrics of each, [num_updates].
    """

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return update(task, state, hypers)

    return jax.lax.scan(body, state, length=num_updates)


class Learner(NamedTuple):
    """The functions of this module, bound to a task.

    Attributes:
      task: environment, policy, configuration.
      collect: (key) -> demonstrations.
      init: (key, hypers=None, demonstrations=None) -> (state, metrics).
      update: (state, hypers=None) -> (state, metrics).
      evaluate: (state, deterministic=True) -> metrics.
    """

    task: Task
    collect: Callable[[jax.Array], Demonstrations]
    init: Callable[..., tuple[TrainState, Metrics]]
    update: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[..., Metrics]


def make_learner(
    config: Config, env: Env | None = None, axis_name: AxisName = None
) -> Learner:
    """Validate, build environment and policy, bind.

    Args:
      config, env, axis_name: see `make_task`.

    Raises:
      ConfigError: before anything compiles.
    """
    task = make_task(config, env, axis_name)
    return Learner(
        task=task,
        collect=functools.partial(collect, task),
        init=functools.partial(init, task),
        update=functools.partial(update, task),
        evaluate=functools.partial(evaluate, task),
    )


class Train(Protocol):
    """What `make_train` returns: pure, so jit it, vmap it over keys or hypers."""

    def __call__(
        self,
        key: jax.Array,
        hypers: Hypers = ...,
        demonstrations: Demonstrations | None = None,
    ) -> tuple[TrainState, Metrics]: ...


def make_train(config: Config, env: Env | None = None) -> Train:
    """Build `train(key, hypers=config.hypers) -> (TrainState, metrics)`.

    `train` is pure: jit it, vmap it over keys, vmap it over any leaf of `hypers`.
    Its metrics are those of every update, [num_updates], and under names that start
    with "eval" those of every evaluation, [num_evals]; "cloning/..." are scalars.

    Raises:
      ConfigError: the configuration cannot be used; before anything compiles.
    """
    task = make_task(config, env)
    for sentence in advice(config):
        warnings.warn(sentence, stacklevel=2)

    def train(
        key: jax.Array,
        hypers: Hypers = config.hypers,
        demonstrations: Demonstrations | None = None,
    ) -> tuple[TrainState, Metrics]:
        hypers = as_arrays(hypers)
        state, cloning = init(task, key, hypers, demonstrations)
        state, metrics = _train(task, state, hypers)
        return state, cloning | metrics

    return train


def _train(task: Task, state: TrainState, hypers: Hypers) -> tuple[TrainState, Metrics]:
    """All updates, with an evaluation after each of the points of the configuration."""
    num_updates, points = task.config.num_updates, task.config.eval_points
    if not points:
        return run_updates(task, state, hypers, num_updates)
    gap = num_updates // len(points)

    def until_eval(state: TrainState, _: None):
        state, metrics = run_updates(task, state, hypers, gap)
        return state, (metrics, evaluate(task, state))

    # Updates that do not fill a gap come first: the last evaluation is the end.
    state, lead = run_updates(task, state, hypers, num_updates - gap * len(points))
    state, (rest, evals) = jax.lax.scan(until_eval, state, length=len(points))
    metrics = jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1)]), lead, rest)
    return state, metrics | evals
