"""Gardeners that do not learn, and what they score on given keys.

Each baseline is (env, state, notes, key) -> (action, notes), for one environment.
`notes` is what it remembers of the episode: one observation is noisy, and a rule has
to average many.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import episodes, trees
from purejaxppo.env import Action, State

from . import rules
from .env import BLEND, CULL, GERMINATE, WAIT, Lifecycle

# The gardener's thresholds, of estimated vigour and progress: the best of a coarse grid
# of 576 combinations (1,000 episodes each), then of 24 around it (10,000 each).
_CULL_EARLY, _CULL_LATE, _LATE, _BLEND = -0.5, -0.05, 0.65, 0.4
_GAIN = 0.05  # of a reading of progress against what growth on average would be


class Notes(struct.PyTreeNode):
    """What is known of the seed in each slot, float32 [J]."""

    vigour: jax.Array  # mean of the estimate
    variance: jax.Array  # of the estimate
    progress: jax.Array  # estimate
    rate: jax.Array


Turn = tuple[Action, Notes]


class Baseline(Protocol):
    """What chooses an action in one environment, and takes notes."""

    def __call__(
        self, env: Lifecycle, state: State, notes: Notes, key: jax.Array, /
    ) -> Turn:
        """Chooses an action.

        Args:
          env: the environment.
          state: of it, without a batch axis.
          notes: as of the step before; `blank(env)` at first.
          key: of this step, for baselines that draw.

        Returns:
          the action, and the notes for the next step.
        """
        ...


def blank(env: Lifecycle) -> Notes:
    """Nothing noted yet."""
    zeros = jnp.zeros((env.limits.num_slots,), jnp.float32)
    return Notes(zeros, zeros, zeros, zeros)


def _action(
    op: jax.Array, slot: jax.Array, blueprint: jax.Array, blend: jax.Array
) -> Action:
    action = {"op": op, "slot": slot, "blueprint": blueprint, "blend": blend}
    return {name: value.astype(jnp.int32) for name, value in action.items()}


def random_feasible(env: Lifecycle, state: State, notes: Notes, key: jax.Array) -> Turn:
    """Any allowed op, with any allowed slot, blueprint and pair."""
    keys = jax.random.split(key, 4)

    def draw(key: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))

    mask = state.action_mask
    op = draw(keys[0], mask["op"])
    kinds = jnp.ones((len(env.limits.blueprints),), bool)
    return _action(
        op,
        draw(keys[1], mask["slot"][op]),
        draw(keys[2], kinds),
        draw(keys[3], mask["blend"]),
    ), notes


# --- the gardener ------------------------------------------------------------------


def _prior(env: Lifecycle) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the vigour of a new seed, [B] each."""
    low, high = rules.VIGOUR
    size, spread = (low + high) / 2.0, (high - low) ** 2 / 12.0
    mean = size * (1.0 - 2.0 * rules.column(env.limits, "duds"))
    return mean, size**2 + spread - mean**2


def _read(env: Lifecycle, state: State, notes: Notes) -> Notes:
    """The notes after this step's readings.

    Vigour by the Kalman filter of a constant, progress with a fixed gain.
    """
    num = env.limits.num_slots
    full, _, vigour, progress = state.obs["actor"][:-1].reshape(4, num)
    weight = notes.variance / (notes.variance + env.limits.noise**2 + 1e-6)
    notes = notes.replace(
        vigour=notes.vigour + weight * (vigour - notes.vigour),
        variance=notes.variance * (1.0 - weight),
        progress=notes.progress + _GAIN * (progress - notes.progress),
    )
    return trees.where(full > 0.5, notes, blank(env))


def _decide(env: Lifecycle, state: State, notes: Notes) -> Action:
    """The gardener's action, from what it knows of the seeds.

    In this order: cull what is about to mature as a dud; blend the best two; cull what
    is probably a dud; germinate the blueprint of the highest expected worth that can
    still mature; wait.
    """
    limits, full = env.limits, state.obs["actor"][: env.limits.num_slots] > 0.5
    late = full & (notes.progress > _LATE)
    urgent = late & (notes.vigour < _CULL_LATE)
    bad = urgent | (full & (notes.vigour < _CULL_EARLY))
    vigour = jnp.where(urgent, notes.vigour - 2.0, notes.vigour)
    worst = jnp.argmin(jnp.where(bad, vigour, jnp.inf))

    lower, upper = jnp.asarray(limits.pairs, jnp.int32).T
    lesser = jnp.minimum(notes.vigour[lower], notes.vigour[upper])
    lesser = jnp.where(full[lower] & full[upper], lesser, -jnp.inf)

    time_left = limits.horizon * (1.0 - state.obs["actor"][-1])
    ripens = rules.column(limits, "growth") <= time_left
    expected = (1.0 - rules.column(limits, "duds")) * rules.column(limits, "worth")
    can_germinate = jnp.any(~full) & jnp.any(ripens)

    op = jnp.select(
        [jnp.any(urgent), jnp.max(lesser) > _BLEND, jnp.any(bad), can_germinate],
        [jnp.int32(CULL), jnp.int32(BLEND), jnp.int32(CULL), jnp.int32(GERMINATE)],
        jnp.int32(WAIT),
    )
    slot = jnp.where(op == GERMINATE, jnp.argmin(full), worst)
    blueprint = jnp.argmax(jnp.where(ripens, expected, -jnp.inf))
    return _action(op, slot, blueprint, jnp.argmax(lesser))


def _write(env: Lifecycle, notes: Notes, action: Action) -> Notes:
    """The notes after that action and a step of average growth."""
    limits, op, blueprint = env.limits, action["op"], action["blueprint"]
    slots = jnp.arange(limits.num_slots, dtype=jnp.int32)
    mean, variance = _prior(env)
    new = Notes(
        vigour=mean[blueprint],
        variance=variance[blueprint],
        progress=jnp.zeros((), jnp.float32),
        rate=1.0 / rules.column(limits, "growth")[blueprint],
    )
    pair = jnp.asarray(limits.pairs, jnp.int32)[action["blend"]]
    parents = trees.take(notes, pair)
    blended = Notes(
        vigour=rules.blended_vigour(parents.vigour),
        variance=jnp.mean(parents.variance),
        progress=jnp.mean(parents.progress),
        rate=jnp.mean(parents.rate),
    )
    notes = trees.where((op == GERMINATE) & (slots == action["slot"]), new, notes)
    notes = trees.where((op == BLEND) & (slots == pair[0]), blended, notes)
    return notes.replace(progress=notes.progress + notes.rate)


def gardener(env: Lifecycle, state: State, notes: Notes, key: jax.Array) -> Turn:
    """Keeps a running average of each seed, and acts on thresholds."""
    del key
    notes = _read(env, state, notes)
    action = _decide(env, state, notes)
    return action, _write(env, notes, action)


def informed(env: Lifecycle, state: State, notes: Notes, key: jax.Array) -> Turn:
    """The gardener's thresholds on the truth: what it loses by not knowing it."""
    del key
    seeds = state.data.seeds
    truth = Notes(
        vigour=seeds.vigour,
        variance=jnp.zeros_like(seeds.vigour),
        progress=seeds.progress,
        rate=seeds.rate,
    )
    return _decide(env, state, truth), notes


BASELINES: dict[str, Baseline] = {
    "random_feasible": random_feasible,
    "gardener": gardener,
    "informed": informed,
}


def play_baseline(
    env: Lifecycle, baseline: Baseline, keys: jax.Array
) -> dict[str, jax.Array]:
    """Return, length and metrics of one episode from each key, [E] each.

    Args:
      env: the environment.
      baseline: (env, state, notes, key) -> (action, notes), for one environment.
      keys: [E], one per episode.
    """

    def act(
        notes: Notes, states: State, start: jax.Array, keys: jax.Array
    ) -> tuple[Action, Notes]:
        del start
        choose = jax.vmap(lambda *arguments: baseline(env, *arguments))
        return choose(states, notes, keys)

    notes = jax.vmap(lambda _: blank(env))(keys)
    return episodes.play(env, act, keys, notes).figures()
