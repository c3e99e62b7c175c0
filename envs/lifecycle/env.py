"""The lifecycle of seeds as an environment: heads, masks, readings, bookkeeping."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Action, Discrete, EnvSpec, State
from purejaxppo.errors import ConfigError, whole_number

from . import render, rules
from .rules import Limits, Seeds

WAIT, GERMINATE, BLEND, CULL = range(4)

CULL_PRICE = 0.05
SCALE = 12.0  # worth that gives a return of 1
SUCCESS = 0.5  # smallest return of a successful episode

Flags = dict[str, jax.Array]  # head name -> bool

_COUNTS = ("matured", "duds", "blended", "culled", "waited", "invalid")


class Data(struct.PyTreeNode):
    """The internal state of the environment."""

    seeds: Seeds
    time: jax.Array  # int32 []
    key: jax.Array
    total: jax.Array  # float32 [], return so far
    counts: dict[str, jax.Array]  # float32 [] each


def _metrics(data: Data) -> dict[str, jax.Array]:
    counts = data.counts
    steps = jnp.maximum(data.time, 1).astype(jnp.float32)
    return {
        "success": (data.total >= SUCCESS).astype(jnp.float32),
        "matured": counts["matured"],
        "dud_frac": counts["duds"] / jnp.maximum(counts["matured"], 1.0),
        "blended": counts["blended"],
        "culled": counts["culled"],
        "noop_frac": counts["waited"] / steps,
        "invalid_frac": counts["invalid"] / steps,
    }


def _clip_index(value: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Clip an index to [0, size), and return whether it was in this range."""
    index = jnp.clip(value.astype(jnp.int32), 0, size - 1)
    return index, index == value


@dataclasses.dataclass(frozen=True)
class Lifecycle:
    """The environment: germinate, blend and cull seeds with hidden vigour."""

    limits: Limits

    @property
    def spec(self) -> EnvSpec:
        limits = self.limits
        heads = {
            "op": Discrete(4),
            "slot": Discrete(limits.num_slots, "op", (GERMINATE, CULL)),
            "blueprint": Discrete(len(limits.blueprints), "op", (GERMINATE,)),
            "blend": Discrete(len(limits.pairs), "op", (BLEND,)),
        }
        return EnvSpec("lifecycle", heads, success="success")

    def reset(self, key: jax.Array) -> State:
        zero = jnp.zeros((), jnp.float32)
        data = Data(
            seeds=rules.empty(self.limits),
            time=jnp.zeros((), jnp.int32),
            key=key,
            total=zero,
            counts=dict.fromkeys(_COUNTS, zero),
        )
        return self._state(data, key, zero)  # no seeds, so the key is not used

    def step(self, state: State, action: Action) -> State:
        key, key_seed, key_growth, key_readings = jax.random.split(state.data.key, 4)
        seeds, price, applied = self._apply(state.data.seeds, action, key_seed)
        grown, paid = rules.grow(seeds, key_growth)
        reward = (jnp.sum(paid) - price) / SCALE
        events = {
            "matured": jnp.sum(seeds.occupied & ~grown.occupied),
            "duds": jnp.sum(paid < 0.0),
            "blended": applied[BLEND],
            "culled": applied[CULL],
            "waited": applied[WAIT],
            "invalid": ~jnp.any(applied),
        }
        counts = state.data.counts
        data = Data(
            seeds=grown,
            time=state.data.time + 1,
            key=key,
            total=state.data.total + reward,
            counts={k: counts[k] + events[k].astype(jnp.float32) for k in _COUNTS},
        )
        return self._state(data, key_readings, reward)

    @property
    def seconds_per_step(self) -> float:
        return render.SECONDS_PER_STEP

    def render(
        self, states: State, actions: Action, steps: Sequence[int]
    ) -> Iterable[np.ndarray]:
        """Draw the seeds in their slots over time; see `RenderedEnv`.

        Args:
          states, actions, steps: see `RenderedEnv`.
        """
        seeds = states.data.seeds
        before = jax.tree.map(lambda x: x[:-1], seeds)
        # The key draws the vigour of new seeds, which is read from the next state.
        apply = jax.jit(jax.vmap(self._apply, (0, 0, None)))
        acted, _, applied = jax.device_get(apply(before, actions, jax.random.key(0)))
        garden = render.Garden(seeds, acted, applied, actions, states.data.total)
        return render.draw(garden, steps, self.limits)

    def _apply(
        self, seeds: Seeds, action: Action, key: jax.Array
    ) -> tuple[Seeds, jax.Array, jax.Array]:
        """Return the seeds after the action, its price, and the applied op, bool [4].

        An op that is not possible is not applied. Whether it is possible is computed
        from the seeds, so that the rules do not depend on the state's masks.
        """
        limits, op = self.limits, action["op"]
        slot, is_slot = _clip_index(action["slot"], limits.num_slots)
        blueprint, is_known = _clip_index(action["blueprint"], len(limits.blueprints))
        pair, is_pair = _clip_index(action["blend"], len(limits.pairs))
        full = seeds.occupied[slot]
        applied = jnp.stack(
            [
                op == WAIT,
                (op == GERMINATE) & is_slot & is_known & ~full,
                (op == BLEND) & is_pair & rules.blendable(seeds, limits)[pair],
                (op == CULL) & is_slot & full,
            ]
        )
        planted = rules.germinate(seeds, slot, blueprint, key, limits)
        price = jnp.where(
            applied[GERMINATE],
            rules.column(limits, "price")[blueprint],
            jnp.where(applied[CULL], CULL_PRICE, 0.0),
        )
        blended = rules.blend(seeds, pair, limits)
        culled = rules.cull(seeds, slot, limits)
        new_seeds = trees.where(applied[GERMINATE], planted, seeds)
        new_seeds = trees.where(applied[BLEND], blended, new_seeds)
        new_seeds = trees.where(applied[CULL], culled, new_seeds)
        return new_seeds, price, applied

    def _state(self, data: Data, key: jax.Array, reward: jax.Array) -> State:
        masks, active = self._masks(data.seeds)
        return State(
            data=data,
            obs=self._observe(data, key),
            reward=reward,
            terminated=data.time >= self.limits.horizon,
            truncated=jnp.zeros((), bool),
            action_mask=masks,
            active=active,
            metrics=_metrics(data),
        )

    def _observe(self, data: Data, key: jax.Array) -> dict[str, jax.Array]:
        """Return actor [4 J + 1] and critic [7 J + 1], float32; see README.md."""
        seeds = data.seeds
        readings = rules.readings(seeds, key, self.limits)
        time = data.time.astype(jnp.float32) / self.limits.horizon
        visible = [
            seeds.occupied.astype(jnp.float32),
            seeds.worth,
            readings.reshape(-1),
            time[None],
        ]
        hidden = [seeds.vigour, seeds.progress, seeds.rate]
        return {
            "actor": jnp.concatenate(visible),
            "critic": jnp.concatenate([*visible, *hidden]),
        }

    def _masks(self, seeds: Seeds) -> tuple[Flags, Flags]:
        """Return the masks of `op` [4], `slot` [4, J] and `blend` [P], and activity."""
        full, pairs = seeds.occupied, rules.blendable(seeds, self.limits)
        ops = [jnp.ones((), bool), jnp.any(~full), jnp.any(pairs), jnp.any(full)]
        none = jnp.zeros_like(full)
        masks = {
            "op": jnp.stack(ops),
            # A row per op: GERMINATE needs an empty slot, CULL an occupied one.
            "slot": jnp.stack([none, ~full, none, full]),
            "blend": pairs,
        }
        return masks, {"blend": ops[BLEND]}


def make(num_slots: int, noise: float) -> Lifecycle:
    """Build the environment.

    Args:
      num_slots: J, the number of slots for seeds.
      noise: standard deviation of a reading of vigour.

    Raises:
      ConfigError: an argument is not allowed.
    """
    is_number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if not is_number or not 0.0 <= noise < float("inf"):
        raise ConfigError("noise", noise, "a finite number of at least 0")
    whole_number("num_slots", num_slots, 2, 16)
    return Lifecycle(Limits(num_slots=num_slots, noise=float(noise)))
