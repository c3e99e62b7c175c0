"""Auto-reset: when an episode ends, the next one starts in the same step.

A step that ends an episode returns both the last observation of that episode
(`final_obs`, for the value bootstrap) and the first state of the next episode.

An episode is truncated before a step whose observation or reward is not finite or too
large (`quarantine`), so that no such number leaves this module.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import quarantine, trees
from purejaxppo.env import Action, Env, Obs, State, executed

Reset = Literal["fresh", "pool", "cached"]


class Episode(struct.PyTreeNode):
    """One environment in the middle of an episode. No batch axis; `vmap` adds it."""

    state: State
    start: jax.Array  # bool [], no step of this episode has been taken
    age: jax.Array  # int32 [], steps counted towards the time limit; random at first
    length: jax.Array  # int32 [], steps taken
    total_reward: jax.Array  # float32 []
    first: State | None  # the cached first state; None unless reset is "cached"
    unstable: jax.Array  # bool [], its first observation was replaced in part


class Step(struct.PyTreeNode):
    """The results of one step, before any reset. No batch axis."""

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: Obs  # the true next observation, even if the episode was reset
    episode_return: jax.Array  # float32 [], sum of rewards of the episode so far
    episode_length: jax.Array  # int32 [], steps of the episode so far
    metrics: dict[str, jax.Array]
    start_index: jax.Array  # int32 [], index in the pool of the next episode's start
    unstable: jax.Array  # bool [], it, or the start that it was taken from, was broken


class Starts(struct.PyTreeNode):
    """The pool of K states that episodes may start from, [K, ...]."""

    states: State


class NextStart(struct.PyTreeNode):
    """The start of an environment's next episode, if one ends. No batch axis."""

    state: State | None  # for reset "fresh" if it was drawn before the rollout
    key: jax.Array | None  # for reset "fresh" if the step draws the state itself
    index: jax.Array  # int32 [], index in the pool; 0 without a pool
    # The typed random keys that replace those of the state, for "pool" and "cached".
    random_keys: tuple[jax.Array, ...] = ()


# Memory limit for drawing all starts of a rollout before it. Most states have a few
# hundred bytes; a state that contains MJX's whole `Data` has up to a hundred thousand.
_MAX_BYTES = 2**29

# Under JAX's partitionable threefry fold_in(key, i) equals split(key, n)[i]; this is
# none of the keys that `randint` splits for the index of a start.
_LUCK_STREAM = 2**31 - 1


def draw_starts(
    env: Env, kind: Reset, num_starts: int, key: jax.Array
) -> Starts | None:
    """Draw the pool of starts of one update; return None unless `kind` is "pool".

    Args:
      env: one environment.
      kind: the kind of reset.
      num_starts: K, the number of starts in the pool.
      key: the random key of the draw.
    """
    if kind != "pool":
        return None
    return Starts(jax.vmap(env.reset)(jax.random.split(key, num_starts)))


def time_limit(env: Env, train_episode_steps: int) -> int | None:
    """Return the shorter of training's and the environment's time limit, in steps.

    A training limit of 0 means that training has none. The result is None if neither
    limit is set.
    """
    limits = [train_episode_steps or None, env.spec.max_episode_steps]
    return min((limit for limit in limits if limit is not None), default=None)


def init(
    env: Env, kind: Reset, limit: int | None, stagger: bool, key: jax.Array
) -> Episode:
    """Start the first episode of one environment.

    Args:
      env: one environment.
      kind: the kind of reset.
      limit: steps after which an episode is truncated, None for no limit.
      stagger: give the episode a random age, so that the first episodes of the
        environments are truncated at different steps.
      key: the random key of the start and the age.
    """
    key_reset, key_age = jax.random.split(key)
    first = env.reset(key_reset)
    state, unstable = _repaired(first)
    age = jnp.zeros((), jnp.int32)
    if stagger and limit is not None:
        age = jax.random.randint(key_age, (), 0, limit, jnp.int32)
    return Episode(
        state=state,
        start=jnp.ones((), bool),
        age=age,
        length=jnp.zeros((), jnp.int32),
        total_reward=jnp.zeros((), jnp.float32),
        first=first if kind == "cached" else None,
        unstable=unstable,
    )


def _repaired(start: State) -> tuple[State, jax.Array]:
    """Replace the unusable numbers of a first observation; return if there are any."""
    unstable = ~quarantine.is_usable(start.obs)
    return start.replace(obs=quarantine.replace_unusable(start.obs)), unstable


def can_draw_ahead(env: Env, num: int) -> bool:
    """Return whether `num` start states fit into the memory limit."""
    state = jax.eval_shape(env.reset, jax.random.key(0))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return num * size <= _MAX_BYTES


def draw_next(
    env: Env,
    kind: Reset,
    starts: Starts | None,
    key: jax.Array,
    draw_ahead: bool = True,
    first: State | None = None,
) -> NextStart:
    """Draw the start that one environment uses if its episode ends in a given step.

    It is drawn whether or not the episode ends, so that the starts of a whole rollout
    are drawn as one batch: random numbers take many small kernels, which inside the
    scan over steps would cost more than the policy's network.

    Two episodes from one start of the pool, or from the cached one, have different
    luck: this key is folded into every typed random key of the start's state.

    Args:
      env: one environment.
      kind: the kind of reset.
      starts: the pool [K] of this update; None unless `kind` is "pool".
      key: the random key of the draw.
      draw_ahead: draw a fresh start here. If False, the step that needs it draws the
        same start from the same key.
      first: the cached start; None unless `kind` is "cached".
    """
    state, reset_key, index = None, None, jnp.zeros((), jnp.int32)
    random_keys = ()
    if starts is not None:
        num = jax.tree.leaves(starts.states)[0].shape[0]
        index = jax.random.randint(key, (), 0, num, jnp.int32)
        pooled = trees.take(_random_keys(starts.states), index)
        random_keys = _fold_in_luck(pooled, key)
    elif kind == "cached":
        assert first is not None
        random_keys = _fold_in_luck(_random_keys(first), key)
    elif kind == "fresh" and draw_ahead:
        state = env.reset(key)
    elif kind == "fresh":
        reset_key = key
    return NextStart(state, reset_key, index, random_keys)


def _is_random_key(leaf: object) -> bool:
    is_array = isinstance(leaf, jax.Array)
    return is_array and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _random_keys(state: State) -> tuple[jax.Array, ...]:
    """Return the leaves of a state that are typed random keys."""
    return tuple(leaf for leaf in jax.tree.leaves(state) if _is_random_key(leaf))


def _fold_in_luck(
    random_keys: tuple[jax.Array, ...], key: jax.Array
) -> tuple[jax.Array, ...]:
    """Fold one number, drawn from the key of an episode, into all of these keys."""
    luck = jax.random.bits(jax.random.fold_in(key, _LUCK_STREAM))
    fold_in = jax.vmap(jax.random.fold_in, (0, None))
    return tuple(fold_in(x.reshape(-1), luck).reshape(x.shape) for x in random_keys)


def _with_random_keys(state: State, random_keys: tuple[jax.Array, ...]) -> State:
    """Replace the typed random keys of a state, in the order of its leaves."""
    if not random_keys:
        return state
    remaining = iter(random_keys)
    return jax.tree.map(lambda x: next(remaining) if _is_random_key(x) else x, state)


def _next_state(
    env: Env, episode: Episode, starts: Starts | None, next_start: NextStart
) -> State:
    if starts is not None:
        state = trees.take(starts.states, next_start.index)
        return _with_random_keys(state, next_start.random_keys)
    if next_start.key is not None:
        return env.reset(next_start.key)
    state = episode.first if next_start.state is None else next_start.state
    assert state is not None  # "cached" sets episode.first, "fresh" next_start.state
    return _with_random_keys(state, next_start.random_keys)


def step(
    env: Env,
    episode: Episode,
    action: Action,
    starts: Starts | None,
    limit: int | None,
    next_start: NextStart,
) -> tuple[Episode, Step]:
    """Step one environment, and start a new episode if the current one ends.

    Args:
      env: one environment.
      episode: the current episode, before the step.
      action: head name -> that head's action, as the policy chose it.
      starts: the pool [K] of this update; None unless the reset is "pool".
      limit: steps after which the episode is truncated, None for no limit.
      next_start: the start of the new episode.

    Returns:
      the episode after the step (the new one if the current one ended), and the
      results of the step before any reset.
    """
    stepped, out = advance(env, episode, action, limit)
    done = out.terminated | out.truncated
    fresh, fresh_unstable = _repaired(_next_state(env, episode, starts, next_start))
    next_episode = stepped.replace(
        state=trees.where(done, fresh, stepped.state),
        start=done,
        age=jnp.where(done, 0, stepped.age),
        length=jnp.where(done, 0, stepped.length),
        total_reward=jnp.where(done, 0.0, stepped.total_reward),
        unstable=done & fresh_unstable,
    )
    return next_episode, out.replace(start_index=next_start.index)


def advance(
    env: Env, episode: Episode, action: Action, limit: int | None
) -> tuple[Episode, Step]:
    """Step one environment; an episode that ends is not reset.

    A step is broken if its observation or reward cannot be used. It truncates the
    episode, pays nothing, and leaves observation and metrics as they were before it,
    so that the value of the last usable observation is bootstrapped from. Of a start,
    entries of the observation that cannot be used are replaced by 0.

    Args:
      env: one environment.
      episode: the current episode, before the step.
      action: head name -> that head's action, as the policy chose it.
      limit: steps after which the episode is truncated, None for no limit.

    Returns:
      the episode after the step, and the results of the step. Of an episode that has
      ended, observation and metrics are those of the results.
    """
    before, state = episode.state, env.step(episode.state, executed(env.spec, action))
    broken = ~quarantine.is_usable((state.obs, state.reward))
    reward = jnp.where(broken, 0.0, state.reward)
    terminated = state.terminated & ~broken
    age = episode.age + 1
    truncated = state.truncated if limit is None else state.truncated | (age >= limit)
    truncated = (truncated & ~state.terminated) | broken  # a step is never both
    total_reward = episode.total_reward + reward
    length = episode.length + 1
    stepped = episode.replace(
        state=state,
        start=jnp.zeros((), bool),
        age=age,
        length=length,
        total_reward=total_reward,
        unstable=jnp.zeros((), bool),
    )
    return stepped, Step(
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        final_obs=trees.where(broken, before.obs, state.obs),
        episode_return=total_reward,
        episode_length=length,
        metrics=trees.where(broken, before.metrics, state.metrics),
        start_index=jnp.zeros((), jnp.int32),
        unstable=broken | episode.unstable,
    )
