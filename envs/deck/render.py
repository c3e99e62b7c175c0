"""A table of a run of battles: each turn with its cards, and the health of both."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from purejaxppo.env import Action

from ..canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, picture
from .cards import CARDS, FOES, KINDS, Card
from .rules import Limits, Run

WIDTH, HEIGHT = 1000, 440
SECONDS_PER_STEP = 0.3
TURNS_SHOWN = 8  # rows of a combat at first; more if it takes longer
HAND, PLAYER, FOE = 0.0, 3.1, 4.15  # left edges of the columns
BAR = 0.85  # width of a full bar of health


class Turn(NamedTuple):
    """A turn of a combat, as far as it was played.

    Attributes:
      combat: index of the combat.
      hp, foe_hp: health of both at its start.
      cards: the kinds of the cards played in it.
    """

    combat: int
    hp: int
    foe_hp: int
    cards: list[str]


class Battle(NamedTuple):
    """A run, as far as it was played.

    Attributes:
      turns: all turns, in order.
      taken: for each combat the kinds that were added to the deck before it.
      hp, foe_hp: health of both now.
      foe: kind of the foe.
      combat: the number of combats won.
      ended: whether the run is over: won, or else lost.
    """

    turns: list[Turn]
    taken: dict[int, list[str]]
    hp: int
    foe_hp: int
    foe: str
    combat: int
    ended: bool


def battle(runs: Run, actions: Action, step: int) -> Battle:
    """Collect what happened before a step.

    Args:
      runs: [T + 1].
      actions: [T].
      step: index into `runs`.
    """
    turns, taken = [], {}
    for time in range(step + 1):
        combat, at_prompt = int(runs.combat[time]), bool(runs.offer[time].any())
        previous = time - 1
        if time and runs.offer[previous].any():
            added = _deck(runs, time) - _deck(runs, previous)
            taken[combat] = [KINDS[k] for k in np.repeat(np.arange(len(KINDS)), added)]
        is_new = not time or _place(runs, time) != _place(runs, previous)
        if is_new and not at_prompt and runs.turn[time] > 0:
            hp, foe_hp = int(runs.hp[time]), int(runs.foe_hp[time])
            turns.append(Turn(combat, hp, foe_hp, []))
        if time < step and (card := _played(runs, actions, time)):
            turns[-1].cards.append(card)
    return Battle(
        turns=turns,
        taken=taken,
        hp=int(runs.hp[step]),
        foe_hp=int(runs.foe_hp[step]),
        foe=FOES[int(runs.foe[step])],
        combat=int(runs.combat[step]),
        ended=step == len(runs.hp) - 1,
    )


def _place(runs: Run, time: int) -> tuple[int, int]:
    return int(runs.combat[time]), int(runs.turn[time])


def _deck(runs: Run, time: int) -> np.ndarray:
    """Return the cards of each kind that the player has, wherever they are: [K]."""
    return np.asarray(runs.draw[time] + runs.hand[time] + runs.discard[time])


def _played(runs: Run, actions: Action, time: int) -> str | None:
    """Return the kind of the card that the action of a step played, if it did."""
    kind = int(actions["play"][time]) - 1
    if runs.offer[time].any() or not 0 <= kind < len(KINDS):
        return None
    has_card = runs.hand[time, kind] > 0
    can_pay = CARDS[KINDS[kind]].cost <= runs.energy[time]
    return KINDS[kind] if has_card and can_pay else None


def draw(
    runs: Run, actions: Action, steps: Sequence[int], limits: Limits
) -> Iterator[np.ndarray]:
    """Draw the table as it is after some steps: uint8 [HEIGHT, WIDTH, 3].

    Args:
      runs: [T + 1].
      actions: [T].
      steps: indices into `runs`.
      limits: the static parameters.
    """
    for step in steps:
        shown = battle(runs, actions, step)
        table = functools.partial(_table, shown=shown, limits=limits)
        yield picture(WIDTH, HEIGHT, table)


def _table(figure: Any, shown: Battle, limits: Limits) -> None:
    """Draw a column of turns for each combat."""
    columns = figure.subplots(1, limits.num_combats, squeeze=False)[0]
    figure.subplots_adjust(0.045, 0.03, 0.995, 0.74, 0.1)
    by_combat = [[t for t in shown.turns if t.combat == i] for i in range(len(columns))]
    rows = max(TURNS_SHOWN, *map(len, by_combat))
    for index, (axis, turns) in enumerate(zip(columns, by_combat, strict=True)):
        axis.set_xlim(0, FOE + 1)
        axis.set_ylim(rows, 0)
        axis.set_xticks([])
        axis.set_yticks(np.arange(len(turns)) + 0.5, range(1, len(turns) + 1))
        axis.tick_params(axis="y", length=0, labelsize=8)
        axis.spines[:].set_color("#dddddd")
        _title(axis, shown, index, limits)
        for row, turn in enumerate(turns):
            _turn(axis, row, turn, limits)
    columns[0].set_ylabel("turn", fontsize=8, labelpad=3)
    figure.suptitle(_summary(shown, limits), x=0.01, ha="left", fontsize=11)
    _legend(figure)


def _summary(shown: Battle, limits: Limits) -> str:
    combats = f"{shown.combat} of {limits.num_combats} combats won"
    text = f"Deck, foes {shown.foe}: {combats}, {shown.hp} hp left"
    if not shown.ended:
        return text
    won = shown.combat == limits.num_combats
    return f"{text}; the run is {'won' if won else 'lost'}"


def _title(axis: Any, shown: Battle, index: int, limits: Limits) -> None:
    """Write above a combat how it stands, and what was added to the deck before it."""
    state = f"foe {limits.foe_hp[index]} hp"
    color = GREY
    if index < shown.combat:
        state, color = "won", GREEN
    elif index == shown.combat and shown.ended:
        state, color = "lost", RED
    taken = shown.taken.get(index, [])
    text = f"added: {', '.join(taken)}" if taken else ""
    style = {"transform": axis.transAxes, "fontsize": 8}
    title = f"combat {index + 1}: {state}"
    axis.text(0.0, 1.085, title, color=color, weight="bold", **style)
    axis.text(0.0, 1.02, text, **style)


def _turn(axis: Any, row: int, turn: Turn, limits: Limits) -> None:
    """Draw the cards of a turn, and bars of the health of both at its start."""
    for place, kind in enumerate(turn.cards):
        left, color = HAND + 1.02 * place + 0.05, _color(CARDS[kind])
        axis.barh(row + 0.5, 0.97, left=left, height=0.8, color=(color, 0.35))
        axis.text(left + 0.48, row + 0.52, kind, ha="center", va="center", fontsize=7)
    full = limits.foe_hp[turn.combat]
    for left, hp, most, color in (
        (PLAYER, turn.hp, limits.hp, GREEN),
        (FOE, turn.foe_hp, full, RED),
    ):
        width = BAR * max(hp, 0) / most
        axis.barh(row + 0.5, width, left=left + 0.05, height=0.8, color=(color, 0.45))
        axis.text(left + 0.1, row + 0.52, str(hp), va="center", fontsize=7)


def _color(card: Card) -> str:
    """Return the colour of a card by what it mainly does."""
    if card.damage:
        return ORANGE
    if card.block:
        return BLUE
    return PURPLE if card.poison or card.power else GREY


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    names = {
        "card that attacks": ORANGE,
        "that defends": BLUE,
        "with lasting effect": PURPLE,
        "other card": GREY,
        "player's hp at the start of the turn": GREEN,
        "foe's": RED,
    }
    figure.legend(
        [Patch(color=(color, 0.45)) for color in names.values()],
        list(names),
        loc="upper left",
        bbox_to_anchor=(0.0, 0.945),
        ncols=6,
        frameon=False,
        fontsize=8,
    )
