"""What a run begins with that goes on from the parameters of another: `--init-from`.

The other run is data. Its arrays are read by their names and compared with those that
are needed here; its environment is not made, and nothing that it names is imported. A
copy is in the new run before that has a config.json, so a run that is resumed never
needs the other one.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from purejaxppo.config import Config
from purejaxppo.env import Box, Head
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.init import initial_of
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.types import Initial
from purejaxppo.run import arrays, checkpoint, folder, record, seeds
from purejaxppo.run.arrays import Arrays
from purejaxppo.run.folder import Record
from purejaxppo.run.options import Options, gives_policy
from purejaxppo.run.trained import check_seed_index, read_checkpoint

_FIELD = "init_from"
# What changes the shapes of the parameters.
_SIZES = (
    *("trunk", "hidden_sizes", "critic_hidden_sizes", "core", "core_size"),
    *("critic_layer_norm", "shared_trunk", "distribution"),
)
# What changes the standard deviation of a continuous head with the same parameters.
_STDS = ("min_std", "init_std", "max_std")


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
      initial: parameters and statistics; None where all is new.
      origin: where they come from, for config.json: run (its path as given), env,
        which, parts, seed, update, steps, and digest, see `arrays.digest`.
      sentences: what the user should know about them.
    """

    initial: Initial | None
    origin: Record
    sentences: list[str]


def load(learner: Learner, options: Options, warn: Callable[[str], None]) -> Start:
    """Read the parameters of the run that `init_from` names, if it names one.

    Args:
      learner: of the run that begins with them.
      options: its options.
      warn: prints a warning.

    Raises:
      PurejaxppoError: there is no such run, seed or checkpoint, or its parameters do
        not fit the networks here.
    """
    if not options.init_from:
        return Start(None, {}, [])
    path, config = Path(options.init_from), learner.task.config
    theirs, own = record.read_config(path, _FIELD)
    check_seed_index(options.init_seed_index, own, "init_seed_index")
    record.check_unchanged(path, _FIELD)
    _check_meaning(config, theirs.config, options, learner.task.env.spec.heads.values())
    update, named = read_checkpoint(
        path, options.init_which, own, options.init_seed_index, warn, _FIELD
    )
    named = {n: _of_seed(x, options.init_seed_index, own) for n, x in named.items()}
    like = _shapes(learner, options, named)
    _check_fits(named, like, config, theirs.config, path)
    initial = arrays.unflatten(named, like, path)
    origin: Record = {
        "run": options.init_from,
        "env": theirs.config.env,
        "which": options.init_which,
        "parts": options.init_parts,
        "seed": own.seed + options.init_seed_index,
        "update": update,
        "steps": update * theirs.config.batch_size,
        "digest": arrays.digest(initial),
    }
    return Start(initial, origin, _sentences(config, theirs.config, options, origin))


def save_copy(path: Path, initial: Initial | None) -> None:
    """Write what a run begins with into its folder, unless all is new.

    Raises:
      OSError: it cannot be written.
    """
    if initial is not None:
        checkpoint.save(path / folder.INITIAL, 0, initial, {})


def load_copy(path: Path, learner: Learner, options: Options) -> Initial | None:
    """Read what a run begins with from its own folder; None where all is new.

    Raises:
      CheckpointError: the copy is missing or damaged.
    """
    if not options.init_from:
        return None
    copy = path / folder.INITIAL
    named, _ = checkpoint.read(copy, 0)
    return arrays.unflatten(named, _shapes(learner, options, named), copy)


def _of_seed(array: np.ndarray, index: int, options: Options) -> np.ndarray:
    """Select a seed; an array without an axis of seeds will not fit, and is refused."""
    has_axis = options.num_seeds > 1 and array.shape[:1] == (options.num_seeds,)
    return array[index] if has_axis else array


def _shapes(learner: Learner, options: Options, named: Arrays) -> Initial:
    """Return shapes and dtypes of what there is to begin with."""
    of_one_seed = dataclasses.replace(options, num_seeds=1)
    state = seeds.state_shapes(learner, of_one_seed)
    initial = initial_of(state, options.init_parts)
    if not any(name.startswith(".return_stats") for name in named):
        initial = initial.replace(return_stats=None)  # rewards were not scaled
    return initial


# --- checks -------------------------------------------------------------------------


def _check_meaning(
    ours: Config, theirs: Config, options: Options, heads: Iterable[Head]
) -> None:
    """Refuse what would make another policy of parameters of the same shapes."""
    same = ["trunk", "activation"]
    if gives_policy(options) and any(isinstance(head, Box) for head in heads):
        same.append("distribution")
    for name in same:
        wanted, value = getattr(theirs, name), getattr(ours, name)
        if value != wanted:
            allowed = f"{wanted}, with which {options.init_from} was trained"
            raise ConfigError(name, value, allowed)
    name = "normalize_observations"
    was, now = getattr(theirs, name), getattr(ours, name)
    if (was == "off") != (now == "off"):
        wanted = "off" if was == "off" else "running or fixed"
        allowed = f"{wanted}, because {options.init_from} was trained with {was}"
        raise ConfigError(name, now, allowed)
    if options.init_parts == "critic" and ours.shared_trunk:
        allowed = "both or policy with shared_trunk, which is the policy's"
        raise ConfigError("init_parts", "critic", allowed)


def _check_fits(
    named: Arrays, like: Initial, ours: Config, theirs: Config, path: Path
) -> None:
    """Compare names, shapes and dtypes of what is there and what is needed."""
    leaves = jax.tree_util.tree_flatten_with_path(like)[0]
    needed = {jax.tree_util.keystr(place): leaf for place, leaf in leaves if leaf.size}
    networks = [n for n in ("policy", "critic") if getattr(like.params, n) is not None]
    prefixes = tuple(f".params.{name}[" for name in networks)
    found = {n for n in named if n in needed or n.startswith(prefixes)}
    for name in [*needed, *sorted(found - needed.keys())]:
        here, there = _text(needed.get(name)), _text(named.get(name))
        if here != there:
            raise ConfigError(
                _FIELD,
                str(path),
                f"a run whose parameters fit: {name[1:]} is {here} here and {there} "
                f"there{_other_sizes(ours, theirs)}",
            )
        if not np.all(np.isfinite(named[name])):
            allowed = f"a run whose parameters are finite, as {name[1:]} is not"
            raise ConfigError(_FIELD, str(path), allowed)


def _text(array: np.ndarray | jax.ShapeDtypeStruct | None) -> str:
    return "absent" if array is None else f"{array.dtype.name} {array.shape}"


def _other_sizes(ours: Config, theirs: Config) -> str:
    """Name the values that make networks of other shapes."""
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in _SIZES}
    return "".join(
        f"; {name} is {here} here and {there} there"
        for name, (here, there) in pairs.items()
        if here != there
    )


# --- what is said -------------------------------------------------------------------


def _sentences(
    ours: Config, theirs: Config, options: Options, origin: Record
) -> list[str]:
    path, steps = origin["run"], origin["steps"]
    parts = {"both": "policy and critic"}.get(options.init_parts, options.init_parts)
    said = [
        f"starting with the {parts} of {path} (seed {origin['seed']}, "
        f"{options.init_which}, at {steps:,} steps)"
    ]
    others = [name for name in _STDS if getattr(ours, name) != getattr(theirs, name)]
    if gives_policy(options) and others:
        said.append(
            f"warning: {', '.join(others)} differ from those of {path}: the same "
            "parameters of a continuous head mean another standard deviation"
        )
    scaled = "normalize_rewards"
    if options.init_parts != "policy" and ours.normalize_rewards != (
        theirs.normalize_rewards
    ):
        said.append(
            f"warning: {scaled} is {ours.normalize_rewards} here and "
            f"{theirs.normalize_rewards} in {path}: the critic's values have another "
            "scale, and a critic_warmup may help"
        )
    return said
