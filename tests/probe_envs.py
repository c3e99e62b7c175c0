"""Environments so small that each can fail for one cause only.

The first five follow the idea of Andy Jones's probes and Rejax's tests. All keep
terminated and truncated apart, so that the bootstrap is under test too.
"""

import dataclasses

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, Box, Choice, Custom, Discrete, EnvSpec, State


def _obs(x: jax.Array | float) -> jax.Array:
    return jnp.asarray(x, jnp.float32).reshape(1)


def _start(obs: jax.Array, data: object) -> State:
    return State(
        data=data,
        obs=obs,
        reward=jnp.zeros((), jnp.float32),
        terminated=jnp.zeros((), bool),
        truncated=jnp.zeros((), bool),
        metrics={"success": jnp.zeros((), jnp.float32)},
    )


def _sign(key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Probe:
    """One of: constant, observation, delayed, action, both, endless, cue."""

    kind: str
    continuous: bool = False
    delay: int = 2
    limit: int | None = None

    @property
    def spec(self) -> EnvSpec:
        head = Box(1) if self.continuous else Discrete(2)
        limit = 5 if self.kind == "endless" else self.limit
        return EnvSpec(f"probe_{self.kind}", {"move": head}, limit, "success")

    def reset(self, key: jax.Array) -> State:
        sign = _sign(key)
        seen = sign if self.kind in ("observation", "both", "cue") else jnp.zeros(())
        return _start(_obs(seen), jnp.stack([sign, jnp.zeros(())]))

    def _move(self, action: Action) -> jax.Array:
        """-1 or 1, from either kind of head."""
        move = action["move"]
        if self.continuous:
            return jnp.where(move[0] > 0, 1.0, -1.0)
        return jnp.where(move == 1, 1.0, -1.0)

    def step(self, state: State, action: Action) -> State:
        sign, count = state.data
        count = count + 1
        move = self._move(action)
        reward, last = {
            "constant": (jnp.ones(()), jnp.ones((), bool)),
            "observation": (sign, jnp.ones((), bool)),
            "delayed": (jnp.where(count == self.delay, 1.0, 0.0), count == self.delay),
            "action": (move, jnp.ones((), bool)),
            "both": (move * sign, jnp.ones((), bool)),
            "endless": (jnp.ones(()), jnp.zeros((), bool)),
            "cue": (
                jnp.where(count == self.delay, move * sign, 0.0),
                count == self.delay,
            ),
        }[self.kind]
        obs = count if self.kind == "delayed" else jnp.zeros(())
        return state.replace(
            data=jnp.stack([sign, count]),
            obs=_obs(obs),
            reward=reward.astype(jnp.float32),
            terminated=last,
            metrics={"success": (reward > 0).astype(jnp.float32)},
        )

    def demonstrator(self, state: State) -> Action:
        """Knows the sign, also where it is not observed any more."""
        right = (state.data[0] > 0) | (self.kind == "action")
        if self.continuous:
            return {"move": jnp.where(right, 0.5, -0.5)[None]}
        return {"move": right.astype(jnp.int32)}


def make(
    kind: str = "both",
    continuous: bool = False,
    delay: int = 2,
    limit: int | None = None,
) -> Probe:
    """Build the probe.

    Args:
      kind: which of the probes, see `Probe`.
      continuous: whether its head is a Box.
      delay: steps until the reward, of the kinds "delayed" and "cue".
      limit: time limit in steps, None for the kind's own.
    """
    return Probe(kind, continuous, delay, limit)


@dataclasses.dataclass(frozen=True)
class Target:
    """One step; its success is how close the action is to 0.3, from -0.3 to 1."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("target", {"move": Box(1)}, None, "success")

    def reset(self, key: jax.Array) -> State:
        return _start(jax.random.uniform(key)[None], jnp.zeros(()))

    def step(self, state: State, action: Action) -> State:
        closeness = 1.0 - jnp.abs(action["move"][0] - 0.3)
        return state.replace(
            reward=closeness,
            terminated=jnp.ones((), bool),
            metrics={"success": closeness},
        )


@dataclasses.dataclass(frozen=True)
class Counter:
    """Reward and observation count the steps: every value in it is known by hand.

    `end` says how it ends at `length`: terminated, truncated, both or limit (the
    wrapper's). A reset starts at 0, so a reset observation has another value.
    """

    end: str = "terminated"
    length: int = 3

    @property
    def spec(self) -> EnvSpec:
        limit = self.length if self.end == "limit" else None
        return EnvSpec("counter", {"move": Discrete(2)}, limit, "success")

    def reset(self, key: jax.Array) -> State:
        # The serial tells starts apart; nothing else depends on it.
        return _start(_obs(0.0), jnp.stack([jnp.zeros(()), jax.random.uniform(key)]))

    def step(self, state: State, action: Action) -> State:
        del action
        count, serial = state.data
        count = count + 1
        ended = count >= self.length
        return state.replace(
            data=jnp.stack([count, serial]),
            obs=_obs(count),
            reward=count.astype(jnp.float32),
            terminated=ended & (self.end in ("terminated", "both")),
            truncated=ended & (self.end in ("truncated", "both")),
            metrics={"success": count / 10.0},
        )


@dataclasses.dataclass(frozen=True)
class Lottery:
    """Each start draws u: an episode of 1 to 4 steps that pays u at each, then NaN.

    `success` counts the steps.
    """

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("lottery", {"move": Discrete(2)}, 6, "success")

    def reset(self, key: jax.Array) -> State:
        luck = jax.random.uniform(key)
        return _start(luck[None], jnp.stack([luck, jnp.zeros(())]))

    def step(self, state: State, action: Action) -> State:
        del action
        luck, count = state.data
        count = count + 1
        over = count > self.length(luck)
        return state.replace(
            data=jnp.stack([luck, count]),
            reward=jnp.where(over, jnp.nan, luck),
            terminated=count == self.length(luck),
            metrics={"success": jnp.where(over, jnp.nan, count)},
        )

    @staticmethod
    def length(luck: jax.Array) -> jax.Array:
        return 1.0 + jnp.floor(4.0 * luck)


# What a step of `Faulty` may give: in the observation, or as the reward.
FAULTS = {
    "none": 0.0,
    "obs_nan": jnp.nan,
    "obs_inf": -jnp.inf,
    "obs_huge": 1e9,
    "reward_nan": jnp.nan,
    "reward_inf": jnp.inf,
    "reward_huge": -1e9,
}
_FAULT_NAMES = tuple(FAULTS)


@dataclasses.dataclass(frozen=True)
class Faulty:
    """Pays 1 for moving right; its episodes have a fault at one of their steps.

    Attributes:
      fault: the one that an episode has, a name of `FAULTS`.
      share: of episodes that have it.
      at: the step of the episode at which it comes, from 1.
      length: steps of an episode.
      start: the same at a start, in the first entry of its observation.
      privileged: observations are a dictionary, and faults are the critic's alone.
      limit: the time limit in steps, None for none.

    `data` holds the steps of the episode and the index of its fault, for a test to set.
    """

    fault: str = "none"
    share: float = 1.0
    at: int = 3
    length: int = 5
    start: str = "none"
    privileged: bool = False
    limit: int | None = None

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("faulty", {"move": Discrete(2)}, self.limit, "success")

    def _observe(self, numbers: jax.Array) -> jax.Array | dict[str, jax.Array]:
        if not self.privileged:
            return numbers
        return {"actor": jnp.ones((1,), jnp.float32), "critic": numbers}

    def reset(self, key: jax.Array) -> State:
        unlucky = jax.random.uniform(key) < self.share
        index = jnp.where(unlucky, _FAULT_NAMES.index(self.fault), 0)
        first = jnp.where(unlucky, FAULTS[self.start], 0.0)
        obs = jnp.stack([first, jnp.ones(())]).astype(jnp.float32)
        data = {"count": jnp.int32(0), "fault": index.astype(jnp.int32)}
        return _start(obs, data).replace(obs=self._observe(obs))

    def step(self, state: State, action: Action) -> State:
        count, index = state.data["count"] + 1, state.data["fault"]
        faults = jnp.asarray([FAULTS[name] for name in _FAULT_NAMES], jnp.float32)
        fault = jnp.where(count == self.at, faults[index], 0.0)
        in_obs = index < _FAULT_NAMES.index("reward_nan")
        right = action["move"].astype(jnp.float32)
        obs = jnp.stack(
            [jnp.where(in_obs, fault, 0.0), count.astype(jnp.float32) / 5.0]
        )
        return state.replace(
            data={"count": count, "fault": index},
            obs=self._observe(obs),
            reward=right + jnp.where(in_obs, 0.0, fault),
            terminated=count >= self.length,
            metrics={"success": count.astype(jnp.float32)},
        )

    def demonstrator(self, state: State) -> Action:
        """Moves right."""
        del state
        return {"move": jnp.int32(1)}


@dataclasses.dataclass(frozen=True)
class Dice:
    """Pays what its own random key throws at each of three steps; all starts are one.

    Its step draws nothing where it is not `thrown`, but the key stays in its state.
    """

    thrown: bool = True

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("dice", {"move": Discrete(2)}, success="success")

    def reset(self, key: jax.Array) -> State:
        del key
        luck = jax.random.key(7)
        keys = {"one": luck, "many": jax.random.split(luck, 2)}
        return _start(_obs(0.0), {"count": jnp.int32(0), "keys": keys})

    def step(self, state: State, action: Action) -> State:
        del action
        data = state.data
        count = data["count"] + 1
        reward = jnp.zeros((), jnp.float32)
        if self.thrown:
            keys = jnp.stack([data["keys"]["one"], *data["keys"]["many"]])
            reward = jax.random.uniform(jax.random.fold_in(keys[count - 1], count))
        return state.replace(
            data={**data, "count": count}, reward=reward, terminated=count == 3
        )


_HEADS = {
    "op": Discrete(4),
    "slot": Discrete(3, parent="op", active_when=(1, 2)),
    "aim": Box(3),
    "cards": Choice(5, 2),
    "switches": Custom(4, "custom_distributions:switches"),
}


@dataclasses.dataclass(frozen=True)
class HeadsProbe:
    """Heads of every kind, with masks and activity that change at each step.

    Episodes end by the rules at random or by the limit, in the middle of any window.
    Observations are far from the origin, so that normalisation matters. On some steps
    no head matters at all.
    """

    names: tuple[str, ...] = ("op", "slot", "aim", "cards")
    privileged: bool = False

    @property
    def spec(self) -> EnvSpec:
        heads = {name: _HEADS[name] for name in self.names}
        return EnvSpec("probe_heads", heads, 7, "success")

    def _draw(self, key: jax.Array) -> dict:
        """All of a state that is drawn anew at each step."""
        # One draw of all that is random: each further one costs compile time.
        key, key_draw = jax.random.split(key)
        draw = jax.random.uniform(key_draw, (29,), jnp.float32)
        features = 4.0 * (draw[:4] - 0.5)
        op = (draw[4:8] < 0.6).at[0].set(True)
        slot = draw[8:20].reshape(4, 3) < 0.5
        slot |= ~jnp.any(slot, axis=1, keepdims=True)
        cards = (draw[20:25] < 0.6).at[1:3].set(True)
        awake = draw[25:28] < 0.7
        masks = {"op": op, "slot": slot, "cards": cards}
        active = {"op": awake[0], "aim": awake[1], "cards": awake[2]}
        active["switches"] = awake[1]
        obs = 100.0 + 10.0 * features
        return {
            "data": {"key": key, "features": features, "unlucky": draw[28] < 0.15},
            "obs": {"actor": obs, "critic": features} if self.privileged else obs,
            "action_mask": {n: m for n, m in masks.items() if n in self.names},
            "active": {n: a for n, a in active.items() if n in self.names},
        }

    def reset(self, key: jax.Array) -> State:
        """`paid_...` of the metrics is what each head earned in the episode."""
        zero = jnp.zeros((), jnp.float32)
        metrics = {"success": zero, **{f"paid_{name}": zero for name in self.names}}
        return _start(zero, zero).replace(metrics=metrics, **self._draw(key))

    def step(self, state: State, action: Action) -> State:
        features = state.data["features"]
        wanted = 1 + (features[0] > 0).astype(jnp.int32)
        paid = {}
        if "op" in self.names:
            paid["op"] = (action["op"] == wanted).astype(jnp.float32)
        if "slot" in self.names:
            used = (action["op"] == 1) | (action["op"] == 2)
            paid["slot"] = 0.5 * (used & (action["slot"] == 0)).astype(jnp.float32)
        if "aim" in self.names:
            paid["aim"] = -jnp.mean(jnp.square(action["aim"] - 0.5))
        if "cards" in self.names:
            paid["cards"] = jnp.sum(action["cards"].astype(jnp.float32)) / 10.0
        if "switches" in self.names:
            right = (action["switches"] == 1) == (features > 0)
            paid["switches"] = jnp.mean(right.astype(jnp.float32))
        active = {**state.active, "slot": state.active.get("op", jnp.ones((), bool))}
        paid = {name: jnp.where(active[name], x, 0.0) for name, x in paid.items()}
        reward = sum(paid.values(), start=jnp.zeros((), jnp.float32))
        metrics = {"success": (reward > 0).astype(jnp.float32)}
        for name, x in paid.items():
            metrics[f"paid_{name}"] = state.metrics[f"paid_{name}"] + x
        return state.replace(
            reward=reward,
            terminated=state.data["unlucky"],
            metrics=metrics,
            **self._draw(state.data["key"]),
        )

    def demonstrator(self, state: State) -> Action:
        """Allowed actions, without skill."""
        masks = state.action_mask
        action: Action = {}
        if "op" in self.names:
            action["op"] = jnp.argmax(masks["op"]).astype(jnp.int32)
        if "slot" in self.names:
            action["slot"] = jnp.argmax(masks["slot"][action["op"]]).astype(jnp.int32)
        if "aim" in self.names:
            action["aim"] = jnp.full((3,), 0.5, jnp.float32)
        if "cards" in self.names:
            scores = masks["cards"].astype(jnp.float32)
            action["cards"] = jax.lax.top_k(scores, 2)[1].astype(jnp.int32)
        if "switches" in self.names:
            action["switches"] = jnp.ones((4,), jnp.int32)
        return action
