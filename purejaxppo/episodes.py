"""Plays whole episodes: of policies in evaluation, of baselines, of environments.

One episode from each key, all at once, without resets and without gradients. Nothing
that an environment does after the end of its episode is counted.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Action, Env, State, executed

# Where neither the environment nor the caller has a time limit.
MAX_STEPS = 10_000

# Keys of actions come from fold_in(key, ACTION_STREAM), not from fold_in(key, step):
# under JAX's partitionable threefry split(key, n)[i] equals fold_in(key, i), so that
# the action at step i would be drawn with a key that `reset` has split from its own.
ACTION_STREAM = 2**31 - 1

Carry = TypeVar("Carry")
# (carry, states [E], start bool [E], keys [E]) -> (actions [E], carry). `start` is True
# at the first step of an episode; every leaf of the carry has the leading axis E.
Act = Callable[[Carry, State, jax.Array, jax.Array], tuple[Action, Carry]]
# (environment, state, key) -> action, for one environment of the class that the
# baseline is written for.
EnvType = TypeVar("EnvType", bound=Env)
Baseline = Callable[[EnvType, State, jax.Array], Action]


class Played(struct.PyTreeNode):
    """One finished episode for each key, [E].

    Attributes:
      episode_return: float32 [E], undiscounted.
      length: int32 [E], steps.
      metrics: name -> float32 [E], as of the last step of each episode.
      ended: bool [E], False where `max_steps` cut an episode that would have gone on.
    """

    episode_return: jax.Array
    length: jax.Array
    metrics: dict[str, jax.Array]
    ended: jax.Array

    def figures(self) -> dict[str, jax.Array]:
        """Return, length and metrics by name, [E] each."""
        numbers = {"return": self.episode_return, "length": self.length}
        return numbers | self.metrics


class _Running(struct.PyTreeNode, Generic[Carry]):
    """The loop's carry; all but `step` have the leading axis E."""

    state: State
    carry: Carry  # the player's own
    key: jax.Array  # of each episode's actions
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

    Most episodes of a good policy are short and the last few may be long: once a
    quarter of them are left, only those are stepped.

    Args:
      env: one environment; it is batched here.
      act: what plays, (carry, states [E], start [E], keys [E]) -> (actions [E], carry).
        It is called for any number E of environments.
      keys: [E], one key per episode; `env.reset` gets it as it is.
      carry: what `act` starts with, leaves [E, ...]; () for nothing.
      max_steps: time limit in steps; None is the environment's own, or `MAX_STEPS`.
    """
    num = keys.shape[0]
    num_last = num // 4
    limit = max_steps or env.spec.max_episode_steps or MAX_STEPS
    states = jax.vmap(env.reset)(keys)
    run = _Running(
        state=states,
        carry=carry,
        key=jax.vmap(jax.random.fold_in, (0, None))(keys, ACTION_STREAM),
        played=Played(
            episode_return=jnp.zeros((num,), jnp.float32),
            length=jnp.zeros((num,), jnp.int32),
            metrics=states.metrics,
            ended=jnp.zeros((num,), bool),
        ),
        step=jnp.zeros((), jnp.int32),
    )
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


def _play_until(
    env: Env, act: Act[Carry], run: _Running[Carry], num_left: int, limit: int
) -> _Running[Carry]:
    """Steps all episodes until no more than `num_left` go on, or the limit."""

    def goes_on(run: _Running[Carry]) -> jax.Array:
        return (jnp.sum(~run.played.ended) > num_left) & (run.step < limit)

    return jax.lax.while_loop(goes_on, lambda run: _step(env, act, run), run)


def _step(env: Env, act: Act[Carry], run: _Running[Carry]) -> _Running[Carry]:
    """One step of every episode; those that have ended are stepped, and not counted."""
    played = run.played
    keys = jax.vmap(jax.random.fold_in, (0, None))(run.key, run.step)
    start = jnp.full(played.ended.shape, run.step == 0)
    action, carry = act(run.carry, run.state, start, keys)
    state = jax.vmap(env.step)(run.state, executed(env.spec, action))
    # where, not a product: what an ended environment pays may be anything.
    reward = jnp.where(played.ended, 0.0, state.reward)
    return _Running(
        state=state,
        carry=carry,
        key=run.key,
        played=Played(
            episode_return=played.episode_return + reward,
            length=played.length + (~played.ended).astype(jnp.int32),
            metrics=trees.where(played.ended, played.metrics, state.metrics),
            ended=played.ended | state.terminated | state.truncated,
        ),
        step=run.step + 1,
    )


def play_baseline(
    env: EnvType,
    baseline: Baseline[EnvType],
    keys: jax.Array,
    *,
    max_steps: int | None = None,
) -> dict[str, jax.Array]:
    """Return, length and metrics of a baseline that remembers nothing, [E] each.

    Args:
      env: one environment.
      baseline: (env, state, key) -> action, for one environment.
      keys: [E], one per episode.
      max_steps: time limit in steps; None is the environment's own.
    """

    def act(
        carry: tuple[()], states: State, start: jax.Array, keys: jax.Array
    ) -> tuple[Action, tuple[()]]:
        del start
        choose = jax.vmap(lambda state, key: baseline(env, state, key))
        return choose(states, keys), carry

    return play(env, act, keys, (), max_steps=max_steps).figures()
