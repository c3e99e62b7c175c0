"""The command line of a sweep, and the plan of the study that it asks for."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from purejaxppo import train
from purejaxppo.config import Config
from purejaxppo.errors import ConfigError
from purejaxppo.ranges import Text, Whole
from purejaxppo.run import flags, preflight
from purejaxppo.run.folder import Record
from purejaxppo.run.options import Options, gives_policy, validate_options
from purejaxppo.run.trust import Trust, check_imports
from purejaxppo.sweep import plan as plan_lib
from purejaxppo.sweep import space
from purejaxppo.sweep.plan import Plan, Pruner
from purejaxppo.sweep.training import load_beginning
from purejaxppo.validation import validate_first_policy

PROGRAM = "python -m purejaxppo.sweep"


@dataclasses.dataclass(frozen=True)
class Flags:
    """Search over hyperparameters, by Optuna: each trial is trained with some seeds.

    The score of a trial is the mean over seeds of its last evaluation: of the success
    that the environment names, otherwise of the return. All other flags are those of
    training: see python -m purejaxppo.train --help.
    """

    param: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=LOW,HIGH or NAME=log:LOW,HIGH or NAME=int:LOW,HIGH or NAME=A|B|C, where NAME
    is a flag of training with _ for -; once for each parameter."""
    trials: Annotated[int | None, Whole(1)] = None
    """Trials of the whole study, which all workers share; 50, or as many as before."""
    seeds: Annotated[int, Whole(1, 2**16)] = 1
    """Seeds of each trial, from --seed on."""
    speed: bool = False
    """Maximise steps per second as well; then no trial is pruned."""
    pruner: Pruner = "hyperband"
    """What ends a trial early, by its evaluations."""
    storage: Annotated[str, Text()] = ""
    """URL of a database for the queue, in SQLAlchemy's form; without one the queue is a
    journal in the folder."""
    study: Annotated[str, Text()] = "sweep"
    """Name of the study, as a database may hold several."""
    run_dir: Annotated[str, Text()] = ""
    """Folder of the study; default: runs/sweep-ENV-DATE-TIME."""
    resume: Annotated[str, Text()] = ""
    """Folder of a study to go on with, by the command that began it."""
    trust_env: bool = False
    """Import whatever the study to resume names to be imported."""
    report: bool = True
    """Write report.html into the folder."""


def parse(argv: Sequence[str]) -> tuple[Flags, list[str]]:
    """Parse the flags of a sweep; return them, and the flags of training.

    Raises:
      ConfigError: a value that cannot be used.
      SystemExit: 2 on an invalid number, 0 after --help.
    """
    given, rest = tyro.cli(
        Flags, args=list(argv), prog=PROGRAM, return_unknown_args=True
    )
    for name, value in (("trials", given.trials), ("seeds", given.seeds)):
        if value is not None and value < 1:
            raise ConfigError(name, value, "a whole number of at least 1")
    if given.run_dir and given.resume:
        allowed = "none where resume names the folder"
        raise ConfigError("run_dir", given.run_dir, allowed)
    return given, rest


def make_plan(given: Flags, rest: Sequence[str]) -> Plan:
    """Make the plan of a study, after checking all that can be known of its trials.

    Args:
      given: the flags of the sweep.
      rest: the flags of training.

    Raises:
      ConfigError: a value that cannot be used; before anything compiles.
      SystemExit: 2 on an unknown flag.
    """
    parameters = space.parse(given.param)
    resolved, options = train.parse(list(rest))
    if options.num_seeds != Options.num_seeds:
        allowed = "none in a sweep, where --seeds says how many"
        raise ConfigError("num_seeds", options.num_seeds, allowed)
    plan_lib.check_options(options)
    # A trial has one device; further workers are for the others.
    options = dataclasses.replace(options, num_seeds=given.seeds, num_devices=1)
    validate_options(options)
    if not resolved.config.num_evals:
        allowed = "at least 1 in a sweep, whose score is that of the last evaluation"
        raise ConfigError("num_evals", 0, allowed)
    first = space.check(resolved.config, parameters)
    validate_first_policy(first, gives_policy(options))
    learner = preflight.make_learner(first, options)
    load_beginning(learner, options, lambda _: None)
    words = [f"--param={word}" for word in given.param]
    words += ["--seeds", str(given.seeds), "--pruner", given.pruner]
    words += ["--speed"] * given.speed + list(rest)
    return Plan(
        parameters,
        resolved,
        options,
        given.speed,
        given.pruner,
        learner.task.env.spec,
        tuple(words),
    )


def resumed(given: Flags, rest: list[str], recorded: Record) -> tuple[Flags, list[str]]:
    """Return the command that began a study, with what this worker may choose.

    Args:
      given, rest: the flags of this worker, from `parse`.
      recorded: the plan of the study.

    Raises:
      ConfigError: a flag of this worker differs from the study's own, or the study
        would import what the user does not trust.
    """
    path, began_with = Path(given.resume), recorded.get("words")
    if not isinstance(began_with, list):
        raise ConfigError("resume", str(path), "the folder of a sweep")
    began, words = parse(list(map(str, began_with)))
    if given.param:
        raise ConfigError("param", given.param, "none with --resume")
    for name in ("seeds", "speed", "pruner"):
        value, own = getattr(given, name), getattr(began, name)
        if value not in (own, getattr(Flags, name)):
            raise ConfigError(name, value, f"the study's own {own!r} with --resume")
    _check_trust(given, rest, began, words, path)
    changes = {n: getattr(given, n) for n in ("trials", "storage", "study", "report")}
    began = dataclasses.replace(began, run_dir=given.resume, **changes)
    return began, words + rest


def _check_trust(
    given: Flags, rest: list[str], began: Flags, words: list[str], path: Path
) -> None:
    """Check that a study names nothing to import that the user has not allowed."""
    now, then = flags.parse_given(rest), flags.parse_given(words)
    factories = now.get("env"), now.get("distribution"), now.get("trunk")
    trust = Trust(*factories, given.trust_env)
    config = Config(env=then.get("env", Config.env))
    for field in ("distribution", "trunk"):
        names = [then.get(field, getattr(Config, field))]
        for parameter in space.parse(began.param):
            if parameter.name == field:
                names += map(str, parameter.corners)
        for name in names:
            check_imports(dataclasses.replace(config, **{field: name}), trust, path)
