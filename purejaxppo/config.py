"""What a run is made of: static `Config`, traced `Hypers`.

What changes the compiled program is in `Config`, frozen. What does not is in
`Hypers`, a pytree: any leaf of it can be `vmap`ped. The sentence under each field
is what `--help` prints.
"""

import dataclasses
import math
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


# Our own distributions of continuous heads; any other is a "package.module:factory".
DISTRIBUTIONS = ("truncated_normal", "tanh_normal", "normal")
# Of these a head may have its own, under the name "head_" and theirs.
PER_HEAD = ("entropy_coef", "entropy_coef_final", "entropy_floor")
# Fields that are NAME=VALUE pairs; layers of a configuration merge them pair by pair.
PAIRS = ("env_kwargs", *(f"head_{field}" for field in PER_HEAD))


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

    distribution: str = "truncated_normal"
    """Distribution of continuous heads: truncated_normal, tanh_normal, normal, or the
    "package.module:factory" of a distrax.Distribution, which takes mean and standard
    deviation, [..., size] each."""
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
