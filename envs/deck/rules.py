"""The rules of the card battle, as pure functions.

K is the number of card kinds. A pile is a number of cards per kind, int32 [K], because
cards of a kind are identical and the order of a pile is random. All random numbers of a
step are in one `Luck`, so that tests can choose them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees

from .cards import ARMOURED, IMMUNE, KINDS, NUM_KINDS, Card, column


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static parameters of a run.

    Attributes:
      num_offered: number of different kinds that a prompt offers.
      num_taken: number of offered kinds that are taken.
      deck: the first deck, kind -> number of cards.
      hp: initial and largest hp of the player.
      rest: hp regained after a combat.
      energy: energy per turn.
      hand: number of cards drawn per turn.
      armour: reduction of each card's damage to an armoured foe.
      foe_hp: hp of the foe in each combat.
      foe_attack: mean attack of the foe in each combat; an attack is uniform from 0.5
        to 1.5 times this number.
      growth: relative increase of the foe's attack per turn.
      max_turns: largest number of turns of a combat, after which it is lost.
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
    """The state of a run, in a combat or at a prompt between two combats."""

    draw: jax.Array  # int32 [K], the pile to draw from; the whole deck at a prompt
    hand: jax.Array  # int32 [K]
    discard: jax.Array  # int32 [K]
    offer: jax.Array  # bool [K], kinds that the prompt offers; none in a combat
    hp: jax.Array  # int32 []
    block: jax.Array  # int32 [], reduction of the foe's next attack
    energy: jax.Array  # int32 []
    power: jax.Array  # int32 [], additional damage of each card with damage
    foe: jax.Array  # int32 [], index into FOES, the same in all combats of a run
    foe_hp: jax.Array  # int32 []
    poison: jax.Array  # int32 [], on the foe
    attack: jax.Array  # int32 [], the foe's attack at the end of the turn
    combat: jax.Array  # int32 [], combats won
    turn: jax.Array  # int32 [], turn of this combat, from 1


class Luck(struct.PyTreeNode):
    """The random numbers of one step, uniform in [0, 1)."""

    cards: jax.Array  # float32 [hand]
    attack: jax.Array  # float32 []
    offer: jax.Array  # float32 [K]
    pick: jax.Array  # float32 [K], for random picks


def draw_luck(key: jax.Array, limits: Limits) -> Luck:
    """Draw the random numbers of one step."""
    u = jax.random.uniform(key, (limits.hand + 1 + 2 * NUM_KINDS,), jnp.float32)
    cards, attack, offer, pick = jnp.split(
        u, [limits.hand, limits.hand + 1, limits.hand + 1 + NUM_KINDS]
    )
    return Luck(cards, attack[0], offer, pick)


def new(foe: jax.Array, luck: Luck, limits: Limits) -> Run:
    """Return a new run, at the first turn of the first combat.

    Args:
      foe: int32 [], index into FOES, the foe of all combats.
      luck: random numbers for the first hand and attack.
      limits: the static parameters.
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
    """Return whether the run is at a prompt, where cards are taken: bool []."""
    return jnp.any(run.offer)


def playable(run: Run) -> jax.Array:
    """Return the kinds in the hand with sufficient energy, bool [K].

    At a prompt the hand is empty, so no kind is playable.
    """
    return (run.hand > 0) & (column("cost") <= run.energy)


def damage(run: Run, limits: Limits) -> jax.Array:
    """Compute the damage of each kind to this foe, int32 [K]."""
    base = column("damage")
    armour = jnp.where(run.foe == ARMOURED, limits.armour, 0)
    return jnp.where(base > 0, jnp.maximum(base + run.power - armour, 0), 0)


def play_card(run: Run, kind: jax.Array, limits: Limits) -> Run:
    """Pay the cost of a card, apply its effects, and discard it.

    Args:
      run: a run in a combat.
      kind: int32 [], kind of the card; the caller must check that it is playable.
      limits: the static parameters.
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
    """Apply poison, reduce it by one, and let the foe attack if it has hp left."""
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
    """Start a turn: restore energy, remove block, and draw the foe's next attack.

    Args:
      run: a run after the end of a turn, or before the first turn.
      luck: random numbers, of which `attack` is used.
      limits: the static parameters.
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
    """Draw cards; if the pile is empty, the discarded cards become the pile.

    If both are empty, no card is drawn.

    Args:
      run: a run in a combat.
      u: float32 [M], uniform in [0, 1), a random number for each card.
      num: int32 [], number of cards to draw, at most M.
    """
    draw, hand, discard = run.draw, run.hand, run.discard
    for i in range(u.shape[0]):
        empty = jnp.sum(draw) == 0
        draw = jnp.where(empty, discard, draw)
        discard = jnp.where(empty, 0, discard)
        # Choose a random position of the pile sorted by kind.
        cumulative = jnp.cumsum(draw)
        place = jnp.floor(u[i] * cumulative[-1].astype(jnp.float32)).astype(jnp.int32)
        one = (cumulative - draw <= place) & (place < cumulative) & (i < num)
        draw, hand = draw - one.astype(jnp.int32), hand + one.astype(jnp.int32)
    return run.replace(draw=draw, hand=hand, discard=discard)


def win(run: Run, luck: Luck, limits: Limits) -> Run:
    """End a won combat: collect all cards, rest, and offer cards for the next combat.

    All other values become zero, as in `new`. After the last combat nothing is offered.

    Args:
      run: a run in the combat.
      luck: random numbers, of which `offer` is used.
      limits: the static parameters.
    """
    combat = run.combat + 1
    best = jax.lax.top_k(luck.offer, limits.num_offered)[1]
    zeros = jax.tree.map(jnp.zeros_like, run)
    return zeros.replace(
        draw=run.draw + run.hand + run.discard,
        offer=zeros.offer.at[best].set(combat < limits.num_combats),
        hp=jnp.minimum(run.hp + limits.rest, limits.hp),
        foe=run.foe,
        combat=combat,
    )


def random_picks(run: Run, luck: Luck, limits: Limits) -> jax.Array:
    """Pick offered kinds at random, in a random order, int32 [num_taken].

    Args:
      run: a run at a prompt.
      luck: random numbers, of which `pick` is used.
      limits: the static parameters.
    """
    score = jnp.where(run.offer, luck.pick, -1.0)
    return jax.lax.top_k(score, limits.num_taken)[1]


def can_take(run: Run, picks: jax.Array) -> jax.Array:
    """Return whether all picks are offered and different: bool []."""
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
    """Start the next combat, before its first turn."""
    return run.replace(
        offer=jnp.zeros_like(run.offer),
        foe_hp=jnp.asarray(limits.foe_hp, jnp.int32)[run.combat],
    )


def step(
    run: Run, kind: jax.Array, picks: jax.Array, luck: Luck, limits: Limits
) -> Run:
    """Apply one action.

    Args:
      run: a run that is neither won nor lost.
      kind: int32 [], the kind to play in a combat; if not playable, the turn ends.
      picks: int32 [num_taken], the kinds to take at a prompt; if they are not offered
        or not different, nothing is taken. In both cases the next combat begins.
      luck: the random numbers of this step.
      limits: the static parameters.
    """
    prompt = at_prompt(run)
    plays = jnp.any(playable(run) & (jnp.arange(NUM_KINDS) == kind))
    picked = begin(trees.where(can_take(run, picks), take(run, picks), run), limits)
    played = trees.where(plays, play_card(run, kind, limits), end_turn(run))
    new = trees.where(prompt, picked, played)
    new = trees.where(prompt | ~plays, new_turn(new, luck, limits), new)
    num = jnp.where(plays, column("draw")[kind], limits.hand)
    new = draw_cards(new, luck.cards, num)
    return trees.where(new.foe_hp <= 0, win(new, luck, limits), new)


def is_won(run: Run, limits: Limits) -> jax.Array:
    """Return whether all combats are won, bool []."""
    return run.combat >= limits.num_combats


def is_lost(run: Run, limits: Limits) -> jax.Array:
    """Return whether the present combat is lost, bool []."""
    return (run.hp <= 0) | (run.turn > limits.max_turns)
