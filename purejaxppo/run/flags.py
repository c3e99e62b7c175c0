"""The flags of the command line, from the fields of `Config`, `Hypers` and `Options`.

Each group of `--help` is a dataclass, and tyro makes a flag of each of its fields. The
most used flags come first.
"""

import ast
import dataclasses
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from purejaxppo.config import (
    Config,
    Environment,
    Evaluation,
    Exploration,
    Imitation,
    PolicyNetwork,
    Rollout,
    Update,
    value_names,
    value_of,
)
from purejaxppo.errors import ConfigError
from purejaxppo.hypers import (
    ExplorationHypers,
    ImitationHypers,
    OptimiserHypers,
    UpdateHypers,
)
from purejaxppo.ranges import field_names
from purejaxppo.run.options import (
    EnvironmentOptions,
    Options,
    ResumableOptions,
    StartOptions,
)

PROGRAM = "python -m purejaxppo.train"
_registry = ConstructorRegistry()


# The fields of a dataclass's last base class come first.
@dataclasses.dataclass(frozen=True)
class _Environment(EnvironmentOptions, Environment):
    """The environment to train in."""


@dataclasses.dataclass(frozen=True)
class _Update(OptimiserHypers, Update, UpdateHypers):
    """How the policy learns from a rollout."""


@dataclasses.dataclass(frozen=True)
class _Exploration(Exploration, ExplorationHypers):
    """Entropy bonus and standard deviations of the policy."""


@dataclasses.dataclass(frozen=True)
class _Imitation(ImitationHypers, Imitation):
    """Demonstrations, behaviour cloning and the KL anchor."""


@dataclasses.dataclass(frozen=True)
class _Run(ResumableOptions, StartOptions):
    """Folder, seeds, checkpoints and logs of a run."""


@dataclasses.dataclass(frozen=True)
class _Flags:
    environment: _Environment
    rollout: Rollout
    update: _Update
    policy: PolicyNetwork
    exploration: _Exploration
    imitation: _Imitation
    evaluation: Evaluation
    run: _Run


@dataclasses.dataclass(frozen=True)
class _Origin:
    env: str = Config.env
    env_kwargs: dict[str, object] = dataclasses.field(default_factory=dict)
    core: Literal["none", "lstm", "gru"] = PolicyNetwork.core
    preset: str = Options.preset
    resume: str = Options.resume


class Origin(NamedTuple):
    """The flags that determine the defaults of all others.

    Attributes:
      env: name of the environment.
      preset: of the environment.
      values: `env_kwargs` and `core`, those that are given.
      resume: the run to resume, or "".
    """

    env: str
    preset: str
    values: dict[str, object]
    resume: str


_NOT_GIVEN = "\0"  # which no argument of a command line can contain


@dataclasses.dataclass(frozen=True)
class _Given:
    """Flags for which it matters whether they are given, even if without a value."""

    env: str = _NOT_GIVEN
    distribution: str = _NOT_GIVEN
    trunk: str = _NOT_GIVEN
    resume: str = _NOT_GIVEN
    resume_or_start: str = _NOT_GIVEN
    run_dir: str = _NOT_GIVEN
    demonstrations: str = _NOT_GIVEN
    init_from: str = _NOT_GIVEN
    critic_warmup: str = _NOT_GIVEN


class Values(NamedTuple):
    """The values of all flags.

    Attributes:
      config: name -> value, for every field of `Config` and `Hypers`.
      options: the options of the run.
    """

    config: dict[str, object]
    options: Options


def parse_origin(argv: list[str]) -> Origin:
    """Parse environment, preset and run to resume; ignore all other flags.

    Raises:
      ConfigError: a pair of `env_kwargs` that is not of the form NAME=VALUE.
    """
    given, _ = tyro.cli(
        _Origin,
        args=argv,
        prog=PROGRAM,
        add_help=False,
        return_unknown_args=True,
        registry=_registry,
    )
    kwargs = _with_pairs("env_kwargs", given.env_kwargs, {})
    values = {"env_kwargs": kwargs} if kwargs else {}
    values |= {"core": given.core} if given.core != PolicyNetwork.core else {}
    return Origin(given.env, given.preset, values, given.resume)


def parse_given(argv: list[str]) -> dict[str, str]:
    """Parse the flags of `_Given`; return those that are given, by name."""
    given, _ = tyro.cli(
        _Given, args=argv, prog=PROGRAM, add_help=False, return_unknown_args=True
    )
    return {n: x for n, x in dataclasses.asdict(given).items() if x != _NOT_GIVEN}


def parse_flags(argv: list[str], config: Config, options: Options) -> Values:
    """Parse all flags.

    Args:
      argv: the arguments of the command line.
      config: the defaults of the flags for `Config` and `Hypers`.
      options: the defaults of the flags for `Options`.

    Raises:
      ConfigError: a pair that is not of the form NAME=VALUE.
      SystemExit: 2 for an unknown flag or an invalid number, 0 after --help.
    """
    defaults = {name: value_of(config, name) for name in value_names()}
    defaults |= {name: getattr(options, name) for name in field_names(Options)}
    flags = tyro.cli(
        _Flags,
        default=_flags_of(defaults),
        args=argv,
        prog=PROGRAM,
        description="Train a policy with PPO, in one jitted program.",
        config=(tyro.conf.OmitArgPrefixes,),
        registry=_registry,
    )
    groups = [getattr(flags, name) for name in field_names(_Flags)]
    values: dict[str, Any]
    values = {name: getattr(g, name) for g in groups for name in field_names(type(g))}
    values = {name: _with_pairs(name, x, defaults[name]) for name, x in values.items()}
    return Values(
        {name: values[name] for name in value_names()},
        Options(**{name: values[name] for name in field_names(Options)}),
    )


def _flags_of(values: dict[str, Any]) -> _Flags:
    groups = get_type_hints(_Flags)
    return _Flags(
        **{
            name: cls(**{field: values[field] for field in field_names(cls)})
            for name, cls in groups.items()
        }
    )


@_registry.primitive_rule
def _dictionary_rule(
    info: PrimitiveTypeInfo,
) -> PrimitiveConstructorSpec[list[str] | dict[str, object]] | None:
    """Make tyro read dictionaries as NAME=VALUE, instead of its default NAME VALUE.

    The words are parsed later, by `_parse_pair`, because an error must name the field,
    which is not known here.
    """
    if get_origin(info.type) is not dict:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=list,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_pair_words,
    )


def _pair_words(pairs: list[str] | dict[str, object]) -> list[str]:
    words = pairs if isinstance(pairs, list) else [f"{k}={v}" for k, v in pairs.items()]
    return words or ["none"]


def _with_pairs(name: str, value: object, default: object) -> object:
    """Return the value of a flag; merge NAME=VALUE pairs with the default ones."""
    if not isinstance(value, list):
        return value
    assert isinstance(default, dict)
    return default | dict(parse_pair(name, word) for word in value)


def parse_pair(field: str, pair: str) -> tuple[str, object]:
    """Parse NAME=VALUE; the value is a Python literal, or else a word.

    Args:
      field: the flag, for the error.
      pair: the word of the command line.

    Raises:
      ConfigError: it is not of that form.
    """
    key, equals, text = pair.partition("=")
    if not equals or not key.isidentifier():
        raise ConfigError(field, pair, "pairs of the form NAME=VALUE")
    return key, parse_value(text)


def parse_value(text: str) -> object:
    """Parse a value: a Python literal, an infinity, or else a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if text in ("inf", "-inf"):  # which is how limits are switched off
            return float(text)
        return text  # a plain word needs no quotes
