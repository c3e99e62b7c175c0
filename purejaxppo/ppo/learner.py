"""The learner: `make_learner` binds init, update, evaluate; `make_train` scans them.

Free functions with the task first; `make_learner` validates and binds. The command line
runs the same `update` in jitted chunks: both are one computation.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from purejaxppo.config import Config, Hypers
from purejaxppo.env import Env
from purejaxppo.policy.policy import make_policy
from purejaxppo.ppo import evaluation
from purejaxppo.ppo import mesh as mesh_lib
from purejaxppo.ppo.demonstrations import Demonstrations
from purejaxppo.ppo.init import collect, has_policy, init
from purejaxppo.ppo.types import Initial, Metrics, Task, TrainState
from purejaxppo.ppo.update import as_arrays, run_updates, update
from purejaxppo.registry import make_env
from purejaxppo.validation import (
    advice,
    validate,
    validate_first_policy,
    validate_heads,
)


def make_task(config: Config, env: Env | None = None) -> Task:
    """Validate the configuration; make the environment and the policy.

    Args:
      config: the static configuration.
      env: an environment to use instead of the one that `config.env` names.

    Raises:
      ConfigError: before anything compiles.
    """
    validate(config)
    env = make_env(config.env, **config.env_kwargs) if env is None else env
    validate_heads(config, env.spec.heads)
    return Task(env, make_policy(env.spec.heads, config), config)


def evaluate(task: Task, state: TrainState, deterministic: bool = True) -> Metrics:
    """Evaluate the policy on the fixed blocks of seeds.

    Args:
      task: environment, policy and the configuration of the blocks.
      state: the state with the policy's parameters and observation statistics.
      deterministic: take the mode of the policy; if False, sample.
    """
    return evaluation.evaluate(
        task, state.params, state.obs_stats, deterministic=deterministic
    )


class Learner(NamedTuple):
    """The functions of this module, bound to a task, and sharded over a mesh if any.

    Arguments and results are global arrays: their shapes and meaning do not depend on
    the mesh.

    Attributes:
      task: environment, policy, configuration.
      collect: (key) -> demonstrations.
      init: (key, hypers=None, demonstrations=None, initial=None) -> (state, metrics).
      update: (state, hypers=None) -> (state, metrics).
      evaluate: (state, deterministic=True) -> metrics.
    """

    task: Task
    collect: Callable[[jax.Array], Demonstrations]
    init: Callable[..., tuple[TrainState, Metrics]]
    update: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[..., Metrics]


def make_learner(
    config: Config, env: Env | None = None, mesh: Mesh | None = None
) -> Learner:
    """Validate the configuration, and bind the functions of PPO to its task.

    Args:
      config, env: see `make_task`.
      mesh: see `make_train`.

    Raises:
      ConfigError: before anything compiles.
    """
    task = make_task(config, env)
    bound = Learner(
        task=task,
        collect=functools.partial(collect, task),
        init=functools.partial(init, task),
        update=functools.partial(update, task),
        evaluate=functools.partial(evaluate, task),
    )
    return bound if mesh is None else _sharded(bound, mesh)


def _sharded(learner: Learner, mesh: Mesh) -> Learner:
    """Shard the functions of a learner over the environments of a mesh."""
    task = learner.task._replace(axis_name=mesh_lib.ENVS)
    shard = functools.partial(mesh_lib.shard, task, mesh)
    states, same = mesh_lib.state_specs(task.config), PartitionSpec()

    def shard_init(
        key: jax.Array,
        hypers: Hypers | None = None,
        demonstrations: Demonstrations | None = None,
        initial: Initial | None = None,
    ) -> tuple[TrainState, Metrics]:
        first = shard(functools.partial(init, task), same, (states, same))
        return first(key, hypers, demonstrations, initial)

    def shard_update(
        state: TrainState, hypers: Hypers | None = None
    ) -> tuple[TrainState, Metrics]:
        one = shard(functools.partial(update, task), (states, same), (states, same))
        return one(state, hypers)

    def shard_evaluate(state: TrainState, deterministic: bool = True) -> Metrics:
        play = functools.partial(evaluate, task, deterministic=deterministic)
        return shard(play, (states,), same)(state)

    return Learner(
        task=learner.task,
        collect=shard(learner.collect, same, same),
        init=shard_init,
        update=shard_update,
        evaluate=shard_evaluate,
    )


class Train(Protocol):
    """The function that `make_train` returns. It is pure, so it can be vmapped."""

    def __call__(
        self,
        key: jax.Array,
        hypers: Hypers = ...,
        demonstrations: Demonstrations | None = None,
        initial: Initial | None = None,
    ) -> tuple[TrainState, Metrics]: ...


def make_train(
    config: Config, env: Env | None = None, mesh: Mesh | None = None
) -> Train:
    """Make `train(key, hypers=config.hypers) -> (TrainState, metrics)`.

    `train` is pure: it can be jitted, and vmapped over keys and over any leaf of
    `hypers`. Metrics of updates are [num_updates], metrics of evaluations, whose names
    begin with "eval", are [num_evals], and "cloning/..." are scalars.

    A pure function cannot stop: after a demonstrator that never succeeds
    "cloning/demonstrations" and "cloning/samples" are 0, and PPO starts from a random
    policy. "cloning/refused" counts the steps that were left out because their numbers
    are not finite, above 1e8, out of range or masked.

    `train(key, initial=initial_of(state))` goes on from the parameters of an earlier
    training (see `ppo.init`), whose policy then is not cloned. The configuration is
    taken as it is: a critic that comes along may need no `critic_warmup`.

    With `mesh=jax.make_mesh((4,), ("envs",))` the environments of one training are
    sharded over four devices, and gradients and statistics are averaged over them:
    the results are those of one device up to float rounding, and the state has the same
    shapes. `jax.vmap(train)` gives every device its share of each seed. On a mesh with
    a second axis, ("seeds", "envs"), `jax.vmap(train, spmd_axis_name="seeds")` shards
    the seeds too.
    The devices may belong to several processes, each of which calls
    `jax.distributed.initialize()` first, and then the same program.

    Args:
      config: the static configuration; `num_envs` counts those of all devices.
      env: an environment to use instead of the one that `config.env` names.
      mesh: devices with an axis "envs", whose size divides the groups of environments
        (see `mesh.num_groups`); None for one device.

    Raises:
      ConfigError: the configuration cannot be used; before anything compiles.
    """
    task = make_task(config, env)
    run = functools.partial(_train, task)
    if mesh is not None:
        sharded = task._replace(axis_name=mesh_lib.ENVS)
        same = PartitionSpec()
        results = (mesh_lib.state_specs(config), same)
        run = mesh_lib.shard(
            task, mesh, functools.partial(_train, sharded), same, results
        )
    for sentence in advice(config, task.env.spec):
        warnings.warn(sentence, stacklevel=2)

    def train(
        key: jax.Array,
        hypers: Hypers = config.hypers,
        demonstrations: Demonstrations | None = None,
        initial: Initial | None = None,
    ) -> tuple[TrainState, Metrics]:
        validate_first_policy(config, has_policy(initial))
        return run(key, as_arrays(hypers), demonstrations, initial)

    return train


def _train(
    task: Task,
    key: jax.Array,
    hypers: Hypers,
    demonstrations: Demonstrations | None,
    initial: Initial | None,
) -> tuple[TrainState, Metrics]:
    """Make the first state, and train from it; see `make_train`."""
    state, cloning = init(task, key, hypers, demonstrations, initial)
    state, metrics = _train_from(task, state, hypers)
    return state, cloning | metrics


def _train_from(
    task: Task, state: TrainState, hypers: Hypers
) -> tuple[TrainState, Metrics]:
    """Run all updates, and an evaluation at each of the configuration's points."""
    num_updates, points = task.config.num_updates, task.config.eval_points
    if not points:
        return run_updates(task, state, hypers, num_updates)
    gap = num_updates // len(points)

    def until_eval(state: TrainState, _: None):
        state, metrics = run_updates(task, state, hypers, gap)
        return state, (metrics, evaluate(task, state))

    # The remainder of the division comes first, so that the last evaluation comes after
    # the last update.
    state, lead = run_updates(task, state, hypers, num_updates - gap * len(points))
    state, (rest, evals) = jax.lax.scan(until_eval, state, length=len(points))
    metrics = jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1)]), lead, rest)
    return state, metrics | evals
