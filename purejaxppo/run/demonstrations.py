"""The demonstrations file: an .npz of K episodes of at most L steps each.

format              1
env                 name of the environment
obs                 float32 [K, L, D], not normalised; or obs/actor and obs/critic
action/HEAD         the executed action, [K, L, ...]
action_mask/HEAD    bool, only for heads with a mask
active/HEAD         bool [K, L], only for heads that are not always active
reward              float32 [K, L], reward of the step
valid               bool [K, L]; False after the end of an episode
"""

import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.config import Config
from purejaxppo.env import Box, Choice, Custom, Env, Head
from purejaxppo.errors import ConfigError
from purejaxppo.policy import custom
from purejaxppo.ppo.imitation import Demonstrations

FORMAT = 1
FILE = "demonstrations.npz"  # in a run's folder
_FIELDS = ("obs", "action", "action_mask", "active", "reward", "valid")


def _named_arrays(demonstrations: Demonstrations) -> dict[str, jax.Array]:
    """Return the arrays of the file by name."""
    arrays = {}
    for field in _FIELDS:
        value = getattr(demonstrations, field)
        if isinstance(value, dict):
            arrays |= {f"{field}/{name}": array for name, array in value.items()}
        else:
            arrays[field] = value
    return arrays


def save(path: Path, demonstrations: Demonstrations, env: Env) -> None:
    """Write a file of demonstrations atomically.

    Args:
      path: the path of the file.
      demonstrations: K episodes of at most L steps, [K, L, ...].
      env: the environment in which they were recorded.
    """
    arrays = {
        name: np.asarray(array) for name, array in _named_arrays(demonstrations).items()
    }
    temporary = path.with_suffix(".tmp.npz")
    # Pyright assumes that a name in `arrays` may be `allow_pickle`; none is.
    np.savez_compressed(
        temporary,
        format=FORMAT,
        env=env.spec.name,
        **arrays,  # pyright: ignore[reportArgumentType]
    )
    temporary.replace(path)


def shapes(env: Env, num: int, length: int) -> Demonstrations:
    """Return shapes and dtypes of demonstrations, without computing anything.

    Args:
      env: the environment.
      num: K, the number of episodes.
      length: L, the number of steps of the longest episode.

    Returns:
      demonstrations whose arrays are `jax.ShapeDtypeStruct`, [K, L, ...].
    """
    state = jax.eval_shape(env.reset, jax.random.key(0))

    def stacked_shape(step: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num, length, *step.shape), step.dtype)

    actions = {name: _action_shape(head) for name, head in env.spec.heads.items()}
    parts = (state.obs, actions, state.action_mask, state.active, state.reward)
    valid = jax.ShapeDtypeStruct((), jnp.bool_)
    return Demonstrations(*jax.tree.map(stacked_shape, (*parts, valid)))


def _action_shape(head: Head) -> jax.ShapeDtypeStruct:
    if isinstance(head, Box):
        return jax.ShapeDtypeStruct((head.size,), jnp.float32)
    if isinstance(head, Custom):
        return custom.action_type(head)
    size = (head.k,) if isinstance(head, Choice) else ()
    return jax.ShapeDtypeStruct(size, jnp.int32)


def _refusal(path: Path, requirement: str) -> ConfigError:
    return ConfigError("demonstrations", str(path), f"a file that {requirement}")


def load(path: Path, env: Env, config: Config) -> Demonstrations:
    """Read a file of demonstrations and check that it fits the environment.

    Args:
      path: the path of the file.
      env: the environment in which they must have been recorded.
      config: holds `num_demonstrations`, the number K to read.

    Returns:
      the first K demonstrations of the file that have a valid step, [K, L, ...].

    Raises:
      ConfigError: the file is missing, is no file of demonstrations, is of another
        environment, has a number that is not finite, or has too few demonstrations.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise _refusal(path, "exists and is an .npz of demonstrations") from None
    if not np.array_equal(arrays.pop("format", 0), FORMAT):
        raise _refusal(path, f"has format {FORMAT}")
    name = str(arrays.pop("env", ""))
    if name != env.spec.name:
        raise _refusal(path, f"is of {env.spec.name}, not of {name}")
    _check_arrays(path, arrays, env)
    return _first_demonstrations(arrays, config.num_demonstrations)


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], env: Env) -> None:
    """Check names, shapes and dtypes, and that all valid numbers are finite."""
    valid = arrays.get("valid")
    if valid is None or valid.ndim != 2 or valid.dtype != bool:
        raise _refusal(path, "has an array valid, bool [K, L]")
    for name, expected in _named_arrays(shapes(env, *valid.shape)).items():
        array = arrays.get(name)
        if array is None:
            raise _refusal(path, f"has an array {name}")
        if (array.shape, array.dtype) != (expected.shape, np.dtype(expected.dtype)):
            raise _refusal(
                path,
                f"has {name} as {expected.dtype} {expected.shape}, "
                f"not {array.dtype} {array.shape}",
            )
        if not np.isfinite(array[valid]).all():
            raise _refusal(path, f"has only finite numbers in {name}")


def _first_demonstrations(arrays: dict[str, np.ndarray], num: int) -> Demonstrations:
    """Select the first `num` demonstrations that have a valid step."""
    usable = np.flatnonzero(arrays["valid"].any(axis=1))
    if not 1 <= num <= len(usable):
        raise ConfigError(
            "num_demonstrations",
            num,
            f"a number from 1 to {len(usable)}, the demonstrations of the file",
        )
    first = {name: jnp.asarray(array[usable[:num]]) for name, array in arrays.items()}

    def group(field: str) -> dict[str, jax.Array]:
        prefix = f"{field}/"
        names = [name for name in first if name.startswith(prefix)]
        return {name.removeprefix(prefix): first[name] for name in names}

    return Demonstrations(
        obs=first["obs"] if "obs" in first else group("obs"),
        action=group("action"),
        action_mask=group("action_mask"),
        active=group("active"),
        reward=first["reward"],
        valid=first["valid"],
    )
