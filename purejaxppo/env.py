"""What an environment is: the protocol, its action heads, and the registry.

An environment is written for ONE instance and batched by `jax.vmap`. Whatever a
head needs to be sampled or evaluated later (masks, activity) is in the `State`
that the action is chosen in, never in a side channel.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.errors import ConfigError, UnknownName

Obs = Any  # an array [D], or a dict with "actor" and "critic" arrays
Action = dict[str, jax.Array]  # head name -> that head's action


@dataclasses.dataclass(frozen=True)
class Box:
    """Continuous head: `size` numbers in [-1, 1]."""

    size: int


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Discrete head: one of `n`, as an int32.

    With `parent`, the head only matters when the discrete head of that name chose
    one of `active_when` (all of its values where None), and the mask of this head
    may have shape [parent.n, n]: the row is picked by the parent's choice.
    """

    n: int
    parent: str | None = None
    active_when: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Choice head: `k` of `n` without replacement, int32 [k], in the order taken."""

    n: int
    k: int


Head = Box | Discrete | Choice


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """The static facts of an environment.

    Attributes:
      name: how it is called in messages and run folders.
      heads: head name -> kind, in the order in which heads are sampled.
      max_episode_steps: the time limit that the auto-reset wrapper enforces by
        truncation; None where the environment ends its episodes itself.
      success: the entry of `State.metrics` that says whether an episode succeeded;
        demonstrations and the best checkpoint are chosen by it.
    """

    name: str
    heads: Mapping[str, Head]
    max_episode_steps: int | None = None
    success: str | None = None


class State(struct.PyTreeNode):
    """One environment between two steps. No batch axis; `vmap` adds it.

    Attributes:
      data: whatever the environment itself needs; private to it.
      obs: float32 [D], or a dict of "actor" and "critic" arrays.
      reward: float32 [], of the step that led here (0 after reset).
      terminated: bool [], the episode ended here by the rules: no bootstrap.
      truncated: bool [], it was cut here: the value of `obs` still counts.
      action_mask: head -> bool, True is allowed. Discrete [n] or [parent.n, n],
        Choice [n]; heads without a mask are absent.
      active: head -> bool [], False where the head's action will be ignored in
        this state; heads that always matter are absent.
      metrics: name -> float32 [], running over the episode, so that the values at
        the last step are the episode's figures (`success`, `invalid_frac`, ...).
    """

    data: Any
    obs: Obs
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    action_mask: dict[str, jax.Array] = struct.field(default_factory=dict)
    active: dict[str, jax.Array] = struct.field(default_factory=dict)
    metrics: dict[str, jax.Array] = struct.field(default_factory=dict)


class Env(Protocol):
    """`reset` and `step` are pure, keep shapes and dtypes, and work under vmap.

    One that also has a scripted expert is a `DemonstratedEnv`.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, key: jax.Array) -> State: ...

    def step(self, state: State, action: Action) -> State: ...


def executed(spec: EnvSpec, action: Action) -> Action:
    """The action as the environment takes it: continuous heads inside [-1, 1].

    A plain normal distribution samples beyond. What is stored for the log-prob stays
    as it was sampled: a density at a clipped action is another one.
    """
    return {
        name: jnp.clip(value, -1.0, 1.0) if isinstance(spec.heads[name], Box) else value
        for name, value in action.items()
    }


# Strings, so that naming an environment is what imports it, and nothing else does.
REGISTRY: dict[str, str] = {
    "hammer": "purejaxppo.envs.hammer:make",
    "lifecycle": "purejaxppo.envs.lifecycle:make",
    "scheduler": "purejaxppo.envs.scheduler:make",
    "deck": "purejaxppo.envs.deck:make",
}
# Other libraries' environments, as "library:name": the module that adapts them, whose
# `make` takes the name.
ADAPTERS: dict[str, str] = {
    "gymnax": "purejaxppo.adapters.gymnax",
    "brax": "purejaxppo.adapters.brax",
}


def _target(name: str) -> tuple[str, dict[str, Any]]:
    """The "module:factory" behind a name, and what the name says to the factory."""
    library, _, inner = name.partition(":")
    if inner and library in ADAPTERS:
        return f"{ADAPTERS[library]}:make", {"name": inner}
    return REGISTRY.get(name, name), {}


def lookup(name: str) -> tuple[Any, str]:
    """The module of an environment, imported, and the name of its factory.

    Raises:
      ConfigError: neither a registered name nor a "module:factory" that exists.
    """
    target, _ = _target(name)
    if ":" not in target:
        adapted = [f"{library}:NAME" for library in ADAPTERS]
        known = [*REGISTRY, *adapted, "package.module:factory"]
        raise UnknownName("env", name, known)
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for: a missing dependency of it is not a typo.
        if error.name and module_name.startswith(error.name):
            raise ConfigError("env", name, "a module that can be imported") from None
        raise ConfigError(
            "env", name, f"an environment whose imports are installed ({error})"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError("env", name, f"a factory that exists in {module_name}")
    return module, attribute


def make_env(name: str, /, **kwargs: Any) -> Env:
    """The environment of that registered name, "library:name" or "module:factory".

    Raises:
      ConfigError: an unknown name, or keyword arguments that the factory rejects.
    """
    module, attribute = lookup(name)
    factory: Callable[..., Env] = getattr(module, attribute)
    try:
        return factory(**{**_target(name)[1], **kwargs})
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(
            "env_kwargs", kwargs, f"what {name} takes ({error})"
        ) from None


def presets(name: str) -> dict[str, dict[str, Any]]:
    """Preset name -> configuration values, as the environment's module lists them.

    The preset called "default" is applied whenever the environment is chosen.
    """
    module, _ = lookup(name)
    return dict(getattr(module, "PRESETS", {}))


@runtime_checkable
class DemonstratedEnv(Env, Protocol):
    """An environment with a scripted expert, which imitation learns from.

    `demonstrator` is pure and works under vmap, like `reset` and `step`. It may read
    `state.data`, which a policy does not see.
    """

    def demonstrator(self, state: State) -> Action: ...
