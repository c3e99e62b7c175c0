"""Our environments as Brax's, for Brax's algorithms.

    env = to_brax("hammer")
    ppo.train(env, episode_length=env.spec.max_episode_steps, ...)

Continuous heads only, as Brax has no other actions; of several heads the actions are
joined in the order of the heads. Neither the time limit nor the next episode is our
part: Brax's wrappers, which `train` applies, cut an episode at `episode_length`, and
begin the next one in the state that the environment first began in.

Brax sums the metrics of steps over an episode, and ours are those of the episode so
far: a step's are what it adds. An observation or reward that is not finite, or above
1e8, ends the episode with the observation before it and a reward of 0. Brax takes this,
and what an environment truncates by itself, for a termination: it has no flag for it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import autoreset
from purejaxppo.autoreset import Episode
from purejaxppo.env import Action, Box, Env, EnvSpec, Obs
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import import_mjx
from purejaxppo.registry import make_env

import_mjx()  # before Brax imports MJX, so that the patch applies

from brax import envs  # noqa: E402
from brax.envs.base import ObservationSize  # noqa: E402


class Environment(envs.Env):
    """One of our environments under Brax's protocol; `to_brax` builds it.

    Attributes:
      spec: name, heads and time limit of the environment.
    """

    def __init__(self, env: Env):
        self._env = env
        self.spec: EnvSpec = env.spec
        self._sizes = _sizes(env.spec.heads)

    def reset(self, rng: jax.Array) -> envs.State:
        """Begin an episode; `rng` is a key of either kind."""
        typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
        key = rng if typed else jax.random.wrap_key_data(rng)
        episode = autoreset.init(self._env, "fresh", None, False, key)
        zero = jnp.zeros((), jnp.float32)
        state: Any = episode  # Brax names the type of its own physics
        return envs.State(
            pipeline_state=state,
            obs=_observation(episode.state.obs),
            reward=zero,
            done=zero,
            metrics=dict(episode.state.metrics),
        )

    def step(self, state: Any, action: jax.Array) -> envs.State:
        """Step; what Brax's wrappers have added to `state` stays."""
        before: Episode = state.pipeline_state
        episode, step = autoreset.advance(self._env, before, self._split(action), None)
        gained = {
            name: x - before.state.metrics[name] for name, x in step.metrics.items()
        }
        return state.replace(
            pipeline_state=episode,
            obs=_observation(step.final_obs),
            reward=step.reward,
            done=(step.terminated | step.truncated).astype(jnp.float32),
            metrics={**state.metrics, **gained},
        )

    def _split(self, action: jax.Array) -> Action:
        ends = np.cumsum([*self._sizes.values()])[:-1].tolist()
        return dict(zip(self._sizes, jnp.split(action, ends), strict=True))

    @property
    def observation_size(self) -> ObservationSize:
        obs = jax.eval_shape(self.reset, jax.random.key(0)).obs
        if isinstance(obs, Mapping):
            return {name: x.shape for name, x in obs.items()}
        return obs.shape[-1]

    @property
    def action_size(self) -> int:
        return sum(self._sizes.values())

    @property
    def backend(self) -> str:
        """What simulates: nothing of Brax."""
        return "purejaxppo"


def _sizes(heads: Mapping[str, object]) -> dict[str, int]:
    """Return head name -> size."""
    for name, head in heads.items():
        if not isinstance(head, Box):
            allowed = "a Box, as all actions of Brax are continuous"
            raise ConfigError(f"heads.{name}", head, allowed)
    return {name: head.size for name, head in heads.items() if isinstance(head, Box)}


def _observation(obs: Obs) -> jax.Array | dict[str, jax.Array]:
    """Name the parts for actor and critic as Brax's networks expect them."""
    if not isinstance(obs, dict):
        return obs
    return {"state": obs["actor"], "privileged_state": obs["critic"]}


def to_brax(env: str, **env_kwargs: object) -> Environment:
    """Build an environment of ours as one of Brax.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      **env_kwargs: keyword arguments of the environment's factory.

    Raises:
      ConfigError: an argument that is not allowed, or a head that is not continuous.
    """
    return Environment(make_env(env, **env_kwargs))
