"""One set of states of the hammer for the tests of all engines.

A demonstration, looked at while the hand moves freely, grips, carries and strikes; and
how a step from one of those moments is compared with another engine's.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer import scene

NUM_WORLDS = 8
NUM_STEPS = 64
STILL, FREE, GRIP, CARRY, STRIKE = 0, 8, 30, 40, 56
MOMENTS = (STILL, FREE, GRIP, CARRY, STRIKE)


class Worlds(NamedTuple):
    """The hammer on C MuJoCo, and what was recorded with it."""

    env: Any
    c_step: Callable  # a step of the engine: (data, ctrl, mocap_pos, substeps)
    demonstration: tuple[Any, jax.Array]  # states [T, N] before actions [T, N, 4]


@functools.cache
def worlds() -> Worlds:
    """Made once in a process, whichever files ask."""
    env = hammer.make(engine="mujoco")
    c_step = jax.jit(jax.vmap(env.engine.step, (0, 0, 0, None)), static_argnums=3)
    return Worlds(env, c_step, _demonstrate(env))


def _demonstrate(env):
    """States [T, N] before each step, actions [T, N, 4], of NUM_WORLDS worlds."""

    def body(state, _):
        action = jax.vmap(env.demonstrator)(state)
        return jax.vmap(env.step)(state, action), (state, action["arm"])

    def run(key):
        states = jax.vmap(env.reset)(jax.random.split(key, NUM_WORLDS))
        return jax.lax.scan(body, states, length=NUM_STEPS)[1]

    states, actions = jax.jit(run)(jax.random.key(3))
    nail = states.data.physics.qpos[:, :, scene.NAIL_QPOS]
    assert (nail[STRIKE] > 0.01).any(), "the demonstration never got to the nail"
    return states, actions


def at(demonstration, moment):
    states, actions = demonstration
    return jax.tree.map(lambda x: x[moment], states), actions[moment]


def control(data, action):
    """What the environment applies for an action: ctrl [N, 2], mocap [N, 1, 3]."""
    low, high = jnp.array([scene.MOCAP_LOW]), jnp.array([scene.MOCAP_HIGH])
    moved = data.mocap_pos + 0.01 * action[:, None, :3]
    ctrl = jnp.stack([action[:, 3], -action[:, 3]], axis=1)
    return ctrl, jnp.clip(moved, low[None], high[None])


def plain_step(model, data, ctrl, mocap_pos, num_substeps):
    """mj_step in a loop, then mj_forward: what Meta-World does. One world."""
    world = mujoco.MjData(model)
    world.qpos[:], world.qvel[:] = data.qpos, data.qvel
    world.ctrl[:], world.mocap_pos[:] = ctrl, mocap_pos
    world.mocap_quat[:] = data.mocap_quat
    for _ in range(num_substeps):
        mujoco.mj_step(model, world)
    mujoco.mj_forward(model, world)
    return world


def same_bits(a, b):
    """Are two trees equal to the last bit?"""
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def largest(a, b):
    return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))


def assert_nan_stays_in_its_world(step, demonstration):
    """A step with NaN in the action of world 5, and the same step without."""
    state, action = at(demonstration, GRIP)
    reference = step(state, {"arm": action})
    broken = step(state, {"arm": action.at[5, 1].set(jnp.nan)})

    others = np.delete(np.arange(NUM_WORLDS), 5)
    pick = lambda tree: jax.tree.map(lambda x: x[others], tree)  # noqa: E731
    assert same_bits(pick(broken), pick(reference))

    world = jax.tree.map(lambda x: x[5], broken)
    before = jax.tree.map(lambda x: x[5], state)
    assert bool(world.truncated)
    assert not bool(world.terminated)
    assert float(world.reward) == 0.0
    assert float(world.metrics["unstable"]) == 1.0
    np.testing.assert_array_equal(world.obs, before.obs)
    unmarked = world.data.physics.replace(unstable=before.data.physics.unstable)
    assert same_bits(unmarked, before.data.physics)


def assert_plays_the_whole_demonstration(step, demonstration):
    """Actions from C, open loop: the same nail, driven by the same hammer."""
    states, actions = demonstration
    state = jax.tree.map(lambda x: x[0], states)
    for action in actions:
        state = step(state, {"arm": action})
    end = jax.tree.map(lambda x: x[-1], states)
    assert largest(state.obs[:, :3], end.obs[:, :3]) < 0.02  # the hand moved 0.2
    assert largest(state.obs[:, 4:7], end.obs[:, 4:7]) < 0.02
    assert float(jnp.abs(state.metrics["success"] - end.metrics["success"]).sum()) <= 2
    assert float(state.metrics["unstable"].sum()) == 0.0
