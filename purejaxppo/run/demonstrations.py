"""The demonstrations file: an .npz of K episodes of at most L steps each.

format              1
env                 name of the environment that they are of
obs                 float32 [K, L, D], raw; or obs/actor and obs/critic
action/HEAD         what was executed, [K, L, ...]
action_mask/HEAD    bool, heads with a mask alone
active/HEAD         bool [K, L], heads that are not always active alone
reward              float32 [K, L], of the step taken
valid               bool [K, L]; a step that does not exist is False
"""

import zipfile
from pathlib import Path
from typing import Any

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


def _flat(demonstrations: Demonstrations) -> dict[str, Any]:
    """Name in the file -> array."""
    arrays = {}
    for field in _FIELDS:
        value = getattr(demonstrations, field)
        if isinstance(value, dict):
            arrays |= {f"{field}/{name}": x for name, x in value.items()}
        else:
            arrays[field] = value
    return arrays


def save(path: Path, demonstrations: Demonstrations, env: Env) -> None:
    """Write the file, whole or not at all."""
    arrays: dict[str, Any] = {"format": FORMAT, "env": env.spec.name}
    arrays |= {name: np.asarray(x) for name, x in _flat(demonstrations).items()}
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)


def shapes(env: Env, num: int, length: int) -> Demonstrations:
    """What `num` demonstrations of at most `length` steps look like, as abstract
    arrays."""
    state = jax.eval_shape(env.reset, jax.random.key(0))

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num, length, *x.shape), x.dtype)

    actions = {name: _action_shape(head) for name, head in env.spec.heads.items()}
    parts = (state.obs, actions, state.action_mask, state.active, state.reward)
    valid = jax.ShapeDtypeStruct((), jnp.bool_)
    return Demonstrations(*jax.tree.map(stacked, (*parts, valid)))


def _action_shape(head: Head) -> jax.ShapeDtypeStruct:
    if isinstance(head, Box):
        return jax.ShapeDtypeStruct((head.size,), jnp.float32)
    if isinstance(head, Custom):
        return custom.action_type(head)
    size = (head.k,) if isinstance(head, Choice) else ()
    return jax.ShapeDtypeStruct(size, jnp.int32)


def _problem(path: Path, what: str) -> ConfigError:
    return ConfigError("demonstrations", str(path), f"a file that {what}")


def load(path: Path, env: Env, config: Config) -> Demonstrations:
    """Read a file, check it against the environment, take as many as asked for.

    Raises:
      ConfigError: missing, not such a file, of another environment, not finite, or
        with fewer than `config.num_demonstrations` demonstrations.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise _problem(path, "exists and is such an .npz") from None
    if not np.array_equal(arrays.pop("format", 0), FORMAT):
        raise _problem(path, f"has format {FORMAT}")
    name = str(arrays.pop("env", ""))
    if name != env.spec.name:
        raise _problem(path, f"is of {env.spec.name}, not of {name}")
    _check(path, arrays, env)
    return _take(arrays, config.num_demonstrations)


def _check(path: Path, arrays: dict[str, np.ndarray], env: Env) -> None:
    """Names, shapes and dtypes as `save` writes them; every valid number finite."""
    valid = arrays.get("valid")
    if valid is None or valid.ndim != 2 or valid.dtype != bool:
        raise _problem(path, "has an array valid, bool [K, L]")
    for name, expected in _flat(shapes(env, *valid.shape)).items():
        array = arrays.get(name)
        if array is None:
            raise _problem(path, f"has an array {name}")
        if (array.shape, array.dtype) != (expected.shape, np.dtype(expected.dtype)):
            raise _problem(
                path,
                f"has {name} as {expected.dtype} {expected.shape}, "
                f"not {array.dtype} {array.shape}",
            )
        if not np.isfinite(array[valid]).all():
            raise _problem(path, f"has finite numbers alone in {name}")


def _take(arrays: dict[str, np.ndarray], wanted: int) -> Demonstrations:
    """The first `wanted` demonstrations that have a step."""
    found = np.flatnonzero(arrays["valid"].any(axis=1))
    if not 1 <= wanted <= len(found):
        raise ConfigError(
            "num_demonstrations",
            wanted,
            f"a number from 1 to {len(found)}, the demonstrations of the file",
        )
    kept = {name: jnp.asarray(x[found[:wanted]]) for name, x in arrays.items()}

    def field(name: str) -> Any:
        if name in kept:
            return kept[name]
        prefix = name + "/"
        return {
            key.removeprefix(prefix): x
            for key, x in kept.items()
            if key.startswith(prefix)
        }

    return Demonstrations(*map(field, _FIELDS))
