"""Our environments as a `VecEnv` of Stable-Baselines3, which takes no others.

    model = PPO("MlpPolicy", to_stable_baselines3("hammer", num_envs=64))

Actions are those of `gymnasium_spaces`. Of an observation with parts for actor and
critic only the actor's is shown, as Stable-Baselines3 gives both networks the same. At
the end of an episode its metrics are in the information. `env_method("action_masks")`
returns the masks that MaskablePPO of sb3-contrib asks for.
"""
# pyright: reportMissingImports=false

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from purejaxppo.adapters.batch import MAX_ENVS, MAX_SEED, Host, Moved, copied
from purejaxppo.adapters.gymnasium_spaces import (
    action_space,
    flat_masks,
    head_actions,
    observation_space,
)
from purejaxppo.env import Env
from purejaxppo.errors import ConfigError, whole_number
from purejaxppo.registry import make_env

Info = dict[str, Any]


class Environments(VecEnv):
    """N environments; `to_stable_baselines3` builds it."""

    render_mode = None

    def __init__(self, env: Env, num_envs: int, seed: int):
        observations, self.heads = observation_space(env), env.spec.heads
        if isinstance(observations, gymnasium.spaces.Dict):
            observations = observations["actor"]
        actions = action_space(self.heads)
        if isinstance(actions, gymnasium.spaces.Dict):
            raise ConfigError("heads", [*self.heads], "one head, or none that is a Box")
        self.success = env.spec.success
        self._host = Host(env, num_envs, seed, resets=True)
        super().__init__(num_envs, observations, actions)

    def reset(self) -> np.ndarray:
        seeds = [seed % (MAX_SEED + 1) for seed in self._seeds if seed is not None]
        self._seen = self._host.reset(seeds or None)
        self._reset_seeds()
        return _actor(self._seen.obs)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = head_actions(self.heads, actions, self.num_envs)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Info]]:
        moved = self._host.step(self._actions)
        self._seen = moved.seen
        done = moved.terminated | moved.truncated
        infos: list[Info] = [{} for _ in done]
        if done.any():
            self._describe_ends(infos, moved, done)
        return _actor(moved.seen.obs), moved.reward, done, infos

    def _describe_ends(self, infos: list[Info], moved: Moved, done: np.ndarray) -> None:
        obs, metrics = copied((_actor(moved.step.final_obs), moved.step.metrics))
        for i in np.flatnonzero(done):
            infos[i] = {name: float(x[i]) for name, x in metrics.items()}
            infos[i]["terminal_observation"] = obs[i]
            infos[i]["TimeLimit.truncated"] = bool(moved.truncated[i])
            if self.success is not None:
                infos[i]["is_success"] = infos[i][self.success]

    def action_masks(self) -> np.ndarray:
        """Return which values of the actions are allowed, bool [N, sum of sizes]."""
        return flat_masks(self.heads, self._seen.action_mask, self.num_envs)

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Return a row of `action_masks` for each environment; it has no others."""
        if method_name != "action_masks":
            raise AttributeError(f"our environments have no method {method_name!r}")
        masks = self.action_masks(*args, **kwargs)
        return [masks[i] for i in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name!r} of our environments cannot be set")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None
    ) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """There is nothing to close."""


def _actor(obs: Any) -> Any:
    return obs["actor"] if isinstance(obs, dict) else obs


def to_stable_baselines3(
    env: str, num_envs: int, seed: int = 0, **env_kwargs: object
) -> VecMonitor:
    """Build N environments of ours as one `VecEnv` that records returns and lengths.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      num_envs: N.
      seed: of the first environment at the first `reset`, unless `seed` is called; the
        others have the seeds that follow.
      **env_kwargs: keyword arguments of the environment's factory.

    Raises:
      ConfigError: an argument that is not allowed, or heads that Stable-Baselines3 has
        no policy for.
    """
    ours = make_env(env, **env_kwargs)
    num_envs = whole_number("num_envs", num_envs, 1, MAX_ENVS)
    return VecMonitor(Environments(ours, num_envs, seed))
