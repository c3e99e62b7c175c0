"""The configuration of training: the static `Config`, which holds the traced `Hypers`.

`Config` is frozen and holds every value that changes the compiled program. It inherits
from one class per subject. These classes are also the groups of `--help`, which prints
the string under each field. A field's allowed range is part of its type annotation
(see `ranges`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, TypeVar

from purejaxppo import presets
from purejaxppo.errors import ConfigError
from purejaxppo.hypers import Hypers
from purejaxppo.ranges import (
    Arguments,
    Number,
    OneOfOrFactory,
    Text,
    Whole,
    Widths,
    field_names,
)

Schedule = Literal["constant", "linear", "exponential", "cosine"]
LearningRateSchedule = Literal["constant", "linear", "exponential", "cosine", "kl"]

# The built-in distributions of continuous heads.
DISTRIBUTIONS = ("truncated_normal", "tanh_normal", "normal")
# The built-in hidden layers.
TRUNKS = ("mlp",)

_Owner = TypeVar("_Owner", "Config", Hypers)
_STD = Number(1e-5, 1e3)


@dataclasses.dataclass(frozen=True)
class Environment:
    """The environment to train in."""

    env: Annotated[str, Text()] = "hammer"
    """Environment: a registered name, "library:name" or "package.module:factory"."""
    env_kwargs: Annotated[dict[str, object], Arguments()] = dataclasses.field(
        default_factory=dict
    )
    """Keyword arguments of the environment's factory."""


@dataclasses.dataclass(frozen=True)
class Rollout:
    """How samples are collected."""

    total_timesteps: Annotated[int, Whole(1)] = 500_000
    """Environment steps of training (per seed)."""
    num_envs: Annotated[int, Whole(1)] = 64
    """Environments stepped in parallel (N)."""
    num_steps: Annotated[int, Whole(1)] = 128
    """Steps of each environment per update (T)."""
    normalize_observations: Literal["running", "fixed", "off"] = "running"
    """Normalise by running statistics, by those of the first policy, or not."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""
    reset: Literal["fresh", "pool", "cached"] = "pool"
    """Next start: a new reset, one of a pool per update, or the cached first state."""
    num_starts: Annotated[int, Whole(1)] = 64
    """Number of starts in the pool of reset "pool"."""
    # A shorter limit spends fewer samples on episodes in which the policy is stuck.
    # Evaluation always uses the environment's limit.
    train_episode_steps: Annotated[int, Whole(0)] = 0
    """Shorter time limit of training episodes, in steps; 0 keeps the environment's."""
    stagger: bool = True
    """Start first episodes at random ages, so that they do not all end at once."""


@dataclasses.dataclass(frozen=True)
class Update:
    """How the policy learns from a rollout."""

    num_epochs: Annotated[int, Whole(0, 2**16)] = 0
    """Passes over each rollout; 0 means 4, or 1 with a recurrent core."""
    num_minibatches: Annotated[int, Whole(1)] = 8
    """Minibatches per pass."""
    learning_rate_schedule: LearningRateSchedule = "constant"
    """Schedule of the learning rate; "kl" adapts it to hold approx_kl at target_kl."""
    # Adam's first steps change every weight by the full learning rate, which is too
    # large a change for a cloned policy.
    learning_rate_warmup: Annotated[int, Whole(0)] = 0
    """Updates over which the learning rate rises linearly, after critic_warmup."""
    normalize_advantages: Literal["batch", "minibatch", "off"] = "batch"
    """Samples over which advantages are normalised."""
    accumulate_gradients: bool = False
    """Take one optimiser step per epoch, on the mean gradient of its minibatches."""


@dataclasses.dataclass(frozen=True)
class PolicyNetwork:
    """The networks of policy and critic."""

    # A factory is given as "package.module:factory"; see policy.custom_trunk.
    trunk: Annotated[str, OneOfOrFactory(TRUNKS)] = "mlp"
    """Hidden layers: mlp, or "module:factory" of a Flax module of yours."""
    hidden_sizes: Annotated[tuple[int, ...], Widths()] = (256, 256)
    """Widths of the policy's hidden layers."""
    critic_hidden_sizes: Annotated[tuple[int, ...], Widths()] = (256, 256)
    """Widths of the critic's hidden layers."""
    activation: Literal["tanh", "relu", "swish", "elu"] = "tanh"
    """Activation of hidden layers."""
    core: Literal["none", "lstm", "gru"] = "none"
    """Recurrent core of the trunk, after the hidden layers."""
    core_size: Annotated[int, Whole(1, 2**16)] = 128
    """Width of the recurrent core."""
    sequence_length: Annotated[int, Whole(0)] = 0
    """Steps per training sequence of the recurrent core; 0 means num_steps."""
    critic_layer_norm: bool = True
    """LayerNorm after each hidden layer of the critic."""
    shared_trunk: bool = False
    """Compute the value from the policy's trunk, not from a separate network."""
    # A factory is given as "package.module:factory". It takes mean and standard
    # deviation, float32 [..., size] each, and returns a distrax.Distribution.
    distribution: Annotated[str, OneOfOrFactory(DISTRIBUTIONS)] = "truncated_normal"
    """Continuous heads: truncated_normal, tanh_normal, normal, or "module:factory"."""


@dataclasses.dataclass(frozen=True)
class Exploration:
    """Entropy bonus and standard deviations of the policy."""

    entropy_schedule: Schedule = "constant"
    """Schedule of the entropy coefficient."""
    normalize_entropy: bool = False
    """Divide the entropy of a masked head by the log of its number of valid actions."""
    init_std: Annotated[float, _STD] = 0.5
    """Standard deviation of an untrained continuous head."""
    min_std: Annotated[float, _STD] = 0.01
    """Smallest standard deviation of a continuous head."""
    max_std: Annotated[float, _STD] = 1.0
    """Largest standard deviation of a continuous head."""


@dataclasses.dataclass(frozen=True)
class Imitation:
    """Demonstrations, behaviour cloning and the KL anchor."""

    num_demonstrations: Annotated[int, Whole(0)] = 0
    """Successful demonstrations to clone before PPO; 0 disables imitation."""
    demonstration_noise: Annotated[float, Number(0.0, 1e3)] = 0.1
    """Standard deviation of the noise on the demonstrator's actions."""
    anchor: bool = False
    """Keep the first policy, cloned or of init_from, as the KL anchor's reference."""
    cloning_steps: Annotated[int, Whole(0)] = 2_000
    """Optimiser steps of behaviour cloning."""
    cloning_batch: Annotated[int, Whole(1)] = 256
    """Samples per step of behaviour cloning."""
    cloning_learning_rate: Annotated[float, Number(1e-9, 1.0)] = 1e-3
    """Learning rate of behaviour cloning."""
    critic_warmup: Annotated[int, Whole(0)] = 0
    """First updates, in which only the critic is trained and the policy is frozen."""
    kl_schedule: Schedule = "constant"
    """Schedule of the KL coefficient."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluation on fixed seeds."""

    num_evals: Annotated[int, Whole(0, 2**16)] = 10
    """Evaluations during training, evenly spaced; the last is after the last update."""
    eval_episodes: Annotated[int, Whole(1, 2**16)] = 20
    """Episodes per block of evaluation seeds."""
    eval_blocks: Annotated[int, Whole(1, 2**15)] = 5
    """Number of fixed blocks of evaluation seeds."""
    eval_seed: Annotated[int, Whole(0, 2**32)] = 12345
    """Random seed of the evaluation episodes, which are the same in every run."""


@dataclasses.dataclass(frozen=True)
class Config(
    Evaluation, Imitation, Exploration, PolicyNetwork, Update, Rollout, Environment
):
    """All values that change the compiled program."""

    hypers: Hypers = dataclasses.field(default_factory=Hypers)
    """The hyperparameters that are traced."""

    @classmethod
    def preset(cls, env: str, name: str = "default", **values: object) -> "Config":
        """Return the configuration that the command line uses for an environment.

        Args:
          env: a registered name, "library:name" or "package.module:factory".
          name: a preset of the environment, applied after its "default" preset.
          **values: fields of `Config` and `Hypers` by name; they override presets.

        Raises:
          ConfigError: an unknown environment, preset or field.
        """
        return resolve(env, name, values).config

    @property
    def batch_size(self) -> int:
        """Samples per update, B = T * N."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Number of whole updates within total_timesteps."""
        return self.total_timesteps // self.batch_size

    @property
    def epochs(self) -> int:
        """Passes over each rollout, with the default of `num_epochs` filled in.

        With a recurrent core the default is 1: the recurrent state stored with each
        sequence is that of the rollout's policy, and no longer fits once it is updated.
        """
        return self.num_epochs or (4 if self.core == "none" else 1)

    @property
    def window(self) -> int:
        """Steps per training sequence; 1 without a recurrent core."""
        if self.core == "none":
            return 1
        return self.sequence_length or self.num_steps

    @property
    def eval_points(self) -> tuple[int, ...]:
        """Numbers of updates after which to evaluate; the last is num_updates."""
        num_evals = min(self.num_evals, self.num_updates)
        if num_evals == 0:
            return ()
        gap = self.num_updates // num_evals
        return tuple(self.num_updates - gap * i for i in reversed(range(num_evals)))


class Resolved(NamedTuple):
    """A configuration and the source of each value.

    Attributes:
      config: the configuration.
      sources: name of a value -> "default", 'preset "x"' or "flag".
    """

    config: Config
    sources: dict[str, str]


def resolve(env: str, preset: str, values: Mapping[str, object]) -> Resolved:
    """Build the configuration of an environment from defaults, presets and values.

    Presets override defaults, and `values` override presets.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      preset: a preset of the environment, applied after "default"; "" for none.
      values: fields of `Config` and `Hypers` by name.

    Raises:
      ConfigError: an unknown environment, preset or field.
    """
    overlay = presets.overlay(env, preset, values)
    config = with_overrides(Config(env=env), overlay.values)
    sources = dict.fromkeys(value_names(), presets.DEFAULT)
    if env != Config.env:
        sources["env"] = presets.FLAG
    return Resolved(config, sources | overlay.sources)


def value_names() -> list[str]:
    """Return the names of all fields of `Config` and `Hypers`, in one list."""
    plain = [name for name in field_names(Config) if name != "hypers"]
    return plain + field_names(Hypers)


def value_of(config: Config, name: str) -> object:
    """Return the value of a field of `config` or of `config.hypers`."""
    return getattr(config if hasattr(config, name) else config.hypers, name)


def with_overrides(config: Config, values: Mapping[str, object]) -> Config:
    """Return the configuration with fields of `Config` and `Hypers` replaced.

    Dictionaries such as `env_kwargs` are merged with the present ones.

    Raises:
      ConfigError: a name that is neither a field nor a hyperparameter.
    """
    for name in values:
        if name not in value_names() and name != "hypers":
            raise ConfigError("configuration", name, "a field of Config or Hypers")
    traced = set(field_names(Hypers))
    config = _replace_fields(
        config, {n: x for n, x in values.items() if n not in traced}
    )
    own = {n: x for n, x in values.items() if n in traced}
    return dataclasses.replace(config, hypers=_replace_fields(config.hypers, own))


def _replace_fields(owner: _Owner, values: Mapping[str, object]) -> _Owner:
    old = {name: getattr(owner, name) for name in values}
    return dataclasses.replace(owner, **presets.merge(old, values))
