"""Schedulers that do not learn, and what they score on given keys.

Each baseline is (env, state, key) -> action, for one environment. All read the
observation's facts from the board: they see the queue that a policy sees, not more.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, State
from purejaxppo.episodes import play_baseline as play_baseline

from . import rules
from .env import HEAD, Scheduler


class Baseline(Protocol):
    """What chooses an action in one environment."""

    def __call__(self, env: Scheduler, state: State, key: jax.Array, /) -> Action:
        """Chooses an action.

        Args:
          env: the environment.
          state: of it, without a batch axis.
          key: of this step, for baselines that draw.
        """
        ...


def _best_slot(score: jax.Array, allowed: jax.Array) -> Action:
    """The allowed slot of the highest score [J], the no-op where there is none."""
    best = jnp.argmax(jnp.where(allowed, score, -jnp.inf)).astype(jnp.int32)
    return {HEAD: jnp.where(jnp.any(allowed), best + 1, 0)}


def random_feasible(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Any allowed action, the no-op among them."""
    del env
    mask = state.action_mask[HEAD]
    logits = jnp.where(mask, 0.0, -jnp.inf)
    return {HEAD: jax.random.categorical(key, logits).astype(jnp.int32)}


def random_job(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Any job that can start; the no-op where there is none."""
    del env
    startable = state.action_mask[HEAD][1:]
    return _best_slot(jax.random.uniform(key, startable.shape, jnp.float32), startable)


def _viable(env: Scheduler, state: State) -> tuple[rules.Queue, jax.Array]:
    """The queue, and which of its jobs can still be on time, bool [J]."""
    queue = rules.queue(state.data.board, env.limits)
    return queue, state.data.board.time + queue.duration <= queue.deadline


def earliest_deadline_first(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Starts the job of the earliest deadline among those that can start.

    Jobs that can still be on time come before those that cannot: the plain rule
    (Jackson 1955) would start jobs first that are late already, and score less here.
    """
    del key
    queue, viable = _viable(env, state)
    score = jnp.where(viable, 0.0, -1e6) - queue.deadline.astype(jnp.float32)
    return _best_slot(score, queue.startable)


def plain_edf(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Starts the job of the earliest deadline, late or not."""
    del key
    queue, _ = _viable(env, state)
    return _best_slot(-queue.deadline.astype(jnp.float32), queue.startable)


def densest_first(env: Scheduler, state: State, key: jax.Array) -> Action:
    """Starts the job of the most weight per unit of resource and tick.

    Jobs that can still be on time come before those that cannot.
    """
    del key
    queue, viable = _viable(env, state)
    area = jnp.maximum(queue.duration * queue.need, 1).astype(jnp.float32)
    score = jnp.where(viable, 0.0, -1e6) + queue.weight / area
    return _best_slot(score, queue.startable)


def toy_schedule(env: Scheduler, state: State, key: jax.Array) -> Action:
    """The best schedule of the toy family: good jobs as they come, the largest first.

    Each phase brings pairs that fill a machine. Largest first, no two jobs of
    different pairs end up on one machine: those of at least half the capacity take
    a machine each, and what is left over there fits no larger job than the partner.
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
