"""Episodes without end: one wrapper, three kinds of start, the true last observation.

A step that ends an episode returns the observation it really ended in (`final_obs`),
for the value bootstrap, and the state of the next episode beside it.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Action, Env, Obs, State, executed

Reset = Literal["fresh", "pool", "cached"]


class Episode(struct.PyTreeNode):
    """One environment in the middle of an episode. No batch axis; `vmap` adds it."""

    state: State
    start: jax.Array  # bool [], no step of this episode has been taken
    age: jax.Array  # int32 [], steps against the time limit; random at first
    length: jax.Array  # int32 [], steps taken
    total_reward: jax.Array  # float32 []
    first: State | None  # the cached start, for reset "cached" alone


class Step(struct.PyTreeNode):
    """What one step brought, before any reset. No batch axis."""

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: Obs  # the true next observation, also where the episode was reset
    episode_return: jax.Array  # of the episode that ended here, if one did
    episode_length: jax.Array
    metrics: dict[str, jax.Array]
    start_index: jax.Array  # int32 [], which start of the pool was taken


class Starts(struct.PyTreeNode):
    """K states that episodes may start from, [K, ...]."""

    states: State


class Next(struct.PyTreeNode):
    """Where the next episode of one environment would start. No batch axis."""

    state: State | None  # for reset "fresh", drawn ahead
    key: jax.Array | None  # for reset "fresh", not drawn ahead
    index: jax.Array  # int32 [], of the pool; 0 without one


# What the starts of a whole rollout may take if they are drawn ahead. Most states have
# a few hundred bytes; one with MJX's whole `Data` in it has up to a hundred thousand.
_MOST_BYTES = 2**29


def draw_starts(
    env: Env, kind: Reset, num_starts: int, key: jax.Array
) -> Starts | None:
    """The pool of an update, drawn once; None where resets do not use one.

    Args:
      env: one environment.
      kind: of reset.
      num_starts: K, how many starts the pool has.
      key: of the draw.
    """
    if kind != "pool":
        return None
    return Starts(jax.vmap(env.reset)(jax.random.split(key, num_starts)))


def time_limit(env: Env, train_episode_steps: int) -> int | None:
    """The shorter of the two limits that there are, None where there is none."""
    limits = [train_episode_steps or None, env.spec.max_episode_steps]
    return min((limit for limit in limits if limit is not None), default=None)


def init(
    env: Env, kind: Reset, limit: int | None, stagger: bool, key: jax.Array
) -> Episode:
    """The first episode of one environment.

    Args:
      env: one environment.
      kind: of reset.
      limit: steps after which an episode is cut, None for no limit.
      stagger: give the episode a random age, so that the first episodes of many
        environments are cut at different steps.
      key: of the start and the age.
    """
    key_reset, key_age = jax.random.split(key)
    state = env.reset(key_reset)
    age = jnp.zeros((), jnp.int32)
    if stagger and limit is not None:
        age = jax.random.randint(key_age, (), 0, limit, jnp.int32)
    return Episode(
        state=state,
        start=jnp.ones((), bool),
        age=age,
        length=jnp.zeros((), jnp.int32),
        total_reward=jnp.zeros((), jnp.float32),
        first=state if kind == "cached" else None,
    )


def fit_ahead(env: Env, num: int) -> bool:
    """Whether `num` starts that are drawn ahead take an acceptable share of RAM."""
    state = jax.eval_shape(env.reset, jax.random.key(0))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return num * size <= _MOST_BYTES


def draw_next(
    env: Env,
    kind: Reset,
    starts: Starts | None,
    key: jax.Array,
    draw_ahead: bool = True,
) -> Next:
    """Draws the next start of one environment, should its episode end.

    Before it is known whether one does, so that those of a whole rollout can be drawn
    as one batch: random numbers are many tiny kernels, which inside the scan of steps
    cost more than the policy's network.

    Args:
      env: one environment.
      kind: of reset.
      starts: the pool [K] of this update, where there is one.
      key: of the draw.
      draw_ahead: draw a fresh start here; else the step that needs it draws it, from
        the same key and so the same.
    """
    state, later_key, index = None, None, jnp.zeros((), jnp.int32)
    if starts is not None:
        num = jax.tree.leaves(starts.states)[0].shape[0]
        index = jax.random.randint(key, (), 0, num, jnp.int32)
    elif kind == "fresh" and draw_ahead:
        state = env.reset(key)
    elif kind == "fresh":
        later_key = key
    return Next(state, later_key, index)


def _next_state(
    env: Env, episode: Episode, starts: Starts | None, following: Next
) -> State:
    if starts is not None:
        return trees.take(starts.states, following.index)
    if following.key is not None:
        return env.reset(following.key)
    state = episode.first if following.state is None else following.state
    assert state is not None  # "cached" has the one, "fresh" the other
    return state


def step(
    env: Env,
    episode: Episode,
    action: Action,
    starts: Starts | None,
    limit: int | None,
    following: Next,
) -> tuple[Episode, Step]:
    """Step one environment, and start a new episode where this one ended.

    Args:
      env: one environment.
      episode: before the step.
      action: head -> that head's action, as the policy chose it.
      starts: the pool [K] of this update, where there is one.
      limit: steps after which the episode is truncated, None for no limit.
      following: the start that is taken where the episode ends.

    Returns:
      the episode after the step, the next one where this one ended; and what the step
      brought, before any reset.
    """
    state = env.step(episode.state, executed(env.spec, action))
    age = episode.age + 1
    truncated = state.truncated if limit is None else state.truncated | (age >= limit)
    truncated &= ~state.terminated  # an end by the rules is not a cut
    done = state.terminated | truncated
    total_reward = episode.total_reward + state.reward
    length = episode.length + 1
    fresh = _next_state(env, episode, starts, following)
    after = episode.replace(
        state=trees.where(done, fresh, state),
        start=done,
        age=jnp.where(done, 0, age),
        length=jnp.where(done, 0, length),
        total_reward=jnp.where(done, 0.0, total_reward),
    )
    return after, Step(
        reward=state.reward,
        terminated=state.terminated,
        truncated=truncated,
        final_obs=state.obs,
        episode_return=total_reward,
        episode_length=length,
        metrics=state.metrics,
        start_index=following.index,
    )
