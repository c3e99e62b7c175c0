"""Baselines: scheduling rules without learning.

Each baseline is (env, state, key) -> action, for one environment. A baseline only uses
information that the observation contains too.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, State
from purejaxppo.episodes import play_baseline as play_baseline

from . import rules
from .env import HEAD, Scheduler


class Baseline(Protocol):
    """A function that chooses an action of one environment."""

    def __call__(self, env: Scheduler, state: State, key: jax.Array, /) -> Action:
        """Choose an action.

        Args:
          env: the environment.
          state: its state, without a batch axis.
          key: a random key for this step.
        """
        ...


def _best_slot(score: jax.Array, allowed: jax.Array) -> Action:
    """Return the allowed slot with the highest score [J], or the no-op."""
    best = jnp.argmax(jnp.where(allowed, score, -jnp.inf)).astype(jnp.int32)
    return {HEAD: jnp.where(jnp.any(allowed), best + 1, 0)}


def random_feasible(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Draw any allowed action, including the no-op.

    Args:
      env, state, key: see `Baseline`.
    """
    del env
    mask = state.action_mask[HEAD]
    logits = jnp.where(mask, 0.0, -jnp.inf)
    return {HEAD: jax.random.categorical(key, logits).astype(jnp.int32)}


def random_job(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Draw any job that can start, or the no-op if there is none.

    Args:
      env, state, key: see `Baseline`.
    """
    del env
    startable = state.action_mask[HEAD][1:]
    return _best_slot(jax.random.uniform(key, startable.shape, jnp.float32), startable)


def _viable(env: Scheduler, state: State) -> tuple[rules.Queue, jax.Array]:
    """Return the queue, and which of its jobs can still be on time, bool [J]."""
    queue = rules.queue(state.data.board, env.limits)
    return queue, state.data.board.time + queue.duration <= queue.deadline


def earliest_deadline_first(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Start the job with the earliest deadline among those that can start.

    Jobs that can still be on time come first. Without this preference (Jackson 1955)
    the rule starts jobs that are late already, and its return is lower.

    Args:
      env, state, key: see `Baseline`.
    """
    del key
    queue, viable = _viable(env, state)
    score = jnp.where(viable, 0.0, -1e6) - queue.deadline.astype(jnp.float32)
    return _best_slot(score, queue.startable)


def plain_edf(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Start the job with the earliest deadline, even if it is late.

    Args:
      env, state, key: see `Baseline`.
    """
    del key
    queue, _ = _viable(env, state)
    return _best_slot(-queue.deadline.astype(jnp.float32), queue.startable)


def densest_first(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Start the job with the most weight per unit of resource and tick.

    Jobs that can still be on time come first.

    Args:
      env, state, key: see `Baseline`.
    """
    del key
    queue, viable = _viable(env, state)
    area = jnp.maximum(queue.duration * queue.need, 1).astype(jnp.float32)
    score = jnp.where(viable, 0.0, -1e6) + queue.weight / area
    return _best_slot(score, queue.startable)


def toy_schedule(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Follow an optimal schedule of the toy family: start good jobs, largest first.

    In each phase pairs of jobs arrive that fill a machine. The larger job of each pair
    needs at least half of the capacity, so it takes a machine alone. The resource left
    on that machine is exactly enough for the other job of the pair.

    Args:
      env, state, key: see `Baseline`.
    """
    del key
    queue, viable = _viable(env, state)
    area = (queue.duration * queue.need).astype(jnp.float32)
    good = viable & (queue.weight >= area)
    return _best_slot(queue.need.astype(jnp.float32), queue.startable & good)


BASELINES: dict[str, Baseline] = {
    "random_feasible": random_feasible,
    "random_job": random_job,
    "edf": earliest_deadline_first,
    "plain_edf": plain_edf,
    "densest": densest_first,
}
