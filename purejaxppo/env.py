"""The environment protocol and its action heads.

An environment is written for ONE instance and batched by `jax.vmap`. Everything that
is needed to sample an action or to compute its log-prob later (masks, activity) is part
of the `State` in which the action is chosen.

A longer example than the README's, with two heads, masks and random numbers in `step`:

    class Shelves:  # items of 3 kinds arrive; store each on a shelf with room, or wait
        spec = EnvSpec(
            name="shelves",
            heads={
                "op": Discrete(2),  # wait, or store
                "shelf": Discrete(3, parent="op", active_when=(1,)),  # only to store
            },
            max_episode_steps=30,
            success="full",
        )

        def reset(self, key):
            key, key_room, key_item = jax.random.split(key, 3)
            room = jax.random.randint(key_room, (3,), 1, 4)
            item = jax.random.randint(key_item, (), 0, 3)
            return self.state(room, item, key, jnp.zeros(()))

        def step(self, state, action):
            room, item, key = state.data
            key, key_item = jax.random.split(key)  # a step draws from the state's key
            op, shelf = action["op"], action["shelf"]  # which has room, by its mask
            pay = jnp.where(shelf == item, 1.0, 0.2)
            reward = jnp.where(op == 0, jnp.zeros(()), pay)
            item = jax.random.randint(key_item, (), 0, 3)
            return self.state(room.at[shelf].add(-op), item, key, reward)

        def state(self, room, item, key, reward):
            has_room, full = room > 0, jnp.sum(room) == 0
            rooms = room.astype(jnp.float32) / 3.0
            return State(
                data=(room, item, key),
                obs=jnp.concatenate([jax.nn.one_hot(item, 3), rooms]),
                reward=reward,
                terminated=full,
                truncated=jnp.zeros((), bool),
                # One of the state in which the action is chosen, not of the one before.
                action_mask={"op": jnp.array([True, False]) | ~full, "shelf": has_room},
                metrics={"full": full.astype(jnp.float32)},
            )

`check_env(Shelves())` says in one sentence what such an environment does wrong first.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
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

    With `parent`, the head is active only if the discrete head of that name chose one
    of `active_when` (any value if None). Its mask may then have shape [parent.n, n],
    with one row for each choice of the parent.
    """

    n: int
    parent: str | None = None
    active_when: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Choice head: an ordered choice of `k` of `n` without replacement, int32 [k]."""

    n: int
    k: int


@dataclasses.dataclass(frozen=True)
class Custom:
    """Head with a custom distribution, computed from `num_outputs` network outputs.

    `distribution` is a factory or its name, "package.module:factory". It takes float32
    [..., num_outputs] and returns a `distrax.Distribution` whose batch shape begins
    with the same leading axes. The other batch axes and the event axes are the shape of
    the action. Masks do not apply, and the action is passed to the environment as it
    was sampled.
    """

    num_outputs: int
    distribution: str | Callable[[jax.Array], object]


Head = Box | Discrete | Choice | Custom


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """The static properties of an environment.

    Attributes:
      name: its name in messages and run folders.
      heads: head name -> head, in the order in which heads are sampled.
      max_episode_steps: the time limit in steps, which auto-reset enforces by
        truncation; None if the environment ends its episodes itself.
      success: the entry of `State.metrics` that is 1 if an episode succeeded. It
        selects demonstrations and the best checkpoint.
      version: version of the environment's behaviour. Increase it whenever
        observations, rewards or dynamics change: a run records it, and cannot be
        resumed or evaluated with a different version.
      action_repeat: control steps of the system for which an action is held. Whoever
        runs an exported policy elsewhere must hold it as long.
      can_resume: False if a state is more than the arrays of `State`, so that a run
        cannot go on in another process.
    """

    name: str
    heads: Mapping[str, Head]
    max_episode_steps: int | None = None
    success: str | None = None
    version: int = 1
    action_repeat: int = 1
    can_resume: bool = True


class State(struct.PyTreeNode):
    """One environment between two steps. No batch axis; `vmap` adds it.

    Attributes:
      data: the environment's internal state.
      obs: float32 [D], or a dict of "actor" and "critic" arrays.
      reward: float32 [], of the step that led to this state (0 after reset).
      terminated: bool [], the episode ended by the rules; its future return is 0.
      truncated: bool [], the episode was cut off; the value of `obs` is bootstrapped.
      action_mask: head -> bool, True is allowed. Discrete [n] or [parent.n, n],
        Choice [n]; heads without a mask are absent.
      active: head -> bool [], False if the head's action has no effect in this state;
        heads that are always active are absent.
      metrics: name -> float32 [], accumulated over the episode, so that the values at
        the last step describe the episode (`success`, `invalid_frac`, ...).
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

    An environment that also has a scripted expert is a `DemonstratedEnv`; one that
    draws itself, for videos, is a `RenderedEnv`.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, key: jax.Array) -> State: ...

    def step(self, state: State, action: Action) -> State: ...


def executed(spec: EnvSpec, action: Action) -> Action:
    """Return the action to execute: continuous heads are clipped to [-1, 1].

    The distribution "normal" can sample outside this interval. The log-prob is computed
    from the action before clipping.
    """
    return {
        name: jnp.clip(value, -1.0, 1.0) if isinstance(spec.heads[name], Box) else value
        for name, value in action.items()
    }


@runtime_checkable
class DemonstratedEnv(Env, Protocol):
    """An environment with a scripted expert, whose actions imitation learns.

    `demonstrator` is pure and works under vmap, like `reset` and `step`. It may read
    `state.data`, which is hidden from a policy.
    """

    def demonstrator(self, state: State) -> Action: ...


@runtime_checkable
class RenderedEnv(Env, Protocol):
    """An environment that draws its episodes, for videos and reports.

    `seconds_per_step` is how long a video shows a step.
    """

    @property
    def seconds_per_step(self) -> float: ...

    def render(
        self, states: State, actions: Action, steps: Sequence[int]
    ) -> Iterable[np.ndarray]:
        """Draw an episode of T steps at some of them: uint8 [H, W, 3] for each.

        It runs on the host, outside of jit.

        Args:
          states: [T + 1], NumPy arrays; typed random keys are replaced by their data.
          actions: [T], NumPy arrays; actions[t] led from states[t] to states[t + 1].
          steps: indices into `states`, ascending. A picture may also show what was
            before its step, but nothing that comes after.
        """
        ...
