"""Environments of the library jax-envelope, with the protocol of `purejaxppo.env`.

    --env envelope:jumanji::Snake-v1
    make_env("envelope:craftax::Craftax-Classic-Symbolic-v1", max_episode_steps=1000)

It adapts gymnax, Brax, Jumanji, Craftax, Kinetix, Navix and MuJoCo Playground, each of
which must be installed. Observations are flattened to float32. Where they have an
`action_mask`, it masks the actions: one of each head, or one of all combinations, which
then are the choices of a single head. Continuous actions are scaled from [-1, 1] to
their bounds. The time limit is a truncation.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from purejaxppo.env import Action, Box, Discrete, EnvSpec, Head, State
from purejaxppo.errors import ConfigError, first_line, whole_number
from purejaxppo.numerics import permissive_numerics, strongly_typed

_MASK = "action_mask"


class Info(Protocol):
    """The used part of what jax-envelope's environments return beside their state."""

    @property
    def obs(self) -> chex.ArrayTree: ...

    @property
    def reward(self) -> ArrayLike: ...

    @property
    def terminated(self) -> ArrayLike: ...

    @property
    def truncated(self) -> ArrayLike: ...


class Environment(Protocol):
    """The used part of jax-envelope's `Environment`."""

    @property
    def action_space(self) -> object: ...

    @property
    def default_max_steps(self) -> int | None: ...

    def init(self, key: jax.Array) -> tuple[chex.ArrayTree, Info]: ...

    def step(
        self, state: chex.ArrayTree, action: jax.Array
    ) -> tuple[chex.ArrayTree, Info]: ...


@runtime_checkable
class DiscreteSpace(Protocol):
    """The used part of jax-envelope's `Discrete`, whose `n` may be an array."""

    n: ArrayLike


@runtime_checkable
class ContinuousSpace(Protocol):
    """The used part of jax-envelope's `Continuous`."""

    low: ArrayLike
    high: ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class Actions:
    """How the actions of heads become one of the environment.

    Attributes:
      heads: head name -> head.
      decode: actions of the heads -> the environment's action.
      split_mask: the environment's mask -> those of the heads, by their names.
    """

    heads: dict[str, Head]
    decode: Callable[[Action], jax.Array]
    split_mask: Callable[[jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class EnvelopeEnv:
    """An environment of jax-envelope; `make` builds it."""

    env: Environment
    actions: Actions
    spec: EnvSpec

    def reset(self, key: jax.Array) -> State:
        with permissive_numerics():
            inner, info = self.env.init(key)
            return self._state(jax.tree.map(strongly_typed, inner), info)

    def step(self, state: State, action: Action) -> State:
        with permissive_numerics():
            inner, info = self.env.step(state.data, self.actions.decode(action))
            # In some environments a leaf has another dtype than after reset.
            return self._state(jax.tree.map(_like, inner, state.data), info)

    def _state(self, inner: chex.ArrayTree, info: Info) -> State:
        obs, mask = _split(info.obs)
        terminated = jnp.asarray(info.terminated, bool).reshape(())
        truncated = jnp.asarray(info.truncated, bool).reshape(())
        return State(
            data=inner,
            obs=obs,
            reward=jnp.asarray(info.reward, jnp.float32).reshape(()),
            terminated=terminated,
            truncated=truncated & ~terminated,
            action_mask={} if mask is None else self.actions.split_mask(mask),
        )


def _like(leaf: ArrayLike, before: jax.Array) -> jax.Array:
    if jnp.issubdtype(before.dtype, jax.dtypes.prng_key):
        return jnp.asarray(leaf)
    return jnp.asarray(leaf, before.dtype).reshape(before.shape)


def _split(obs: chex.ArrayTree) -> tuple[jax.Array, jax.Array | None]:
    """Split an observation in numbers, float32 [D], and a mask if it has one, bool."""
    leaves, mask = [], None
    for path, leaf in jax.tree_util.tree_leaves_with_path(obs):
        if path and _MASK in jax.tree_util.keystr(path[-1:]):
            mask = jnp.asarray(leaf) != 0
        else:
            leaves.append(jnp.asarray(leaf, jnp.float32).reshape(-1))
    return jnp.concatenate(leaves), mask


def _actions(name: str, space: object, mask_shape: tuple[int, ...] | None) -> Actions:
    """Return the heads of an action space, and how to use them.

    Args:
      name: of the environment, for an error.
      space: jax-envelope's space of actions.
      mask_shape: the shape of the environment's mask, None if it has none.

    Raises:
      ConfigError: actions of several kinds, without bounds, or with a mask of a shape
        that is neither that of the heads nor of their combinations.
    """
    if isinstance(space, ContinuousSpace):
        return _continuous(name, space)
    if not isinstance(space, DiscreteSpace):
        raise ConfigError("env", name, "one whose actions are of a single kind")
    sizes, shape = np.asarray(space.n).reshape(-1), np.shape(space.n)
    if mask_shape is not None and shape and mask_shape == tuple(sizes):
        return _combined(mask_shape)
    names = [f"action_{i}" for i in range(len(sizes))] if shape else ["action"]
    rows = (*shape, int(sizes[0]))  # of a mask for each of the heads
    if mask_shape is not None and (mask_shape != rows or np.any(sizes != sizes[0])):
        allowed = f"one whose mask has the shape {rows}, not {mask_shape}"
        raise ConfigError("env", name, allowed)
    return Actions(
        heads={n: Discrete(int(size)) for n, size in zip(names, sizes, strict=True)},
        decode=lambda action: jnp.stack([action[n] for n in names]).reshape(shape),
        split_mask=lambda mask: dict(
            zip(names, mask.reshape(len(names), -1), strict=True)
        ),
    )


def _combined(sizes: tuple[int, ...]) -> Actions:
    """Return one head for all combinations of choices, which have one mask."""

    def decode(action: Action) -> jax.Array:
        choices = jnp.unravel_index(action["action"], sizes)
        return jnp.stack(choices, axis=-1).astype(jnp.int32)

    head = Discrete(math.prod(sizes))
    return Actions({"action": head}, decode, lambda mask: {"action": mask.reshape(-1)})


def _continuous(name: str, space: ContinuousSpace) -> Actions:
    shape = np.shape(space.low)
    low, high = (np.asarray(x, np.float32).ravel() for x in (space.low, space.high))
    if not np.all(np.isfinite([low, high])):
        raise ConfigError("env", name, "one whose continuous actions have bounds")

    def decode(action: Action) -> jax.Array:
        scaled = jnp.asarray(low) + (action["action"] + 1.0) * ((high - low) / 2.0)
        return scaled.reshape(shape)

    return Actions({"action": Box(math.prod(shape))}, decode, lambda _: {})


def make(name: str, **kwargs: object) -> EnvelopeEnv:
    """Build an environment of jax-envelope.

    Args:
      name: "SUITE::NAME", as in "jumanji::Snake-v1".
      **kwargs: `max_episode_steps`, an int, replaces the time limit; the others go to
        the suite's own constructor.

    Raises:
      ConfigError: jax-envelope or the suite is not installed, or the environment cannot
        be made or learned with.
    """
    own_name = f"envelope:{name}"
    try:
        create = importlib.import_module("envelope.adapters").create
    except ModuleNotFoundError as error:
        allowed = (
            f"one of an installed package ({error}; pip install jax-envelope six, for "
            "which Python must be 3.12 or newer)"
        )
        raise ConfigError("env", own_name, allowed) from None
    limit = kwargs.pop("max_episode_steps", None)
    env: Environment
    try:
        with permissive_numerics():
            env = create(name, env_kwargs=kwargs or None, max_episode_steps=None)
    except (ImportError, ValueError) as error:
        allowed = f"one of an installed suite ({first_line(error)})"
        raise ConfigError("env", own_name, allowed) from None
    if limit is None:
        limit = env.default_max_steps
    else:
        limit = whole_number("max_episode_steps", limit, 1, np.iinfo(np.int32).max)
    with permissive_numerics():
        info = jax.eval_shape(lambda: env.init(jax.random.key(0))[1])
        _, mask = jax.eval_shape(lambda obs: _split(obs), info.obs)
    if math.prod(info.reward.shape) != 1:
        raise ConfigError("env", own_name, "one with a single reward")
    shape = None if mask is None else mask.shape
    actions = _actions(own_name, env.action_space, shape)
    return EnvelopeEnv(env, actions, EnvSpec(own_name, actions.heads, limit))
