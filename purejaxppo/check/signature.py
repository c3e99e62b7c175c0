"""Checks of an environment by its specification and by tracing: heads and shapes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from purejaxppo.check.actions import random_action
from purejaxppo.env import Box, Choice, Custom, Discrete, Env, EnvSpec, Head, State
from purejaxppo.errors import ConfigError, PurejaxppoError, summary
from purejaxppo.policy import custom

FLAGS = ("terminated", "truncated")


def check_signature(name: str, env: Env) -> None:
    """Check specification, shapes and dtypes by tracing; nothing is computed.

    Args:
      name: the name of the environment in the configuration.
      env: the environment.

    Raises:
      ConfigError: the first violation, or an error raised by the environment.
    """
    try:
        check_spec(env.spec.name, env.spec)
        check_types(env.spec.name, env)
    except PurejaxppoError:
        raise
    except Exception as error:
        allowed = "an environment that JAX can trace by the protocol of purejaxppo.env"
        raise ConfigError("env", name, f"{allowed} ({summary(error)})") from error


def check_spec(name: str, spec: EnvSpec) -> None:
    """Check the heads and the time limit of a specification.

    Raises:
      ConfigError: the first invalid value.
    """
    if not spec.heads:
        raise ConfigError(f"{name}.spec.heads", dict(spec.heads), "at least one head")
    earlier: dict[str, Head] = {}
    for head_name, head in spec.heads.items():
        _check_head(f"{name}.spec.heads.{head_name}", head, earlier)
        earlier[head_name] = head
    limit = spec.max_episode_steps
    is_whole = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and not (is_whole and 1 <= limit < 2**31):
        allowed = "None or a whole number above 0 and below 2**31"
        raise ConfigError(f"{name}.spec.max_episode_steps", limit, allowed)


def _check_head(field: str, head: Head, earlier: Mapping[str, Head]) -> None:
    if isinstance(head, Box):
        if head.size < 1:
            raise ConfigError(field, head, "a Box of at least one number")
    elif isinstance(head, Choice):
        if not 1 <= head.k <= head.n:
            raise ConfigError(field, head, "a Choice with 1 <= k <= n")
    elif isinstance(head, Discrete):
        _check_discrete(field, head, earlier)
    elif isinstance(head, Custom):
        if head.num_outputs < 1:
            raise ConfigError(field, head, "a Custom of at least one number")
        custom.describe(field, head.distribution, (head.num_outputs,))
    else:
        raise ConfigError(field, head, "a Box, a Discrete, a Choice or a Custom")


def _check_discrete(field: str, head: Discrete, earlier: Mapping[str, Head]) -> None:
    if head.n < 1:
        raise ConfigError(field, head, "a Discrete of at least one value")
    if head.parent is None:
        if head.active_when is not None:
            raise ConfigError(
                field, head, "a Discrete with a parent, or without active_when"
            )
        return
    parent = earlier.get(head.parent)
    if not isinstance(parent, Discrete):
        raise ConfigError(field, head, "a parent that is a Discrete head before it")
    if any(not 0 <= value < parent.n for value in head.active_when or ()):
        raise ConfigError(field, head, f"active_when within 0 to {parent.n - 1}")


def check_types(name: str, env: Env) -> None:
    """Check shapes and dtypes of `reset` and `step` by tracing.

    Raises:
      ConfigError: the first shape or dtype that violates the protocol, or that differs
        between `reset` and `step`.
    """
    key = jax.random.key(0)
    reset = jax.eval_shape(env.reset, key)
    if not isinstance(reset, State):
        raise ConfigError(f"{name}.reset", type(reset).__name__, "an env.State")
    _check_fields(name, env.spec, reset)
    action = jax.eval_shape(lambda s, k: random_action(env, s, k), reset, key)
    step = jax.eval_shape(env.step, reset, action)
    if jax.tree.structure(reset) != jax.tree.structure(step):
        raise ConfigError(
            f"{name}.step", jax.tree.structure(step), "the structure that reset has"
        )
    first, second = (jax.tree_util.tree_leaves_with_path(x) for x in (reset, step))
    for (path, a), (_, b) in zip(first, second, strict=True):
        field = f"{name}.step: state{jax.tree_util.keystr(path)}"
        if describe(a) != describe(b):
            raise ConfigError(field, describe(b), f"what reset gives, {describe(a)}")
        if getattr(b, "weak_type", False):
            raise ConfigError(field, describe(b), f"{b.dtype} with its type stated")


def describe(x: jax.Array) -> str:
    """Describe dtype and shape of an array or of a `jax.ShapeDtypeStruct`."""
    weak = " (weakly typed)" if getattr(x, "weak_type", False) else ""
    return f"{x.dtype} {list(x.shape)}{weak}"


def expect(field: str, x: jax.Array, dtype: str, shape: tuple[int, ...]) -> None:
    """Check dtype and shape of an array.

    Args:
      field: name of the array in the error.
      x: the array.
      dtype: name of the allowed dtype.
      shape: the allowed shape.

    Raises:
      ConfigError: dtype or shape differ.
    """
    if x.dtype != dtype or x.shape != shape:
        raise ConfigError(field, describe(x), f"{dtype} {list(shape)}")


def _check_fields(name: str, spec: EnvSpec, state: State) -> None:
    obs = state.obs if isinstance(state.obs, dict) else {"obs": state.obs}
    if isinstance(state.obs, dict) and set(obs) != {"actor", "critic"}:
        raise ConfigError(f"{name}.obs", sorted(obs), "an array, or actor and critic")
    for part, x in obs.items():
        if x.dtype != jnp.float32 or x.ndim != 1:
            raise ConfigError(f"{name}.{part}", describe(x), "float32 [D]")
    expect(f"{name}.reward", state.reward, "float32", ())
    for flag in FLAGS:
        expect(f"{name}.{flag}", getattr(state, flag), "bool", ())
    for metric, x in state.metrics.items():
        expect(f"{name}.metrics.{metric}", x, "float32", ())
    if spec.success is not None and spec.success not in state.metrics:
        allowed = f"one of the metrics {[*state.metrics]}"
        raise ConfigError(f"{name}.spec.success", spec.success, allowed)
    _check_masks(name, spec.heads, state)


def _parent(heads: Mapping[str, Head], head: Head) -> Discrete | None:
    """Return the parent head, or None if there is none."""
    if not isinstance(head, Discrete) or head.parent is None:
        return None
    parent = heads[head.parent]
    assert isinstance(parent, Discrete)  # checked by `check_spec`
    return parent


def _check_masks(name: str, heads: Mapping[str, Head], state: State) -> None:
    for head_name in (*state.action_mask, *state.active):
        if head_name not in heads:
            raise ConfigError(f"{name}.action_mask, active", head_name, "a head's name")
    for head_name, active in state.active.items():
        expect(f"{name}.active.{head_name}", active, "bool", ())
    for head_name, mask in state.action_mask.items():
        head, field = heads[head_name], f"{name}.action_mask.{head_name}"
        if isinstance(head, Box | Custom):
            kind = "continuous" if isinstance(head, Box) else "custom"
            raise ConfigError(field, describe(mask), f"no mask on a {kind} head")
        parent = _parent(heads, head)
        rows = (parent.n,) if parent is not None and mask.ndim == 2 else ()
        expect(field, mask, "bool", (*rows, head.n))
