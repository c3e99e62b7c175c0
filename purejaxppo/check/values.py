"""Checks of an environment by random play: starts, numbers, masks and purity."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.check.signature import FLAGS
from purejaxppo.env import Box, Choice, Discrete, Head, State
from purejaxppo.errors import ConfigError
from purejaxppo.trees import Tree


def check_starts(name: str, start: State, random_start: bool) -> None:
    """Check states [N] right after reset.

    Args:
      name: name of the environment.
      start: the states, [N].
      random_start: whether states of different keys must differ.

    Raises:
      ConfigError: a start is terminated or truncated, has a reward, or does not depend
        on its key.
    """
    for flag in FLAGS:
        if np.any(getattr(start, flag)):
            raise ConfigError(f"{name}.reset: {flag}", True, "False")
    if np.any(start.reward):
        raise ConfigError(f"{name}.reset: reward", start.reward.tolist(), "0")
    drawn = [_to_numpy(x) for x in jax.tree.leaves((start.obs, start.data))]
    if random_start and all(np.array_equal(x[1:], x[:-1]) for x in drawn):
        raise ConfigError(
            f"{name}.reset", "one state for all keys", "a state that depends on the key"
        )


def check_states(field: str, heads: Mapping[str, Head], state: State) -> None:
    """Check numbers, flags and masks of states with any leading axes.

    Args:
      field: name of the states in an error, such as "deck.step".
      heads: the heads of the environment.
      state: [...], each leaf with the same leading axes.

    Raises:
      ConfigError: a number is not finite, a state is both terminated and truncated, or
        the mask of an active head allows too few actions.
    """
    visible = {"obs": state.obs, "reward": state.reward, "metrics": state.metrics}
    for part, tree in visible.items():
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            if not np.all(np.isfinite(x)):
                place = f"{field}: {part}{jax.tree_util.keystr(path)}"
                raise ConfigError(place, "NaN or inf", "finite numbers")
    if np.any(state.terminated & state.truncated):
        raise ConfigError(field, "terminated and truncated at once", "one of the two")
    for name, head in heads.items():
        if not isinstance(head, Box) and name in state.action_mask:
            _check_mask(f"{field}: action_mask.{name}", name, heads, state)


def _check_mask(field: str, name: str, heads: Mapping[str, Head], state: State) -> None:
    """Check that the mask of a head allows enough actions wherever it may be active."""
    head = heads[name]
    # No action is chosen in a state that ends an episode.
    done = np.asarray(state.terminated | state.truncated)
    needed_here = ~done & may_be_active(name, heads, state)
    num_needed = head.k if isinstance(head, Choice) else 1
    enough = np.sum(state.action_mask[name], axis=-1) >= num_needed
    if isinstance(head, Discrete) and enough.ndim > needed_here.ndim:
        # One row for each choice of the parent.
        reachable = _reachable_rows(head, state, enough.shape)
        enough = np.all(enough | ~reachable, axis=-1)
    if np.any(needed_here & ~enough):
        raise ConfigError(
            field,
            "fewer allowed actions than the head takes",
            f"at least {num_needed} where the head is active",
        )


def may_be_active(name: str, heads: Mapping[str, Head], state: State) -> np.ndarray:
    """Return whether a head and all its ancestors are active, bool [...].

    Args:
      name: name of the head.
      heads: the heads of the environment.
      state: [...].
    """
    active = np.ones(np.shape(state.reward), bool)
    ancestor: str | None = name
    while ancestor is not None:
        active &= np.asarray(state.active.get(ancestor, active))
        head = heads[ancestor]
        ancestor = head.parent if isinstance(head, Discrete) else None
    return active


def _reachable_rows(head: Discrete, state: State, shape: tuple[int, ...]) -> np.ndarray:
    """Return which rows of a head's mask its parent's choice can select, bool."""
    assert head.parent is not None
    allowed = np.asarray(state.action_mask.get(head.parent, np.ones(shape, bool)))
    if allowed.ndim > len(shape):  # the parent has a parent: any of its rows
        allowed = np.any(allowed, axis=-2)
    if head.active_when is None:
        return allowed
    return allowed & np.isin(np.arange(shape[-1]), head.active_when)


def check_equal(field: str, a: Tree, b: Tree, tolerance: float = 0.0) -> None:
    """Check that two trees hold the same numbers; NaN equals NaN.

    Args:
      field: name of the repeated computation in the error.
      a: the first result.
      b: the second result, of the same structure.
      tolerance: relative and absolute tolerance of floating-point leaves; 0 requires
        equality bit for bit.

    Raises:
      ConfigError: the first leaf that differs.
    """
    leaves = jax.tree_util.tree_leaves_with_path(a)
    for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
        x, y = _to_numpy(x), _to_numpy(y)
        floating = np.issubdtype(x.dtype, np.floating)
        if tolerance and floating:
            same = np.allclose(x, y, tolerance, tolerance, equal_nan=True)
        else:
            same = np.array_equal(x, y, equal_nan=floating)
        if not same:
            raise ConfigError(
                field,
                f"two results at {jax.tree_util.keystr(path)}",
                "one result: reset and step are pure functions",
            )


def _to_numpy(x: jax.Array) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)
