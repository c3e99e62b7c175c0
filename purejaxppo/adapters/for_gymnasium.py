"""Our environments as Gymnasium's, for whoever trains on them with another library.

    envs = to_gymnasium("hammer", num_envs=64, engine="mujoco")  # a VectorEnv
    env = to_gymnasium("hammer")  # an Env

All environments are stepped by one call of one compiled program. Arrays are NumPy's and
the caller's own. The spaces are those of `gymnasium_spaces`. Of an information:

- the metrics of the episode so far, each under its name;
- `action_mask`, if there are masks: int8, as the spaces' `sample` takes it. Of several
  heads it is a dict, in which the mask of a head with a parent may have a row for each
  choice of the parent;
- `active`, if some heads do not always have an effect: a dict.

The environments of a `VectorEnv` begin their next episode in the step that ends one
(AutoresetMode.SAME_STEP). There `final_obs` has the true last observation, and
`final_info` the metrics of the episode, and as `episode` its return r and length l.
Gymnasium's `RecordEpisodeStatistics` counts them rightly from its version 1.4 on.

Environment i of seed s has the seed s + i, also of an `Env`, and does the same whatever
the others do. A `reset` without a seed goes on with the next episodes of the seeds.
"""

import re
from collections.abc import Mapping
from typing import Any, overload

import gymnasium
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from purejaxppo.adapters import gymnasium_spaces as spaces
from purejaxppo.adapters.batch import MAX_ENVS, Host, Seen, copied
from purejaxppo.autoreset import Step
from purejaxppo.env import Env, Head
from purejaxppo.errors import ConfigError, whole_number
from purejaxppo.registry import make_env

Arrays = Any  # an array or a dict of arrays, as the space says
Info = dict[str, Any]


class Single(gymnasium.Env[Arrays, Arrays]):
    """One environment; `to_gymnasium` builds it."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own)

    def __init__(self, env: Env, seed: object):
        self.heads = env.spec.heads
        self.observation_space = spaces.observation_space(env)
        self.action_space = spaces.action_space(self.heads)
        self._host = Host(env, 1, seed, resets=False)

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[Arrays, Info]:
        super().reset(seed=seed)
        _require_none(options)
        seen = self._host.reset(seed)
        return _first(seen.obs), _first(_info(self.heads, seen))

    def step(self, action: Arrays) -> tuple[Arrays, float, bool, bool, Info]:
        _require_reset(self._host)
        batch_of_one = (
            {name: np.asarray(x)[None] for name, x in action.items()}
            if isinstance(action, dict)
            else np.asarray(action)[None]
        )
        moved = self._host.step(spaces.head_actions(self.heads, batch_of_one, 1))
        # A step that cannot be used leaves observation and metrics as they were.
        obs, metrics = copied((moved.step.final_obs, moved.step.metrics))
        seen = moved.seen._replace(metrics=metrics)
        return (
            _first(obs),
            float(moved.reward[0]),
            bool(moved.terminated[0]),
            bool(moved.truncated[0]),
            _first(_info(self.heads, seen)),
        )


class Many(VectorEnv[Arrays, Arrays, np.ndarray]):
    """N environments; `to_gymnasium` builds it."""

    def __init__(self, env: Env, num_envs: int, seed: object):
        self.metadata = {
            "render_modes": [],
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self.num_envs = num_envs
        self.heads = env.spec.heads
        self.single_observation_space = spaces.observation_space(env)
        self.single_action_space = spaces.action_space(self.heads)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._host = Host(env, num_envs, seed, resets=True)
        self._all = np.ones((num_envs,), bool)

    def reset(
        self, *, seed: int | list[int] | None = None, options: Info | None = None
    ) -> tuple[Arrays, Info]:
        _require_none(options)
        seen = self._host.reset(seed)
        return seen.obs, _present(_info(self.heads, seen), self._all)

    def step(
        self, actions: Arrays
    ) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Info]:
        _require_reset(self._host)
        moved = self._host.step(spaces.head_actions(self.heads, actions, self.num_envs))
        info = _present(_info(self.heads, moved.seen), self._all)
        done = moved.terminated | moved.truncated
        if done.any():
            info |= _final(moved.step, done)
        return moved.seen.obs, moved.reward, moved.terminated, moved.truncated, info


def _require_none(options: Info | None) -> None:
    if options:
        raise ConfigError("options", options, "none: our environments have no options")


def _require_reset(host: Host) -> None:
    if not host.has_begun:
        raise ResetNeeded("`step` was called before the first `reset`")


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _info(heads: Mapping[str, Head], seen: Seen) -> Info:
    """Return what is known of N environments beside their observations, [N] each."""
    info: Info = dict(seen.metrics)
    masks = {name: mask.astype(np.int8) for name, mask in seen.action_mask.items()}
    if masks:
        info["action_mask"] = masks if len(heads) > 1 else masks[next(iter(heads))]
    if seen.active:
        info["active"] = dict(seen.active)
    return info


def _present(info: Info, which: np.ndarray) -> Info:
    """Add to each entry "x" an entry "_x", the environments that have it: bool [N]."""
    marked: Info = {}
    for name, value in info.items():
        marked[name] = _present(value, which) if isinstance(value, dict) else value
        marked[f"_{name}"] = which
    return marked


def _final(step: Step, done: np.ndarray) -> Info:
    """Return the last observation, metrics, return and length of ended episodes."""
    final_obs, all_obs = np.full(done.shape, None, object), copied(step.final_obs)
    for i in np.flatnonzero(done):
        final_obs[i] = jax.tree.map(lambda x, i=i: x[i], all_obs)
    episode = {"r": step.episode_return, "l": step.episode_length}
    info = copied({**step.metrics, "episode": episode})
    info = jax.tree.map(lambda x: np.where(done, x, x.dtype.type(0)), info)
    return {
        "final_obs": final_obs,
        "_final_obs": done,
        "final_info": _present(info, done),
        "_final_info": done,
    }


@overload
def to_gymnasium(
    env: str, num_envs: None = None, seed: int = 0, **env_kwargs: object
) -> Single: ...


@overload
def to_gymnasium(
    env: str, num_envs: int, seed: int | list[int] = 0, **env_kwargs: object
) -> Many: ...


def to_gymnasium(
    env: str,
    num_envs: int | None = None,
    seed: int | list[int] = 0,
    **env_kwargs: object,
) -> Single | Many:
    """Build an environment of ours as one of Gymnasium, or many of it.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      num_envs: the number of environments of a `VectorEnv`; None for an `Env`.
      seed: of the first `reset`, if that is given none.
      **env_kwargs: keyword arguments of the environment's factory.

    Raises:
      ConfigError: an argument that is not allowed, or a head of a kind that Gymnasium
        has no space for.
    """
    ours = make_env(env, **env_kwargs)
    if num_envs is not None:
        return Many(ours, whole_number("num_envs", num_envs, 1, MAX_ENVS), seed)
    single = Single(ours, seed)
    # `gymnasium.make` takes it, and so builds the same once more.
    single.spec = GymnasiumSpec(
        f"purejaxppo/{re.sub('[^a-zA-Z0-9_:.-]', '_', ours.spec.name)}"
        f"-v{ours.spec.version}",
        entry_point=f"{__name__}:to_gymnasium",
        kwargs={"env": env, "seed": seed, **env_kwargs},
    )
    return single
