"""Validation of a configuration, before anything compiles.

The range of a single field is part of its annotation (see `ranges`). This module checks
the conditions that involve several fields.
"""

import math
from collections.abc import Collection, Iterable

from purejaxppo.config import TRUNKS, Config, Hypers
from purejaxppo.env import Box, Discrete, EnvSpec
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


def validate_first_policy(config: Config, is_given: bool) -> None:
    """Check that what is to stay as it is at the start is not random there.

    Args:
      config: the configuration.
      is_given: whether training begins with a given policy and its statistics. It is no
        part of the configuration, so `validate` cannot know.

    Raises:
      ConfigError: an anchor or fixed statistics, and nothing that they come from.
    """
    if config.num_demonstrations > 0 or is_given:
        return
    without = "without num_demonstrations or a policy of init_from"
    if config.anchor:
        raise ConfigError("anchor", True, f"False {without}")
    if config.normalize_observations == "fixed":
        field = "normalize_observations"
        raise ConfigError(field, "fixed", f"running or off {without}")


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
        if numbers and floor > -math.inf and coef <= 0.0:
            raise ConfigError(
                field, floor, "none (-inf) with an entropy_coef of 0 or less"
            )


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


def advice(
    config: Config, spec: EnvSpec | None = None, given: Collection[str] = ()
) -> list[str]:
    """Return a warning for each setting that is allowed but probably a mistake.

    Args:
      config: the configuration.
      spec: the specification of its environment, if it is known.
      given: the names of values that the user has set explicitly. The default of such a
        value may be useless as well, but this is not worth a warning.
    """
    warnings = _advice_on_imitation(config) | _advice_on_schedules(config)
    if config.core != "none" and config.epochs > 1:
        warnings["num_epochs"] = (
            f"num_epochs is {config.epochs} with core {config.core}: from the second "
            "pass on, the recurrent state stored with each sequence is that of an "
            "older policy; 1 is the default"
        )
    if config.core == "none" and config.sequence_length:
        warnings["sequence_length"] = (
            f"sequence_length is {config.sequence_length} without a recurrent core, "
            "which alone is trained on sequences"
        )
    if spec is not None:
        warnings |= _advice_on_environment(config, spec)
    for condition, names in _useless(config, spec).items():
        for name in names:
            if name in given and name not in warnings:
                warnings[name] = f"{name} has no effect {condition}"
    return list(warnings.values())


def _advice_on_imitation(config: Config) -> dict[str, str]:
    """Return warnings about demonstrations and the anchor, by the name of a field."""
    hypers, warnings = config.hypers, {}
    if not config.anchor and _is_not(hypers.kl_coef, 0.0):
        warnings["kl_coef"] = (
            f"kl_coef is {hypers.kl_coef} without anchor: there is no reference policy"
        )
    if config.anchor and not _is_not(hypers.kl_coef, 0.0):
        warnings["anchor"] = (
            "anchor with a kl_coef of 0: the KL to the reference policy is logged, and "
            "has no effect"
        )
    if config.critic_warmup >= config.num_updates:
        warnings["critic_warmup"] = (
            f"critic_warmup is {config.critic_warmup} of {config.num_updates} updates: "
            "the policy is never trained"
        )
    if not config.num_demonstrations:
        return warnings
    if not config.cloning_steps:
        warnings["cloning_steps"] = (
            "cloning_steps is 0: the demonstrations are not cloned"
        )
    if config.normalize_observations == "running":
        warnings["normalize_observations"] = (
            "normalize_observations is running with num_demonstrations: from the first "
            "update on, the cloned policy sees inputs that are scaled differently; "
            "fixed keeps the statistics of the demonstrations"
        )
    return warnings


def _advice_on_schedules(config: Config) -> dict[str, str]:
    """Return warnings about final values that a constant schedule never reaches."""
    hypers, finals = config.hypers, {}
    if config.entropy_schedule == "constant":
        own = hypers.head_entropy_coef_final.values()
        finals = {
            "entropy_coef_final": _is_not(hypers.entropy_coef_final, 1.0),
            "head_entropy_coef_final": any(_is_not(value, 1.0) for value in own),
        }
    return {
        name: f"{name} with a constant entropy_schedule has no effect"
        for name, is_set in finals.items()
        if is_set
    }


def _advice_on_environment(config: Config, spec: EnvSpec) -> dict[str, str]:
    """Return warnings about values that this environment has no use for."""
    warnings, limit = {}, spec.max_episode_steps
    discrete = any(isinstance(head, Discrete) for head in spec.heads.values())
    if config.normalize_entropy and not discrete:
        warnings["normalize_entropy"] = (
            "normalize_entropy without a Discrete head has no effect"
        )
    if limit is not None and config.train_episode_steps > limit:
        warnings["train_episode_steps"] = (
            f"train_episode_steps is {config.train_episode_steps}, and the "
            f"environment's own limit of {limit} steps is shorter"
        )
    return warnings


def _is_not(value: object, neutral: float) -> bool:
    """Whether a number has an effect; an array, whose values are unknown, has one."""
    return not isinstance(value, int | float) or value != neutral


def _useless(config: Config, spec: EnvSpec | None) -> dict[str, tuple[str, ...]]:
    """Return the names of values without effect, by the reason for it."""
    cloning = ("cloning_steps", "cloning_batch", "cloning_learning_rate")
    stds = ("distribution", "init_std", "min_std", "max_std")
    rate, has_core = config.learning_rate_schedule, config.core != "none"
    has_box = spec is None or any(isinstance(x, Box) for x in spec.heads.values())
    names: dict[str, tuple[tuple[str, ...], bool]] = {
        "without num_demonstrations": (
            ("demonstration_noise", *cloning),
            not config.num_demonstrations,
        ),
        "with a recurrent core, which is cloned from whole episodes": (
            ("cloning_batch",),
            has_core,
        ),
        "without anchor": (("kl_schedule", "kl_coef_final"), not config.anchor),
        f"with learning_rate_schedule {rate}": (
            ("learning_rate_final",),
            rate in ("constant", "kl"),
        ),
        f"with reset {config.reset}": (("num_starts",), config.reset != "pool"),
        "without normalize_rewards": (("reward_clip",), not config.normalize_rewards),
        f"with trunk {config.trunk}": (
            ("hidden_sizes", "critic_hidden_sizes", "activation", "critic_layer_norm"),
            config.trunk not in TRUNKS,
        ),
        "without a recurrent core": (("core_size",), not has_core),
        "with shared_trunk": (
            ("critic_hidden_sizes", "critic_layer_norm"),
            config.shared_trunk,
        ),
        "without a Box head": (stds, not has_box),
    }
    return {reason: fields for reason, (fields, holds) in names.items() if holds}
