"""The options of a run: its folder, seeds, checkpoints and logs.

They do not change the compiled update and, except for the seed, no result of training.
A field's allowed range is part of its type annotation (see `ranges`), and `--help`
prints the string under the field.
"""

import dataclasses
import math
from typing import Annotated, Literal

from purejaxppo.errors import ConfigError
from purejaxppo.ranges import Number, Text, Whole, check_ranges, field_names

# JAX's keys use 32 bits of a seed, so larger seeds would not be distinct.
_SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class EnvironmentOptions:
    """Short forms of settings of the environment."""

    preset: Annotated[str, Text()] = ""
    """Preset of the environment, which is applied after its "default" preset."""
    engine: Literal["auto", "mujoco", "mjx", "warp"] = "auto"
    """Physics engine, for environments that support several."""


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """Options that are fixed when a run starts."""

    seed: Annotated[int, Whole(0, _SEEDS)] = 0
    """Random seed; the first one if num_seeds is more than 1."""
    num_seeds: Annotated[int, Whole(1, 2**16)] = 1
    """Number of seeds (seed, seed + 1, ...) to train in one program."""
    run_dir: Annotated[str, Text()] = ""
    """Folder of the run, new or empty; default: runs/ENV-DATE-TIME."""
    resume: Annotated[str, Text()] = ""
    """Folder of a run to continue, with the configuration of that run."""
    resume_or_start: Annotated[str, Text()] = ""
    """Folder of a run to continue; where there is none, to start: for queued jobs."""
    trust_env: bool = False
    """Import whatever the run to continue names to be imported."""
    overwrite: bool = False
    """Start the run to continue anew if it has lost its checkpoints."""
    print_config: bool = False
    """Print every value and its source, and exit without training."""
    demonstrations: Annotated[str, Text()] = ""
    """File of demonstrations to clone, instead of collecting them."""
    init_from: Annotated[str, Text()] = ""
    """Folder of a run whose parameters to begin with; its policy replaces cloning."""
    init_parts: Literal["both", "policy", "critic"] = "both"
    """Networks to take from init_from, with the statistics that normalise for them."""
    init_which: Literal["best", "latest"] = "best"
    """Checkpoint of init_from: the best by its worst block, or the latest."""
    init_seed_index: Annotated[int, Whole(0, 2**16)] = 0
    """Which seed of init_from, if it has several."""


@dataclasses.dataclass(frozen=True)
class ResumableOptions:
    """Options that may be changed when a run is resumed; no result depends on them."""

    strict: bool = False
    """Stop with exit code 3 at the first fault, or fatal finding of the doctor."""
    checkpoint_every: Annotated[int, Whole(0)] = 0
    """Updates between checkpoints, in addition to those at evaluations; 0 for none."""
    checkpoint_seconds: Annotated[float, Number(1e-3, 1e9, off=math.inf)] = 60.0
    """Longest time between checkpoints, in seconds."""
    keep_checkpoints: Annotated[int, Whole(1)] = 3
    """Number of newest checkpoints to keep, in addition to each seed's best."""
    chunk_updates: Annotated[int, Whole(0)] = 0
    """Updates per call of the compiled program; 0 for about two seconds of updates."""
    tensorboard: bool = True
    """Write TensorBoard events in addition to the CSV files."""
    wandb: Annotated[str, Text()] = ""
    """Project of Weights & Biases to log to as well (the extra wandb); "" for none."""
    num_devices: Annotated[int, Whole(0)] = 0
    """Devices that share the seeds or environments; 0 for as many as can."""
    report: bool = True
    """Write report.html, the curves of the run as one page, at its end."""


@dataclasses.dataclass(frozen=True)
class Options(ResumableOptions, StartOptions, EnvironmentOptions):
    """All options of a run."""


# Each names the folder of the run.
_FOLDERS = ("run_dir", "resume", "resume_or_start")
RESUMABLE = frozenset(field_names(ResumableOptions))
# Of the command line alone: a run cannot ask for them.
OF_RESUME = frozenset(("trust_env", "overwrite"))


def validate_options(options: Options) -> None:
    """Check the options, without reading any file.

    Raises:
      ConfigError: the first option whose value is not allowed.
    """
    check_ranges(options)
    if options.seed + options.num_seeds > _SEEDS:
        raise ConfigError("seed", options.seed, "a seed below 2**32, to the last one")
    folders = [n for n in _FOLDERS if getattr(options, n)]
    if len(folders) > 1:
        allowed = f"none where {folders[1]} names the folder"
        raise ConfigError(folders[0], getattr(options, folders[0]), allowed)
    for name in ("init_parts", "init_which", "init_seed_index"):
        value, default = getattr(options, name), getattr(Options, name)
        if value != default and not options.init_from:
            raise ConfigError(name, value, f"{default} without init_from")


def gives_policy(options: Options) -> bool:
    """Return whether the run begins with the policy of another, instead of cloning."""
    return bool(options.init_from) and options.init_parts != "critic"
