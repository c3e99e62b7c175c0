"""An environment of Gymnasium with the protocol of `purejaxppo.env`.

Its instances live on the host, see `gymnasium_host`, and a state says which of them it
belongs to. Reset and step are each one call of the host for a whole batch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo import trees
from purejaxppo.adapters.gymnasium_host import ENDED, NOT_BEGUN, Instances
from purejaxppo.env import Action, EnvSpec, State


class Data(struct.PyTreeNode):
    """What a state says of its instance."""

    number: jax.Array  # int32 [], of the episode on the host, or NOT_BEGUN or ENDED
    steps: jax.Array  # int32 [], of the episode so far
    seed: jax.Array  # uint32 [], with which the instance is reset
    # The key of the reset, and a new one for each episode from one start of a pool: it
    # then has luck of its own. A typed key, by which the auto-reset recognises it.
    luck: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class GymnasiumEnv:
    """An environment of Gymnasium; `gymnasium.make` of this package builds it.

    Attributes:
      spec: the specification.
      instances: the instances on the host.
    """

    spec: EnvSpec
    instances: Instances

    def reset(self, key: jax.Array) -> State:
        """Start an episode; its seed in Gymnasium is `seed_of(key)`."""
        seed = seed_of(key)
        obs, mask = jax.pure_callback(
            self.instances.reset,
            (self._obs_shape, self._mask_shape),
            seed,
            vmap_method="broadcast_all",
        )
        false, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        return State(
            data=Data(jnp.full((), NOT_BEGUN, jnp.int32), zero, seed, key),
            obs=obs,
            reward=jnp.zeros((), jnp.float32),
            terminated=false,
            truncated=false,
            action_mask=self._masks(mask),
        )

    def step(self, state: State, action: Action) -> State:
        """Step the instance of a state; an episode that has ended stays as it is."""
        data: Data = state.data
        scalar = functools.partial(jax.ShapeDtypeStruct, ())
        number, obs, mask, reward, terminated, truncated = jax.pure_callback(
            self.instances.step,
            (
                scalar(np.int32),
                self._obs_shape,
                self._mask_shape,
                scalar(np.float32),
                scalar(np.bool_),
                scalar(np.bool_),
            ),
            data.number,
            data.steps,
            data.seed,
            seed_of(data.luck),
            jnp.concatenate([action[name].reshape(-1) for name in self.spec.heads]),
            vmap_method="broadcast_all",
        )
        stepped = State(
            data=data.replace(number=number, steps=data.steps + 1),
            obs=obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            action_mask=self._masks(mask),
        )
        after_end = state.replace(reward=jnp.zeros((), jnp.float32))
        return trees.where(data.number == ENDED, after_end, stepped)

    @property
    def _obs_shape(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.instances.obs_size,), np.float32)

    @property
    def _mask_shape(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((sum(self.instances.mask_sizes),), np.bool_)

    def _masks(self, mask: jax.Array) -> dict[str, jax.Array]:
        """Split the masks of all heads, bool [M]; without masks there are none."""
        sizes = self.instances.mask_sizes
        if not sizes:
            return {}
        parts = jnp.split(mask, np.cumsum(sizes)[:-1])
        return dict(zip(self.spec.heads, parts, strict=True))


def seed_of(key: jax.Array) -> jax.Array:
    """Return a key as a seed of Gymnasium, that of `jax.random.key(7)` is 7.

    Args:
      key: a typed random key, [].

    Returns:
      uint32 [], below 2**31, because some simulators take it for a signed number.
    """
    # The words of a key that was split or folded are random bits themselves.
    words = jax.random.key_data(key)
    return functools.reduce(jnp.bitwise_xor, words) & 0x7FFFFFFF
