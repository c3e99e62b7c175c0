"""Environments with a planted fault, around any other environment."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from purejaxppo.env import Env, EnvSpec, State
from purejaxppo.registry import make_env

_MEMORY = 64  # observations from which a mangled one is drawn


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """An environment around another one, which behaves the same."""

    inner: Env

    @property
    def spec(self) -> EnvSpec:
        return self.inner.spec

    def reset(self, key: jax.Array) -> State:
        return self.inner.reset(key)

    def step(self, state: State, action: dict[str, jax.Array]) -> State:
        return self.inner.step(state, action)


@dataclasses.dataclass(frozen=True)
class Scaled(Wrapper):
    """Rewards are multiplied by a factor."""

    factor: float

    def step(self, state, action):
        after = super().step(state, action)
        return after.replace(reward=self.factor * after.reward)


@dataclasses.dataclass(frozen=True)
class WithNaN(Wrapper):
    """The observation is NaN where an entry of it is above a limit."""

    limit: float

    def step(self, state, action):
        after = super().step(state, action)
        broken = jnp.abs(after.obs[0]) > self.limit
        return after.replace(obs=jnp.where(broken, jnp.nan, after.obs))


@dataclasses.dataclass(frozen=True)
class StaleMask(Wrapper):
    """The mask that the policy is given is that of the state before."""

    def reset(self, key):
        state = super().reset(key)
        return state.replace(data=(state.data, state.action_mask))

    def step(self, state, action):
        inner, mask = state.data
        after = super().step(state.replace(data=inner, action_mask=mask), action)
        return after.replace(data=(after.data, after.action_mask), action_mask=mask)


@dataclasses.dataclass(frozen=True)
class LimitAsEnd(Wrapper):
    """The time limit of the environment is reported as a termination."""

    limit: int

    @property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.inner.spec, max_episode_steps=self.limit)

    def reset(self, key):
        state = super().reset(key)
        return state.replace(data=(state.data, jnp.zeros((), jnp.int32)))

    def step(self, state, action):
        inner, count = state.data
        after = super().step(state.replace(data=inner), action)
        ends = after.terminated | (count + 1 >= self.limit)
        return after.replace(data=(after.data, count + 1), terminated=ends)


@dataclasses.dataclass(frozen=True)
class Mangled(Wrapper):
    """Observation and reward are now and then those of another step of the episode.

    Tambon et al. 2023: "random" takes both of one step, "mangled" each of its own,
    "repeat" both of the step before.
    """

    kind: str
    probability: float

    def reset(self, key):
        state = super().reset(key)
        observations = jnp.broadcast_to(state.obs, (_MEMORY, *state.obs.shape))
        rewards = jnp.zeros((_MEMORY,), jnp.float32)
        count, key = jnp.ones((), jnp.int32), jax.random.fold_in(key, 7)
        return state.replace(data=(state.data, observations, rewards, count, key))

    def step(self, state, action):
        inner, observations, rewards, count, key = state.data
        after = super().step(state.replace(data=inner), action)
        observations = observations.at[count % _MEMORY].set(after.obs)
        rewards = rewards.at[count % _MEMORY].set(after.reward)
        key, key_choice, key_obs, key_reward = jax.random.split(key, 4)
        strikes = jax.random.uniform(key_choice) < self.probability
        index = jax.random.randint(key_obs, (), 0, jnp.minimum(count + 1, _MEMORY))
        other = jax.random.randint(key_reward, (), 0, jnp.minimum(count + 1, _MEMORY))
        if self.kind == "repeat":
            index = other = (count - 1) % _MEMORY
        elif self.kind == "random":
            other = index
        return after.replace(
            data=(after.data, observations, rewards, count + 1, key),
            obs=jnp.where(strikes, observations[index], after.obs),
            reward=jnp.where(strikes, rewards[other], after.reward),
        )


@dataclasses.dataclass(frozen=True)
class RewardNoise(Wrapper):
    """Normal noise of a tenth of the reward (Tambon et al. 2023)."""

    def reset(self, key):
        state = super().reset(key)
        return state.replace(data=(state.data, jax.random.fold_in(key, 9)))

    def step(self, state, action):
        inner, key = state.data
        after = super().step(state.replace(data=inner), action)
        key, key_noise = jax.random.split(key)
        noise = 1.0 + 0.1 * jax.random.normal(key_noise)
        return after.replace(data=(after.data, key), reward=noise * after.reward)


_KINDS = {
    "scaled": Scaled,
    "nan": WithNaN,
    "stale_mask": StaleMask,
    "limit_as_end": LimitAsEnd,
    "mangled": Mangled,
    "reward_noise": RewardNoise,
}


def make(
    env: str, fault: str, inner_kwargs: dict | None = None, **arguments: Any
) -> Env:
    """Make an environment with a fault.

    Args:
      env: the name of the environment.
      fault: the name of the fault.
      inner_kwargs: arguments of the environment's own factory.
      arguments: the arguments of the fault.
    """
    return _KINDS[fault](make_env(env, **(inner_kwargs or {})), **arguments)
