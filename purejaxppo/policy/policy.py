"""The policy interface: `sample -> (action, stored)`, `log_prob(params, stored)`.

The rollout keeps `Stored`, and both log-probs of the ratio are computed from it and the
parameters by `heads.evaluate_actions`. So a log-prob cannot depend on anything that is
unavailable to the loss.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import struct
from flax.typing import Collection

from purejaxppo import trees
from purejaxppo.config import Config
from purejaxppo.env import Action
from purejaxppo.policy import heads as heads_lib
from purejaxppo.policy import networks as networks_lib
from purejaxppo.policy.heads import Heads, HeadTerms, Noise, Outputs, PolicyInput
from purejaxppo.policy.networks import Actor, Carry, Critic

Carries = dict[str, Carry]  # "actor" and "critic" -> recurrent state


class Params(struct.PyTreeNode):
    """The parameters of policy and critic.

    The optimiser freezes, clips and decays parameters by these two fields, never by the
    names that Flax gives to the parameters inside them.
    """

    critic: Collection
    policy: Collection


class Stored(struct.PyTreeNode):
    """The inputs of the log-prob of an action. Leading axes [T, N], in training [L, M].

    `carry` is the recurrent state of each network BEFORE the step: [T, N, H] in a
    rollout, and [M, H], before the first step, if the log-probs of whole sequences are
    computed.
    """

    inputs: PolicyInput
    action: Action
    carry: Carries


class Networks(NamedTuple):
    """The static parts of a policy: heads, configuration, and the two Flax modules."""

    heads: Heads
    config: Config
    actor: Actor
    critic: Critic


class Policy(NamedTuple):
    """The functions of this module, bound to networks. One step has leading axis [N].

    Attributes:
      init: (key, inputs [N]) -> params.
      initial_carry: (num) -> the zero carry of `num` environments.
      noise: (key, num) -> the random numbers of one step of `num` environments.
      sample: (params, inputs [N], carry, noise) -> (action, stored, terms, carry).
      mode: (params, inputs [N], carry) -> (action, carry).
      log_prob: (params, stored [L, M]) -> HeadTerms [L, M].
      value: (params, inputs [L, M], carry [M]) -> (value [L, M], carry after each
        step [L, M, H]).
      hidden: (params, inputs [L, M], carry [M]) -> the outputs of the policy's hidden
        layers, a list of [..., units].
    """

    init: Callable[[jax.Array, PolicyInput], Params]
    initial_carry: Callable[[int], Carries]
    noise: Callable[[jax.Array, int], Noise]
    sample: Callable[
        [Params, PolicyInput, Carries, Noise],
        tuple[Action, Stored, HeadTerms, Carries],
    ]
    mode: Callable[[Params, PolicyInput, Carries], tuple[Action, Carries]]
    log_prob: Callable[[Params, Stored], HeadTerms]
    value: Callable[[Params, PolicyInput, Carry], tuple[jax.Array, Carry]]
    hidden: Callable[[Params, PolicyInput, Carry], list[jax.Array]]


def make_policy(heads: Heads, config: Config) -> Policy:
    """Build the policy of an environment's heads and a configuration's networks.

    Raises:
      ConfigError: a custom distribution cannot be trained.
    """
    heads_lib.validate_distributions(heads, config)
    networks = Networks(heads, config, Actor(heads, config), Critic(config))
    return Policy(
        init=functools.partial(init, networks),
        initial_carry=functools.partial(initial_carry, networks),
        noise=functools.partial(noise, networks),
        sample=functools.partial(sample, networks),
        mode=functools.partial(mode, networks),
        log_prob=functools.partial(log_prob, networks),
        value=functools.partial(value, networks),
        hidden=functools.partial(hidden, networks),
    )


def init(networks: Networks, key: jax.Array, inputs: PolicyInput) -> Params:
    """Draw initial parameters.

    Args:
      networks: the networks to initialise.
      key: a random key. Flax folds the path of each parameter into it, so actor and
        critic can both use it.
      inputs: of any N environments, [N]; only shapes and dtypes are used.
    """
    actor, critic = networks.actor, networks.critic
    inputs = trees.unsqueeze(inputs)
    carry = initial_carry(networks, inputs.start.shape[1])
    policy = actor.init(key, inputs.obs, inputs.start, carry["actor"])
    if networks.config.shared_trunk:
        features, _ = _trunk_features(
            networks, Params(policy=policy["params"], critic={}), inputs, carry["actor"]
        )
        own = critic.init(key, features, method="value_from_features")
    else:
        own = critic.init(key, inputs.obs, inputs.start, carry["critic"])
    return Params(policy=policy["params"], critic=own["params"])


def initial_carry(networks: Networks, num: int) -> Carries:
    """Return the zero carry of `num` environments, [num, H] for each network."""
    core, size = networks.config.core, networks.config.core_size
    return {
        name: networks_lib.initial_carry(core, size, num)
        for name in ("actor", "critic")
    }


def noise(networks: Networks, key: jax.Array, num: int) -> Noise:
    """Draw the random numbers of one step of `num` environments.

    Args:
      networks: the policy, whose heads determine the shapes.
      key: a random key.
      num: the number of environments, the leading axis of the result.
    """
    return heads_lib.noise(networks.heads, networks.config, key, (num,))


def sample(
    networks: Networks,
    params: Params,
    inputs: PolicyInput,
    carry: Carries,
    noise: Noise,
) -> tuple[Action, Stored, HeadTerms, Carries]:
    """Sample the actions of one step.

    Args:
      networks, params: the policy.
      inputs: observations, masks and activity, [N].
      carry: the recurrent state of both networks before the step, [N, H].
      noise: the random numbers that `noise` drew for this step.

    Returns:
      the action [N, ...]; `Stored`, from which the loss computes the log-prob again;
      log-prob and entropy, computed by the function that the loss uses; and the carry
      after the step.
    """
    outputs, next_carry = _step(networks, params, inputs, carry)
    heads, config = networks.heads, networks.config
    action = heads_lib.choose(heads, outputs, inputs, config, noise)
    terms = heads_lib.evaluate_actions(heads, outputs, inputs, action, config)
    return action, Stored(inputs, action, carry), terms, next_carry


def mode(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carries
) -> tuple[Action, Carries]:
    """Return the most likely action of every head, and the carry after the step.

    Args:
      networks, params: the policy.
      inputs: observations, masks and activity, [N].
      carry: the recurrent state of both networks before the step, [N, H].
    """
    outputs, next_carry = _step(networks, params, inputs, carry)
    heads, config = networks.heads, networks.config
    return heads_lib.choose(heads, outputs, inputs, config, None), next_carry


def log_prob(networks: Networks, params: Params, stored: Stored) -> HeadTerms:
    """Compute log-prob and entropy per head of stored actions.

    Args:
      networks, params: the policy.
      stored: [L, M], with the carry [M, H] before the first step.
    """
    inputs, carry = stored.inputs, stored.carry["actor"]
    outputs, _ = _head_outputs(networks, params, inputs, carry)
    return heads_lib.evaluate_actions(
        networks.heads, outputs, inputs, stored.action, networks.config
    )


def value(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carry
) -> tuple[jax.Array, Carry]:
    """Compute the value of each step of sequences.

    Args:
      networks, params: the policy and the critic.
      inputs: observations, masks and activity, [L, M].
      carry: the recurrent state of the critic before the first step, [M, H].

    Returns:
      value [L, M], and the critic's carry after each step [L, M, H].
    """
    critic = networks.critic
    if not networks.config.shared_trunk:
        return _apply(critic, params.critic, inputs.obs, inputs.start, carry)
    features, carries = _trunk_features(networks, params, inputs, carry)
    return _apply(
        critic, params.critic, features, method="value_from_features"
    ), carries


def hidden(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carry
) -> list[jax.Array]:
    """Return the outputs of the hidden layers of the policy, [..., units] each.

    Args:
      networks, params: the policy.
      inputs: observations, masks and activity, [L, M].
      carry: the recurrent state of the policy before the first step, [M, H].
    """
    arguments = (inputs.obs, inputs.start, carry)
    _, variables = networks.actor.apply(
        {"params": params.policy}, *arguments, mutable=["intermediates"]
    )
    return jax.tree.leaves(variables)


def _apply(
    module: nn.Module, parameters: Collection, *args: Any, method: str | None = None
) -> Any:
    """Call a Flax module that has no variables except parameters."""
    return module.apply({"params": parameters}, *args, method=method)


def _trunk_features(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carry
) -> tuple[jax.Array, Carry]:
    arguments = (inputs.obs, inputs.start, carry)
    return _apply(networks.actor, params.policy, *arguments, method="features")


def _head_outputs(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carry
) -> tuple[Outputs, Carry]:
    return _apply(networks.actor, params.policy, inputs.obs, inputs.start, carry)


def _step(
    networks: Networks, params: Params, inputs: PolicyInput, carry: Carries
) -> tuple[Outputs, Carries]:
    """Return the head outputs of one step, and both carries after it.

    Without a core the critic's carry is empty, and XLA drops its unused value.
    """
    inputs = trees.unsqueeze(inputs)
    outputs, actor = _head_outputs(networks, params, inputs, carry["actor"])
    _, critic = value(networks, params, inputs, carry["critic"])
    return trees.take(outputs, -1), trees.take({"actor": actor, "critic": critic}, -1)
