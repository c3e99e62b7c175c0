"""`check_env`: test an environment against the protocol of `purejaxppo.env`.

    from purejaxppo.check import check_env
    check_env(MyEnv())

It raises an error about the first violation, and returns None if there is none.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from purejaxppo import trees
from purejaxppo.check.actions import random_action as random_action
from purejaxppo.check.demonstrator import check_demonstrator
from purejaxppo.check.signature import check_signature as check_signature
from purejaxppo.check.signature import check_spec, check_types
from purejaxppo.check.values import check_equal, check_starts, check_states
from purejaxppo.env import Action, DemonstratedEnv, Env, State
from purejaxppo.trees import Tree


def check_env(
    env: Env,
    *,
    num_envs: int = 8,
    num_steps: int = 32,
    seed: int = 0,
    random_start: bool = True,
) -> None:
    """Check specification, types, values and purity of an environment.

    Args:
      env: the environment.
      num_envs: number of environments stepped in parallel.
      num_steps: number of steps of each, with random allowed actions.
      seed: random seed.
      random_start: False for an environment that always starts in the same state.

    Raises:
      ConfigError: the first violation, with its place, its value and what is allowed.
    """
    name = env.spec.name
    check_spec(name, env.spec)
    check_types(name, env)
    key_reset, key_steps = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(key_reset, num_envs)
    play = jax.jit(_make_play(env, num_envs, num_steps))
    played = play(keys, key_steps)
    check_starts(name, played.start, random_start)
    check_states(f"{name}.reset", env.spec.heads, played.start)
    check_states(f"{name}.step", env.spec.heads, played.next_state)
    again = play(keys, key_steps)
    check_equal(f"{name}: the same key", _pure(env, played), _pure(env, again))
    _check_unbatched(name, env, keys[0], played)
    if isinstance(env, DemonstratedEnv):
        check_demonstrator(name, env, played.start)
        check_demonstrator(name, env, trees.merge_axes(played.next_state))


class _Played(NamedTuple):
    """T random steps of N environments, which are reset when an episode ends."""

    start: State  # [N]
    next_state: State  # [T, N], after each step, before any reset
    action: Action  # [T, N], the action of each step


def _make_play(
    env: Env, num_envs: int, num_steps: int
) -> Callable[[jax.Array, jax.Array], _Played]:
    """Make the function (keys [N] of the starts, key of the steps) -> the steps."""

    def one_step(state: State, key: jax.Array) -> tuple[State, tuple[State, Action]]:
        key_action, key_start = jax.random.split(key)
        action = jax.vmap(lambda state, key: random_action(env, state, key))(
            state, jax.random.split(key_action, num_envs)
        )
        stepped = jax.vmap(env.step)(state, action)
        fresh = jax.vmap(env.reset)(jax.random.split(key_start, num_envs))
        done = stepped.terminated | stepped.truncated
        return trees.where(done, fresh, stepped), (stepped, action)

    def play(keys: jax.Array, key: jax.Array) -> _Played:
        start = jax.vmap(env.reset)(keys)
        step_keys = jax.random.split(key, num_steps)
        _, (next_state, action) = jax.lax.scan(one_step, start, step_keys)
        return _Played(start, next_state, action)

    return play


def _check_unbatched(name: str, env: Env, key: jax.Array, played: _Played) -> None:
    """Check that `reset` and `step` give the same without vmap, up to rounding."""
    first = trees.take(played.start, 0)
    alone = jax.jit(env.reset)(key)
    check_equal(f"{name}: reset with and without vmap", alone, first, 1e-4)
    action, expected = trees.take(trees.take((played.action, played.next_state), 0), 0)
    stepped, expected = (
        _pure(env, jax.jit(env.step)(first, action)),
        _pure(env, expected),
    )
    check_equal(f"{name}: step with and without vmap", stepped, expected, 1e-3)


def _pure(env: Env, tree: Tree) -> Tree:
    """Remove from states what names things outside of them, if `env` has such."""
    if env.spec.can_resume:
        return tree
    return jax.tree.map(
        lambda x: x.replace(data=()) if isinstance(x, State) else x,
        tree,
        is_leaf=lambda x: isinstance(x, State),
    )
