"""Gardeners that do not learn, and what they score on given keys.

Each baseline is (env, state, notes, key) -> (action, notes), for one environment.
`notes` is its own memory of the episode: an observation is one noisy glance, and
whoever writes a rule by hand would average them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import episodes
from purejaxppo.env import Action, State

from . import rules
from .env import BLEND, CULL, GERMINATE, WAIT, Lifecycle

# The gardener's thresholds, of estimated vigour and progress: the best of a coarse grid
# of 576 combinations (1,000 episodes each), then of 24 around it (10,000 each).
_CULL_EARLY, _CULL_LATE, _LATE, _BLEND = -0.5, -0.05, 0.65, 0.4
_GAIN = 0.05  # of a reading of progress against what growth on average would be


class Notes(struct.PyTreeNode):
    """Of each slot, float32 [J]: what is in it, as far as it can be known."""

    vigour: jax.Array  # mean of the estimate
    variance: jax.Array  # of the estimate
    progress: jax.Array  # estimate
    rate: jax.Array


Turn = tuple[Action, Notes]
Baseline = Callable[[Lifecycle, State, Notes, jax.Array], Turn]


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
    """Any allowed op, and with it anything that is allowed."""
    keys = jax.random.split(key, 4)

    def any_of(key: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))

    mask = state.action_mask
    op = any_of(keys[0], mask["op"])
    kinds = jnp.ones((len(env.limits.blueprints),), bool)
    return _action(
        op,
        any_of(keys[1], mask["slot"][op]),
        any_of(keys[2], kinds),
        any_of(keys[3], mask["blend"]),
    ), notes


# --- the gardener ------------------------------------------------------------------


def _prior(env: Lifecycle) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the vigour of a new seed, [B] each."""
    low, high = rules.VIGOUR
    size, spread = (low + high) / 2.0, (high - low) ** 2 / 12.0
    mean = size * (1.0 - 2.0 * rules.column(env.limits, "duds"))
    return mean, size**2 + spread - mean**2


def _read(env: Lifecycle, state: State, notes: Notes) -> Notes:
    """The notes with this step's readings averaged in, each as far as it is precise."""
    num = env.limits.num_slots
    full, _, vigour, progress = state.obs["actor"][:-1].reshape(4, num)
    weight = notes.variance / (notes.variance + env.limits.noise**2 + 1e-6)
    notes = notes.replace(
        vigour=notes.vigour + weight * (vigour - notes.vigour),
        variance=notes.variance * (1.0 - weight),
        progress=notes.progress + _GAIN * (progress - notes.progress),
    )
    return jax.tree.map(lambda x: jnp.where(full > 0.5, x, 0.0), notes)


def _decide(env: Lifecycle, state: State, notes: Notes) -> Action:
    """Culls what is about to mature as a dud, else blends the best two, else culls
    the hopeless, else germinates the kind of the highest hopes that can still ripen."""
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
    hope = (1.0 - rules.column(limits, "duds")) * rules.column(limits, "worth")
    can_germinate = jnp.any(~full) & jnp.any(ripens)

    op = jnp.select(
        [jnp.any(urgent), jnp.max(lesser) > _BLEND, jnp.any(bad), can_germinate],
        [jnp.int32(CULL), jnp.int32(BLEND), jnp.int32(CULL), jnp.int32(GERMINATE)],
        jnp.int32(WAIT),
    )
    slot = jnp.where(op == GERMINATE, jnp.argmin(full), worst)
    blueprint = jnp.argmax(jnp.where(ripens, hope, -jnp.inf))
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
    two = jax.tree.map(lambda x: x[pair], notes)
    blended = Notes(
        vigour=rules.blended_vigour(two.vigour),
        variance=jnp.mean(two.variance),
        progress=jnp.mean(two.progress),
        rate=jnp.mean(two.rate),
    )
    for seed, put in (
        (new, (op == GERMINATE) & (slots == action["slot"])),
        (blended, (op == BLEND) & (slots == pair[0])),
    ):
        notes = jax.tree.map(lambda n, o, put=put: jnp.where(put, n, o), seed, notes)
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
