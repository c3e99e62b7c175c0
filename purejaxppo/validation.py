"""Whether a configuration can be used: one sentence, before anything compiles."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

from purejaxppo.config import DISTRIBUTIONS, PER_HEAD, Config, Hypers
from purejaxppo.errors import ConfigError, UnknownName

_POSITIVE_INTS = (
    "total_timesteps num_envs num_steps num_minibatches core_size "
    "num_starts cloning_batch eval_blocks eval_episodes"
).split()
_COUNTS = (
    "num_epochs sequence_length train_episode_steps num_demonstrations cloning_steps "
    "critic_warmup learning_rate_warmup num_evals eval_seed"
).split()

# Hyperparameter -> (smallest, largest, text). NaN fails every comparison.
_RANGES = {
    "learning_rate": (0.0, 1.0, "a number in [0, 1]"),
    "learning_rate_final": (0.0, math.inf, "a finite number of at least 0"),
    "gamma": (0.0, 1.0, "a number in [0, 1]"),
    "gae_lambda": (0.0, 1.0, "a number in [0, 1]"),
    "clip_eps": (1e-9, math.inf, "a number above 0"),
    "dual_clip": (1.0, math.inf, "a number of at least 1, inf for none"),
    "value_coef": (0.0, math.inf, "a number of at least 0"),
    "value_clip": (1e-9, math.inf, "a number above 0, inf for none"),
    "entropy_coef": (-math.inf, math.inf, "a finite number"),
    "entropy_coef_final": (0.0, math.inf, "a finite number of at least 0"),
    "entropy_floor": (-math.inf, math.inf, "a number, -inf for none"),
    "entropy_limit": (1e-9, math.inf, "a number above 0, inf for none"),
    "kl_coef": (0.0, math.inf, "a number of at least 0"),
    "kl_coef_final": (0.0, math.inf, "a finite number of at least 0"),
    "target_kl": (1e-9, math.inf, "a number above 0, inf for none"),
    "max_grad_norm": (1e-9, math.inf, "a number above 0, inf for none"),
    "adam_eps": (0.0, 1.0, "a number in [0, 1]"),
    "critic_weight_decay": (0.0, 1.0, "a number in [0, 1]"),
}
_MAY_BE_INFINITE = {
    "dual_clip",
    "value_clip",
    "entropy_floor",
    "entropy_limit",
    "target_kl",
    "max_grad_norm",
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _validate_sizes(config: Config) -> None:
    for field in _POSITIVE_INTS:
        value = getattr(config, field)
        if not _is_int(value) or value < 1:
            raise ConfigError(field, value, "a whole number of at least 1")
    for field in _COUNTS:
        value = getattr(config, field)
        if not _is_int(value) or value < 0:
            raise ConfigError(field, value, "a whole number of at least 0")
    for field in ("hidden_sizes", "critic_hidden_sizes"):
        sizes = getattr(config, field)
        if not sizes or any(not _is_int(size) or size < 1 for size in sizes):
            raise ConfigError(field, sizes, "one or more whole numbers of at least 1")


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


def _validate_choices(config: Config) -> None:
    for field in dataclasses.fields(config):
        options = getattr(field.type, "__args__", ())
        if options and all(isinstance(option, str) for option in options):
            value = getattr(config, field.name)
            if value not in options:
                raise ConfigError(field.name, value, "one of " + ", ".join(options))
    distribution = config.distribution
    named = isinstance(distribution, str) and ":" in distribution
    if distribution not in DISTRIBUTIONS and not named:
        raise ConfigError(
            "distribution",
            distribution,
            "one of " + ", ".join((*DISTRIBUTIONS, "package.module:factory")),
        )


def _validate_number(field: str, value: object, kind: str) -> None:
    if not isinstance(value, (int, float)):
        return  # an array: traced, or one value per vmapped member
    low, high, allowed = _RANGES[kind]
    finite = math.isfinite(value) or kind in _MAY_BE_INFINITE
    if not (low <= value <= high and finite):
        raise ConfigError(field, value, allowed)


def _validate_hypers(hypers: Hypers) -> None:
    for field in _RANGES:
        _validate_number(field, getattr(hypers, field), field)
    for field in PER_HEAD:
        for head, value in getattr(hypers, f"head_{field}").items():
            if isinstance(value, (str, bool)):
                raise ConfigError(f"head_{field}.{head}", value, _RANGES[field][2])
            _validate_number(f"head_{field}.{head}", value, field)


def _validate_floors(hypers: Hypers) -> None:
    """A floor raises a coefficient by factors, so there must be one to raise."""
    floors = {"entropy_floor": (hypers.entropy_floor, hypers.entropy_coef)}
    for head, floor in hypers.head_entropy_floor.items():
        coef = hypers.head_entropy_coef.get(head, hypers.entropy_coef)
        floors[f"head_entropy_floor.{head}"] = (floor, coef)
    for field, (floor, coef) in floors.items():
        numbers = isinstance(floor, (int, float)) and isinstance(coef, (int, float))
        if numbers and floor > -math.inf and coef == 0.0:
            raise ConfigError(field, floor, "none (-inf) with an entropy_coef of 0")


def _validate_couplings(config: Config) -> None:
    stds = (1e-5, config.min_std, config.init_std, config.max_std)
    if not all(low <= high for low, high in itertools.pairwise(stds)):
        raise ConfigError(
            "min_std, init_std, max_std",
            stds[1:],
            "three numbers with 1e-5 <= min_std <= init_std <= max_std",
        )
    if not config.demonstration_noise >= 0.0:
        raise ConfigError(
            "demonstration_noise", config.demonstration_noise, "a number of at least 0"
        )
    if not 0.0 < config.cloning_learning_rate < math.inf:
        raise ConfigError(
            "cloning_learning_rate", config.cloning_learning_rate, "a number above 0"
        )
    if config.num_demonstrations == 0:
        if config.anchor:
            raise ConfigError("anchor", True, "False without num_demonstrations")
        if config.normalize_observations == "fixed":
            raise ConfigError(
                "normalize_observations",
                "fixed",
                "running or off without num_demonstrations",
            )
    _validate_floors(config.hypers)
    if config.learning_rate_schedule == "kl" and config.hypers.target_kl == math.inf:
        raise ConfigError("target_kl", math.inf, "a finite number with schedule kl")


def validate_heads(config: Config, heads: Iterable[str]) -> None:
    """Check that settings of single heads name heads that the environment has.

    Raises:
      ConfigError: one that does not.
    """
    heads = list(heads)
    for field in PER_HEAD:
        for name in getattr(config.hypers, f"head_{field}"):
            if name not in heads:
                raise UnknownName(f"head_{field}", name, heads)


def advice(config: Config) -> list[str]:
    """What is allowed and rarely meant, a sentence each."""
    sentences = []
    if config.core != "none" and config.epochs > 1:
        sentences.append(
            f"num_epochs is {config.epochs} with core {config.core}: from the second "
            "pass on, the recurrent state stored with each sequence is that of an "
            "older policy; 1 is the default"
        )
    return sentences


def validate(config: Config) -> None:
    """Check everything that can be known before anything compiles.

    Raises:
      ConfigError: the first field that cannot be used, with what is allowed.
    """
    _validate_choices(config)
    _validate_sizes(config)
    _validate_hypers(config.hypers)
    _validate_batch(config)
    _validate_couplings(config)
