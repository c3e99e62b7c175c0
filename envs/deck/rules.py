"""A small card battle: what a card does, how a turn ends, what a prompt adds.

Plain rules. Letters: K card kinds. Piles are counts per kind, int32 [K], for cards of a
kind are alike and the order of a pile is luck. All luck of a step comes in as one
`Luck`, so that a game can be played by hand.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees

from .cards import ARMOURED, IMMUNE, KINDS, NUM_KINDS, Card, column


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static facts of a run.

    Attributes:
      num_offered: kinds in a prompt, all different.
      num_taken: how many of them are taken.
      deck: the first deck, kind -> number of cards.
      hp: the player's at first, and the most that it can be.
      rest: hp regained after a combat won.
      energy: of a turn.
      hand: cards drawn for a turn.
      armour: by how much an armoured foe lessens each card's damage.
      foe_hp: of each combat's foe.
      foe_attack: of each combat's foe; an attack is uniform from half to one and a
        half times this number.
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
    """All that chance decides in one step, numbers uniform in [0, 1)."""

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


def new(foe: jax.Array, luck: Luck, limits: Limits) -> Run:
    """The first turn of the first combat.

    Args:
      foe: int32 [], index into FOES, of all combats of the run.
      luck: what is drawn for the first hand and attack.
      limits: the static facts.
    """
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
    """Pay a card, do what it does, discard it.

    Args:
      run: in a combat.
      kind: int32 [], of the card, which the caller makes sure is playable.
      limits: the static facts.
    """
    card = {name: column(name)[kind] for name in Card._fields}
    one = (jnp.arange(NUM_KINDS) == kind).astype(jnp.int32)
    return run.replace(
        hand=run.hand - one,
        discard=run.discard + one,
        energy=run.energy - card["cost"],
        foe_hp=run.foe_hp - damage(run, limits)[kind],
        block=run.block + card["block"],
        poison=run.poison + jnp.where(run.foe == IMMUNE, 0, card["poison"]),
        hp=jnp.minimum(run.hp + card["heal"], limits.hp),
        power=run.power + card["power"],
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
    """Energy is restored, block is gone, the foe shows its next attack.

    Args:
      run: after the end of a turn, or before the first one.
      luck: its `attack` is used.
      limits: the static facts.
    """
    base = jnp.asarray(limits.foe_attack, jnp.float32)[run.combat]
    grown = base * (1.0 + limits.growth * run.turn.astype(jnp.float32))
    return run.replace(
        energy=jnp.full_like(run.energy, limits.energy),
        block=jnp.zeros_like(run.block),
        attack=jnp.round(grown * (0.5 + luck.attack)).astype(jnp.int32),
        turn=run.turn + 1,
    )


def draw_cards(run: Run, u: jax.Array, num: jax.Array) -> Run:
    """Draw cards. An empty pile is filled from the discards; two empty ones give none.

    Args:
      run: in a combat.
      u: float32 [M], uniform in [0, 1), one number for each card; M is the most.
      num: int32 [], how many cards are drawn, at most M.
    """
    draw, hand, discard = run.draw, run.hand, run.discard
    for i in range(u.shape[0]):
        empty = jnp.sum(draw) == 0
        draw = jnp.where(empty, discard, draw)
        discard = jnp.where(empty, 0, discard)
        # The card at a place of the pile sorted by kind, all places equally likely.
        cumulative = jnp.cumsum(draw)
        place = jnp.floor(u[i] * cumulative[-1].astype(jnp.float32)).astype(jnp.int32)
        one = (cumulative - draw <= place) & (place < cumulative) & (i < num)
        draw, hand = draw - one.astype(jnp.int32), hand + one.astype(jnp.int32)
    return run.replace(draw=draw, hand=hand, discard=discard)


def win(run: Run, luck: Luck, limits: Limits) -> Run:
    """A combat won: gather the deck, rest, and see an offer if a combat is to come.

    All else is zero, as it is in `new`.

    Args:
      run: in the combat.
      luck: its `offer` is used.
      limits: the static facts.
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
    """Picks from the offer, all orders equally likely, int32 [num_taken].

    Args:
      run: at a prompt.
      luck: its `pick` is used.
      limits: the static facts.
    """
    score = jnp.where(run.offer, luck.pick, -1.0)
    return jax.lax.top_k(score, limits.num_taken)[1]


def can_take(run: Run, picks: jax.Array) -> jax.Array:
    """Bool []: the picks are all on offer, and all different."""
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
    taken = begin(trees.where(can_take(run, picks), take(run, picks), run), limits)
    fought = trees.where(plays, play_card(run, kind, limits), end_turn(run))
    after = trees.where(prompt, taken, fought)
    after = trees.where(prompt | ~plays, new_turn(after, luck, limits), after)
    num = jnp.where(plays, column("draw")[kind], limits.hand)
    after = draw_cards(after, luck.cards, num)
    return trees.where(after.foe_hp <= 0, win(after, luck, limits), after)


def is_won(run: Run, limits: Limits) -> jax.Array:
    return run.combat >= limits.num_combats


def is_lost(run: Run, limits: Limits) -> jax.Array:
    return (run.hp <= 0) | (run.turn > limits.max_turns)
