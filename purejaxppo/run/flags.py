"""Flags of the command line, from the fields of `Config`, `Hypers` and `Options`.

A group of `--help` is one dataclass of fields, and tyro makes one flag of each. The
flags that are used most are in the first groups, and first in their group.
"""

import ast
import dataclasses
from typing import Any, NamedTuple, get_origin, get_type_hints

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


# Fields of the last base come first.
@dataclasses.dataclass(frozen=True)
class _Environment(EnvironmentOptions, Environment):
    """What is learned on."""


@dataclasses.dataclass(frozen=True)
class _Update(OptimiserHypers, Update, UpdateHypers):
    """How the policy learns from a rollout."""


@dataclasses.dataclass(frozen=True)
class _Exploration(Exploration, ExplorationHypers):
    """How widely actions are sampled."""


@dataclasses.dataclass(frozen=True)
class _Imitation(ImitationHypers, Imitation):
    """Demonstrations, behaviour cloning and the KL anchor."""


@dataclasses.dataclass(frozen=True)
class _Run(ResumableOptions, StartOptions):
    """Where a run is kept, when it is saved, what stops it."""


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
class Origin:
    """Where the defaults of all other flags come from: an environment or a run."""

    env: str = Config.env
    preset: str = Options.preset
    resume: str = Options.resume


class Values(NamedTuple):
    """What the command line says.

    Attributes:
      config: name -> value, of every field of `Config` and `Hypers`.
      options: the options.
    """

    config: dict[str, object]
    options: Options


def parse_origin(argv: list[str]) -> Origin:
    """Read environment, preset and run to resume; all other flags are let pass."""
    origin, _ = tyro.cli(
        Origin, args=argv, prog=PROGRAM, add_help=False, return_unknown_args=True
    )
    return origin


def parse_flags(argv: list[str], config: Config, options: Options) -> Values:
    """Read all flags.

    Args:
      argv: the words of the command line.
      config: holds the values of flags that are not given.
      options: the same for options.

    Raises:
      ConfigError: a pair that is not of the form NAME=VALUE.
      SystemExit: 2 on an unknown flag or a word that is no number, 0 after --help.
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
    """Dictionaries are written as NAME=VALUE; tyro's own way is NAME VALUE.

    The words are handed on as they are: an error has to name the field, which is not
    known here.
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
    """The value of a flag; pairs that were given are merged with the default ones."""
    if not isinstance(value, list):
        return value
    assert isinstance(default, dict)
    return default | dict(_parse_pair(name, word) for word in value)


def _parse_pair(field: str, pair: str) -> tuple[str, object]:
    key, equals, text = pair.partition("=")
    if not equals or not key.isidentifier():
        raise ConfigError(field, pair, "pairs of the form NAME=VALUE")
    try:
        return key, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key, text  # a plain word needs no quotes
