"""N environments of ours as one, in and out of NumPy, for other libraries to step.

The k-th episode of an environment, counted from 0, starts by `autoreset.init` with
fold_in(key, k) of the environment's own key: nothing that happened before changes it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo import autoreset
from purejaxppo.autoreset import Episode, Step
from purejaxppo.env import Action, Env
from purejaxppo.errors import ConfigError

MAX_SEED = 2**32 - 1
MAX_ENVS = 2**20

# A start can cost more than a step, and at most steps few episodes end: this share of
# the environments is reset at once, as often as is needed.
_RESETS = 8


class Batch(struct.PyTreeNode):
    """N environments between two steps, [N, ...]."""

    episodes: Episode
    keys: jax.Array  # [N], random key of each environment
    count: jax.Array  # int32 [N], which of the episodes of this key it is in


def begin(env: Env, keys: jax.Array, count: jax.Array) -> Batch:
    """Start an episode in every environment.

    Args:
      env: one environment.
      keys: [N], the key of each environment.
      count: int32 [N], which of the episodes of its key each one starts.
    """
    limit = env.spec.max_episode_steps
    init = jax.vmap(lambda key: autoreset.init(env, "fresh", limit, False, key))
    return Batch(init(jax.vmap(jax.random.fold_in)(keys, count)), keys, count)


def advance(env: Env, batch: Batch, action: Action) -> tuple[Batch, Step]:
    """Step every environment; those whose episode ends are not reset.

    Args:
      env: one environment.
      batch: the environments before the step, [N].
      action: head name -> that head's actions [N, ...].
    """
    limit = env.spec.max_episode_steps
    episodes, step = jax.vmap(
        lambda episode, action: autoreset.advance(env, episode, action, limit)
    )(batch.episodes, action)
    return batch.replace(episodes=episodes), step


def advance_and_reset(env: Env, batch: Batch, action: Action) -> tuple[Batch, Step]:
    """Step every environment; those whose episode ends start their next one.

    Args:
      env, batch, action: as for `advance`.
    """
    batch, step = advance(env, batch, action)
    num_envs = len(step.reward)
    num_drawn = -(-num_envs // _RESETS)

    def restart(carry: tuple[Batch, jax.Array]) -> tuple[Batch, jax.Array]:
        batch, done = carry
        # An index of N takes the last environment, and is not written.
        index = jnp.nonzero(done, size=num_drawn, fill_value=num_envs)[0]
        fresh = begin(env, batch.keys[index], batch.count[index] + 1)
        batch = jax.tree.map(lambda x, new: x.at[index].set(new), batch, fresh)
        return batch, done.at[index].set(False)

    done = step.terminated | step.truncated
    batch, _ = jax.lax.while_loop(
        lambda carry: jnp.any(carry[1]), restart, (batch, done)
    )
    return batch, step


class Seen(NamedTuple):
    """What is shown of N environments, [N, ...]: NumPy arrays of the caller's own."""

    obs: Any
    action_mask: Mapping[str, Any]
    active: Mapping[str, Any]
    metrics: Mapping[str, Any]


class Moved(NamedTuple):
    """The results of a step, [N, ...]; all but `step` are NumPy arrays, as of `Seen`.

    `step` is on the device: most of it is wanted only where an episode ends.
    """

    seen: Seen
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    step: Step


class Host:
    """N environments and their present state, for code that is not JAX.

    Args:
      env: one environment.
      num_envs: N.
      seed: of the first `reset`, as it takes it.
      resets: start the next episode in the step that ends one; if False, only `reset`
        starts episodes.
    """

    def __init__(self, env: Env, num_envs: int, seed: object, resets: bool):
        def first(keys: jax.Array, count: jax.Array) -> tuple[Batch, Seen]:
            batch = begin(env, keys, count)
            return batch, _seen(batch)

        def step(batch: Batch, action: Action) -> tuple[Batch, Seen, Step]:
            move = advance_and_reset if resets else advance
            batch, step = move(env, batch, action)
            return batch, _seen(batch), step

        self._first, self._step = jax.jit(first), jax.jit(step)
        self._batch: Batch | None = None
        self._seeds: list[int] | None = seeds(seed, num_envs)
        self.num_envs = num_envs

    @property
    def has_begun(self) -> bool:
        """Whether there was a `reset`."""
        return self._batch is not None

    def reset(self, seed: object = None) -> Seen:
        """Start new episodes, and return what is seen of them.

        Args:
          seed: environment i begins with the first episode of seed + i; or a list of
            N seeds. None goes on with the next episode of the present seeds.

        Raises:
          ConfigError: a seed that is not allowed.
        """
        given = self._seeds if seed is None else seeds(seed, self.num_envs)
        if given is None:
            assert self._batch is not None  # only the first reset has seeds waiting
            keys, count = self._batch.keys, self._batch.count + 1
        else:
            keys = jax.vmap(jax.random.key)(np.asarray(given, np.uint32))
            count = jnp.zeros((self.num_envs,), jnp.int32)
        self._seeds = None
        self._batch, seen = self._first(keys, count)
        return copied(seen)

    def step(self, action: dict[str, np.ndarray]) -> Moved:
        """Step all environments.

        Args:
          action: head name -> that head's actions [N, ...], in the dtypes of `env`.
        """
        self._batch, seen, step = self._step(self._batch, action)
        results = (seen, step.reward, step.terminated, step.truncated)
        seen, reward, terminated, truncated = copied(results)
        return Moved(seen, reward, terminated, truncated, step)


def _seen(batch: Batch) -> Seen:
    state = batch.episodes.state
    return Seen(state.obs, state.action_mask, state.active, state.metrics)


def copied(tree: Any) -> Any:
    """Copy to NumPy: what `device_get` returns cannot be written to."""
    return jax.tree.map(np.array, jax.device_get(tree))


def seeds(seed: Any, num_envs: int) -> list[int]:
    """Return the seed of each of N environments.

    Args:
      seed: that of the first, from 0 to MAX_SEED; those of the others follow, and 0
        follows MAX_SEED. Or a list of N seeds.
      num_envs: N.

    Raises:
      ConfigError: neither of them.
    """
    is_list = isinstance(seed, list | tuple | np.ndarray)
    given = [*seed] if is_list else [seed]
    if len(given) != (num_envs if is_list else 1) or not all(map(_is_seed, given)):
        allowed = f"a whole number from 0 to {MAX_SEED}, or a list of {num_envs}"
        raise ConfigError("seed", seed, allowed)
    if is_list:
        return [int(x) for x in given]
    return [(int(seed) + i) % (MAX_SEED + 1) for i in range(num_envs)]


def _is_seed(x: object) -> bool:
    if isinstance(x, bool) or not isinstance(x, int | np.integer):
        return False
    return 0 <= int(x) <= MAX_SEED
