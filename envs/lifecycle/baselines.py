"""Baselines: rules without learning.

Each baseline is (env, state, notes, key) -> (action, notes), for one environment.
`notes` is its state, in which it averages the noisy observations of an episode.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import episodes, trees
from purejaxppo.env import Action, State

from . import rules
from .env import BLEND, CULL, GERMINATE, WAIT, Lifecycle

# The gardener's thresholds of estimated vigour and progress. They are the best of a
# grid of 576 combinations (1,000 episodes each), refined by 24 more (10,000 each).
_CULL_EARLY, _CULL_LATE, _LATE, _BLEND = -0.5, -0.05, 0.65, 0.4
_GAIN = 0.05  # weight of a reading of progress in its estimate


class Notes(struct.PyTreeNode):
    """Estimates of the seed in each slot, float32 [J]."""

    vigour: jax.Array  # mean of the estimate
    variance: jax.Array  # variance of the estimate of vigour
    progress: jax.Array  # estimate
    rate: jax.Array  # mean growth per step


Turn = tuple[Action, Notes]


class Baseline(Protocol):
    """A function that chooses an action of one environment, and updates its notes."""

    def __call__(
        self, env: Lifecycle, state: State, notes: Notes, key: jax.Array, /
    ) -> Turn:
        """Choose an action.

        Args:
          env: the environment.
          state: its state, without a batch axis.
          notes: the notes returned by the step before; `blank(env)` at the first step.
          key: a random key for this step.

        Returns:
          the action, and the notes for the next step.
        """
        ...


def blank(env: Lifecycle) -> Notes:
    """Return the notes before the first step."""
    zeros = jnp.zeros((env.limits.num_slots,), jnp.float32)
    return Notes(zeros, zeros, zeros, zeros)


def _action(
    op: jax.Array, slot: jax.Array, blueprint: jax.Array, blend: jax.Array
) -> Action:
    action = {"op": op, "slot": slot, "blueprint": blueprint, "blend": blend}
    return {name: value.astype(jnp.int32) for name, value in action.items()}


def random_feasible(env: Lifecycle, state: State, notes: Notes, key: jax.Array) -> Turn:
    """Draw any allowed op, slot, blueprint and pair.

    Args:
      env, state, notes, key: see `Baseline`.
    """
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
    """Return mean and variance of the vigour of a new seed of each blueprint, [B]."""
    low, high = rules.VIGOUR
    size, spread = (low + high) / 2.0, (high - low) ** 2 / 12.0
    mean = size * (1.0 - 2.0 * rules.column(env.limits, "duds"))
    return mean, size**2 + spread - mean**2


def _read(env: Lifecycle, state: State, notes: Notes) -> Notes:
    """Update the notes with this step's readings.

    Vigour is estimated by the Kalman filter of a constant, progress with a fixed gain.
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
    """Choose the gardener's action from the notes.

    It takes the first possible action of: cull a probable dud that will mature soon;
    blend the best two seeds; cull a probable dud; germinate the blueprint with the
    highest expected worth that can still mature; wait.
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
    """Update the notes with the action and a step of mean growth."""
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
    """Average the readings of each seed, and act by thresholds.

    Args:
      env, state, notes, key: see `Baseline`.
    """
    del key
    notes = _read(env, state, notes)
    action = _decide(env, state, notes)
    return action, _write(env, notes, action)


def informed(env: Lifecycle, state: State, notes: Notes, key: jax.Array) -> Turn:
    """Apply the gardener's thresholds to the true vigour and progress.

    Args:
      env, state, notes, key: see `Baseline`.
    """
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
    """Play one episode from each key with a baseline.

    Args:
      env: the environment.
      baseline: (env, state, notes, key) -> (action, notes), for one environment.
      keys: [E], one per episode.

    Returns:
      name -> [E]: "return", "length" and the environment's metrics.
    """

    def act(
        notes: Notes, states: State, start: jax.Array, keys: jax.Array
    ) -> tuple[Action, Notes]:
        del start
        choose = jax.vmap(lambda *arguments: baseline(env, *arguments))
        return choose(states, notes, keys)

    notes = jax.vmap(lambda _: blank(env))(keys)
    return episodes.play(env, act, keys, notes).figures()
