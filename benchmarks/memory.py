"""What only a memory can learn: a cue at step 0 decides what pays at step T.

    python -m benchmarks.memory [--seeds 5]

Every episode shows a sign, then nothing; at step T the action must agree with the sign.
A policy without memory is right half of the time, whatever it does. All seeds of one
kind are one vmapped program. Writes benchmarks/results/memory.json.
"""

import argparse
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Action, Discrete, EnvSpec, State
from purejaxppo.ppo.learner import make_train

DELAYS = (8, 32)
Core = Literal["none", "lstm", "gru"]
KINDS: tuple[Core, ...] = ("none", "gru", "lstm")
NUM_ENVS = 64


class Cue:
    """Observation: the sign at step 0, and whether this is the step that pays."""

    def __init__(self, delay: int):
        self.delay = delay
        self.spec = EnvSpec("cue", {"move": Discrete(2)}, success="success")

    def _state(self, sign: jax.Array, step: jax.Array, reward: jax.Array) -> State:
        cue = jnp.where(step == 0, sign, 0.0)
        now = (step == self.delay).astype(jnp.float32)
        return State(
            data=(sign, step),
            obs=jnp.stack([cue, now]),
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
        return self._state(
            sign, step + 1, jnp.where(step == self.delay, move * sign, 0)
        )


def config_of(delay: int, core: Core, total_timesteps: int) -> Config:
    """The same samples, networks and optimiser for every kind; the core is all."""
    return Config(
        env="cue",
        core=core,
        core_size=64,
        num_envs=NUM_ENVS,
        num_steps=2 * (delay + 1),
        num_epochs=1,
        num_minibatches=8,
        hidden_sizes=(64,),
        critic_hidden_sizes=(64,),
        total_timesteps=total_timesteps,
        num_evals=10,
        eval_blocks=5,
        eval_episodes=40,
        learning_rate_schedule="linear",
        # The one action that counts is paid at once: a longer lambda would only hand
        # its reward to the others. What is long is the way back through the core.
        hypers=Hypers(learning_rate=2e-3, gae_lambda=0.0, gamma=1.0, entropy_coef=0.01),
    )


def measure(
    seeds: int, updates: int = 300, delays: tuple[int, ...] = DELAYS
) -> dict[str, Any]:
    """Share of episodes that end well, per delay, kind and seed, at each evaluation."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    results: dict[str, Any] = {"seeds": seeds, "updates": updates}
    for delay in delays:
        steps = NUM_ENVS * 2 * (delay + 1) * updates
        for core in KINDS:
            train = make_train(config_of(delay, core, steps), Cue(delay))
            _, metrics = jax.jit(jax.vmap(train))(keys)
            curve = np.asarray(metrics["eval/episode_success"])  # [seeds, evaluations]
            results[f"delay {delay}, core {core}"] = {
                "final": curve[:, -1].round(4).tolist(),
                "curve": curve.round(4).tolist(),
                "steps": steps,
            }
            print(f"delay {delay:>2}, core {core:<4} success {curve[:, -1].round(3)}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="What only a memory can learn.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=300)
    arguments = parser.parse_args()
    print(record.write("memory", measure(arguments.seeds, arguments.updates)))


if __name__ == "__main__":
    main()
