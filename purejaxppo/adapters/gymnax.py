"""Environments of gymnax, 0.0.9 and 1.x, with the protocol of `purejaxppo.env`.

    --env gymnax:CartPole-v1
    make_env("gymnax:Pendulum-v1", max_steps_in_episode=100)

There is one head, "action". Continuous actions are scaled from [-1, 1] to gymnax's
range. Observations are flattened to float32; a discrete one is one-hot. gymnax's time
limit is a truncation. gymnax's auto-reset is not used, as it hides the last observation
of an episode.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from purejaxppo.env import Action, Box, Discrete, EnvSpec, Head, State
from purejaxppo.errors import ConfigError, UnknownName, whole_number
from purejaxppo.numerics import permissive_numerics, strongly_typed


class Params(Protocol):
    """The used part of gymnax's `EnvParams`."""

    @property
    def max_steps_in_episode(self) -> float: ...

    def replace(self, **changes: float) -> "Params": ...


@runtime_checkable
class DiscreteSpace(Protocol):
    """The used part of gymnax's `Discrete`."""

    n: int


@runtime_checkable
class BoxSpace(Protocol):
    """The used part of gymnax's `Box`."""

    low: ArrayLike
    high: ArrayLike
    shape: tuple[int, ...]


Space = DiscreteSpace | BoxSpace


class Environment(Protocol):
    """The used part of gymnax's `Environment`, in both versions."""

    def reset_env(
        self, key: jax.Array, params: Params
    ) -> tuple[jax.Array, chex.ArrayTree]: ...

    def step_env(
        self, key: jax.Array, state: chex.ArrayTree, action: jax.Array, params: Params
    ) -> tuple[jax.Array, chex.ArrayTree, jax.Array, jax.Array, object]: ...

    def is_terminal(self, state: chex.ArrayTree, params: Params) -> jax.Array: ...


@runtime_checkable
class TruncatingEnvironment(Protocol):
    """The additional method of gymnax 1.x, which reports a time limit."""

    def is_truncated(self, state: chex.ArrayTree, params: Params) -> jax.Array: ...


class Data(struct.PyTreeNode):
    """gymnax's state, and the random key of the episode.

    The key of a step is derived from the episode's key and the number of steps. If the
    key were split at each step, it would be computed even for environments that do not
    use it, where this takes most of the time of a step.
    """

    inner: chex.ArrayTree
    key: jax.Array  # of the episode
    steps: jax.Array  # int32 [], steps of the episode so far


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnv:
    """An environment of gymnax with its parameters and spaces; `make` builds it.

    The spaces are created once, outside of jit, where their bounds would be traced.
    """

    env: Environment
    params: Params
    observation_space: Space
    action_space: Space
    spec: EnvSpec

    def reset(self, key: jax.Array) -> State:
        key_reset, key_steps = jax.random.split(key)
        with permissive_numerics():
            obs, inner = self.env.reset_env(key_reset, self.params)
        false = jnp.zeros((), bool)
        return State(
            data=Data(
                jax.tree.map(strongly_typed, inner), key_steps, jnp.zeros((), jnp.int32)
            ),
            obs=self._observation(obs),
            reward=jnp.zeros((), jnp.float32),
            terminated=false,
            truncated=false,
        )

    def step(self, state: State, action: Action) -> State:
        data = state.data
        key_step = jax.random.fold_in(data.key, data.steps)
        choice = self._action(action["action"])
        with permissive_numerics():
            obs, inner, reward, ended, _ = self.env.step_env(
                key_step, data.inner, choice, self.params
            )
            terminated, truncated = self._ending(inner, ended)
        return state.replace(
            # In some environments a leaf has another shape or dtype than after reset.
            data=Data(jax.tree.map(_like, inner, data.inner), data.key, data.steps + 1),
            obs=self._observation(obs),
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=terminated,
            truncated=truncated,
        )

    def _observation(self, obs: ArrayLike) -> jax.Array:
        if isinstance(self.observation_space, DiscreteSpace):
            return jax.nn.one_hot(obs, self.observation_space.n, dtype=jnp.float32)
        return jnp.asarray(obs, jnp.float32).reshape(-1)

    def _action(self, action: jax.Array) -> jax.Array:
        if isinstance(self.action_space, DiscreteSpace):
            return action
        low, high = map(jnp.asarray, _bounds(self.action_space))
        scaled = low + (action + 1.0) * ((high - low) / 2.0)
        return scaled.reshape(self.action_space.shape)

    def _ending(
        self, inner: chex.ArrayTree, ended: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return whether the episode is terminated, and whether it is truncated."""
        ended = jnp.asarray(ended, bool).reshape(())
        if isinstance(self.env, TruncatingEnvironment):
            truncated = self.env.is_truncated(inner, self.params)
            return ended, jnp.asarray(truncated, bool).reshape(()) & ~ended
        # Version 0.0.9: an end is a truncation if it depends on the time limit.
        unlimited = self.params.replace(max_steps_in_episode=np.iinfo(np.int32).max)
        is_terminal = self.env.is_terminal(inner, unlimited)
        terminated = ended & jnp.asarray(is_terminal, bool).reshape(())
        return terminated, ended & ~terminated


def _like(leaf: ArrayLike, before: jax.Array) -> jax.Array:
    return jnp.asarray(leaf, before.dtype).reshape(before.shape)


def _bounds(space: BoxSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest action, flattened: [A] each."""
    low, high = (
        np.broadcast_to(np.asarray(bound, np.float32), space.shape).reshape(-1)
        for bound in (space.low, space.high)
    )
    return low, high


def _head(name: str, space: object) -> Head:
    if isinstance(space, DiscreteSpace):
        return Discrete(int(space.n))
    if not isinstance(space, BoxSpace) or not np.all(np.isfinite(_bounds(space))):
        raise ConfigError("env", name, "one with discrete or bounded actions")
    return Box(int(np.prod(space.shape)))


def make(name: str | None = None, **params: float) -> GymnaxEnv:
    """Build an environment of gymnax.

    Args:
      name: its name in gymnax's registry, such as "CartPole-v1".
      **params: fields of the environment's `EnvParams` that replace the defaults.

    Raises:
      ConfigError: gymnax is not installed, or has no such environment or parameter.
    """
    try:
        import gymnax
    except ModuleNotFoundError as error:
        raise ConfigError(
            "env",
            f"gymnax:{name}",
            f"an environment of an installed package ({error}; pip install gymnax)",
        ) from None
    if name not in gymnax.registered_envs:
        raise UnknownName("gymnax", name, gymnax.registered_envs)
    env, defaults = gymnax.make(name)
    fields = [field.name for field in dataclasses.fields(defaults)]
    for field in params:
        if field not in fields:
            raise UnknownName("env_kwargs", field, fields)
    chosen = defaults.replace(**params)
    limit = int(chosen.max_steps_in_episode)  # a float in one environment
    limit = whole_number("max_steps_in_episode", limit, 1, np.iinfo(np.int32).max)
    action_space = env.action_space(chosen)
    spec = EnvSpec(
        name=f"gymnax:{name}",
        heads={"action": _head(name, action_space)},
        max_episode_steps=limit,
    )
    observation_space = env.observation_space(chosen)
    return GymnaxEnv(env, chosen, observation_space, action_space, spec)
