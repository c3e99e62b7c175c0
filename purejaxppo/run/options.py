"""What the host does with a run: where it is kept, when it is saved, what stops it.

None of it changes the compiled program or, seed apart, a single number of training.
A field's range stands beside it, and the sentence under it is what `--help` prints.
"""

import dataclasses
import math
from typing import Annotated, Literal

from purejaxppo.errors import ConfigError
from purejaxppo.ranges import Number, Text, Whole, check_ranges, field_names

# Typed keys take seeds of 32 bits; beyond it two seeds could be one.
_SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class EnvironmentOptions:
    """Short ways to say what is learned on."""

    preset: Annotated[str, Text()] = ""
    """Preset of the environment to start from, above its "default" one."""
    engine: Literal["auto", "mujoco", "mjx", "warp"] = "auto"
    """Physics engine, for environments that have the choice."""


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """What a run is begun with."""

    seed: Annotated[int, Whole(0, _SEEDS)] = 0
    """Seed of the run, of the first one where there are several."""
    num_seeds: Annotated[int, Whole(1, 2**16)] = 1
    """Seeds seed, seed + 1, ... trained side by side in one program."""
    run_dir: Annotated[str, Text()] = ""
    """Folder of the run, new or empty; runs/ENV-DATE-TIME where not given."""
    resume: Annotated[str, Text()] = ""
    """Folder of a run to go on with; its configuration is that of the run."""
    print_config: bool = False
    """Print every value and where it comes from, and train nothing."""
    demonstrations: Annotated[str, Text()] = ""
    """File of demonstrations to clone, instead of collecting them."""


@dataclasses.dataclass(frozen=True)
class ResumableOptions:
    """What a resumed run may be given anew: no number of training depends on it."""

    strict: bool = False
    """Stop, with exit code 3, at the first update that is flagged as faulty."""
    checkpoint_every: Annotated[int, Whole(0)] = 0
    """Updates between checkpoints, beside those at evaluations; 0 is none."""
    checkpoint_seconds: Annotated[float, Number(1e-3, 1e9, off=math.inf)] = 60.0
    """Seconds after which a checkpoint is due in any case."""
    keep_checkpoints: Annotated[int, Whole(1)] = 3
    """Checkpoints kept, beside the best one."""
    chunk_updates: Annotated[int, Whole(0)] = 0
    """Updates per call of the compiled program; 0 is about two seconds' worth."""
    tensorboard: bool = True
    """Write TensorBoard events, beside the CSV files."""


@dataclasses.dataclass(frozen=True)
class Options(ResumableOptions, StartOptions, EnvironmentOptions):
    """Everything of a run that is not the training itself."""


RESUMABLE = frozenset(field_names(ResumableOptions))


def validate_options(options: Options) -> None:
    """Check what can be known without looking at files.

    Raises:
      ConfigError: the first field that cannot be used, with what is allowed.
    """
    check_ranges(options)
    if options.seed + options.num_seeds > _SEEDS:
        raise ConfigError("seed", options.seed, "a seed below 2**32, to the last one")
    if options.run_dir and options.resume:
        raise ConfigError("run_dir", options.run_dir, "no run_dir beside resume")
