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
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.harness import timing
from benchmarks.harness.timing import Work
from benchmarks.peers import worker
from benchmarks.prepared import Prepared, prepare, run_to_end
from purejaxppo import autoreset
from purejaxppo.autoreset import Episode
from purejaxppo.check import random_action
from purejaxppo.config import Config, Hypers
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.types import Batch, Metrics, TrainState
from purejaxppo.ppo.update import optimise, run_updates

Json = dict[str, Any]
_KEY = 2
_SIZES = ("env", "num_envs", "num_steps", "num_minibatches", "core")
_MIN_STEPS = 4096  # environment steps of one call that does not step C MuJoCo


def repeated(step: Callable[..., Any], repeats: int) -> Callable[..., Any]:
    """Repeat `step`, (carry, key) -> (carry, out), in one program."""
    if repeats == 1:
        return step
    return lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, repeats))


def random_rollout(prepared: Prepared) -> Callable[..., Any]:
    """Make (episodes, key) -> (episodes, outputs): random allowed actions, no policy.

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
            next_start = autoreset.draw_next(
                env, config.reset, starts, key_next, first=episode.first
            )
            if masked:
                return key_action, next_start
            return random_action(env, episode.state, key_action), next_start

        def one(episode: Episode, drawn: Any):
            action, next_start = drawn
            if masked:
                action = random_action(env, episode.state, action)
            return autoreset.step(env, episode, action, starts, limit, next_start)

        def step(episodes: Episode, drawn: Any):
            episodes, step = jax.vmap(one)(episodes, drawn)
            return episodes, (step.reward, step.terminated, step.final_obs)

        keys = jax.random.split(key_steps, (config.num_steps, config.num_envs))
        drawn = jax.vmap(lambda keys: jax.vmap(draw)(episodes, keys))(keys)
        return jax.lax.scan(step, episodes, drawn)

    return run


def physics_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """Make the stage that the others are compared with: all that is not PPO."""
    if prepared.has_c_engine:
        # Here, because not every Python environment of a peer has MuJoCo.
        from benchmarks.physics import replayed

        return replayed(prepared)
    run = repeated(random_rollout(prepared), repeats)
    args = prepared.state.episodes, jax.random.key(_KEY)
    return prepared.work("environment", run, *args)


def _collect(prepared: Prepared, state: TrainState, key: jax.Array):
    """Collect one rollout, with the starts that an update would draw."""
    env, config = prepared.env, prepared.config
    key_starts, key = jax.random.split(key)
    starts = autoreset.draw_starts(env, config.reset, config.num_starts, key_starts)
    return rollout(prepared.task, state, starts, key)


def rollout_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """Make the stage that collects the rollout of an update."""

    def run(state: TrainState, key: jax.Array):
        return _collect(prepared, state, key)[:2]

    args = prepared.state, jax.random.key(_KEY)
    return prepared.work("rollout", repeated(run, repeats), *args)


def fixed_batch(prepared: Prepared) -> Batch:
    """Collect the batch of the state's next rollout."""

    def collect(state: TrainState, hypers: Hypers, key: jax.Array) -> Batch:
        after, transitions, *_ = _collect(prepared, state, key)
        carry = state.carry["critic"]
        return make_batch(prepared.task, after, transitions, carry, hypers)[0]

    args = prepared.state, prepared.hypers, jax.random.key(_KEY)
    return prepared.compile("batch", collect, *args)(*args)


def epochs(prepared: Prepared, repeats: int) -> Callable[..., Any]:
    """Make (state, batch, hypers, key) -> (state, metrics): updates on one batch."""

    def run(state: TrainState, batch: Batch, hypers: Hypers, key: jax.Array):
        def update(state: TrainState, key: jax.Array):
            state, summary = optimise(prepared.task, state, batch, hypers, key)
            return state, summary.logged

        return repeated(update, repeats)(state, key)

    return run


def update_alone(prepared: Prepared, repeats: int = 1) -> Work:
    """Make the stage that trains the epochs on a fixed batch."""
    batch, key = fixed_batch(prepared), jax.random.key(_KEY)
    args = prepared.state, batch, prepared.hypers, key
    return prepared.work("optimise", epochs(prepared, repeats), *args)


def end_to_end(prepared: Prepared, repeats: int = 1) -> Work:
    """Make the stage of whole updates; one alone is the program that training runs."""
    args = prepared.state, prepared.hypers
    if repeats == 1:
        return functools.partial(run_to_end, prepared.update, *args)

    def run(state: TrainState, hypers: Hypers) -> tuple[TrainState, Metrics]:
        return run_updates(prepared.task, state, hypers, repeats)

    return prepared.work("updates", run, *args)


STAGES: dict[str, Callable[[Prepared, int], Work]] = {
    "physics": physics_alone,
    "rollout": rollout_alone,
    "update": update_alone,
    "end_to_end": end_to_end,
}


def speed(config: Config, rounds: int) -> Json:
    """Time the stages in turn, `rounds` times: steps/s and ratios to physics."""
    prepared, metrics = prepare(config), {}
    # Past the critic's warm-up, and in mid-episode.
    for _ in range(config.critic_warmup + 4):
        state, metrics = prepared.update(prepared.state, prepared.hypers)
        prepared = prepared._replace(state=state)
    repeats = 1 if prepared.has_c_engine else max(1, _MIN_STEPS // config.batch_size)
    amount = config.batch_size * repeats
    tasks = {
        name: timing.timed(make_work(prepared, repeats), amount)
        for name, make_work in STAGES.items()
    }
    return {
        **timing.figures(timing.interleave(tasks, rounds), "physics"),
        "rounds": rounds,
        "updates_a_call": repeats,
        "physics_is": "mujoco.rollout" if prepared.has_c_engine else "environment",
        **{name: getattr(config, name) for name in _SIZES},
        "num_epochs": config.epochs,
        "networks": [config.hidden_sizes, config.critic_hidden_sizes],
        "threads": len(os.sched_getaffinity(0)),
        "minibatches_run": float(metrics["update/minibatches"]),
        "first_minibatch_error": float(metrics["ratio/first_minibatch_error"]),
        "compile_seconds": {"cold": prepared.compile.ledger["update"]},
    }


def training(config: Config) -> Json:
    """Train to the end: the return that it reaches, and the peak memory.

    Its update is the one that `speed` compiled: it comes from the persistent cache.
    """
    prepared = prepare(config)
    state = prepared.state
    begin = time.perf_counter()
    for _ in range(config.num_updates):
        state, _ = prepared.update(state, prepared.hypers)
    jax.block_until_ready(state)
    trained: Json = {
        "steps": config.num_updates * config.batch_size,
        "seconds": time.perf_counter() - begin,
        # Now: an evaluation may have more environments than training.
        "peak_memory_bytes": peak_memory_bytes(),
    }
    metrics = jax.jit(prepared.learner.evaluate)(state)
    names = {"eval/mean_return", f"eval/episode_{prepared.env.spec.success}"}
    trained |= {n: float(np.asarray(metrics[n])) for n in names & set(metrics)}
    return {
        "compile_seconds": {"cached": prepared.compile.ledger["update"]},
        "training": trained,
    }


def peak_memory_bytes() -> int:
    """Peak memory of the accelerator where there is one, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use") or worker.peak_memory_bytes())
