"""What an environment is: the protocol and its action heads.

An environment is written for ONE instance and batched by `jax.vmap`. Whatever a
head needs to be sampled or evaluated later (masks, activity) is in the `State`
that the action is chosen in, never in a side channel.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

Obs = jax.Array | dict[str, jax.Array]  # [D], or "actor" and "critic" arrays
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


@dataclasses.dataclass(frozen=True)
class Custom:
    """Head of a distribution of your own, over `num_outputs` numbers of the network.

    `distribution` is a factory, or the "package.module:factory" that names one. It
    takes float32 [..., num_outputs] and returns a `distrax.Distribution` whose batch
    shape begins with those leading axes; the rest of it, and the event, is the shape of
    the action. Masks do not apply, and the action is executed as it was sampled.
    """

    num_outputs: int
    distribution: str | Callable[[jax.Array], object]


Head = Box | Discrete | Choice | Custom


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
      version: of the environment's behaviour, raised whenever what it observes,
        rewards or does changes. A run records it, and is neither resumed nor
        evaluated with another one.
    """

    name: str
    heads: Mapping[str, Head]
    max_episode_steps: int | None = None
    success: str | None = None
    version: int = 1


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


@runtime_checkable
class DemonstratedEnv(Env, Protocol):
    """An environment with a scripted expert, which imitation learns from.

    `demonstrator` is pure and works under vmap, like `reset` and `step`. It may read
    `state.data`, which a policy does not see.
    """

    def demonstrator(self, state: State) -> Action: ...
