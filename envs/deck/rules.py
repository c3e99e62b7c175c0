"""A small card battle: what a card does, how a turn ends, what a prompt adds.

Plain rules. Letters: K card kinds. Piles are counts per kind, int32 [K], for cards of a
kind are alike and the order of a pile is luck. All luck of a step comes in as one
`Luck`, so that a game can be played by hand.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

UNPLAYABLE = 9  # a cost that no turn's energy pays


class Card(NamedTuple):
    """What a kind of card costs and does."""

    cost: int = 1  # energy; at least 1, so that a turn has no more cards than energy
    damage: int = 0
    block: int = 0
    poison: int = 0
    heal: int = 0
    draw: int = 0
    power: int = 0  # damage that each later card with damage does on top


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


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static facts of a run.

    Attributes:
      num_offered: kinds in a prompt, all different.
      num_taken: how many of them are taken.
      deck: the first deck, kind -> number of cards.
      hp: the player's, and no more.
      rest: hp regained after a combat won.
      energy: of a turn.
      hand: cards drawn for a turn.
      armour: by how much an armoured foe lessens each card's damage.
      foe_hp, foe_attack: of each combat's foe; an attack is drawn evenly from half to
        one and a half times the second number.
      growth: by how much each turn adds to the foe's attack, as a share.
      max_turns: of a combat; it is lost after them.
    """

    num_offered: int = 5
    num_taken: int = 2
    deck: tuple[tuple[str, int], ...] = (("strike", 4), ("guard", 4))
    hp: int = 50
    rest: int = 12
    energy: int = 3
    hand: int = 5
    armour: int = 3
    foe_hp: tuple[int, ...] = (25, 40, 60, 80)
    foe_attack: tuple[int, ...] = (7, 9, 10, 12)
    growth: float = 0.1
    max_turns: int = 16

    @property
    def num_combats(self) -> int:
        return len(self.foe_hp)


class Run(struct.PyTreeNode):
    """A run in the middle of a combat, or at a prompt between two."""

    draw: jax.Array  # int32 [K], the pile to draw from; the whole deck at a prompt
    hand: jax.Array  # int32 [K]
    discard: jax.Array  # int32 [K]
    offer: jax.Array  # bool [K], kinds that the prompt offers; none in a combat
    hp: jax.Array  # int32 []
    block: jax.Array  # int32 [], until the foe's attack
    energy: jax.Array  # int32 []
    power: jax.Array  # int32 [], on top of the damage of each card
    foe: jax.Array  # int32 [], index into FOES, the same in all combats of a run
    foe_hp: jax.Array  # int32 []
    poison: jax.Array  # int32 [], on the foe
    attack: jax.Array  # int32 [], what the foe does when the turn ends
    combat: jax.Array  # int32 [], combats won
    turn: jax.Array  # int32 [], of this combat, from 1


class Luck(struct.PyTreeNode):
    """All that chance decides in one step, numbers drawn evenly from [0, 1)."""

    cards: jax.Array  # float32 [hand]
    attack: jax.Array  # float32 []
    offer: jax.Array  # float32 [K]
    pick: jax.Array  # float32 [K], for picks that are not a policy's


def draw_luck(key: jax.Array, limits: Limits) -> Luck:
    """The luck of one step."""
    u = jax.random.uniform(key, (limits.hand + 1 + 2 * NUM_KINDS,), jnp.float32)
    cards, attack, offer, pick = jnp.split(
        u, [limits.hand, limits.hand + 1, limits.hand + 1 + NUM_KINDS]
    )
    return Luck(cards, attack[0], offer, pick)


def column(name: str) -> jax.Array:
    """That number of each kind of card, int32 [K]."""
    return jnp.asarray([getattr(card, name) for card in CARDS.values()], jnp.int32)


def new(foe: jax.Array, luck: Luck, limits: Limits) -> Run:
    """The first turn of the first combat."""
    none = jnp.zeros((), jnp.int32)
    empty = jnp.zeros((NUM_KINDS,), jnp.int32)
    deck = jnp.asarray([dict(limits.deck).get(kind, 0) for kind in KINDS], jnp.int32)
    run = Run(
        draw=deck,
        hand=empty,
        discard=empty,
        offer=jnp.zeros((NUM_KINDS,), bool),
        hp=jnp.asarray(limits.hp, jnp.int32),
        block=none,
        energy=none,
        power=none,
        foe=foe,
        foe_hp=none,
        poison=none,
        attack=none,
        combat=none,
        turn=none,
    )
    run = new_turn(begin(run, limits), luck, limits)
    return draw_cards(run, luck.cards, jnp.asarray(limits.hand, jnp.int32))


def at_prompt(run: Run) -> jax.Array:
    """Bool []: cards are to be taken, not played."""
    return jnp.any(run.offer)


def playable(run: Run) -> jax.Array:
    """Kinds that are in the hand and can be paid, bool [K]; none at a prompt."""
    return (run.hand > 0) & (column("cost") <= run.energy)


def damage(run: Run, limits: Limits) -> jax.Array:
    """What each kind would do to this foe's hp, int32 [K]."""
    base = column("damage")
    armour = jnp.where(run.foe == ARMOURED, limits.armour, 0)
    return jnp.where(base > 0, jnp.maximum(base + run.power - armour, 0), 0)


def play_card(run: Run, kind: jax.Array, limits: Limits) -> Run:
    """Pay a card, do what it does, discard it. The caller sees that it is playable."""
    card = Card(*(column(name)[kind] for name in Card._fields))
    one = (jnp.arange(NUM_KINDS) == kind).astype(jnp.int32)
    return run.replace(
        hand=run.hand - one,
        discard=run.discard + one,
        energy=run.energy - card.cost,
        foe_hp=run.foe_hp - damage(run, limits)[kind],
        block=run.block + card.block,
        poison=run.poison + jnp.where(run.foe == IMMUNE, 0, card.poison),
        hp=jnp.minimum(run.hp + card.heal, limits.hp),
        power=run.power + card.power,
    )


def end_turn(run: Run) -> Run:
    """Poison works and wears off by one, then a foe that still stands attacks."""
    foe_hp = run.foe_hp - run.poison
    hurt = jnp.where(foe_hp > 0, jnp.maximum(run.attack - run.block, 0), 0)
    return run.replace(
        foe_hp=foe_hp,
        poison=jnp.maximum(run.poison - 1, 0),
        hp=jnp.maximum(run.hp - hurt, 0),
        discard=run.discard + run.hand,
        hand=jnp.zeros_like(run.hand),
    )


def new_turn(run: Run, luck: Luck, limits: Limits) -> Run:
    """Energy is back, block is gone, the foe shows its next attack."""
    base = jnp.asarray(limits.foe_attack, jnp.float32)[run.combat]
    grown = base * (1.0 + limits.growth * run.turn.astype(jnp.float32))
    return run.replace(
        energy=jnp.full_like(run.energy, limits.energy),
        block=jnp.zeros_like(run.block),
        attack=jnp.round(grown * (0.5 + luck.attack)).astype(jnp.int32),
        turn=run.turn + 1,
    )


def draw_cards(run: Run, u: jax.Array, num: jax.Array) -> Run:
    """Draw `num` cards, no more than there are in `u`.

    An empty pile is filled from the discards; where both are empty nothing is drawn.
    """
    draw, hand, discard = run.draw, run.hand, run.discard
    for i in range(u.shape[0]):
        empty = jnp.sum(draw) == 0
        draw = jnp.where(empty, discard, draw)
        discard = jnp.where(empty, 0, discard)
        # The card at a place of the pile sorted by kind, each place as likely.
        upto = jnp.cumsum(draw)
        place = jnp.floor(u[i] * upto[-1].astype(jnp.float32)).astype(jnp.int32)
        one = (upto - draw <= place) & (place < upto) & (i < num)
        draw, hand = draw - one.astype(jnp.int32), hand + one.astype(jnp.int32)
    return run.replace(draw=draw, hand=hand, discard=discard)


def win(run: Run, luck: Luck, limits: Limits) -> Run:
    """A combat won: gather the deck, rest, and look at the offer if more is to come.

    Nothing else is left of the combat: `new` is all zeros there too.
    """
    combat = run.combat + 1
    best = jax.lax.top_k(luck.offer, limits.num_offered)[1]
    after = jax.tree.map(jnp.zeros_like, run)
    return after.replace(
        draw=run.draw + run.hand + run.discard,
        offer=after.offer.at[best].set(combat < limits.num_combats),
        hp=jnp.minimum(run.hp + limits.rest, limits.hp),
        foe=run.foe,
        combat=combat,
    )


def random_picks(run: Run, luck: Luck, limits: Limits) -> jax.Array:
    """Picks from the offer, each order as likely, int32 [num_taken]."""
    score = jnp.where(run.offer, luck.pick, -1.0)
    return jax.lax.top_k(score, limits.num_taken)[1]


def can_take(run: Run, picks: jax.Array) -> jax.Array:
    """Bool []: all on offer, and all different."""
    in_range = (picks >= 0) & (picks < NUM_KINDS)
    chosen = picks[:, None] == jnp.arange(NUM_KINDS)[None, :]
    once = jnp.sum(chosen, axis=0) <= 1
    offered = jnp.any(chosen & run.offer[None, :], axis=1)
    return jnp.all(in_range & offered) & jnp.all(once)


def take(run: Run, picks: jax.Array) -> Run:
    """Add the picks to the deck: the first in two copies, the others in one."""
    chosen = (picks[:, None] == jnp.arange(NUM_KINDS)[None, :]).astype(jnp.int32)
    added = jnp.sum(chosen, axis=0, dtype=jnp.int32) + chosen[0]
    return run.replace(draw=run.draw + added)


def begin(run: Run, limits: Limits) -> Run:
    """The next combat, before its first turn."""
    return run.replace(
        offer=jnp.zeros_like(run.offer),
        foe_hp=jnp.asarray(limits.foe_hp, jnp.int32)[run.combat],
    )


def step(
    run: Run, kind: jax.Array, picks: jax.Array, luck: Luck, limits: Limits
) -> Run:
    """One action.

    Args:
      run: not over.
      kind: the kind to play in a combat; one that is not playable ends the turn.
      picks: what to take at a prompt; picks that are not on offer, or one kind twice,
        take nothing. Either way the next combat begins.
      luck: of this step.
      limits: the static facts.
    """
    prompt = at_prompt(run)
    plays = jnp.any(playable(run) & (jnp.arange(NUM_KINDS) == kind))
    taken = begin(select(can_take(run, picks), take(run, picks), run), limits)
    fought = select(plays, play_card(run, kind, limits), end_turn(run))
    after = select(prompt, taken, fought)
    after = select(prompt | ~plays, new_turn(after, luck, limits), after)
    num = jnp.where(plays, column("draw")[kind], limits.hand)
    after = draw_cards(after, luck.cards, num)
    return select(after.foe_hp <= 0, win(after, luck, limits), after)


def select(condition: jax.Array, yes: Run, no: Run) -> Run:
    """One of two runs."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def is_won(run: Run, limits: Limits) -> jax.Array:
    return run.combat >= limits.num_combats


def is_lost(run: Run, limits: Limits) -> jax.Array:
    return (run.hp <= 0) | (run.turn > limits.max_turns)
