"""The hammer on MJX against the hammer on C MuJoCo."""

import jax
import numpy as np
import pytest
from hammer_worlds import (
    CARRY,
    FREE,
    GRIP,
    STRIKE,
    assert_nan_stays_in_its_world,
    assert_plays_the_whole_demonstration,
    at,
    control,
    largest,
)

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.numerics import import_mjx, permissive_numerics


@pytest.fixture(scope="module")
def mjx_env():
    return hammer.make(engine="mjx")


@pytest.fixture(scope="module")
def mjx_step(mjx_env):
    """The one MJX program of the tests: a step of NUM_WORLDS environments."""
    return jax.jit(jax.vmap(mjx_env.step))


def test_no_chain_of_bodies_is_fused_into_one_kernel(mjx_env):
    """XLA's CPU backend would compute it anew for each body: exponential in length."""
    mjx = import_mjx()
    assert import_mjx() is mjx  # the barrier is there once, however often it is asked
    model = mjx.put_model(mjx_env.engine.model, impl="jax")
    with permissive_numerics():
        data = mjx.make_data(mjx_env.engine.model, impl="jax")
        traced = jax.make_jaxpr(lambda data: mjx.kinematics(model, data))(data)
    depth = np.zeros(model.nbody, int)
    for body in range(1, model.nbody):
        depth[body] = depth[model.body_parentid[body]] + 1
    barriers = str(traced).count("optimization_barrier")
    assert depth.max() > 7
    assert barriers >= depth.max()


def test_mjx_free_motion(c_step, demonstration, mjx_step):
    """Where nothing touches and nothing moves fast, only float32 differs."""
    state, action = at(demonstration, FREE)
    physics = state.data.physics
    # C's weld has a term in the velocity squared, MJX's has not: slow it away.
    slow = physics.replace(
        qvel=0.01 * physics.qvel, mocap_pos=physics.sensordata[:, None, :3]
    )
    state = state.replace(data=state.data.replace(physics=slow))
    action = 0.1 * action
    ours = mjx_step(state, {"arm": action}).data.physics
    theirs = c_step(slow, *control(slow, action), 5)
    assert largest(ours.qpos, theirs.qpos) < 2e-6
    assert largest(ours.qvel, theirs.qvel) < 2e-4
    assert largest(ours.sensordata, theirs.sensordata) < 2e-6
    assert largest(ours.time, theirs.time) == 0.0


@pytest.mark.parametrize(
    ("moment", "position", "velocity"),
    [(FREE, 3e-4, 0.04), (GRIP, 2e-3, 0.4), (CARRY, 1e-3, 0.2), (STRIKE, 2e-3, 0.4)],
)
def test_mjx_one_step(c_step, demonstration, mjx_step, moment, position, velocity):
    """At full speed and in contact: the weld's term, and where contacts are put."""
    state, action = at(demonstration, moment)
    ours = mjx_step(state, {"arm": action}).data.physics
    physics = state.data.physics
    theirs = c_step(physics, *control(physics, action), 5)
    assert largest(ours.qpos, theirs.qpos) < position
    assert largest(ours.qvel, theirs.qvel) < velocity
    assert largest(ours.sensordata, theirs.sensordata) < 2 * position


def test_mjx_plays_the_whole_demonstration(demonstration, mjx_step):
    assert_plays_the_whole_demonstration(mjx_step, demonstration)


def test_nan_in_one_world_stays_there(demonstration, mjx_step):
    assert_nan_stays_in_its_world(mjx_step, demonstration)
