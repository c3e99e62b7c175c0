"""Random actions that the masks of a state allow."""

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, Box, Choice, Custom, Discrete, Env, Head, State
from purejaxppo.policy import custom
from purejaxppo.policy.distributions import Categorical, PlackettLuce


def random_action(env: Env, state: State, key: jax.Array) -> Action:
    """Draw an action uniformly from those that the masks of a state allow.

    The action of a custom head is a sample of its distribution for network outputs of
    zero.

    Args:
      env: one environment.
      state: a state of the environment, without a batch axis.
      key: a random key.
    """
    action: Action = {}
    for index, (name, head) in enumerate(env.spec.heads.items()):
        key_head = jax.random.fold_in(key, index)
        mask = state.action_mask.get(name)
        if isinstance(head, Discrete) and mask is not None and mask.ndim == 2:
            assert head.parent is not None
            mask = mask[action[head.parent]]
        action[name] = _draw(head, mask, key_head)
    return action


def _draw(head: Head, mask: jax.Array | None, key: jax.Array) -> jax.Array:
    if isinstance(head, Box):
        return jax.random.uniform(key, (head.size,), jnp.float32, -1.0, 1.0)
    if isinstance(head, Custom):
        return custom.untrained_distribution(head).sample(key)
    logits = jnp.zeros((head.n,), jnp.float32)
    noise = Categorical.noise(key, logits.shape)
    if isinstance(head, Choice):
        return PlackettLuce(logits, head.k, mask).sample(noise)
    return Categorical(logits, mask).sample(noise)
