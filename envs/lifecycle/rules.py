"""Seeds in slots: germination, blending, culling, growth and what maturity pays.

Letters: J slots, P pairs of slots (J (J - 1) / 2), B blueprints. Every array of `Seeds`
is zero where the slot is empty. The rules know the hidden numbers; what a player
sees of them is `readings`.
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
      worth: what it pays at maturity, times its vigour.
      duds: share of seeds of negative vigour.
      price: of germinating one.
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

# Vigour is uniform in this range, and negative for duds.
VIGOUR = (0.4, 1.0)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static facts of a garden.

    Attributes:
      num_slots: J.
      horizon: steps of an episode; what is not mature by then pays nothing.
      noise: standard deviation of a reading of vigour, and of one of progress times 4.
      bonus: what a blend is worth beyond the sum, as a share of the lesser worth.
      blueprints: B of them.
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
    """What is in the slots, [J]."""

    occupied: jax.Array  # bool
    vigour: jax.Array  # float32, in [-1, 1]
    worth: jax.Array  # float32
    progress: jax.Array  # float32, 1 is mature
    rate: jax.Array  # float32, of progress per step, on average


def empty(limits: Limits) -> Seeds:
    """No seed anywhere."""
    zeros = jnp.zeros((limits.num_slots,), jnp.float32)
    return Seeds(jnp.zeros((limits.num_slots,), bool), zeros, zeros, zeros, zeros)


def _put(seeds: Seeds, slots: jax.Array, **values: jax.Array) -> Seeds:
    """Those values, [] each, in the slots where `slots`, bool [J], is True."""
    old = {name: getattr(seeds, name) for name in values}
    return seeds.replace(
        **{name: jnp.where(slots, values[name], old[name]) for name in values}
    )


def _one_hot(limits: Limits, slot: jax.Array) -> jax.Array:
    return jnp.arange(limits.num_slots, dtype=jnp.int32) == slot


def vigour_of(dud: jax.Array, uniform: jax.Array) -> jax.Array:
    """The vigour of a seed, from a number that is uniform in [0, 1): float32 []."""
    low, high = VIGOUR
    size = low + (high - low) * uniform
    return jnp.where(dud, -size, size)


def column(limits: Limits, field: str) -> jax.Array:
    """That field of each blueprint, float32 [B]."""
    values = [getattr(blueprint, field) for blueprint in limits.blueprints]
    return jnp.asarray(values, jnp.float32)


def germinate(
    seeds: Seeds, slot: jax.Array, blueprint: jax.Array, key: jax.Array, limits: Limits
) -> Seeds:
    """A new seed in a slot, its vigour drawn.

    Args:
      seeds: before.
      slot: int32 [].
      blueprint: int32 [], which kind of seed.
      key: of the draw.
      limits: the static facts.
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
    """The seeds without those in the slots where `slots`, bool [J], is True."""
    return trees.where(slots, jax.tree.map(jnp.zeros_like, seeds), seeds)


def cull(seeds: Seeds, slot: jax.Array, limits: Limits) -> Seeds:
    """The seeds without the one in a slot.

    Args:
      seeds: before.
      slot: int32 [].
      limits: the static facts.
    """
    return clear(seeds, _one_hot(limits, slot))


def blendable(seeds: Seeds, limits: Limits) -> jax.Array:
    """The pairs of slots that both hold a seed, bool [P]."""
    lower, upper = jnp.asarray(limits.pairs, jnp.int32).T
    return seeds.occupied[lower] & seeds.occupied[upper]


def blended_vigour(vigour: jax.Array) -> jax.Array:
    """The vigour of a blend of two, [2]: 3/4 of the lesser and 1/4 of the other."""
    return 0.75 * jnp.min(vigour) + 0.25 * jnp.max(vigour)


def blended_worth(worth: jax.Array, limits: Limits) -> jax.Array:
    """The worth of a blend of two, [2]: their sum and a share of the lesser."""
    return jnp.sum(worth) + limits.bonus * jnp.min(worth)


def blend(seeds: Seeds, pair: jax.Array, limits: Limits) -> Seeds:
    """One seed of the two, in the lower slot; the upper one is empty.

    A dud spoils the blend; a blend of two good seeds is worth more than the two apart.
    Progress and rate are means.

    Args:
      seeds: before.
      pair: int32 [], index into `limits.pairs`.
      limits: the static facts.
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
    """A step of growth; what the seeds that it made mature pay, float32 [J].

    A seed grows by anything from nothing to twice its rate. The mature leave.
    """
    share = jax.random.uniform(key, seeds.rate.shape, jnp.float32, 0.0, 2.0)
    progress = seeds.progress + seeds.rate * share
    mature = progress >= 1.0
    paid = jnp.where(mature, seeds.worth * seeds.vigour, 0.0)
    return clear(seeds.replace(progress=progress), mature), paid


def readings(seeds: Seeds, key: jax.Array, limits: Limits) -> jax.Array:
    """Noisy readings of vigour and progress, float32 [2, J]; 0 where a slot is empty.

    Args:
      seeds: the truth.
      key: of the noise.
      limits: the static facts.
    """
    noise = jax.random.normal(key, (2, limits.num_slots), jnp.float32)
    scale = jnp.asarray([[limits.noise], [limits.noise / 4.0]], jnp.float32)
    true = jnp.stack([seeds.vigour, seeds.progress])
    return jnp.where(seeds.occupied[None], true + scale * noise, 0.0)
