"""Baselines: players without learning.

Each baseline is (env, state, key) -> action, for one environment. A baseline only uses
information that the observation contains too.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, State
from purejaxppo.episodes import play_baseline as play_baseline

from . import rules
from .cards import IMMUNE, column
from .env import END_TURN, PICK, PLAY, Deck
from .rules import Run


class Baseline(Protocol):
    """A function that chooses an action of one environment."""

    def __call__(self, env: Deck, state: State, key: jax.Array, /) -> Action:
        """Choose an action.

        Args:
          env: the environment.
          state: its state, without a batch axis.
          key: a random key for this step.
        """
        ...


# Estimated value of adding a card of each kind to the deck, by foe, in order of KINDS.
#              strike guard heavy wall venom mend study rage poke wound
_PLAIN = (5.0, 4.0, 7.0, 7.5, 8.0, 3.0, 6.0, 6.5, 1.0, 0.0)
_ARMOURED = (2.0, 4.0, 7.0, 7.5, 9.0, 3.0, 6.0, 5.0, 1.0, 0.0)
_IMMUNE = (5.0, 4.0, 7.5, 7.5, 0.5, 3.0, 6.0, 7.0, 1.0, 0.0)


def _worth(run: Run, env: Deck) -> jax.Array:
    """Estimate the value of playing each kind, in foe's hp per energy. Float32 [K]."""

    def number(name: str) -> jax.Array:
        return column(name).astype(jnp.float32)

    hit = rules.damage(run, env.limits)
    threat = jnp.maximum(run.attack - run.block, 0).astype(jnp.float32)
    missing = (env.limits.hp - run.hp).astype(jnp.float32)
    # Number of turns during which poison or power is expected to have an effect.
    turns = jnp.clip(run.foe_hp.astype(jnp.float32) / 12.0, 0.0, 5.0)
    lasting = jnp.where(run.foe == IMMUNE, 0.0, turns)
    worth = (
        hit.astype(jnp.float32)
        + 1.2 * jnp.minimum(number("block"), threat)
        + 0.8 * lasting * number("poison")
        + 1.0 * jnp.minimum(number("heal"), missing)
        + 2.0 * number("draw")
        + 1.5 * turns * number("power")
    )
    worth = jnp.where(hit >= run.foe_hp, 1e3, worth)  # this card wins the combat
    return worth / number("cost")


def greedy_play(env: Deck, run: Run) -> jax.Array:
    """Choose the card with the highest value per energy, or end the turn."""
    worth = jnp.where(rules.playable(run), _worth(run, env), 0.0)
    best = jnp.argmax(worth).astype(jnp.int32)
    return jnp.where(worth[best] > 0.0, best + 1, END_TURN)


def greedy_picks(env: Deck, run: Run) -> jax.Array:
    """Choose the best offered cards, by a table of values for each foe."""
    table = jnp.asarray([_PLAIN, _ARMOURED, _IMMUNE], jnp.float32)
    score = jnp.where(run.offer, table[run.foe], -1.0)
    return jax.lax.top_k(score, env.limits.num_taken)[1]


def random_feasible(env: Deck, state: State, key: jax.Array) -> Action:
    """Draw any allowed play, and any picks.

    Args:
      env, state, key: see `Baseline`.
    """
    key_play, key_luck = jax.random.split(key)
    logits = jnp.where(state.action_mask[PLAY], 0.0, -jnp.inf)
    luck = rules.draw_luck(key_luck, env.limits)
    return {
        PLAY: jax.random.categorical(key_play, logits).astype(jnp.int32),
        PICK: rules.random_picks(state.data.run, luck, env.limits),
    }


def greedy(env: Deck, state: State, key: jax.Array) -> Action:
    """Play and pick greedily.

    Args:
      env, state, key: see `Baseline`.
    """
    del key
    run = state.data.run
    return {PLAY: greedy_play(env, run), PICK: greedy_picks(env, run)}


def greedy_random_picks(env: Deck, state: State, key: jax.Array) -> Action:
    """Play greedily, and pick at random.

    Args:
      env, state, key: see `Baseline`.
    """
    random_action = random_feasible(env, state, key)
    return {PLAY: greedy_play(env, state.data.run), PICK: random_action[PICK]}


BASELINES: dict[str, Baseline] = {
    "random_feasible": random_feasible,
    "greedy": greedy,
    "greedy_random_picks": greedy_random_picks,
}
