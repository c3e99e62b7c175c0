"""The networks: trunk, recurrent core, one output layer per head, and critic.

Feed-forward networks take any leading axes. With a recurrent core all arrays are
time-major, [L, M, ...], and the carry is [M, core_size].
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Collection

from purejaxppo.config import TRUNKS, Config
from purejaxppo.env import Box, Custom, Head, Obs
from purejaxppo.policy.custom_trunk import CustomTrunk, Role
from purejaxppo.policy.dense import Dense, apply_layers, apply_to_rows, orthogonal
from purejaxppo.policy.heads import Heads, Outputs

# The recurrent state: () without a core, one array [M, H] (GRU) or a pair (LSTM).
Carry = tuple[()] | jax.Array | tuple[jax.Array, jax.Array]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "elu": nn.elu,
}


class Core(nn.Module):
    """An LSTM or GRU over time, whose state is reset to zero when an episode starts."""

    kind: str
    size: int

    @nn.compact
    def __call__(
        self, x: jax.Array, start: jax.Array, carry: Carry
    ) -> tuple[jax.Array, Carry]:
        """Return features [L, M, H], and the carry AFTER each step, [L, M, H]."""
        cell = _cell(self.kind, self.size)

        def step(cell: nn.Module, carry: Carry, xs: tuple) -> tuple[Carry, tuple]:
            x, start = xs
            # Reset BEFORE the step, so that the recurrent state of one episode does not
            # reach the next.
            carry = jax.tree.map(
                lambda leaf: jnp.where(start[:, None], jnp.zeros_like(leaf), leaf),
                carry,
            )
            carry, out = cell(carry, x)
            return carry, (out, carry)

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        _, (out, carries) = scan(cell, carry, (x, start))
        return apply_to_rows(nn.LayerNorm(), out), carries


class _Lstm(nn.Module):
    """An LSTM cell with a forget bias of 1 (Jozefowicz et al. 2015)."""

    size: int

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        cell, hidden = carry
        gates = Dense(4 * self.size, 1.0, name="input")(x)
        gates += Dense(4 * self.size, 1.0, use_bias=False, name="hidden")(hidden)
        forget_bias = self.param("forget_bias", nn.initializers.ones, (self.size,))
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(f + forget_bias[None]) * cell + nn.sigmoid(i) * nn.tanh(g)
        hidden = nn.sigmoid(o) * nn.tanh(cell)
        return (cell, hidden), hidden


def _cell(kind: str, size: int) -> nn.Module:
    if kind == "lstm":
        return _Lstm(size)
    return nn.GRUCell(size, recurrent_kernel_init=orthogonal(1.0))


def initial_carry(kind: str, size: int, num: int) -> Carry:
    """Return the zero recurrent state of `num` sequences.

    Args:
      kind: "none", "gru" or "lstm".
      size: width of the core.
      num: number of sequences.

    Returns:
      (), one array [num, size] (GRU), or a pair of them (LSTM).
    """
    zeros = jnp.zeros((num, size), jnp.float32)
    return {"none": (), "gru": zeros, "lstm": (zeros, zeros)}[kind]


class Trunk(nn.Module):
    """Hidden layers, then the recurrent core if there is one."""

    config: Config
    role: Role

    @nn.compact
    def __call__(
        self, x: jax.Array, start: jax.Array, carry: Carry
    ) -> tuple[jax.Array, Carry]:
        config = self.config
        x = apply_to_rows(self._hidden, x)
        if config.core == "none":
            return x, ()
        return Core(config.core, config.core_size, name="core")(x, start, carry)

    def _hidden(self, x: jax.Array) -> jax.Array:
        config, is_actor = self.config, self.role == "actor"
        if config.trunk not in TRUNKS:
            x = CustomTrunk(config.trunk, self.role, name="custom")(x)
            self.sow("intermediates", "hidden", x)
            return x
        for size in config.hidden_sizes if is_actor else config.critic_hidden_sizes:
            x = Dense(size, math.sqrt(2.0))(x)
            if config.critic_layer_norm and not is_actor:
                x = nn.LayerNorm()(x)
            x = _ACTIVATIONS[config.activation](x)
            self.sow("intermediates", "hidden", x)  # free unless they are asked for
        return x


def _inverse_sigmoid(p: float) -> float:
    p = min(max(p, 1e-4), 1.0 - 1e-4)
    return math.log(p / (1.0 - p))


class HeadOutput(nn.Module):
    """The output layer of one head: the parameters of its distribution."""

    head: Head
    config: Config

    @nn.compact
    def __call__(self, features: jax.Array) -> dict[str, jax.Array]:
        if isinstance(self.head, Custom):
            return {"raw": Dense(self.head.num_outputs, 0.01, name="raw")(features)}
        if not isinstance(self.head, Box):
            return {"logits": Dense(self.head.n, 0.01, name="logits")(features)}
        config, size = self.config, self.head.size
        span = config.max_std - config.min_std
        offset = _inverse_sigmoid((config.init_std - config.min_std) / max(span, 1e-9))
        to_mean = Dense(size, 0.01, name="mean")
        if config.distribution == "normal":
            mean = to_mean(features)
            raw = self.param("free_std", nn.initializers.zeros, (size,))
            raw = jnp.broadcast_to(raw, mean.shape)
        else:
            mean, raw = apply_layers([to_mean, Dense(size, 0.01, name="std")], features)
        return {"mean": mean, "std": config.min_std + span * nn.sigmoid(raw + offset)}


def part_of(obs: Obs, name: str) -> jax.Array:
    """Select the observation of "actor" or "critic" if `obs` is a dictionary."""
    return obs[name] if isinstance(obs, dict) else obs


class Actor(nn.Module):
    """The policy's trunk and one output layer per head.

    The names of the attributes are part of the paths of the parameters, from which Flax
    derives the random keys of their initial values.
    """

    heads: Heads
    config: Config

    def setup(self) -> None:
        self.actor = Trunk(self.config, "actor")
        self.outputs = {n: HeadOutput(h, self.config) for n, h in self.heads.items()}

    def features(
        self, obs: Obs, start: jax.Array, carry: Carry
    ) -> tuple[jax.Array, Carry]:
        """Compute the features of observations.

        Args:
          obs: float32 [..., D], or a dict of "actor" and "critic" arrays.
          start: bool [...], True at the first step of an episode.
          carry: the recurrent state before the first step.

        Returns:
          features [..., H], and the carry after each step.
        """
        return self.actor(part_of(obs, "actor"), start, carry)

    def __call__(
        self, obs: Obs, start: jax.Array, carry: Carry
    ) -> tuple[Outputs, Carry]:
        """Return the parameters of each head's distribution, and the carries.

        Args:
          obs, start, carry: see `features`.
        """
        features, carries = self.features(obs, start, carry)
        return {
            n: apply_to_rows(self.outputs[n], features) for n in self.heads
        }, carries


def head_parameters(policy: Collection, head: str) -> Collection:
    """Return the parameters of one head's output layer.

    Args:
      policy: `Params.policy`, or its gradient.
      head: the head's name.
    """
    return policy[f"outputs_{head}"]  # Flax's name for an entry of `Actor.outputs`


class Critic(nn.Module):
    """The value function; with `shared_trunk` its input is the policy's features."""

    config: Config

    def setup(self) -> None:
        if not self.config.shared_trunk:
            self.critic = Trunk(self.config, "critic")
        self.critic_value = Dense(1, 1.0)

    def __call__(
        self, obs: Obs, start: jax.Array, carry: Carry
    ) -> tuple[jax.Array, Carry]:
        """Return the value [...] and the carry after each step, without shared trunk.

        Args:
          obs, start, carry: see `Actor.features`.
        """
        features, carries = self.critic(part_of(obs, "critic"), start, carry)
        return self.value_from_features(features), carries

    def value_from_features(self, features: jax.Array) -> jax.Array:
        """Return the value [...] of features [..., H]."""
        return apply_to_rows(self.critic_value, features)[..., 0]
