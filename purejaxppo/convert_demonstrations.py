"""`python -m purejaxppo.convert_demonstrations SOURCE OUT.npz`: files of others.

SOURCE is of robomimic, Minari or LeRobot, OUT.npz what `--demonstrations` reads (see
`run.demonstrations`). SOURCE is data: nothing in it is executed, no link is followed.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import importlib.util
import shlex
from pathlib import Path
from typing import Annotated

import jax
import tyro

from purejaxppo.check import check_signature
from purejaxppo.env import Env
from purejaxppo.errors import (
    EXIT_OK,
    ConfigError,
    StorageError,
)
from purejaxppo.registry import make_env
from purejaxppo.run import demonstrations, files, hdf5, lerobot
from purejaxppo.run.conversion import ActionRange, convert
from purejaxppo.run.flags import parse_pair
from purejaxppo.run.recorded import Format


def convert_file(
    source: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    format: Format,
    env: str,
    env_kwargs: tuple[str, ...] = (),
    observations: tuple[str, ...] = (),
    critic_observations: tuple[str, ...] = (),
    action_bounds: tuple[float, float] = (-1.0, 1.0),
    clip: bool = False,
) -> int:
    """Convert recorded episodes to a file of demonstrations for one environment.

    An episode ends at its first step that is done, terminated or truncated.

    Args:
      source: File of robomimic or Minari, or folder of a Minari or LeRobot dataset.
      out: File to write, for train's --demonstrations.
      format: Layout of the source.
      env: Environment, by the name that training takes.
      env_kwargs: Keyword arguments of its factory, as NAME=VALUE.
      observations: Arrays to observe, one after the other; none for the only one.
      critic_observations: The same for the critic, where it observes other numbers.
      action_bounds: Continuous actions of the source that become -1 and 1.
      clip: Clip the actions outside of these bounds, instead of refusing them.
    """
    _check_out(out)
    _check_installed(format)
    made = make_env(env, **dict(parse_pair("env_kwargs", pair) for pair in env_kwargs))
    check_signature(env, made)
    keys = _keys(made, observations, critic_observations)
    is_lerobot = format == "lerobot"
    episodes = (
        lerobot.read(source, keys) if is_lerobot else hdf5.read(source, format, keys)
    )
    converted, told = convert(source, episodes, made, ActionRange(*action_bounds, clip))
    try:
        demonstrations.save(out, converted, made)
    except OSError as error:
        raise StorageError(out, error) from None
    for sentence in told:
        print(sentence)
    words = ["--env", env, *(["--env-kwargs", *env_kwargs] if env_kwargs else [])]
    words += ["--demonstrations", str(out), "--num-demonstrations", str(len(episodes))]
    print(f"{out}: python -m purejaxppo.train {shlex.join(words)}")
    return EXIT_OK


def _check_installed(format: Format) -> None:
    """Check that the library for such files is there.

    Raises:
      ConfigError: it is not installed.
    """
    library, extra = ("pyarrow", "lerobot") if format == "lerobot" else ("h5py", "hdf5")
    if importlib.util.find_spec(library) is None:
        reader = f"purejaxppo[{extra}] brings it ({library})"
        raise ConfigError("format", format, f"a format whose reader is there; {reader}")


def _check_out(out: Path) -> None:
    if out.suffix != ".npz":
        raise ConfigError("out", str(out), "a file whose name ends in .npz")
    files.check_writable("out", out)


def _keys(
    env: Env, observations: tuple[str, ...], critic_observations: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the keys of each part of what the environment observes."""
    obs = jax.eval_shape(env.reset, jax.random.key(0)).obs
    if isinstance(obs, dict):
        return {"actor": observations, "critic": critic_observations}
    if critic_observations:
        allowed = f"none, as the critic of {env.spec.name} observes no more"
        raise ConfigError("critic_observations", critic_observations, allowed)
    return {"": observations}


def main() -> int:
    """Run the command line; the exit code is 0, 2 (usage) or 4 (storage)."""
    return process.exit_code(
        lambda: tyro.cli(
            convert_file,
            prog="python -m purejaxppo.convert_demonstrations",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    )


if __name__ == "__main__":
    process.run(main)
