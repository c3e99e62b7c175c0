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

import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import trees
from purejaxppo.config import Config
from purejaxppo.env import Box, Choice, Custom, Env, Head
from purejaxppo.errors import ConfigError
from purejaxppo.policy import custom
from purejaxppo.ppo.demonstrations import Demonstrations, faults
from purejaxppo.ppo.imitation import num_attempts
from purejaxppo.ppo.types import Metrics
from purejaxppo.run import files, npz

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
    with files.open_new(temporary) as file:
        # Pyright assumes that a name in `arrays` may be `allow_pickle`; none is.
        np.savez_compressed(
            file,
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
        environment, has a step that cannot be cloned, or has too few demonstrations.
    """
    try:
        arrays = npz.read(path)
    except npz.Unreadable as error:
        requirement = f"exists and is an .npz of demonstrations ({error})"
        raise _refusal(path, requirement) from None
    found = arrays.pop("format", np.zeros(()))
    if found.dtype != np.int64 or found.shape or found != FORMAT:
        raise _refusal(path, f"has format {FORMAT}")
    name = str(arrays.pop("env", ""))
    if name != env.spec.name:
        shown = name if name.isprintable() and len(name) < 80 else "another environment"
        raise _refusal(path, f"is of {env.spec.name}, not of {shown}")
    _check_arrays(path, arrays, env)
    demonstrations = _from_arrays(arrays)
    if text := first_fault(demonstrations, env):
        raise _refusal(path, f"has {text}")
    return _first_demonstrations(demonstrations, config.num_demonstrations)


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], env: Env) -> None:
    """Check names, shapes and dtypes, and that padding follows the valid steps."""
    valid = arrays.get("valid")
    if valid is None or valid.ndim != 2 or valid.dtype != bool:
        raise _refusal(path, "has an array valid, bool [K, L]")
    if np.any(valid[:, 1:] & ~valid[:, :-1]):
        raise _refusal(path, "has the valid steps of an episode before its padding")
    expected_arrays = _named_arrays(shapes(env, *valid.shape))
    for name, expected in expected_arrays.items():
        array = arrays.get(name)
        if array is None:
            raise _refusal(path, f"has an array {name}")
        if (array.shape, array.dtype) != (expected.shape, np.dtype(expected.dtype)):
            raise _refusal(
                path,
                f"has {name} as {expected.dtype} {expected.shape}, "
                f"not {array.dtype.str} {array.shape}",
            )
    for name in sorted(arrays.keys() - expected_arrays.keys()):
        raise _refusal(path, f"has no array {name}")


def first_fault(demonstrations: Demonstrations, env: Env) -> str | None:
    """Return the first requirement of demonstrations [K, L, ...] that is violated."""
    requirements: list[str] = []

    @jax.jit  # as one program: each operation by itself would be compiled by itself
    def check(demonstrations: Demonstrations) -> list[jax.Array]:
        found = faults(env.spec.heads, demonstrations)
        requirements.extend(found)  # in their order, whereas jit sorts a dict
        return [jnp.any(bad) for bad in found.values()]

    violated = check(demonstrations)
    return next(itertools.compress(requirements, violated), None)


def check_collected(demonstrations: Demonstrations, env: Env) -> None:
    """Check what the environment's demonstrator has shown.

    Args:
      demonstrations: [K, L, ...], or [S, K, L, ...] of several seeds.
      env: the environment.

    Raises:
      ConfigError: no attempt succeeded, for one of the seeds, or a step cannot be
        cloned.
    """
    name, valid = env.spec.name, np.asarray(demonstrations.valid)
    if not np.all(np.any(valid, axis=(-2, -1))):
        num = num_attempts(valid.shape[-2])
        allowed = f"an environment whose demonstrator succeeds: none of {num} attempts"
        raise ConfigError("env", name, f"{allowed} did")
    if valid.ndim > 2:
        demonstrations = trees.merge_axes(demonstrations)
    if text := first_fault(demonstrations, env):
        raise ConfigError("env", name, f"an environment whose demonstrator has {text}")


def check_cloned(metrics: Metrics) -> None:
    """Check that the cloned policy is a policy.

    Args:
      metrics: of cloning, scalars, or [S] of several seeds.

    Raises:
      ConfigError: the last loss is not finite.
    """
    name = "cloning/last_loss"
    for loss in np.ravel(np.asarray(metrics.get(name, 0.0))).tolist():
        if not math.isfinite(loss):
            raise ConfigError(
                name,
                loss,
                "a finite number: demonstrated actions that the policy's distribution "
                "can take, and a cloning_learning_rate that is not too large",
            )


def _from_arrays(arrays: dict[str, np.ndarray]) -> Demonstrations:
    by_name = {name: jnp.asarray(array) for name, array in arrays.items()}

    def group(field: str) -> dict[str, jax.Array]:
        prefix = f"{field}/"
        names = [name for name in by_name if name.startswith(prefix)]
        return {name.removeprefix(prefix): by_name[name] for name in names}

    return Demonstrations(
        obs=by_name["obs"] if "obs" in by_name else group("obs"),
        action=group("action"),
        action_mask=group("action_mask"),
        active=group("active"),
        reward=by_name["reward"],
        valid=by_name["valid"],
    )


def _first_demonstrations(demonstrations: Demonstrations, num: int) -> Demonstrations:
    """Select the first `num` demonstrations that have a valid step."""
    usable = np.flatnonzero(np.any(demonstrations.valid, axis=1))
    if not 1 <= num <= len(usable):
        raise ConfigError(
            "num_demonstrations",
            num,
            f"a number from 1 to {len(usable)}, the demonstrations of the file",
        )
    return trees.take(demonstrations, jnp.asarray(usable[:num]))
