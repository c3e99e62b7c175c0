"""Gardeners that do not learn, and what they score on given keys.

Each baseline is (env, state, notes, key) -> (action, notes), for one environment.
`notes` is what it has written down in the episode: its own memory, since the state
shows a player no more than the observation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.env import Action, State

from . import rules
from .env import BLEND, CULL, GERMINATE, WAIT, Lifecycle


class Notes(struct.PyTreeNode):
    """Of each slot, [J] float32: what was put there, and estimates of what is hidden."""

    vigour: jax.Array  # mean of the estimate
    variance: jax.Array  # of that estimate
    worth: jax.Array
    progress: jax.Array
    rate: jax.Array


Baseline = Callable[
    [Lifecycle, State, Notes, jax.Array], tuple[Action, Notes]
]


def blank(env: Lifecycle) -> Notes:
    """No notes yet."""
    zeros = jnp.zeros((env.limits.num_slots,), jnp.float32)
    return Notes(zeros, zeros, zeros, zeros, zeros)


def _action(op: jax.Array, slot: jax.Array, blueprint: jax.Array, blend: jax.Array):
    action = {"op": op, "slot": slot, "blueprint": blueprint, "blend": blend}
    return {name: value.astype(jnp.int32) for name, value in action.items()}


def random_feasible(
    env: Lifecycle, state: State, notes: Notes, key: jax.Array
) -> tuple[Action, Notes]:
    """Any allowed op, and anything allowed with it."""
    keys = jax.random.split(key, 4)

    def any_of(key: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))

    masks = state.action_mask
    op = any_of(keys[0], masks["op"])
    blueprint = any_of(keys[2], jnp.ones((len(env.limits.blueprints),), bool))
    action = _action(
        op, any_of(keys[1], masks["slot"][op]), blueprint, any_of(keys[3], masks["blend"])
    )
    return action, notes


# --- the gardener ------------------------------------------------------------------


def prior(env: Lifecycle) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the vigour of a new seed of each blueprint, [B] each."""
    low, high = rules.VIGOUR
    size, spread = (low + high) / 2.0, (high - low) ** 2 / 12.0
    duds = rules.column(env.limits, "duds")
    mean = size * (1.0 - 2.0 * duds)
    return mean, size**2 + spread - mean**2


def read(env: Lifecycle, notes: Notes, state: State, gain: float) -> Notes:
    """The notes with this step's readings averaged in, by their precision."""
    full, vigour, progress = state.obs["actor"][:3*env.limits.num_slots].reshape(3, -1)
    weight = notes.variance / (notes.variance + env.limits.noise**2 + 1e-6)
    notes = notes.replace(
        vigour=notes.vigour + weight * (vigour - notes.vigour),
        variance=notes.variance * (1.0 - weight),
        progress=notes.progress + gain * (progress - notes.progress),
    )
    # What has left its slot (it was mature) is crossed out.
    return jax.tree.map(lambda x: jnp.where(full > 0.5, x, 0.0), notes)


class Rules(struct.PyTreeNode):
    """The gardener's thresholds."""

    cull_early: float = -0.3
    cull_late: float = 0.0
    late: float = 0.7
    blend: float = 0.3
    gain: float = 0.1
    slack: float = 1.0


def decide(env: Lifecycle, state: State, notes: Notes, r: Rules) -> Action:
    limits = env.limits
    full = state.obs["actor"][: limits.num_slots] > 0.5
    time_left = limits.horizon * (1.0 - state.obs["actor"][3*env.limits.num_slots])
    growth = rules.column(limits, "growth")
    mean, _ = prior(env)

    late = notes.progress > r.late
    bad = full & (notes.vigour < jnp.where(late, r.cull_late, r.cull_early))
    urgent = bad & late
    hopeless = notes.vigour - 10.0 * urgent.astype(jnp.float32)
    worst = jnp.argmin(jnp.where(bad, hopeless, jnp.inf))

    lower, upper = jnp.asarray(limits.pairs, jnp.int32).T
    lesser = jnp.minimum(notes.vigour[lower], notes.vigour[upper])
    lesser = jnp.where(full[lower] & full[upper], lesser, -jnp.inf)
    pair = jnp.argmax(lesser)

    fits = growth * r.slack <= time_left
    good = (1.0 - rules.column(limits, "duds")) * rules.column(limits, "worth")
    blueprint = jnp.argmax(jnp.where(fits, good, -jnp.inf))

    op = jnp.where(
        jnp.any(urgent),
        CULL,
        jnp.where(
            lesser[pair] > r.blend,
            BLEND,
            jnp.where(
                jnp.any(bad),
                CULL,
                jnp.where(jnp.any(~full) & jnp.any(fits), GERMINATE, WAIT),
            ),
        ),
    )
    slot = jnp.where(op == GERMINATE, jnp.argmin(full), worst)
    return _action(op, slot, blueprint, pair)


def write(env: Lifecycle, notes: Notes, action: Action) -> Notes:
    """The notes after that action and a step of growth."""
    limits = env.limits
    slots = jnp.arange(limits.num_slots)
    mean, variance = prior(env)
    b, op = action["blueprint"], action["op"]
    new = Notes(
        mean[b],
        variance[b],
        rules.column(limits, "worth")[b],
        jnp.zeros(()),
        1.0 / rules.column(limits, "growth")[b],
    )
    put = (op == GERMINATE) & (slots == action["slot"])
    out = jax.tree.map(lambda n, o: jnp.where(put, n, o), new, notes)
    pair = jnp.asarray(limits.pairs, jnp.int32)[action["blend"]]
    two = jax.tree.map(lambda x: x[pair], notes)
    blended = Notes(
        0.75*jnp.min(two.vigour)+0.25*jnp.max(two.vigour),
        jnp.mean(two.variance),
        jnp.sum(two.worth) + limits.bonus * jnp.min(two.worth),
        jnp.mean(two.progress),
        jnp.mean(two.rate),
    )
    put = (op == BLEND) & (slots == pair[0])
    out = jax.tree.map(lambda n, o: jnp.where(put, n, o), blended, out)
    return out.replace(progress=out.progress + out.rate)


def gardener(env, state, notes, key, r=Rules()):
    notes = read(env, notes, state, r.gain)
    action = decide(env, state, notes, r)
    return action, write(env, notes, action)


def informed(env, state, notes, key, r=Rules(cull_early=0.0,gain=0.0)):
    s = state.data.seeds
    notes = Notes(s.vigour, s.vigour * 0, s.worth, s.progress, s.rate)
    return decide(env, state, notes, r), notes


BASELINES: dict[str, Baseline] = {
    "random_feasible": random_feasible,
    "gardener": gardener,
    "informed": informed,
}


def evaluate(
    env: Lifecycle, baseline: Baseline, keys: jax.Array
) -> dict[str, jax.Array]:
    """Figures of one episode from each key, [E]: return and the metrics."""

    def one(key: jax.Array) -> dict[str, jax.Array]:
        def step(carry, index):
            state, notes, total = carry
            key_action = jax.random.fold_in(key, index)
            action, notes = baseline(env, state, notes, key_action)
            state = env.step(state, action)
            return (state, notes, total + state.reward), None

        start = (env.reset(key), blank(env), jnp.zeros((), jnp.float32))
        steps = jnp.arange(env.limits.horizon, dtype=jnp.int32)
        (state, _, total), _ = jax.lax.scan(step, start, steps)
        return {"return": total, **state.metrics}

    return jax.vmap(one)(keys)
