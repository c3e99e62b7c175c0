"""A task for memory: a cue at step 0 decides which action pays at step T.

Every episode shows a sign, then nothing; at step T the action must agree with the sign.
A policy without memory is right half of the time, whatever it does. All seeds of one
kind are one vmapped program.
"""

import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.learning.runs import STUDIES
from benchmarks.prepared import with_tuples
from purejaxppo.config import Config, with_overrides
from purejaxppo.env import Action, Discrete, EnvSpec, State
from purejaxppo.ppo.learner import make_train

Json = dict[str, Any]
DELAYS = (8, 32)
Core = Literal["none", "lstm", "gru"]
CORES: tuple[Core, ...] = ("none", "gru", "lstm")
NUM_ENVS = 64


class Cue:
    """Observation: the sign at step 0, and whether this is the step that pays."""

    def __init__(self, delay: int):
        self.delay = delay
        self.spec = EnvSpec("cue", {"move": Discrete(2)}, success="success")

    def _state(self, sign: jax.Array, step: jax.Array, reward: jax.Array) -> State:
        cue = jnp.where(step == 0, sign, 0.0)
        pays = (step == self.delay).astype(jnp.float32)
        return State(
            data=(sign, step),
            obs=jnp.stack([cue, pays]),
            reward=reward,
            terminated=step > self.delay,
            truncated=jnp.zeros((), bool),
            metrics={"success": (reward > 0).astype(jnp.float32)},
        )

    def reset(self, key: jax.Array) -> State:
        sign = 2.0 * jax.random.bernoulli(key).astype(jnp.float32) - 1.0
        return self._state(sign, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

    def step(self, state: State, action: Action) -> State:
        sign, step = state.data
        move = 2.0 * action["move"].astype(jnp.float32) - 1.0
        reward = jnp.where(step == self.delay, move * sign, 0)
        return self._state(sign, step + 1, reward)


def cue_config(delay: int, core: Core, total_timesteps: int) -> Config:
    """Make a configuration; kinds differ in the core alone.

    Args:
      delay: steps from the cue to the action that pays.
      core: kind of memory.
      total_timesteps: environment steps of a seed.
    """
    sizes = {"num_envs": NUM_ENVS, "num_steps": 2 * (delay + 1)}
    sizes |= {"total_timesteps": total_timesteps, "core": core}
    values = STUDIES["others"]["memory"]["config"] | sizes
    return with_overrides(Config(env="cue"), with_tuples(values))


def solved(cases: list[Json]) -> dict[str, dict[str, int]]:
    """Count, by delay and core, the seeds that end with 95 % success or more."""
    counts: dict[str, dict[str, int]] = {}
    for case in cases:
        of_delay = counts.setdefault(str(case["delay"]), {})
        of_delay[case["core"]] = sum(share >= 0.95 for share in case["final"])
    return counts


def measure(
    num_seeds: int, num_updates: int = 300, delays: tuple[int, ...] = DELAYS
) -> Json:
    """Train every kind: success at each evaluation, by delay, core and seed.

    Args:
      num_seeds: trained side by side.
      num_updates: of each seed.
      delays: steps from the cue to the action that pays.
    """
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    cases = []
    for delay, core in itertools.product(delays, CORES):
        steps = NUM_ENVS * 2 * (delay + 1) * num_updates
        train = make_train(cue_config(delay, core, steps), Cue(delay))
        _, metrics = jax.jit(jax.vmap(train))(keys)
        curve = np.asarray(metrics["eval/episode_success"]).round(4)  # [S, evaluations]
        curves = {"final": curve[:, -1].tolist(), "curve": curve.tolist()}
        cases.append({"delay": delay, "core": core, "steps": steps, **curves})
    sizes = {"num_seeds": num_seeds, "updates": num_updates}
    return {**sizes, "solved": solved(cases), "cases": cases}
