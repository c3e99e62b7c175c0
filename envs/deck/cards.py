"""The kinds of cards and of foes, as numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

UNPLAYABLE = 9  # a cost that exceeds the energy of any turn


class Card(NamedTuple):
    """The cost and effects of a kind of card."""

    cost: int = 1  # energy; at least 1, so that a turn has no more cards than energy
    damage: int = 0
    block: int = 0
    poison: int = 0
    heal: int = 0
    draw: int = 0
    power: int = 0  # additional damage of each later card with damage


CARDS = {
    "strike": Card(damage=6),
    "guard": Card(block=6),
    "heavy": Card(cost=2, damage=16),
    "wall": Card(cost=2, block=15),
    "venom": Card(poison=5),
    "mend": Card(heal=5),
    "study": Card(block=4, draw=2),
    "rage": Card(power=3),
    "poke": Card(damage=3),
    "wound": Card(cost=UNPLAYABLE),
}
KINDS = tuple(CARDS)
NUM_KINDS = len(KINDS)

FOES = ("plain", "armoured", "immune")
ARMOURED, IMMUNE = 1, 2


def column(name: str) -> jax.Array:
    """Return a field of `Card` for each kind, int32 [K]."""
    return jnp.asarray([getattr(card, name) for card in CARDS.values()], jnp.int32)
