"""What training is made of: the static `Config`, which holds the traced `Hypers`.

What changes the compiled program is in `Config`, frozen. It is put together from one
class per subject. These are also the groups of `--help`, and the sentence under a
field is what is printed there. A field's range stands beside it (see `ranges`).
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

# Our own distributions of continuous heads.
DISTRIBUTIONS = ("truncated_normal", "tanh_normal", "normal")

_Owner = TypeVar("_Owner", "Config", Hypers)
_STD = Number(1e-5, 1e3)


@dataclasses.dataclass(frozen=True)
class Environment:
    """What is learned on."""

    env: Annotated[str, Text()] = "hammer"
    """Environment: a registered name, "library:name" or "package.module:factory"."""
    env_kwargs: Annotated[dict[str, object], Arguments()] = dataclasses.field(
        default_factory=dict
    )
    """Keyword arguments of the environment's factory."""


@dataclasses.dataclass(frozen=True)
class Rollout:
    """How samples are gathered."""

    total_timesteps: Annotated[int, Whole(1)] = 500_000
    """Environment steps of training (per seed)."""
    num_envs: Annotated[int, Whole(1)] = 64
    """Environments stepped side by side (N)."""
    num_steps: Annotated[int, Whole(1)] = 128
    """Steps of each environment per update (T)."""
    normalize_observations: Literal["running", "fixed", "off"] = "running"
    """Running statistics, those of the demonstrations kept fixed, or none."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""
    reset: Literal["fresh", "pool", "cached"] = "pool"
    """Where an ended episode starts anew: a new reset, one of a pool drawn once per
    update, or always that environment's first state."""
    num_starts: Annotated[int, Whole(1)] = 64
    """Starts in the pool."""
    train_episode_steps: Annotated[int, Whole(0)] = 0
    """Time limit of training episodes; 0 is the environment's own. A shorter one spends
    fewer samples where a policy is stuck; evaluation keeps the environment's."""
    stagger: bool = True
    """Give first episodes a random age, so that environments do not end in step."""


@dataclasses.dataclass(frozen=True)
class Update:
    """How the policy learns from a rollout."""

    num_epochs: Annotated[int, Whole(0, 2**16)] = 0
    """Passes over each rollout; 0 is 4, with a recurrent core 1: its stored state goes
    stale as the policy moves."""
    num_minibatches: Annotated[int, Whole(1)] = 8
    """Minibatches per pass."""
    learning_rate_schedule: LearningRateSchedule = "constant"
    """How the learning rate moves; "kl" adapts it to approx_kl against target_kl."""
    learning_rate_warmup: Annotated[int, Whole(0)] = 0
    """Updates over which the rate rises to its full value once the policy learns:
    Adam's first steps move every weight by all of it, too far for a cloned policy."""
    normalize_advantages: Literal["batch", "minibatch", "off"] = "batch"
    """Over what advantages are normalised."""
    accumulate_gradients: bool = False
    """One optimiser step per epoch, on gradients summed over its minibatches."""


@dataclasses.dataclass(frozen=True)
class PolicyNetwork:
    """The networks of policy and critic."""

    hidden_sizes: Annotated[tuple[int, ...], Widths()] = (256, 256)
    """Widths of the policy's hidden layers."""
    critic_hidden_sizes: Annotated[tuple[int, ...], Widths()] = (256, 256)
    """Widths of the critic's hidden layers."""
    activation: Literal["tanh", "relu", "swish", "elu"] = "tanh"
    """Activation of hidden layers."""
    core: Literal["none", "lstm", "gru"] = "none"
    """Recurrent core behind the trunk."""
    core_size: Annotated[int, Whole(1, 2**16)] = 128
    """Width of the recurrent core."""
    sequence_length: Annotated[int, Whole(0)] = 0
    """Length of the recurrent core's training sequences; 0 is num_steps."""
    critic_layer_norm: bool = True
    """LayerNorm after each hidden layer of the critic."""
    shared_trunk: bool = False
    """Read the value from the policy's trunk instead of from a network of its own."""
    distribution: Annotated[str, OneOfOrFactory(DISTRIBUTIONS)] = "truncated_normal"
    """Distribution of continuous heads: truncated_normal, tanh_normal, normal, or the
    "package.module:factory" of a distrax.Distribution, which takes mean and standard
    deviation, [..., size] each."""


@dataclasses.dataclass(frozen=True)
class Exploration:
    """How widely actions are sampled."""

    entropy_schedule: Schedule = "constant"
    """How the entropy coefficient moves."""
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
    """Successful demonstrations to clone before PPO; 0 is no imitation."""
    demonstration_noise: Annotated[float, Number(0.0, 1e3)] = 0.1
    """Standard deviation of the noise on the demonstrator's actions."""
    anchor: bool = False
    """Keep the cloned policy as the frozen reference of the KL anchor."""
    cloning_steps: Annotated[int, Whole(0)] = 2_000
    """Optimiser steps of behaviour cloning."""
    cloning_batch: Annotated[int, Whole(1)] = 256
    """Samples of a step of behaviour cloning."""
    cloning_learning_rate: Annotated[float, Number(1e-9, 1.0)] = 1e-3
    """Learning rate of behaviour cloning."""
    critic_warmup: Annotated[int, Whole(0)] = 0
    """Updates in which only the critic learns, on the cloned policy's returns."""
    kl_schedule: Schedule = "constant"
    """How the KL coefficient moves."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How the policy is judged."""

    num_evals: Annotated[int, Whole(0)] = 10
    """Evaluations during training, evenly spaced, the last one at its end."""
    eval_episodes: Annotated[int, Whole(1, 2**16)] = 20
    """Episodes per block."""
    eval_blocks: Annotated[int, Whole(1, 2**15)] = 5
    """Fixed blocks of evaluation seeds."""
    eval_seed: Annotated[int, Whole(0, 2**32)] = 12345
    """Seed of the blocks: the same episodes in every run."""


@dataclasses.dataclass(frozen=True)
class Config(
    Evaluation, Imitation, Exploration, PolicyNetwork, Update, Rollout, Environment
):
    """Everything that changes the compiled program."""

    hypers: Hypers = dataclasses.field(default_factory=Hypers)
    """The traced numbers."""

    @classmethod
    def preset(cls, env: str, name: str = "default", **values: object) -> "Config":
        """The configuration that the command line would use for an environment.

        Args:
          env: a registered name, "library:name" or "package.module:factory".
          name: a preset of the environment, on top of its "default" one.
          **values: fields of `Config` and `Hypers` by plain name; they win.

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


class Resolved(NamedTuple):
    """A configuration and where its values come from.

    Attributes:
      config: the configuration.
      sources: name of a value -> "default", 'preset "x"' or "flag".
    """

    config: Config
    sources: dict[str, str]


def resolve(env: str, preset: str, values: Mapping[str, object]) -> Resolved:
    """The configuration of an environment: defaults < presets < values.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      preset: a preset of the environment, on top of its "default" one; "" is none.
      values: fields of `Config` and `Hypers` by plain name; they win.

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
    """Every name of `Config` and `Hypers`, flat, in the order of their fields."""
    plain = [name for name in field_names(Config) if name != "hypers"]
    return plain + field_names(Hypers)


def value_of(config: Config, name: str) -> object:
    """The value of a field of `config` or of its hyperparameters."""
    return getattr(config if hasattr(config, name) else config.hypers, name)


def with_overrides(config: Config, values: Mapping[str, object]) -> Config:
    """The configuration with those fields replaced, hyperparameters by plain name.

    Dictionaries (`env_kwargs` and the like) are merged with those that are there.

    Raises:
      ConfigError: a name that is neither a field nor a hyperparameter.
    """
    for name in values:
        if name not in value_names() and name != "hypers":
            raise ConfigError("configuration", name, "a field of Config or Hypers")
    traced = set(field_names(Hypers))
    config = _replaced(config, {n: x for n, x in values.items() if n not in traced})
    own = {n: x for n, x in values.items() if n in traced}
    return dataclasses.replace(config, hypers=_replaced(config.hypers, own))


def _replaced(owner: _Owner, values: Mapping[str, object]) -> _Owner:
    old = {name: getattr(owner, name) for name in values}
    return dataclasses.replace(owner, **presets.merge(old, values))
