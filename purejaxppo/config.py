"""What a run is made of: static `Config`, traced `Hypers`, and their validation.

What changes the compiled program is in `Config`, frozen. What does not is in
`Hypers`, a pytree: any leaf of it can be `vmap`ped. The sentence under each field
is what `--help` prints.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any, Literal

from flax import struct

from purejaxppo.env import presets
from purejaxppo.errors import ConfigError, UnknownName

Schedule = Literal["constant", "linear", "exponential", "cosine"]
LearningRateSchedule = Literal["constant", "linear", "exponential", "cosine", "kl"]


class Hypers(struct.PyTreeNode):
    """The numbers of PPO. Every leaf is traced, so `jax.vmap` runs over any of them.

    `inf` switches a limit off.
    """

    learning_rate: float = 3e-4
    """Adam's step size at the start of training."""
    learning_rate_final: float = 0.1
    """Learning rate at the end, as a fraction of the first (scheduled rates only)."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_eps: float = 0.2
    """Clip range of the probability ratio."""
    dual_clip: float = math.inf
    """Lower bound of the objective for negative advantages, as a multiple (> 1)."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    value_clip: float = math.inf
    """Largest change of a value in one update, in units of return."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    entropy_coef_final: float = 1.0
    """Entropy coefficient at the end, as a fraction of the first."""
    entropy_floor: float = -math.inf
    """Entropy of a head below which its coefficient is raised, update by update."""
    head_entropy_coef: dict[str, float] = struct.field(default_factory=dict)
    """Entropy coefficient of single heads, by name; others have entropy_coef."""
    head_entropy_coef_final: dict[str, float] = struct.field(default_factory=dict)
    """entropy_coef_final of single heads, by name."""
    head_entropy_floor: dict[str, float] = struct.field(default_factory=dict)
    """entropy_floor of single heads, by name."""
    entropy_limit: float = math.inf
    """Largest mean change of entropy against the rollout policy; beyond it, stop."""
    kl_coef: float = 0.0
    """Weight of the reverse KL to the frozen reference (the cloned policy)."""
    kl_coef_final: float = 1.0
    """KL coefficient at the end, as a fraction of the first."""
    target_kl: float = math.inf
    """Epochs stop, before the step, once approx_kl exceeds 1.5 times this."""
    max_grad_norm: float = 0.5
    """Global norm to which gradients are clipped."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    critic_weight_decay: float = 0.0
    """Decoupled weight decay, of the critic alone."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that changes the compiled program."""

    env: str = "hammer"
    """Environment: a registered name or "package.module:factory"."""
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment's factory."""
    total_timesteps: int = 500_000
    """Environment steps of training (per seed)."""
    num_envs: int = 64
    """Environments stepped side by side (N)."""
    num_steps: int = 128
    """Steps of each environment per update (T)."""
    num_epochs: int = 0
    """Passes over each rollout; 0 is 4, with a recurrent core 1: its stored state goes
    stale as the policy moves."""
    num_minibatches: int = 8
    """Minibatches per pass."""
    accumulate_gradients: bool = False
    """One optimiser step per epoch, on gradients summed over its minibatches."""
    hypers: Hypers = dataclasses.field(default_factory=Hypers)
    """The traced numbers."""

    learning_rate_schedule: LearningRateSchedule = "constant"
    """How the learning rate moves; "kl" adapts it to approx_kl against target_kl."""
    learning_rate_warmup: int = 0
    """Updates over which the rate rises to its full value once the policy learns:
    Adam's first steps move every weight by all of it, too far for a cloned policy."""
    entropy_schedule: Schedule = "constant"
    """How the entropy coefficient moves."""
    kl_schedule: Schedule = "constant"
    """How the KL coefficient moves."""
    normalize_advantages: Literal["batch", "minibatch", "off"] = "batch"
    """Over what advantages are normalised."""
    normalize_observations: Literal["running", "fixed", "off"] = "running"
    """Running statistics, those of the demonstrations kept fixed, or none."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    distribution: Literal["truncated_normal", "tanh_normal", "normal"] = (
        "truncated_normal"
    )
    """Distribution of continuous heads."""
    min_std: float = 0.01
    """Smallest standard deviation of a continuous head, of at least 1e-5."""
    max_std: float = 1.0
    """Largest standard deviation of a continuous head."""
    init_std: float = 0.5
    """Standard deviation of an untrained continuous head."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the policy's hidden layers."""
    critic_hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the critic's hidden layers."""
    activation: Literal["tanh", "relu", "swish", "elu"] = "tanh"
    """Activation of hidden layers."""
    critic_layer_norm: bool = True
    """LayerNorm after each hidden layer of the critic."""
    shared_trunk: bool = False
    """Read the value from the policy's trunk instead of from a network of its own."""
    core: Literal["none", "lstm", "gru"] = "none"
    """Recurrent core behind the trunk."""
    core_size: int = 128
    """Width of the recurrent core."""
    sequence_length: int = 0
    """Length of the recurrent core's training sequences; 0 is num_steps."""
    normalize_entropy: bool = False
    """Divide the entropy of a masked head by the log of its number of valid actions."""

    reset: Literal["fresh", "pool", "cached"] = "pool"
    """Where an ended episode starts anew: a new reset, one of a pool drawn once per
    update, or always that environment's first state."""
    num_starts: int = 64
    """Starts in the pool."""
    train_episode_steps: int = 0
    """Time limit of training episodes; 0 is the environment's own. A shorter one spends
    fewer samples where a policy is stuck; evaluation keeps the environment's."""
    stagger: bool = True
    """Give first episodes a random age, so that environments do not end in step."""

    num_demonstrations: int = 0
    """Successful demonstrations to clone before PPO; 0 is no imitation."""
    demonstration_noise: float = 0.1
    """Standard deviation of the noise on the demonstrator's actions."""
    cloning_steps: int = 2_000
    """Optimiser steps of behaviour cloning."""
    cloning_batch: int = 256
    """Samples of a step of behaviour cloning."""
    cloning_learning_rate: float = 1e-3
    """Learning rate of behaviour cloning."""
    critic_warmup: int = 0
    """Updates in which only the critic learns, on the cloned policy's returns."""
    anchor: bool = False
    """Keep the cloned policy as the frozen reference of the KL anchor."""

    num_evals: int = 10
    """Evaluations during training, evenly spaced, the last one at its end."""
    eval_blocks: int = 5
    """Fixed blocks of evaluation seeds."""
    eval_episodes: int = 20
    """Episodes per block."""
    eval_seed: int = 12345
    """Seed of the blocks: the same episodes in every run."""

    @classmethod
    def preset(cls, env: str, name: str = "default", **values: Any) -> "Config":
        """The configuration that the command line would use for an environment.

        Args:
          env: a registered name or "package.module:factory".
          name: a preset of the environment, on top of its "default" one.
          **values: fields of `Config` and `Hypers` by plain name; they win.

        Raises:
          ConfigError: an unknown environment, preset or field.
        """
        known = presets(env)
        if name != "default" and name not in known:
            raise UnknownName("preset", name, known)
        config = cls(env=env)
        for layer in (known.get("default", {}), known.get(name, {}), values):
            config = with_overrides(config, layer)
        return config

    @property
    def batch_size(self) -> int:
        """Samples per update, B = T * N."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Whole updates that fit into total_timesteps."""
        return self.total_timesteps // self.batch_size

    @property
    def epochs(self) -> int:
        """Passes over each rollout."""
        return self.num_epochs or (4 if self.core == "none" else 1)

    @property
    def window(self) -> int:
        """Steps of one training sequence: 1 without a recurrent core."""
        if self.core == "none":
            return 1
        return self.sequence_length or self.num_steps

    @property
    def eval_points(self) -> tuple[int, ...]:
        """Update counts after which an evaluation is due; the last is num_updates."""
        num_evals = min(self.num_evals, self.num_updates)
        if num_evals == 0:
            return ()
        gap = self.num_updates // num_evals
        return tuple(self.num_updates - gap * i for i in reversed(range(num_evals)))


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
# Of these a head may have its own, under the name "head_" and theirs.
PER_HEAD = ("entropy_coef", "entropy_coef_final", "entropy_floor")
# Fields that are NAME=VALUE pairs; layers of a configuration merge them pair by pair.
PAIRS = ("env_kwargs", *(f"head_{field}" for field in PER_HEAD))
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


def with_overrides(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with those fields replaced, hyperparameters by plain name.

    Pairs (`env_kwargs` and the like) are merged with those that are there.

    Raises:
      ConfigError: a name that is neither a field nor a hyperparameter.
    """
    fields = {field.name for field in dataclasses.fields(Config)}
    hyper_fields = {field.name for field in dataclasses.fields(Hypers)}
    for name in values:
        if name not in fields | hyper_fields:
            raise ConfigError("configuration", name, "a field of Config or Hypers")
    owners = {name: config if name in fields else config.hypers for name in PAIRS}
    merged = {
        name: {**getattr(owners[name], name), **values[name]}
        for name in PAIRS
        if name in values
    }
    values = {**values, **merged}
    hypers = config.hypers.replace(
        **{k: v for k, v in values.items() if k in hyper_fields}
    )
    plain = {k: v for k, v in values.items() if k in fields}
    return dataclasses.replace(config, **{"hypers": hypers, **plain})
