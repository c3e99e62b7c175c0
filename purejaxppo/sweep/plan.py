"""What all workers of a study agree on, and the command lines that come out of it."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import Literal

from purejaxppo import presets
from purejaxppo.config import Config, Resolved, value_names, value_of
from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.ranges import field_names
from purejaxppo.run import record
from purejaxppo.run.folder import Record
from purejaxppo.run.options import Options
from purejaxppo.sweep import space
from purejaxppo.sweep.space import Drawn, Space

Pruner = Literal["hyperband", "none"]

# The options of training that a trial has; the others are for runs that are kept.
_OPTIONS = (
    *("seed", "num_seeds", "demonstrations"),
    *("init_from", "init_parts", "init_which", "init_seed_index"),
)
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all workers of a study agree on.

    Attributes:
      space: the parameters.
      resolved: what the trials have in common, and the sources of its values.
      options: seeds, and what training begins with.
      speed: whether steps per second is an objective as well.
      pruner: what ends a trial early.
      spec: the specification of the environment.
      words: the command line, without what each worker may choose.
    """

    space: Space
    resolved: Resolved
    options: Options
    speed: bool
    pruner: Pruner
    spec: EnvSpec
    words: tuple[str, ...]

    @property
    def score(self) -> str:
        """What the score is, in words."""
        return self.spec.success or "return"

    @property
    def metric(self) -> str:
        """The metric of an evaluation that is the score of a seed.

        It is the mean of all blocks: the worst of them, by which a run keeps its best
        checkpoint, is a noisier number to compare trials by.
        """
        success = self.spec.success
        return f"eval/episode_{success}" if success else "eval/mean_return"

    def config(self, drawn: Mapping[str, Drawn]) -> Config:
        """Return the configuration of one trial."""
        return space.apply(self.resolved.config, self.space, drawn)


def check_options(options: Options) -> None:
    """Check that no option is given that a trial does not have.

    Raises:
      ConfigError: the first of them.
    """
    for name in field_names(Options):
        value, default = getattr(options, name), getattr(Options, name)
        if name not in (*_OPTIONS, "preset", "engine") and value != default:
            allowed = f"{default!r} in a sweep, which keeps no runs of its trials"
            raise ConfigError(name, value, allowed)


def to_json(plan: Plan) -> Record:
    """Return what a study records of its plan."""
    options = {name: getattr(plan.options, name) for name in _OPTIONS}
    shared = {"speed": plan.speed, "pruner": plan.pruner}
    found = {
        "format": _FORMAT,
        "words": list(plan.words),
        "params": {parameter.name: parameter.text for parameter in plan.space},
        "values": record.watched(plan.resolved.config, plan.spec) | options | shared,
    }
    return json.loads(json.dumps(found))  # as it is read again: lists, not tuples


def check_same(plan: Plan, recorded: Record, place: str) -> None:
    """Compare a plan with that of the study which is to go on.

    Args:
      plan: that of this process.
      recorded: that of the study.
      place: where the study is, for the error.

    Raises:
      ConfigError: they differ, or another version wrote the study.
    """
    own = to_json(plan)
    if recorded.get("format") != _FORMAT:
        raise ConfigError("run_dir", place, f"a study of format {_FORMAT}")
    for group in ("params", "values"):
        now, then = own[group], recorded.get(group)
        if not isinstance(now, dict) or not isinstance(then, dict):
            raise ConfigError("run_dir", place, "the folder of a study")
        for name in sorted(now.keys() | then.keys()):
            if now.get(name) != then.get(name):
                was = f"{then[name]!r}" if name in then else "none"
                allowed = f"{was}, as in the study of {place}; another --run-dir "
                raise ConfigError(name, now.get(name), f"{allowed}begins another study")


def train_command(plan: Plan, drawn: Mapping[str, Drawn]) -> str:
    """Return the command line that trains what a trial has trained.

    Args:
      plan: of the study.
      drawn: the values of the trial.
    """
    config, options = plan.config(drawn), plan.options
    swept = {parameter.name.partition(".")[0] for parameter in plan.space}
    given = {
        name.partition(".")[0]
        for name, source in plan.resolved.sources.items()
        if source == presets.FLAG
    }
    words = ["--env", config.env]
    words += ["--preset", options.preset] if options.preset else []
    for name in value_names():
        if name in given | swept and name != "env":
            words += _flag(name, value_of(config, name))
    for name in _OPTIONS:
        if getattr(options, name) != getattr(Options, name):
            words += _flag(name, getattr(options, name))
    return shlex.join(["python", "-m", "purejaxppo.train", *words])


def _flag(name: str, value: object) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, Mapping):
        return [f"--{flag}", *(f"{key}={x}" for key, x in value.items())]
    if isinstance(value, tuple):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}", str(value)]
