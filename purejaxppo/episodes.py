"""Play whole episodes, for the evaluation of policies and baselines.

One episode is played from each key, all in parallel, without auto-reset and without
gradients. Steps after the end of an episode are not counted.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo import quarantine, trees
from purejaxppo.env import Action, Env, Obs, State, executed
from purejaxppo.trees import Tree

# Time limit if neither the environment nor the caller sets one.
MAX_STEPS = 10_000

# Keys of actions are derived from fold_in(key, ACTION_STREAM), not from fold_in(key,
# step): under JAX's partitionable threefry split(key, n)[i] equals fold_in(key, i), so
# the action at step i would use a key that `reset` may have used already.
ACTION_STREAM = 2**31 - 1

Carry = TypeVar("Carry")
# (carry, states [E], start bool [E], keys [E]) -> (actions [E], carry). `start` is True
# at the first step of an episode; every leaf of the carry has the leading axis E.
Act = Callable[[Carry, State, jax.Array, jax.Array], tuple[Action, Carry]]
# (environment, state, key) -> action. A baseline may require a class of environments.
EnvType = TypeVar("EnvType", bound=Env)
Baseline = Callable[[EnvType, State, jax.Array], Action]


class Played(struct.PyTreeNode):
    """The results of one episode for each key, [E].

    Attributes:
      episode_return: float32 [E], undiscounted sum of rewards.
      length: int32 [E], number of steps.
      metrics: name -> float32 [E], at the last step of each episode.
      ended: bool [E], False if the episode was stopped by `max_steps`.
      start: float32 [E], mean absolute entry of the first observation: the same
        figures say that it was the same start.
    """

    episode_return: jax.Array
    length: jax.Array
    metrics: dict[str, jax.Array]
    ended: jax.Array
    start: jax.Array

    def figures(self) -> dict[str, jax.Array]:
        """Collect return, length and metrics by name, [E] each."""
        numbers = {"return": self.episode_return, "length": self.length}
        return numbers | self.metrics


class _Running(struct.PyTreeNode, Generic[Carry]):
    """The loop's carry; all but `step` have the leading axis E."""

    state: State
    carry: Carry  # the state of `act`
    key: jax.Array  # key from which each episode's actions are drawn
    played: Played
    step: jax.Array  # int32 []


def play(
    env: Env,
    act: Act[Carry],
    keys: jax.Array,
    carry: Carry,
    *,
    max_steps: int | None = None,
) -> Played:
    """Play one episode from each key until all have ended.

    A few episodes may be much longer than the others, so when a quarter of the episodes
    are left, only these are stepped.

    An episode also ends at a step whose observation or reward cannot be used (not
    finite, or above 1e8): the step counts in its length, and neither its reward nor its
    metrics do. Such entries of a first observation are 0 to the player.

    Args:
      env: one environment; it is batched here.
      act: chooses actions, (carry, states [E], start [E], keys [E]) -> (actions [E],
        carry). It must work for any number E of environments.
      keys: [E], one key per episode, which is passed to `env.reset`.
      carry: the first carry of `act`, leaves [E, ...]; () if it has none.
      max_steps: time limit in steps; None for the environment's, or `MAX_STEPS`.
    """
    num_last = keys.shape[0] // 4
    limit = _limit(env, max_steps)
    run = _begin(env, keys, carry)
    run = _play_until(env, act, run, num_last, limit)
    if not num_last:
        return run.played
    index = jnp.argsort(run.played.ended, stable=True)[:num_last]
    remaining = jax.tree.map(lambda x: x[index] if x.ndim else x, run)
    remaining = _play_until(env, act, remaining, 0, limit)
    return jax.tree.map(
        lambda all_episodes, last: all_episodes.at[index].set(last),
        run.played,
        remaining.played,
    )


def _start(obs: Obs, num: int) -> jax.Array:
    rows = jnp.concatenate([x.reshape(num, -1) for x in jax.tree.leaves(obs)], axis=1)
    return jnp.mean(jnp.abs(rows), axis=1)


def _limit(env: Env, max_steps: int | None) -> int:
    return max_steps or env.spec.max_episode_steps or MAX_STEPS


def _begin(env: Env, keys: jax.Array, carry: Carry) -> _Running[Carry]:
    """Reset one environment for each key."""
    num = keys.shape[0]
    states = jax.vmap(env.reset)(keys)
    states = states.replace(obs=quarantine.replace_unusable(states.obs))
    return _Running(
        state=states,
        carry=carry,
        key=jax.vmap(jax.random.fold_in, (0, None))(keys, ACTION_STREAM),
        played=Played(
            episode_return=jnp.zeros((num,), jnp.float32),
            length=jnp.zeros((num,), jnp.int32),
            metrics=states.metrics,
            ended=jnp.zeros((num,), bool),
            start=_start(states.obs, num),
        ),
        step=jnp.zeros((), jnp.int32),
    )


def _play_until(
    env: Env, act: Act[Carry], run: _Running[Carry], num_left: int, limit: int
) -> _Running[Carry]:
    """Step all episodes until at most `num_left` have not ended, or to the limit."""

    def must_continue(run: _Running[Carry]) -> jax.Array:
        return (jnp.sum(~run.played.ended) > num_left) & (run.step < limit)

    return jax.lax.while_loop(must_continue, lambda run: _step(env, act, run)[0], run)


def _step(
    env: Env, act: Act[Carry], run: _Running[Carry]
) -> tuple[_Running[Carry], Action]:
    """Step every environment; the results of ended episodes do not change.

    The second result is the executed actions.
    """
    played = run.played
    keys = jax.vmap(jax.random.fold_in, (0, None))(run.key, run.step)
    start = jnp.full(played.ended.shape, run.step == 0)
    action, carry = act(run.carry, run.state, start, keys)
    action = executed(env.spec, action)
    state = jax.vmap(env.step)(run.state, action)
    broken = ~jax.vmap(quarantine.is_usable)((state.obs, state.reward))
    # A selection, not a product: the reward after an episode's end may be NaN.
    reward = jnp.where(played.ended | broken, 0.0, state.reward)
    run = _Running(
        state=state,
        carry=carry,
        key=run.key,
        played=played.replace(
            episode_return=played.episode_return + reward,
            length=played.length + (~played.ended).astype(jnp.int32),
            metrics=trees.where(played.ended | broken, played.metrics, state.metrics),
            ended=played.ended | state.terminated | state.truncated | broken,
        ),
        step=run.step + 1,
    )
    return run, action


class Recorded(NamedTuple):
    """One episode of T steps on the host, as `RenderedEnv.render` takes it.

    Attributes:
      states: [T + 1], NumPy arrays; typed random keys are replaced by their data.
      actions: [T], NumPy arrays, as they were executed.
      episode_return: undiscounted sum of rewards.
    """

    states: State
    actions: Action
    episode_return: float

    @property
    def length(self) -> int:
        return len(self.states.reward) - 1


def record(
    env: Env,
    act: Act[Carry],
    key: jax.Array,
    carry: Carry,
    *,
    max_steps: int | None = None,
) -> Recorded:
    """Play one episode as `play` does, and keep all of its states and actions.

    It steps on the host, because the length is not known before.

    Args:
      env: one environment.
      act: as for `play`; it is called with E = 1.
      key: the key of the episode, [].
      carry: the first carry of `act`, leaves [1, ...]; () if it has none.
      max_steps: time limit in steps; None for the environment's, or `MAX_STEPS`.
    """
    limit = _limit(env, max_steps)
    step = jax.jit(lambda run: _step(env, act, run))
    run = jax.jit(lambda keys, carry: _begin(env, keys, carry))(key[None], carry)
    states, actions = [_first_on_host(run.state)], []
    while not run.played.ended[0] and len(actions) < limit:
        run, action = step(run)
        states.append(_first_on_host(run.state))
        actions.append(_first_on_host(action))
    return Recorded(
        _stack(states), _stack(actions), float(run.played.episode_return[0])
    )


def _first_on_host(tree: Tree) -> Tree:
    """Return the first of E environments as NumPy arrays, random keys as their data."""

    def data(x: jax.Array) -> jax.Array:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(lambda x: x[0], jax.device_get(jax.tree.map(data, tree)))


def _stack(steps: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *steps)


def play_baseline(
    env: EnvType,
    baseline: Baseline[EnvType],
    keys: jax.Array,
    *,
    max_steps: int | None = None,
) -> dict[str, jax.Array]:
    """Play a stateless baseline; return the figures of its episodes, [E] each.

    Args:
      env: one environment.
      baseline: (env, state, key) -> action, for one environment.
      keys: [E], one per episode.
      max_steps: time limit in steps; None for the environment's.

    Returns:
      name -> [E]: "return", "length" and the environment's metrics.
    """

    def act(
        carry: tuple[()], states: State, start: jax.Array, keys: jax.Array
    ) -> tuple[Action, tuple[()]]:
        del start
        choose = jax.vmap(lambda state, key: baseline(env, state, key))
        return choose(states, keys), carry

    return play(env, act, keys, (), max_steps=max_steps).figures()
