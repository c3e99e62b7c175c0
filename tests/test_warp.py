"""The hammer on MJX-Warp against the hammer on C MuJoCo, with purejaxppo[warp]."""

import jax
import mujoco
import pytest
from hammer_worlds import (
    CARRY,
    GRIP,
    MOMENTS,
    NUM_WORLDS,
    assert_nan_stays_in_its_world,
    assert_plays_the_whole_demonstration,
    at,
    control,
    largest,
    worlds,
)

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.physics import engine as physics_engine
from purejaxppo.envs.physics import warp as warp_engine
from purejaxppo.errors import ConfigError


@pytest.fixture(scope="module")
def env():
    return worlds().env


@pytest.fixture(scope="module")
def warp_env():
    return hammer.make(engine="warp")


@pytest.fixture(scope="module")
def warp_step(warp_env):
    return jax.jit(jax.vmap(warp_env.step))


def assert_steps_like_c(step, c_step, demonstration, moment):
    """Nearer than MJX, which has another weld: float32 and the order of contacts."""
    state, action = at(demonstration, moment)
    ours = step(state, {"arm": action}).data.physics
    physics = state.data.physics
    theirs = c_step(physics, *control(physics, action), 5)
    assert largest(ours.qpos, theirs.qpos) < 2e-4
    assert largest(ours.qvel, theirs.qvel) < 1e-2
    assert largest(ours.sensordata, theirs.sensordata) < 2e-4
    assert largest(ours.time, theirs.time) == 0.0
    assert not ours.unstable.any()


@pytest.mark.parametrize("moment", MOMENTS)
def test_warp_one_step(c_step, demonstration, warp_step, moment):
    assert_steps_like_c(warp_step, c_step, demonstration, moment)


def test_warp_plays_the_whole_demonstration(demonstration, warp_step):
    assert_plays_the_whole_demonstration(warp_step, demonstration)


def test_nan_in_one_world_stays_there(demonstration, warp_step):
    assert_nan_stays_in_its_world(warp_step, demonstration)


def test_warp_folds_seeds_and_worlds_into_one_batch(
    warp_env, warp_step, demonstration, monkeypatch
):
    state, action = at(demonstration, CARRY)
    flat = warp_step(state, {"arm": action})

    batches = []
    blank_world = warp_engine.blank_world

    def spy(model, sizes, num_worlds):
        batches.append(num_worlds)
        return blank_world(model, sizes, num_worlds)

    monkeypatch.setattr(warp_engine, "blank_world", spy)
    nested = jax.tree.map(
        lambda x: x.reshape(2, NUM_WORLDS // 2, *x.shape[1:]), (state, {"arm": action})
    )
    folded = jax.jit(jax.vmap(jax.vmap(warp_env.step)))(*nested)
    # JAX traces one world, then worlds, then seeds; the last is what runs.
    assert batches[-1] == NUM_WORLDS
    for ours, theirs in zip(
        jax.tree.leaves(folded), jax.tree.leaves(flat), strict=True
    ):
        assert largest(ours.reshape(theirs.shape), theirs) < 1e-5


def test_warp_never_loses_a_contact_in_silence(env, demonstration, monkeypatch):
    """Where the buffers are too small the world is quarantined, and counted."""
    monkeypatch.setattr(
        warp_engine, "buffer_sizes", lambda model: warp_engine.Sizes(33, 8)
    )
    engine = physics_engine.make_engine("warp", env.engine.model)
    physics = at(demonstration, GRIP)[0].data.physics
    ctrl, mocap_pos = control(physics, at(demonstration, GRIP)[1])
    step = jax.jit(jax.vmap(lambda d, c, m: engine.step(d, c, m, 1)))
    assert bool(step(physics, ctrl, mocap_pos).unstable.all())


def test_warp_needs_a_list_of_contacts():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="plane" size="1 1 1"/><body><freejoint/>
        <geom size="1"/></body></worldbody></mujoco>"""
    )
    with pytest.raises(ConfigError, match="allowed is a list of <pair>s"):
        warp_engine.make_advance(model)
