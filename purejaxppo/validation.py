"""Validation of a configuration, before anything compiles.

The range of a single field is part of its annotation (see `ranges`). This module checks
the conditions that involve several fields.
"""

import math
from collections.abc import Iterable

from purejaxppo.config import Config, Hypers
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.ranges import PerHead, check_ranges, ranges_of


def validate(config: Config) -> None:
    """Check all ranges, and the conditions that involve several fields.

    Raises:
      ConfigError: the first field whose value is not allowed.
    """
    check_ranges(config)
    _validate_batch(config)
    _validate_stds(config)
    _validate_imitation(config)
    _validate_floors(config.hypers)
    _validate_kl_schedule(config)


def _validate_batch(config: Config) -> None:
    if config.num_steps % config.window:
        raise ConfigError(
            "sequence_length",
            config.sequence_length,
            f"a divisor of num_steps {config.num_steps}",
        )
    sequences = config.batch_size // config.window
    if sequences % config.num_minibatches:
        raise ConfigError(
            "num_minibatches",
            config.num_minibatches,
            f"a divisor of the {sequences} training sequences of an update "
            f"(num_envs {config.num_envs} * num_steps {config.num_steps} / "
            f"sequence length {config.window})",
        )
    if config.total_timesteps < config.batch_size:
        raise ConfigError(
            "total_timesteps",
            config.total_timesteps,
            f"at least one update of num_envs * num_steps = {config.batch_size}",
        )


def _validate_stds(config: Config) -> None:
    stds = (config.min_std, config.init_std, config.max_std)
    if not stds[0] <= stds[1] <= stds[2]:
        raise ConfigError(
            "min_std, init_std, max_std",
            stds,
            "three numbers with min_std <= init_std <= max_std",
        )


def _validate_imitation(config: Config) -> None:
    if config.num_demonstrations > 0:
        return
    if config.anchor:
        raise ConfigError("anchor", True, "False without num_demonstrations")
    if config.normalize_observations == "fixed":
        raise ConfigError(
            "normalize_observations",
            "fixed",
            "running or off without num_demonstrations",
        )


def _validate_kl_schedule(config: Config) -> None:
    target = config.hypers.target_kl
    unlimited = isinstance(target, int | float) and target == math.inf
    if config.learning_rate_schedule == "kl" and unlimited:
        raise ConfigError("target_kl", target, "a finite number with schedule kl")


def _validate_floors(hypers: Hypers) -> None:
    """Refuse an entropy floor with coefficient 0, which a factor cannot raise."""
    floors = {"entropy_floor": (hypers.entropy_floor, hypers.entropy_coef)}
    for head, floor in hypers.head_entropy_floor.items():
        coef = hypers.head_entropy_coef.get(head, hypers.entropy_coef)
        floors[f"head_entropy_floor.{head}"] = (floor, coef)
    for field, (floor, coef) in floors.items():
        numbers = isinstance(floor, int | float) and isinstance(coef, int | float)
        if numbers and floor > -math.inf and coef == 0.0:
            raise ConfigError(field, floor, "none (-inf) with an entropy_coef of 0")


def validate_heads(config: Config, heads: Iterable[str]) -> None:
    """Check that the environment has every head that a `head_...` field names.

    Raises:
      ConfigError: the environment has no such head.
    """
    heads = list(heads)
    for field, range_ in ranges_of(Hypers).items():
        if isinstance(range_, PerHead):
            for name in getattr(config.hypers, field):
                if name not in heads:
                    raise UnknownName(field, name, heads)


def advice(config: Config) -> list[str]:
    """Return a warning for each setting that is allowed but rarely useful."""
    sentences = []
    if config.core != "none" and config.epochs > 1:
        sentences.append(
            f"num_epochs is {config.epochs} with core {config.core}: from the second "
            "pass on, the recurrent state stored with each sequence is that of an "
            "older policy; 1 is the default"
        )
    return sentences
