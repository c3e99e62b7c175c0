"""Recorded episodes as demonstrations of an environment, with every number checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.env import Box, Env, Head
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.demonstrations import Demonstrations
from purejaxppo.quarantine import MAX_MAGNITUDE
from purejaxppo.run.demonstrations import first_fault, shapes
from purejaxppo.run.recorded import Recorded, refusal

# Actions that are outside of [-1, 1] by rounding alone are clipped without a word.
_ROUNDING = 1e-5


class ActionRange(NamedTuple):
    """How recorded continuous actions become those of an environment, in [-1, 1].

    Attributes:
      low, high: the recorded numbers that become -1 and 1.
      clip: whether those outside are clipped; if not, they are refused.
    """

    low: float = -1.0
    high: float = 1.0
    clip: bool = False


class _Steps(NamedTuple):
    """The n steps of one episode up to its end."""

    obs: dict[str, np.ndarray]  # part -> [n, D]
    action: dict[str, np.ndarray]  # head -> [n, ...]
    reward: np.ndarray  # [n]


def convert(
    path: Path, episodes: Sequence[Recorded], env: Env, range_: ActionRange
) -> tuple[Demonstrations, list[str]]:
    """Convert episodes, each of them up to its end.

    Args:
      path: the file that they come from, for errors.
      episodes: K episodes.
      env: the environment that they are demonstrations of.
      range_: of their continuous actions.

    Returns:
      demonstrations [K, L, ...], of the L steps of the longest, and what to tell of
      them, in sentences.

    Raises:
      ConfigError: they do not fit the environment, or have a number that cannot be
        cloned.
    """
    if not -np.inf < range_.low < range_.high < np.inf:
        bounds = (range_.low, range_.high)
        raise ConfigError("action_bounds", bounds, "two numbers, the lower one first")
    like = shapes(env, 1, 1)
    if like.action_mask or like.active:
        allowed = "an environment without masks and activity, which such files lack"
        raise ConfigError("env", env.spec.name, allowed)
    steps = [_steps(path, episode, env) for episode in episodes]
    for episode, own in zip(episodes, steps, strict=True):
        _check_shapes(path, episode.name, own, like)
        _check_numbers(path, episode.name, own)
    steps = [_scaled(own, env.spec.heads, range_) for own in steps]
    told = _outside(path, episodes, steps, env.spec.heads, range_)
    demonstrations = _stacked(steps, like, env.spec.heads)
    if text := first_fault(demonstrations, env):  # of heads that are not continuous
        raise refusal(path, f"has {text}")
    return demonstrations, _sentences(episodes, demonstrations) + told


# --- one episode --------------------------------------------------------------------


def _steps(path: Path, episode: Recorded, env: Env) -> _Steps:
    """Check the lengths of an episode's arrays, and cut them at its end."""
    num = len(episode.reward)
    arrays = {"ends": episode.ended, "actions": next(iter(episode.actions.values()))}
    for name, array in arrays.items():
        if len(array) != num:
            requirement = f"has {num} {name} for the {num} rewards of {episode.name}"
            raise refusal(path, f"{requirement}, not {len(array)}")
    for array in episode.obs.values():
        if len(array) not in (num, num + 1):  # the last one is that of the end
            requirement = f"has {num} or {num + 1} observations for the {num} steps"
            raise refusal(path, f"{requirement} of {episode.name}, not {len(array)}")
    length = _length(episode)
    action = _by_head(path, episode, env)
    return _Steps(
        {part: x[:length].astype(np.float32) for part, x in episode.obs.items()},
        {name: x[:length] for name, x in action.items()},
        episode.reward[:length].astype(np.float32),
    )


def _length(episode: Recorded) -> int:
    """Return the number of steps up to the first end."""
    ended = np.flatnonzero(episode.ended)
    return int(ended[0]) + 1 if ended.size else len(episode.ended)


def _by_head(path: Path, episode: Recorded, env: Env) -> dict[str, np.ndarray]:
    """Assign actions to heads: by their names, or columns in the order of the heads."""
    heads, actions = env.spec.heads, dict(episode.actions)
    if actions.keys() == heads.keys():
        return {name: _as_action(x, heads[name]) for name, x in actions.items()}
    if "" not in actions:
        names, found = ", ".join(heads), ", ".join(actions)
        raise refusal(path, f"has actions of the names {names}, not {found}")
    if len(heads) == 1:
        return {name: _as_action(actions[""], head) for name, head in heads.items()}
    sizes = [head.size for head in heads.values() if isinstance(head, Box)]
    columns = actions[""].reshape(len(episode.reward), -1)
    if len(sizes) < len(heads) or columns.shape[1] != sum(sizes):
        allowed = f"one with {columns.shape[1]} continuous actions, or a single head"
        raise ConfigError("env", env.spec.name, allowed)
    split = np.split(columns, np.cumsum(sizes)[:-1], axis=1)
    return dict(zip(heads, split, strict=True))


def _as_action(array: np.ndarray, head: Head) -> np.ndarray:
    """Add or remove an axis of size 1, where formats differ."""
    if isinstance(head, Box):
        return array[:, None] if array.ndim == 1 else array
    return array[:, 0] if array.shape[1:] == (1,) else array


def _check_shapes(path: Path, name: str, steps: _Steps, like: Demonstrations) -> None:
    """Compare an episode with the spaces of the environment."""
    wanted = _named(_parts(like.obs), like.action) | {"rewards": like.reward}
    for what, array in (_named(*steps[:2]) | {"rewards": steps.reward}).items():
        here, there = wanted[what].shape[2:], array.shape[1:]
        if here != there:
            requirement = f"has {what} of shape {here} a step, as the environment has"
            raise refusal(path, f"{requirement}, not {there} ({name})")
        if wanted[what].dtype == np.int32 and array.dtype.kind not in "iu":
            requirement = f"has whole numbers as {what}, not {array.dtype}"
            raise refusal(path, f"{requirement} ({name})")


def _parts(obs: object) -> dict:
    return obs if isinstance(obs, dict) else {"": obs}


def _named(obs: Mapping, action: Mapping) -> dict:
    named = {f"observations/{name}".rstrip("/"): x for name, x in obs.items()}
    return named | {f"actions/{name}": x for name, x in action.items()}


def _check_numbers(path: Path, name: str, steps: _Steps) -> None:
    for what, array in (_named(*steps[:2]) | {"rewards": steps.reward}).items():
        usable = np.abs(array.reshape(len(array), -1)) <= MAX_MAGNITUDE  # NaN is not
        bad = np.flatnonzero(~np.all(usable, axis=1))
        if bad.size:
            requirement = f"has only finite numbers below {MAX_MAGNITUDE:g} in {what}"
            raise refusal(path, f"{requirement}, also at step {bad[0]} of {name}")


# --- all episodes -------------------------------------------------------------------


def _scaled(steps: _Steps, heads: Mapping[str, Head], range_: ActionRange) -> _Steps:
    """Map the range of continuous actions to [-1, 1]."""
    scale = 2.0 / (range_.high - range_.low)
    return steps._replace(
        action={
            name: (x.astype(np.float64) - range_.low) * scale - 1.0
            if isinstance(heads[name], Box)
            else x
            for name, x in steps.action.items()
        }
    )


def _outside(
    path: Path,
    episodes: Sequence[Recorded],
    steps: Sequence[_Steps],
    heads: Mapping[str, Head],
    range_: ActionRange,
) -> list[str]:
    """Count the continuous actions that are out of range; refuse them, or tell it."""
    names = [name for name, head in heads.items() if isinstance(head, Box)]
    if not names:
        return []
    sizes = [np.abs(np.concatenate([s.action[n] for n in names], 1)) for s in steps]
    count = sum(int(np.sum(x > 1.0 + _ROUNDING)) for x in sizes)
    if not count:
        return []
    total = sum(x.size for x in sizes)
    worst = int(np.argmax([np.max(x) for x in sizes]))
    step = int(np.argmax(np.max(sizes[worst], axis=1)))
    what = f"{count:,} of {total:,} numbers of actions are outside"
    if range_.clip:
        return [f"{what} of {range_.low:g} to {range_.high:g}, and clipped"]
    requirement = f"has actions within {range_.low:g} to {range_.high:g}"
    farthest = f"the farthest at step {step} of {episodes[worst].name}"
    advice = "--action-bounds LOW HIGH says of what range they are, --clip clips them"
    raise refusal(path, f"{requirement}: {what}, {farthest}; {advice}")


def _stacked(
    steps: Sequence[_Steps], like: Demonstrations, heads: Mapping[str, Head]
) -> Demonstrations:
    """Stack episodes, padded with zeros to the length of the longest."""
    lengths = np.array([len(own.reward) for own in steps])
    longest = int(max(lengths))

    def stack(to: jax.ShapeDtypeStruct, *arrays: np.ndarray) -> jax.Array:
        stacked = np.zeros((len(steps), longest, *to.shape[2:]), to.dtype)
        for row, array in zip(stacked, arrays, strict=True):
            row[: len(array)] = array
        return jnp.asarray(stacked)

    wanted = (_parts(like.obs), like.action, like.reward)
    obs, action, reward = jax.tree.map(stack, wanted, *map(tuple, steps))
    clipped = {
        name: jnp.clip(x, -1.0, 1.0) if isinstance(heads[name], Box) else x
        for name, x in action.items()
    }
    valid = jnp.asarray(np.arange(longest)[None] < lengths[:, None])
    return Demonstrations(obs.get("", obs), clipped, {}, {}, reward, valid)


def _sentences(
    episodes: Sequence[Recorded], demonstrations: Demonstrations
) -> list[str]:
    lengths = np.sum(np.asarray(demonstrations.valid), axis=1)
    said = [
        f"episodes: {len(lengths):,}, of {min(lengths)} to {max(lengths)} steps, "
        f"{sum(lengths):,} in all"
    ]
    left_out = sum(len(e.ended) for e in episodes) - sum(lengths)
    if left_out:
        said.append(f"steps after the end of their episode, left out: {left_out:,}")
    endless = sum(not np.any(e.ended) for e in episodes)
    if endless:
        said.append(f"episodes without an end, taken as cut off: {endless:,}")
    return said
