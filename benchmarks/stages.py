"""Where the time of training goes: one configuration, taken apart.

`stages` gives the parts as callables that return when their results are there. Each
does the work of one update, B = T * N environment steps, from the same state each time:

- physics: C MuJoCo alone where the environment has it (`benchmarks.physics`); else the
  environment alone in a jitted scan, with random allowed actions and auto-reset.
- rollout: the policy and the environment, as an update collects it.
- update: epochs, losses and optimiser on a fixed batch, no environment.
- end_to_end: one whole update.

Where that is so little work that calling a program would be most of it, each call does
several, one after the other, as training does.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.peers import worker
from purejaxppo import autoreset
from purejaxppo.autoreset import Episode
from purejaxppo.check import random_action
from purejaxppo.config import Config
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

Work = Callable[[], Any]
_KEY = 2
_LEAST = 4096  # environment steps of one call


def several(once: Callable[..., Any], repeats: int) -> Callable[..., Any]:
    """`once`, (carry, key) -> (carry, out), that often in one program."""
    if repeats == 1:
        return once
    return lambda carry, key: jax.lax.scan(once, carry, jax.random.split(key, repeats))


def has_c_engine(learner: Learner) -> bool:
    """Whether the environment steps C MuJoCo."""
    return getattr(getattr(learner.task.env, "engine", None), "name", None) == "mujoco"


def physics_alone(
    learner: Learner, state: TrainState, compile: Compiler, repeats: int = 1
) -> Work:
    """What the other stages are compared with: all that is not PPO's."""
    if not has_c_engine(learner):
        return environment_alone(learner, state, compile, repeats)
    # Here, because not every Python environment of a peer has MuJoCo.
    from benchmarks.physics import replayed

    return replayed(learner, state, compile)


def environment_alone(
    learner: Learner, state: TrainState, compile: Compiler, repeats: int = 1
) -> Work:
    """The environment in a scan, with random allowed actions: no policy.

    As in a rollout, what can be drawn before the scan is: starts, and actions where no
    mask depends on the state.
    """
    env, config = learner.task.env, learner.task.config
    limit = autoreset.time_limit(env, config.train_episode_steps)
    masked = bool(state.episodes.state.action_mask)

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

    args = state.episodes, jax.random.key(_KEY)
    compiled = compile("environment", several(run, repeats), *args)
    return lambda: jax.block_until_ready(compiled(*args))


def rollout_alone(
    learner: Learner, state: TrainState, compile: Compiler, repeats: int = 1
) -> Work:
    """The rollout of an update."""
    env, config = learner.task.env, learner.task.config

    def run(state: TrainState, key: jax.Array):
        key_starts, key = jax.random.split(key)
        starts = autoreset.draw_starts(env, config.reset, config.num_starts, key_starts)
        return rollout(learner.task, state, starts, key)[:2]

    args = state, jax.random.key(_KEY)
    compiled = compile("rollout", several(run, repeats), *args)
    return lambda: jax.block_until_ready(compiled(*args))


def fixed_batch(learner: Learner, state: TrainState, compile: Compiler) -> Batch:
    """The batch of the state's next rollout."""
    env, config = learner.task.env, learner.task.config
    hypers = as_arrays(config.hypers)

    def collect(state: TrainState, key: jax.Array) -> Batch:
        starts = autoreset.draw_starts(env, config.reset, config.num_starts, key)
        after, transitions, _, _ = rollout(learner.task, state, starts, key)
        carry = state.carry["critic"]
        return make_batch(learner.task, after, transitions, carry, hypers)[0]

    args = state, jax.random.key(_KEY)
    return compile("batch", collect, *args)(*args)


def update_alone(
    learner: Learner,
    state: TrainState,
    batch: Batch,
    compile: Compiler,
    repeats: int = 1,
) -> Work:
    """Epochs over a fixed batch."""

    def run(state: TrainState, batch: Batch, hypers: Any, key: jax.Array):
        def once(state: TrainState, key: jax.Array):
            state, summary = optimise(learner.task, state, batch, hypers, key)
            return state, summary.logged

        return several(once, repeats)(state, key)

    args = state, batch, as_arrays(learner.task.config.hypers), jax.random.key(_KEY)
    compiled = compile("optimise", run, *args)
    return lambda: jax.block_until_ready(compiled(*args))


def first_state(learner: Learner, compile: Compiler, seed: int = 0) -> TrainState:
    """The state that training begins with, demonstrations cloned."""
    args = jax.random.key(seed), as_arrays(learner.task.config.hypers)
    return compile("init", learner.init, *args)(*args)[0]


def stages(
    learner: Learner, state: TrainState, whole: Work, compile: Compiler, repeats: int
) -> dict[str, Work]:
    """The parts and the whole, by name.

    Args:
      state: that the update is timed from; past the critic's warm-up, in mid-episode.
      whole: so many whole updates from that state.
      repeats: how many.
    """
    batch = fixed_batch(learner, state, compile)
    return {
        "physics": physics_alone(learner, state, compile, repeats),
        "rollout": rollout_alone(learner, state, compile, repeats),
        "update": update_alone(learner, state, batch, compile, repeats),
        "end_to_end": whole,
    }


def speed(config: Config, rounds: int) -> dict[str, Any]:
    """Steps/s of every stage, `rounds` times in turn, and the ratios to physics."""
    learner, hypers = make_learner(config), as_arrays(config.hypers)
    compile = Compiler(Progress())
    state = first_state(learner, compile)
    update = compile("update", learner.update, state, hypers)
    metrics: Metrics = {}
    for _ in range(config.critic_warmup + 4):
        state, metrics = update(state, hypers)
    repeats = 1 if has_c_engine(learner) else max(1, _LEAST // config.batch_size)
    call = update
    if repeats > 1:

        def updates(state: TrainState, hypers: Any) -> tuple[TrainState, Metrics]:
            return run_updates(learner.task, state, hypers, repeats)

        call = compile("updates", updates, state, hypers)
    whole = lambda: jax.block_until_ready(call(state, hypers))  # noqa: E731
    works = stages(learner, state, whole, compile, repeats)
    amount = config.batch_size * repeats
    tasks = {name: timing.timed(work, amount) for name, work in works.items()}
    rates = timing.interleave(tasks, rounds)
    return {
        "steps_per_second": timing.spreads(rates),
        "ratios": timing.ratios_over(rates, "physics"),
        "rounds": rounds,
        "updates_a_call": repeats,
        "physics_is": "mujoco.rollout" if has_c_engine(learner) else "environment",
        **described(config),
        "minibatches_run": float(metrics["update/minibatches"]),
        "compile_seconds": {"cold": compile.ledger["update"]},
    }


def described(config: Config) -> dict[str, Any]:
    """The sizes that a figure depends on."""
    return {
        "env": config.env,
        "num_envs": config.num_envs,
        "num_steps": config.num_steps,
        "num_epochs": config.epochs,
        "num_minibatches": config.num_minibatches,
        "networks": [list(config.hidden_sizes), list(config.critic_hidden_sizes)],
        "core": config.core,
        "threads": len(os.sched_getaffinity(0)),
    }


def training(config: Config) -> dict[str, Any]:
    """Train to the end: the return reached, and the peak memory of doing so.

    Its update is the one that `speed` compiled: it comes from the persistent cache.
    """
    learner, hypers = make_learner(config), as_arrays(config.hypers)
    compile = Compiler(Progress())
    state = first_state(learner, compile)
    update = compile("update", learner.update, state, hypers)
    begin = time.perf_counter()
    for _ in range(config.num_updates):
        state, _ = update(state, hypers)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - begin
    # Now: an evaluation may have more environments than training.
    memory = peak_memory_bytes()
    metrics = jax.jit(learner.evaluate)(state)
    names = ("eval/mean_return", f"eval/episode_{learner.task.env.spec.success}")
    return {
        "compile_seconds": {"cached": compile.ledger["update"]},
        "training": {
            "steps": config.num_updates * config.batch_size,
            "seconds": seconds,
            "peak_memory_bytes": memory,
            **{n: float(np.asarray(metrics[n])) for n in names if n in metrics},
        },
    }


def peak_memory_bytes() -> int:
    """Of the accelerator where there is one, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use") or worker.peak_memory_bytes())
