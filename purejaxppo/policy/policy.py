"""THE policy interface: `sample -> (action, stored)`, `log_prob(params, stored)`.

There is no other way to add to a log-prob: what the rollout keeps is `Stored`, and
both sides of the ratio are `heads.evaluate_actions` on it. Whatever cannot be computed
from `Stored` and the parameters has no way in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct

from purejaxppo.config import Config
from purejaxppo.env import Action
from purejaxppo.policy import heads as heads_lib
from purejaxppo.policy.heads import Heads, HeadTerms, Noise, PolicyInput
from purejaxppo.policy.networks import ActorCritic, Carry, initial_carry

Params = Any


class Stored(struct.PyTreeNode):
    """What makes a log-prob re-evaluable. Leading axes [T, N], or [L, M] in training.

    `carry` is the state BEFORE the step, per network: [T, N, H] as stored by the
    rollout, [M, H] (before the first step) where whole sequences are evaluated.
    """

    inputs: PolicyInput
    action: Action
    carry: dict[str, Carry]


class Policy(NamedTuple):
    """Pure functions over explicit parameters. One step has leading axis [N].

    Attributes:
      init: (key, inputs [N]) -> params.
      initial_carry: (num) -> the zero carry of `num` environments.
      noise: (key, num) -> what is random about a step of `num` environments.
      sample: (params, inputs [N], carry, noise) -> (action, stored, terms, carry).
      mode: (params, inputs [N], carry) -> (action, carry).
      log_prob: (params, stored [L, M]) -> HeadTerms [L, M].
      value: (params, inputs [L, M], carry [M]) -> (value [L, M], carry after each
        step [L, M, H]).
    """

    init: Callable[..., Params]
    initial_carry: Callable[[int], dict[str, Carry]]
    noise: Callable[[jax.Array, int], Noise]
    sample: Callable[..., tuple[Action, Stored, HeadTerms, dict[str, Carry]]]
    mode: Callable[..., tuple[Action, dict[str, Carry]]]
    log_prob: Callable[[Params, Stored], HeadTerms]
    value: Callable[..., tuple[jax.Array, Carry]]


def _one_step(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[None], tree)


def _last(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[-1], tree)


def make_policy(heads: Heads, config: Config) -> Policy:
    """Bind the heads of an environment and the networks of a configuration.

    Raises:
      ConfigError: a distribution of the user's own that cannot be trained.
    """
    heads_lib.validate_distributions(heads, config)
    network = ActorCritic(heads, config)

    def zeros(num: int) -> dict[str, Carry]:
        return {
            name: initial_carry(config.core, config.core_size, num)
            for name in ("actor", "critic")
        }

    def init(key: jax.Array, inputs: PolicyInput) -> Params:
        inputs = _one_step(inputs)
        carry = zeros(inputs.start.shape[1])
        return network.init(key, inputs.obs, inputs.start, carry)["params"]

    def act(params: Params, inputs: PolicyInput, carry: Carry):
        return network.apply(
            {"params": params}, inputs.obs, inputs.start, carry, method="act"
        )

    def value(
        params: Params, inputs: PolicyInput, carry: Carry
    ) -> tuple[jax.Array, Carry]:
        return network.apply(
            {"params": params}, inputs.obs, inputs.start, carry, method="value"
        )

    def step(params: Params, inputs: PolicyInput, carry: dict[str, Carry]):
        """One step of both carries; the critic's is free without a core."""
        outputs, actor = act(params, _one_step(inputs), carry["actor"])
        _, critic = value(params, _one_step(inputs), carry["critic"])
        return _last(outputs), {"actor": _last(actor), "critic": _last(critic)}

    def noise(key: jax.Array, num: int) -> Noise:
        return heads_lib.noise(heads, config, key, (num,))

    def sample(
        params: Params, inputs: PolicyInput, carry: dict[str, Carry], noise: Noise
    ) -> tuple[Action, Stored, HeadTerms, dict[str, Carry]]:
        outputs, next_carry = step(params, inputs, carry)
        action = heads_lib.choose(heads, outputs, inputs, config, noise)
        terms = heads_lib.evaluate_actions(heads, outputs, inputs, action, config)
        return action, Stored(inputs, action, carry), terms, next_carry

    def mode(
        params: Params, inputs: PolicyInput, carry: dict[str, Carry]
    ) -> tuple[Action, dict[str, Carry]]:
        outputs, next_carry = step(params, inputs, carry)
        return heads_lib.choose(heads, outputs, inputs, config, None), next_carry

    def log_prob(params: Params, stored: Stored) -> HeadTerms:
        outputs, _ = act(params, stored.inputs, stored.carry["actor"])
        return heads_lib.evaluate_actions(
            heads, outputs, stored.inputs, stored.action, config
        )

    return Policy(init, zeros, noise, sample, mode, log_prob, value)
