"""Official Meta-World and EnvPool's, many at once, as Stable-Baselines3 takes them.

`make_vector` by kind: "dummy" (one process), "subproc" (a process each), both of the
official package, and "envpool" (EnvPool's C++ version, threads).
"""
# pyright: reportMissingImports=false

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv


def official(seed: int, task: str = "hammer-v3") -> Any:
    """One environment, as Meta-World's documentation makes it."""
    import gymnasium
    import metaworld  # noqa: F401 (registers it)

    # Without gymnasium's check of each step, which is for those who write environments.
    return gymnasium.make(
        "Meta-World/MT1", env_name=task, seed=seed, disable_env_checker=True
    )


class EnvPoolVector(VecEnv):
    """EnvPool's hammer-v3; `step` resets what ended, as Stable-Baselines3 expects.

    Good for speed alone: in EnvPool 1.2.5 the first episode of an environment pays as
    Meta-World does, later ones less for the same states (whichever way it is reset).
    """

    def __init__(self, num_envs: int, seed: int, **kwargs: Any):
        import envpool

        self.pool = envpool.make_gymnasium(
            "MetaWorld/Hammer-v3", num_envs=num_envs, seed=seed, **kwargs
        )
        super().__init__(num_envs, self.pool.observation_space, self.pool.action_space)

    def reset(self) -> np.ndarray:
        return self.pool.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.pool.send(actions)

    def step_wait(self):
        obs, reward, terminated, truncated, found = self.pool.recv()
        infos: list[dict[str, Any]] = [{"success": x} for x in found["success"]]
        done = terminated | truncated
        if done.any():
            obs = obs.copy()
            ended = np.flatnonzero(done)
            for i in ended:
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = bool(truncated[i])
            obs[ended] = self.pool.reset(ended)[0]
        return obs, reward, done, infos

    def close(self) -> None:
        self.pool.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.pool, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def make_vector(kind: str, num_envs: int, seed: int) -> VecEnv:
    """That many environments of a kind; seeds follow on from the first."""
    if kind == "envpool":
        return EnvPoolVector(num_envs, seed)
    makers: Sequence[Callable[[], Any]] = [
        functools.partial(official, seed + i) for i in range(num_envs)
    ]
    if kind == "dummy":
        return DummyVecEnv(list(makers))
    if kind == "subproc":
        return SubprocVecEnv(list(makers))
    raise ValueError(f"vector: got {kind!r}; allowed is dummy, subproc or envpool")


def play(model: Any, envs: VecEnv, episodes: int) -> tuple[float, float]:
    """Mean return and share of successes of the policy's mode.

    An episode succeeded if any of its steps did, as Meta-World counts it.
    """
    returns: list[float] = []
    successes: list[float] = []
    total, success = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
    obs: Any = envs.reset()
    while len(returns) < episodes:
        action, _ = model.predict(obs, deterministic=True)
        obs, reward, done, infos = envs.step(action)
        total += reward
        success = np.maximum(success, [info["success"] for info in infos])
        for i in np.flatnonzero(done):
            returns.append(float(total[i]))
            successes.append(float(success[i]))
            total[i] = success[i] = 0.0
    return float(np.mean(returns)), float(np.mean(successes))
