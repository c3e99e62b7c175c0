"""What the host does with a run: where it is kept, when it is saved, what stops it.

None of it changes the compiled program or, seed apart, a single number of training.
The sentence under each field is what `--help` prints.
"""

import dataclasses
from typing import Literal

from purejaxppo.errors import ConfigError

# Typed keys take seeds of 32 bits; beyond it two seeds could be one.
_MAX_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class Options:
    """Everything of a run that is not the training itself."""

    preset: str = ""
    """Preset of the environment to start from, above its "default" one."""
    engine: Literal["auto", "mujoco", "mjx", "warp"] = "auto"
    """Physics engine, for environments that have the choice."""
    seed: int = 0
    """Seed of the run, of the first one where there are several."""
    num_seeds: int = 1
    """Seeds seed, seed + 1, ... trained side by side in one program."""
    demonstrations: str = ""
    """File of demonstrations to clone, instead of collecting them."""
    run_dir: str = ""
    """Folder of the run, new or empty; runs/ENV-DATE-TIME where not given."""
    resume: str = ""
    """Folder of a run to go on with; its configuration is that of the run."""
    strict: bool = False
    """Stop, with exit code 3, at the first update that is flagged as faulty."""
    print_config: bool = False
    """Print every value and where it comes from, and train nothing."""
    checkpoint_every: int = 0
    """Updates between checkpoints, beside those at evaluations; 0 is none."""
    checkpoint_seconds: float = 60.0
    """Seconds after which a checkpoint is due in any case."""
    keep_checkpoints: int = 3
    """Checkpoints kept, beside the best one."""
    chunk_updates: int = 0
    """Updates per call of the compiled program; 0 is about two seconds' worth."""
    tensorboard: bool = True
    """Write TensorBoard events, beside the CSV files."""


# What a resumed run may be given anew: nothing that a number of training depends on.
RESUMABLE = frozenset(
    "strict checkpoint_every checkpoint_seconds keep_checkpoints chunk_updates "
    "tensorboard".split()
)

_RANGES = {
    "seed": (0, "a whole number of at least 0"),
    "num_seeds": (1, "a whole number of at least 1"),
    "checkpoint_every": (0, "a whole number of at least 0"),
    "keep_checkpoints": (1, "a whole number of at least 1"),
    "chunk_updates": (0, "a whole number of at least 0"),
}


def validate_options(options: Options) -> None:
    """Check what can be known without looking at files.

    Raises:
      ConfigError: the first field that cannot be used, with what is allowed.
    """
    for field, (low, allowed) in _RANGES.items():
        if getattr(options, field) < low:
            raise ConfigError(field, getattr(options, field), allowed)
    if options.seed + options.num_seeds > _MAX_SEED:
        raise ConfigError("seed", options.seed, "a seed below 2**32, to the last one")
    if not options.checkpoint_seconds > 0.0:
        raise ConfigError(
            "checkpoint_seconds", options.checkpoint_seconds, "a number above 0"
        )
    if options.run_dir and options.resume:
        raise ConfigError("run_dir", options.run_dir, "no run_dir beside resume")
