"""The rules of the lifecycle of seeds, as pure functions.

Letters: J slots, P = J (J - 1) / 2 pairs of slots, B blueprints. Every array of `Seeds`
is zero in an empty slot. Vigour and progress are hidden from the policy, which only
observes `readings` of them.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """A kind of seed.

    Attributes:
      growth: steps from germination to maturity, on average.
      worth: payment at maturity for a vigour of 1.
      duds: fraction of seeds with negative vigour.
      price: price of germinating a seed.
    """

    growth: float
    worth: float
    duds: float
    price: float


BLUEPRINTS = (
    Blueprint(growth=4.0, worth=1.0, duds=0.4, price=0.05),
    Blueprint(growth=7.0, worth=2.0, duds=0.5, price=0.1),
    Blueprint(growth=10.0, worth=4.0, duds=0.65, price=0.2),
)

# The absolute value of vigour is uniform in this range; vigour is negative for duds.
VIGOUR = (0.4, 1.0)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static parameters of a garden.

    Attributes:
      num_slots: J.
      horizon: steps of an episode; seeds that are not mature by then pay nothing.
      noise: standard deviation of a reading of vigour; that of progress is a quarter.
      bonus: a blend is worth the sum of both, plus this factor times the lesser worth.
      blueprints: the B kinds of seeds.
    """

    num_slots: int = 4
    horizon: int = 25
    noise: float = 1.0
    bonus: float = 1.0
    blueprints: tuple[Blueprint, ...] = BLUEPRINTS

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pair -> its two slots, the lower one first; in lexical order."""
        return tuple(itertools.combinations(range(self.num_slots), 2))


class Seeds(struct.PyTreeNode):
    """The seeds in the slots, [J]."""

    occupied: jax.Array  # bool
    vigour: jax.Array  # float32, in [-1, 1]
    worth: jax.Array  # float32
    progress: jax.Array  # float32, 1 is mature
    rate: jax.Array  # float32, mean progress per step


def empty(limits: Limits) -> Seeds:
    """Return empty slots."""
    zeros = jnp.zeros((limits.num_slots,), jnp.float32)
    return Seeds(jnp.zeros((limits.num_slots,), bool), zeros, zeros, zeros, zeros)


def _put(seeds: Seeds, slots: jax.Array, **values: jax.Array) -> Seeds:
    """Write values, [] each, into the slots where `slots`, bool [J], is True."""
    old = {name: getattr(seeds, name) for name in values}
    return seeds.replace(
        **{name: jnp.where(slots, values[name], old[name]) for name in values}
    )


def _one_hot(limits: Limits, slot: jax.Array) -> jax.Array:
    return jnp.arange(limits.num_slots, dtype=jnp.int32) == slot


def vigour_of(dud: jax.Array, uniform: jax.Array) -> jax.Array:
    """Compute the vigour of a seed from a number uniform in [0, 1): float32 []."""
    low, high = VIGOUR
    size = low + (high - low) * uniform
    return jnp.where(dud, -size, size)


def column(limits: Limits, field: str) -> jax.Array:
    """Return a field of each blueprint, float32 [B]."""
    values = [getattr(blueprint, field) for blueprint in limits.blueprints]
    return jnp.asarray(values, jnp.float32)


def germinate(
    seeds: Seeds, slot: jax.Array, blueprint: jax.Array, key: jax.Array, limits: Limits
) -> Seeds:
    """Put a new seed with random vigour into a slot.

    Args:
      seeds: the seeds before.
      slot: int32 [], index of the slot.
      blueprint: int32 [], index of the kind of seed.
      key: a random key.
      limits: the static parameters.
    """
    uniform = jax.random.uniform(key, (2,), jnp.float32)
    dud = uniform[0] < column(limits, "duds")[blueprint]
    return _put(
        seeds,
        _one_hot(limits, slot),
        occupied=jnp.ones((), bool),
        vigour=vigour_of(dud, uniform[1]),
        worth=column(limits, "worth")[blueprint],
        progress=jnp.zeros((), jnp.float32),
        rate=1.0 / column(limits, "growth")[blueprint],
    )


def clear(seeds: Seeds, slots: jax.Array) -> Seeds:
    """Empty the slots where `slots`, bool [J], is True."""
    return trees.where(slots, jax.tree.map(jnp.zeros_like, seeds), seeds)


def cull(seeds: Seeds, slot: jax.Array, limits: Limits) -> Seeds:
    """Empty a slot.

    Args:
      seeds: the seeds before.
      slot: int32 [], index of the slot.
      limits: the static parameters.
    """
    return clear(seeds, _one_hot(limits, slot))


def blendable(seeds: Seeds, limits: Limits) -> jax.Array:
    """Return the pairs of slots that both hold a seed, bool [P]."""
    lower, upper = jnp.asarray(limits.pairs, jnp.int32).T
    return seeds.occupied[lower] & seeds.occupied[upper]


def blended_vigour(vigour: jax.Array) -> jax.Array:
    """Compute the vigour of a blend of two, [2]: a weighted mean.

    The lesser has the weight 3/4, the other 1/4.
    """
    return 0.75 * jnp.min(vigour) + 0.25 * jnp.max(vigour)


def blended_worth(worth: jax.Array, limits: Limits) -> jax.Array:
    """Compute the worth of a blend of two, [2]: their sum and a bonus on the lesser."""
    return jnp.sum(worth) + limits.bonus * jnp.min(worth)


def blend(seeds: Seeds, pair: jax.Array, limits: Limits) -> Seeds:
    """Replace two seeds by one in the lower slot, and empty the upper slot.

    A blend with a dud has a low vigour; a blend of two good seeds is worth more than
    both seeds separately. Progress and rate are means.

    Args:
      seeds: the seeds before.
      pair: int32 [], index into `limits.pairs`.
      limits: the static parameters.
    """
    slots = jnp.asarray(limits.pairs, jnp.int32)[pair]
    blended = _put(
        seeds,
        _one_hot(limits, slots[0]),
        vigour=blended_vigour(seeds.vigour[slots]),
        worth=blended_worth(seeds.worth[slots], limits),
        progress=jnp.mean(seeds.progress[slots]),
        rate=jnp.mean(seeds.rate[slots]),
    )
    return clear(blended, _one_hot(limits, slots[1]))


def grow(seeds: Seeds, key: jax.Array) -> tuple[Seeds, jax.Array]:
    """Let all seeds grow for one step, and remove and pay mature seeds.

    The growth of a seed is uniform between 0 and twice its rate. The second result is
    the payment for the seed in each slot, float32 [J].
    """
    share = jax.random.uniform(key, seeds.rate.shape, jnp.float32, 0.0, 2.0)
    progress = seeds.progress + seeds.rate * share
    mature = progress >= 1.0
    paid = jnp.where(mature, seeds.worth * seeds.vigour, 0.0)
    return clear(seeds.replace(progress=progress), mature), paid


def readings(seeds: Seeds, key: jax.Array, limits: Limits) -> jax.Array:
    """Draw noisy readings of vigour and progress, float32 [2, J]; 0 for empty slots.

    Args:
      seeds: the seeds.
      key: the random key of the noise.
      limits: the static parameters.
    """
    noise = jax.random.normal(key, (2, limits.num_slots), jnp.float32)
    scale = jnp.asarray([[limits.noise], [limits.noise / 4.0]], jnp.float32)
    true = jnp.stack([seeds.vigour, seeds.progress])
    return jnp.where(seeds.occupied[None], true + scale * noise, 0.0)
