"""Where the time of training goes: one configuration, taken apart.

Each stage does the work of one update, B = T * N environment steps, from the same state
each time:

- physics: C MuJoCo alone where the environment has it (`benchmarks.physics`); else the
  environment alone in a jitted scan, with random allowed actions and auto-reset.
- rollout: the policy and the environment, as an update collects it.
- update: epochs, losses and optimiser on a fixed batch, no environment.
- end_to_end: one whole update.

Where that is so little work that calling a program would be most of it, each call does
several, one after the other, as training does.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import timing
from benchmarks.harness.timing import Work
from benchmarks.peers import worker
from purejaxppo import autoreset
from purejaxppo.autoreset import Episode
from purejaxppo.check import random_action
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Env
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.learner import (
    Learner,
    as_arrays,
    make_learner,
    optimise,
    run_updates,
)
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.types import Batch, Metrics, TrainState
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress

Json = dict[str, Any]
_KEY = 2
_LEAST = 4096  # environment steps of one call


class Prepared(NamedTuple):
    """A learner, its compiled update, and the state to measure from.

    Attributes:
      compile: keeps the seconds of all that is compiled with it.
      update: (state, hypers) -> (state, metrics).
    """

    learner: Learner
    hypers: Hypers
    compile: Compiler
    update: Callable[..., tuple[TrainState, Metrics]]
    state: TrainState

    env = property(lambda self: self.learner.task.env)
    config = property(lambda self: self.learner.task.config)

    @property
    def has_c_engine(self) -> bool:
        """Whether the environment steps C MuJoCo."""
        return getattr(getattr(self.env, "engine", None), "name", None) == "mujoco"

    def work(self, name: str, f: Callable[..., Any], *args: Any) -> Work:
        """A call of the compiled `f` that returns when its results are there."""
        return functools.partial(_wait, self.compile(name, f, *args), *args)


def prepare(config: Config, env: Env | None = None) -> Prepared:
    """The state that training begins with, demonstrations cloned."""
    learner, hypers = make_learner(config, env), as_arrays(config.hypers)
    compile = Compiler(Progress())
    args = jax.random.key(0), hypers
    state, _ = compile("init", learner.init, *args)(*args)
    update = compile("update", learner.update, state, hypers)
    return Prepared(learner, hypers, compile, update, state)


def repeated(once: Callable[..., Any], repeats: int) -> Callable[..., Any]:
    """`once`, (carry, key) -> (carry, out), that often in one program."""
    if repeats == 1:
        return once
    return lambda carry, key: jax.lax.scan(once, carry, jax.random.split(key, repeats))


def random_rollout(prepared: Prepared) -> Callable[..., Any]:
    """(episodes, key) -> (episodes, what is seen): random allowed actions, no policy.

    As in a rollout, what can be drawn before the scan is: starts, and actions where no
    mask depends on the state.
    """
    env, config = prepared.env, prepared.config
    limit = autoreset.time_limit(env, config.train_episode_steps)
    masked = bool(prepared.state.episodes.state.action_mask)

    def run(episodes: Episode, key: jax.Array):
        key_starts, key_steps = jax.random.split(key)
        starts = autoreset.draw_starts(env, config.reset, config.num_starts, key_starts)

        def draw(episode: Episode, key: jax.Array):
            key_action, key_next = jax.random.split(key)
            following = autoreset.draw_next(env, config.reset, starts, key_next)
            if masked:
                return key_action, following
            return random_action(env, episode.state, key_action), following

        def one(episode: Episode, drawn: Any):
            action, following = drawn
            if masked:
                action = random_action(env, episode.state, action)
            return autoreset.step(env, episode, action, starts, limit, following)

        def step(episodes: Episode, drawn: Any):
            episodes, step = jax.vmap(one)(episodes, drawn)
            return episodes, (step.reward, step.terminated, step.final_obs)

        keys = jax.random.split(key_steps, (config.num_steps, config.num_envs))
        drawn = jax.vmap(lambda keys: jax.vmap(draw)(episodes, keys))(keys)
        return jax.lax.scan(step, episodes, drawn)

    return run


def physics_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """What the other stages are compared with: all that is not PPO's."""
    if prepared.has_c_engine:
        # Here, because not every Python environment of a peer has MuJoCo.
        from benchmarks.physics import replayed

        return replayed(prepared)
    run = repeated(random_rollout(prepared), repeats)
    args = prepared.state.episodes, jax.random.key(_KEY)
    return prepared.work("environment", run, *args)


def _collect(prepared: Prepared, state: TrainState, key: jax.Array):
    """One rollout: the state after it, transitions, and what else it gives."""
    env, config = prepared.env, prepared.config
    key_starts, key = jax.random.split(key)
    starts = autoreset.draw_starts(env, config.reset, config.num_starts, key_starts)
    return rollout(prepared.learner.task, state, starts, key)


def rollout_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """The rollout of an update."""

    def run(state: TrainState, key: jax.Array):
        return _collect(prepared, state, key)[:2]

    args = prepared.state, jax.random.key(_KEY)
    return prepared.work("rollout", repeated(run, repeats), *args)


def fixed_batch(prepared: Prepared) -> Batch:
    """The batch of the state's next rollout."""

    def collect(state: TrainState, hypers: Hypers, key: jax.Array) -> Batch:
        after, transitions, *_ = _collect(prepared, state, key)
        carry = state.carry["critic"]
        task = prepared.learner.task
        return make_batch(task, after, transitions, carry, hypers)[0]

    args = prepared.state, prepared.hypers, jax.random.key(_KEY)
    return prepared.compile("batch", collect, *args)(*args)


def epochs(prepared: Prepared, repeats: int) -> Callable[..., Any]:
    """(state, batch, hypers, key) -> (state, metrics): updates on a fixed batch."""

    def run(state: TrainState, batch: Batch, hypers: Hypers, key: jax.Array):
        def once(state: TrainState, key: jax.Array):
            task = prepared.learner.task
            state, summary = optimise(task, state, batch, hypers, key)
            return state, summary.logged

        return repeated(once, repeats)(state, key)

    return run


def update_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """Epochs over a fixed batch."""
    batch, key = fixed_batch(prepared), jax.random.key(_KEY)
    args = prepared.state, batch, prepared.hypers, key
    return prepared.work("optimise", epochs(prepared, repeats), *args)


def whole_updates(prepared: Prepared, repeats: int = 1) -> Work:
    """Whole updates; a single one is the program that training compiled."""
    learner, args = prepared.learner, (prepared.state, prepared.hypers)
    if repeats == 1:
        return functools.partial(_wait, prepared.update, *args)

    def run(state: TrainState, hypers: Hypers) -> tuple[TrainState, Metrics]:
        return run_updates(learner.task, state, hypers, repeats)

    return prepared.work("updates", run, *args)


STAGES: dict[str, Callable[[Prepared, int], Work]] = {
    "physics": physics_alone,
    "rollout": rollout_alone,
    "update": update_alone,
    "end_to_end": whole_updates,
}


def speed(config: Config, rounds: int, names: Sequence[str] = tuple(STAGES)) -> Json:
    """Steps/s of stages in turn, and their ratios to the first.

    Args:
      config: of the training.
      rounds: how often each is timed.
      names: of the stages.
    """
    prepared, metrics = prepare(config), {}
    # Past the critic's warm-up, and in mid-episode.
    for _ in range(config.critic_warmup + 4):
        state, metrics = prepared.update(prepared.state, prepared.hypers)
        prepared = prepared._replace(state=state)
    least = 1 if prepared.has_c_engine else _LEAST
    repeats = max(1, least // config.batch_size)
    amount = config.batch_size * repeats
    tasks = {
        name: timing.timed(STAGES[name](prepared, repeats), amount) for name in names
    }
    return {
        **timing.figures(timing.interleave(tasks, rounds), names[0]),
        "rounds": rounds,
        "updates_a_call": repeats,
        "physics_is": "mujoco.rollout" if prepared.has_c_engine else "environment",
        **described(config),
        "minibatches_run": float(metrics["update/minibatches"]),
        "first_minibatch_error": float(metrics["ratio/first_minibatch_error"]),
        "peak_memory_bytes": peak_memory_bytes(),
        "compile_seconds": {"cold": prepared.compile.ledger["update"]},
    }


def seeds(config: Config, counts: Sequence[int], rounds: int) -> Json:
    """Seeds trained side by side by one program, in steps/s of all.

    Args:
      config: of each seed.
      counts: how many seeds.
      rounds: how often each number of seeds is timed.
    """
    learner, hypers = make_learner(config), as_arrays(config.hypers)
    tasks = {}
    for count in counts:
        keys = jax.vmap(jax.random.key)(jnp.arange(count))
        states = jax.jit(jax.vmap(lambda key: learner.init(key, hypers)[0]))(keys)
        update = jax.jit(jax.vmap(learner.update, in_axes=(0, None)))
        work = functools.partial(_wait, update, states, hypers)
        tasks[f"{count} seeds"] = timing.timed(work, count * config.batch_size)
    return {
        **timing.figures(timing.interleave(tasks, rounds), f"{counts[0]} seeds"),
        "rounds": rounds,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _wait(f: Callable[..., Any], *args: Any) -> Any:
    """The results of `f`, once they are there."""
    return jax.block_until_ready(f(*args))


def described(config: Config) -> Json:
    """The sizes that a figure depends on."""
    names = ("env", "num_envs", "num_steps", "num_minibatches", "core")
    return {
        **{name: getattr(config, name) for name in names},
        "num_epochs": config.epochs,
        "networks": [config.hidden_sizes, config.critic_hidden_sizes],
        "threads": len(os.sched_getaffinity(0)),
    }


def training(config: Config) -> Json:
    """Train to the end: the return reached, and the peak memory of doing so.

    Its update is the one that `speed` compiled: it comes from the persistent cache.
    """
    prepared = prepare(config)
    learner, hypers, compile, update, state = prepared
    begin = time.perf_counter()
    for _ in range(config.num_updates):
        state, _ = update(state, hypers)
    jax.block_until_ready(state)
    trained: Json = {
        "steps": config.num_updates * config.batch_size,
        "seconds": time.perf_counter() - begin,
        # Now: an evaluation may have more environments than training.
        "peak_memory_bytes": peak_memory_bytes(),
    }
    metrics = jax.jit(learner.evaluate)(state)
    names = {"eval/mean_return", f"eval/episode_{prepared.env.spec.success}"}
    trained |= {n: float(np.asarray(metrics[n])) for n in names & set(metrics)}
    return {
        "compile_seconds": {"cached": compile.ledger["update"]},
        "training": trained,
    }


def peak_memory_bytes() -> int:
    """Of the accelerator where there is one, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use") or worker.peak_memory_bytes())
