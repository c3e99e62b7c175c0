"""The card battle as an environment: observation, masks, activity, bookkeeping."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo.env import Action, Choice, Discrete, EnvSpec, Head, State
from purejaxppo.errors import UnknownName, whole_number

from . import render, rules
from .cards import FOES, NUM_KINDS
from .rules import Limits, Run

PLAY, PICK = "play", "pick"
END_TURN = 0  # of `play`; 1 + i plays a card of kind i
CHOICES = ("policy", "random")


class Data(struct.PyTreeNode):
    """The internal state of the environment."""

    run: Run
    key: jax.Array  # random key of all further steps
    steps: jax.Array  # int32 []
    choices: jax.Array  # int32 [], steps at which a card could have been played
    held: jax.Array  # int32 [], steps of these at which the turn was ended
    invalid: jax.Array  # int32 [], steps with an action that is not allowed


def observe(run: Run, limits: Limits) -> jax.Array:
    """Compute the observation, float32 [D]; see the table in README.md."""

    def one_hot(index: jax.Array, num: int) -> jax.Array:
        return jnp.arange(num) == index

    numbers = [
        (run.hp, limits.hp),
        (run.block, 20),
        (run.energy, limits.energy),
        (run.power, 10),
        (run.foe_hp, 50),
        (run.poison, 10),
        (run.attack, 20),
        (run.turn, limits.max_turns),
    ]
    piles = (run.hand, run.draw, run.discard)
    flags = [
        run.offer,
        rules.playable(run),
        rules.at_prompt(run)[None],
        one_hot(run.foe, len(FOES)),
        one_hot(run.combat, limits.num_combats),
    ]
    return jnp.concatenate(
        [
            *(pile.astype(jnp.float32) / 4.0 for pile in piles),
            *(flag.astype(jnp.float32) for flag in flags),
            jnp.stack([x.astype(jnp.float32) / scale for x, scale in numbers]),
        ]
    )


def _ratio(count: jax.Array, total: jax.Array) -> jax.Array:
    return count.astype(jnp.float32) / jnp.maximum(total, 1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Deck:
    """The environment: play cards in combats, and take new cards between them."""

    choice: str
    limits: Limits

    @property
    def spec(self) -> EnvSpec:
        heads: dict[str, Head] = {
            PLAY: Discrete(1 + NUM_KINDS),
            PICK: Choice(NUM_KINDS, self.limits.num_taken),
        }
        return EnvSpec(f"deck_{self.choice}", heads, success="success")

    def start(self, run: Run, key: jax.Array) -> State:
        """Return the first state of a given run; `key` is for all further steps."""
        none = jnp.zeros((), jnp.int32)
        return self._state(Data(run, key, none, none, none, none), none)

    def reset(self, key: jax.Array) -> State:
        key_foe, key_luck, key_run = jax.random.split(key, 3)
        foe = jax.random.randint(key_foe, (), 0, len(FOES), jnp.int32)
        luck = rules.draw_luck(key_luck, self.limits)
        return self.start(rules.new(foe, luck, self.limits), key_run)

    def step(self, state: State, action: Action) -> State:
        data, run = state.data, state.data.run
        key, key_luck = jax.random.split(data.key)
        luck = rules.draw_luck(key_luck, self.limits)
        play, picks = (action[name].astype(jnp.int32) for name in (PLAY, PICK))
        if self.choice == "random":
            picks = rules.random_picks(run, luck, self.limits)
        next_run = rules.step(run, play - 1, picks, luck, self.limits)
        # Computed from the run, so that the rules do not depend on the state's masks.
        prompt, playable = rules.at_prompt(run), rules.playable(run)
        ends = play == END_TURN
        plays = jnp.any(playable & (jnp.arange(NUM_KINDS) == play - 1))
        done = jnp.where(prompt, rules.can_take(run, picks), ends | plays)
        could_play = jnp.any(playable)
        data = Data(
            run=next_run,
            key=key,
            steps=data.steps + 1,
            choices=data.choices + could_play.astype(jnp.int32),
            held=data.held + (could_play & ends).astype(jnp.int32),
            invalid=data.invalid + (~done).astype(jnp.int32),
        )
        return self._state(data, next_run.combat - run.combat)

    @property
    def seconds_per_step(self) -> float:
        return render.SECONDS_PER_STEP

    def render(
        self, states: State, actions: Action, steps: Sequence[int]
    ) -> Iterable[np.ndarray]:
        """Draw a table of the turns played so far; see `RenderedEnv`.

        Args:
          states, actions, steps: see `RenderedEnv`.
        """
        return render.draw(states.data.run, actions, steps, self.limits)

    def _state(self, data: Data, won: jax.Array) -> State:
        run, limits = data.run, self.limits
        prompt = rules.at_prompt(run)
        victory = rules.is_won(run, limits)
        return State(
            data=data,
            obs=observe(run, limits),
            reward=won.astype(jnp.float32) / limits.num_combats,
            terminated=victory | rules.is_lost(run, limits),
            truncated=jnp.zeros((), bool),
            action_mask={
                PLAY: jnp.concatenate([jnp.ones((1,), bool), rules.playable(run)]),
                PICK: run.offer,
            },
            active={
                PLAY: ~prompt,
                PICK: prompt & (self.choice == "policy"),
            },
            metrics={
                "success": victory.astype(jnp.float32),
                "combats_won": run.combat.astype(jnp.float32),
                "noop_frac": _ratio(data.held, data.choices),
                "invalid_frac": _ratio(data.invalid, data.steps),
            },
        )


def make(choice: str, num_offered: int, num_taken: int) -> Deck:
    """Build the environment.

    Args:
      choice: how cards are chosen at a prompt, "policy" or "random".
      num_offered: number of kinds of cards that a prompt offers.
      num_taken: number of offered kinds that are taken.

    Raises:
      ConfigError: an argument is not allowed.
    """
    if choice not in CHOICES:
        raise UnknownName("choice", choice, CHOICES)
    offered = whole_number("num_offered", num_offered, 1, NUM_KINDS)
    taken = whole_number("num_taken", num_taken, 1, offered)
    return Deck(choice, Limits(num_offered=offered, num_taken=taken))
