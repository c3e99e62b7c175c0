"""The hammer of Meta-World and of EnvPool, many at once, for Stable-Baselines3."""
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv


def official(seed: int) -> Any:
    """Make one environment, as Meta-World's documentation does."""
    import gymnasium
    import metaworld  # noqa: F401 (registers it)

    # Without gymnasium's check of each step, which is for those who write environments.
    return gymnasium.make(
        "Meta-World/MT1", env_name="hammer-v3", seed=seed, disable_env_checker=True
    )


class EnvPoolVector(VecEnv):
    """EnvPool's hammer-v3; `step` resets what ended, as Stable-Baselines3 expects.

    Good for speed alone: in EnvPool 1.2.5 the first episode of an environment pays as
    Meta-World does, later ones less for the same states (whichever way it is reset).
    """

    def __init__(self, num_envs: int, seed: int):
        import envpool

        self.pool = envpool.make_gymnasium(
            "MetaWorld/Hammer-v3", num_envs=num_envs, seed=seed
        )
        super().__init__(num_envs, self.pool.observation_space, self.pool.action_space)

    def reset(self) -> np.ndarray:
        return self.pool.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.pool.send(actions)

    def step_wait(self):
        obs, reward, terminated, truncated, _ = self.pool.recv()
        infos: list[dict[str, Any]] = [{} for _ in reward]
        done = terminated | truncated
        ended = np.flatnonzero(done)
        if len(ended):
            obs = obs.copy()
            for i in ended:
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = bool(truncated[i])
            obs[ended] = self.pool.reset(ended)[0]
        return obs, reward, done, infos

    def close(self) -> None:
        self.pool.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.pool, attr_name, None)] * self.num_envs

    def _missing(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    set_attr = env_method = _missing

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
