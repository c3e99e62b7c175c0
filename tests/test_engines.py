"""The C engine against plain MuJoCo, broken worlds, and which engine is chosen."""

import importlib.metadata

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hammer_worlds import (
    CARRY,
    FREE,
    GRIP,
    MOMENTS,
    NUM_WORLDS,
    STILL,
    STRIKE,
    assert_nan_stays_in_its_world,
    at,
    control,
    largest,
    plain_step,
    same_bits,
    worlds,
)

from purejaxppo.config import Config
from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer import scene
from purejaxppo.envs.physics import engine as physics_engine
from purejaxppo.envs.physics import mujoco as c_engine
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.update import as_arrays


@pytest.fixture(scope="module")
def env():
    return worlds().env


# The C engine


@pytest.mark.parametrize("moment", MOMENTS)
def test_c_engine_is_mj_step(env, c_step, demonstration, moment):
    state, action = at(demonstration, moment)
    before = state.data.physics
    ctrl, mocap_pos = control(before, action)
    after = c_step(before, ctrl, mocap_pos, scene.N_SUBSTEPS)
    for i in range(NUM_WORLDS):
        world = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), before)
        plain = plain_step(env.engine.model, world, ctrl[i], mocap_pos[i], 5)
        # Nothing but rounding to float32, of positions of at most a few metres.
        assert largest(after.qpos[i], plain.qpos) < 5e-7
        assert largest(after.qvel[i], plain.qvel) < 5e-6
        assert largest(after.sensordata[i], plain.sensordata) < 5e-7


def test_sensors_are_of_the_state_they_come_with(env, demonstration):
    model = env.engine.model
    world = mujoco.MjData(model)
    physics = at(demonstration, CARRY)[0].data.physics
    for i in range(NUM_WORLDS):
        world.qpos[:] = physics.qpos[i]
        mujoco.mj_kinematics(model, world)
        for name, where in physics_engine.sensor_slices(model).items():
            site = world.site("face" if name == "face_normal" else name)
            expected = site.xmat[1::3] if name == "face_normal" else site.xpos
            np.testing.assert_allclose(
                physics.sensordata[i, where], expected, rtol=0, atol=2e-7
            )


def test_no_substeps_only_read_the_sensors(env, demonstration):
    physics = at(demonstration, CARRY)[0].data.physics
    world = jax.tree.map(lambda x: x[0], physics)
    fresh = env.engine.init(world.qpos, world.qvel, world.mocap_pos, world.mocap_quat)
    np.testing.assert_allclose(fresh.sensordata, world.sensordata, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(fresh.qpos, world.qpos)
    assert not fresh.unstable


def test_c_engine_depends_on_the_world_alone(c_step, demonstration):
    """Not on the batch, its order, its size or the thread: resuming relies on it."""
    state, action = at(demonstration, STRIKE)
    physics = state.data.physics
    # More worlds than threads take in one piece, so that the split differs too.
    wide = jax.tree.map(lambda x: jnp.repeat(x, 12, axis=0), physics)
    ctrl, mocap_pos = control(wide, jnp.repeat(action, 12, axis=0))
    reference = c_step(wide, ctrl, mocap_pos, 5)
    again = c_step(wide, ctrl, mocap_pos, 5)
    assert same_bits(reference, again)

    order = np.random.default_rng(0).permutation(len(ctrl))
    shuffled = jax.tree.map(lambda x: x[order], (wide, ctrl, mocap_pos))
    expected = jax.tree.map(lambda x: x[order], reference)
    assert same_bits(c_step(*shuffled, 5), expected)

    few = jax.tree.map(lambda x: x[::12][:3], (wide, ctrl, mocap_pos))
    expected = jax.tree.map(lambda x: x[::12][:3], reference)
    assert same_bits(c_step(*few, 5), expected)


def test_vmap_of_vmap_is_one_flat_batch(env, c_step, demonstration, monkeypatch):
    state, action = at(demonstration, GRIP)
    physics = state.data.physics
    ctrl, mocap_pos = control(physics, action)
    flat = jax.block_until_ready(c_step(physics, ctrl, mocap_pos, 5))

    batches = []
    advance = c_engine.Simulator.advance

    def spy(self, states, *rest):
        batches.append(len(states))
        return advance(self, states, *rest)

    monkeypatch.setattr(c_engine.Simulator, "advance", spy)
    nested = jax.tree.map(
        lambda x: x.reshape(2, NUM_WORLDS // 2, *x.shape[1:]),
        (physics, ctrl, mocap_pos),
    )
    step = jax.vmap(jax.vmap(lambda d, c, m: env.engine.step(d, c, m, 5)))
    folded = jax.jit(step)(*nested)
    folded = jax.tree.map(lambda x: x.reshape(NUM_WORLDS, *x.shape[2:]), folded)
    assert same_bits(folded, flat)
    assert batches == [NUM_WORLDS]


def test_one_world_is_as_good_as_a_batch(env, c_step, demonstration):
    state, action = at(demonstration, FREE)
    physics = state.data.physics
    ctrl, mocap_pos = control(physics, action)
    batch = c_step(physics, ctrl, mocap_pos, 5)
    single = jax.tree.map(lambda x: x[2], (physics, ctrl, mocap_pos))
    alone = env.engine.step(*single, 5)
    assert same_bits(alone, jax.tree.map(lambda x: x[2], batch))


# Broken worlds


def test_nan_in_one_world_stays_there(env, demonstration):
    assert_nan_stays_in_its_world(jax.jit(jax.vmap(env.step)), demonstration)


def test_exploding_world_is_quarantined_without_a_word(
    env, c_step, demonstration, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    state, action = at(demonstration, STILL)
    physics = state.data.physics
    ctrl, mocap_pos = control(physics, action)
    fast = physics.replace(qvel=physics.qvel.at[1, 9:15].set(5e3))
    after = c_step(fast, ctrl, mocap_pos, 5)
    np.testing.assert_array_equal(after.unstable, np.arange(NUM_WORLDS) == 1)
    assert same_bits(after.qvel[1], fast.qvel[1])
    # MuJoCo by itself writes to both, at each blow-up.
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("qpos", jnp.nan), ("qvel", jnp.inf), ("qpos", 2e3), ("qvel", -2e4)],
)
def test_quarantine_catches_each_kind(env, demonstration, field, value):
    before = jax.tree.map(lambda x: x[0], at(demonstration, FREE)[0].data.physics)
    array = getattr(before, field)
    after = before.replace(**{field: array.at[4].set(value)})
    result = physics_engine.select_stable(before, after)
    assert bool(result.unstable)
    assert same_bits(result.replace(unstable=before.unstable), before)
    assert not bool(physics_engine.select_stable(before, before).unstable)


def test_rollout_evaluation_and_demonstrations_share_one_trace(monkeypatch):
    make, traced = c_engine.make_advance, []

    def counting(model):
        advance = make(model)

        def counted(data, n_substeps):
            traced.append(n_substeps)
            return advance(data, n_substeps)

        return counted

    monkeypatch.setattr(c_engine, "make_advance", counting)
    config = Config.preset("hammer", num_envs=4, num_steps=4)
    learner = make_learner(config, hammer.make())
    key, hypers = jax.random.key(0), as_arrays(config.hypers)
    demonstrations = jax.eval_shape(learner.collect, key)
    state, _ = jax.eval_shape(learner.init, key, hypers, demonstrations)
    jax.eval_shape(learner.update, state, hypers)
    jax.eval_shape(learner.evaluate, state)
    assert traced == [scene.N_SUBSTEPS]


# Choosing an engine


def test_auto_is_c_on_a_cpu(env):
    assert physics_engine.make_engine("auto", env.engine.model).name == "mujoco"


def test_unknown_engine_names_the_known_ones(env):
    with pytest.raises(UnknownName, match=r"got 'brax'.*auto, mjx, mujoco, warp"):
        physics_engine.make_engine("brax", env.engine.model)


def pretend(monkeypatch, backend, installed):
    """A machine whose JAX runs there, with or without the package."""

    def devices(platform=None):
        kinds = {"cuda": ("gpu", "cuda"), "rocm": ("gpu", "rocm")}.get(backend, backend)
        if platform is None or platform in kinds:
            return [backend]
        raise RuntimeError(f"unknown backend {platform}")

    def version(package):
        assert package == "warp-lang"
        if not installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.18.0"

    name = "gpu" if backend in ("cuda", "rocm") else backend
    monkeypatch.setattr(jax, "default_backend", lambda: name)
    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("backend", "installed", "expected"),
    [
        ("cpu", True, "mujoco"),
        ("cuda", True, "warp"),
        ("cuda", False, "mjx"),
        ("rocm", True, "mjx"),
        ("tpu", True, "mjx"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(
    monkeypatch, backend, installed, expected
):
    pretend(monkeypatch, backend, installed)
    assert physics_engine.choose_engine() == expected


@pytest.mark.parametrize(
    ("backend", "installed", "allowed"),
    [
        ("cpu", False, r"mujoco or mjx until purejaxppo\[warp\] is installed"),
        ("cuda", False, r"mujoco or mjx until purejaxppo\[warp\] is installed"),
        ("tpu", True, "auto or mjx where JAX runs on a tpu"),
        ("rocm", True, "auto or mjx where JAX runs on a gpu"),
    ],
)
def test_warp_says_what_is_missing(env, monkeypatch, backend, installed, allowed):
    pretend(monkeypatch, backend, installed)
    with pytest.raises(ConfigError, match=f"engine: got 'warp'; allowed is {allowed}$"):
        physics_engine.make_engine("warp", env.engine.model)


def test_c_engine_says_that_it_is_for_a_cpu(env, monkeypatch):
    pretend(monkeypatch, "cuda", installed=False)
    with pytest.raises(
        ConfigError, match=r"got 'mujoco'; allowed is auto, mjx or warp"
    ):
        physics_engine.make_engine("mujoco", env.engine.model)


def test_sensors_of_forces_are_refused():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><freejoint/><geom size="1"/><site name="s"/></body>
        </worldbody><sensor><touch name="touch" site="s"/></sensor></mujoco>"""
    )
    with pytest.raises(ConfigError, match="sensor: got 'touch'"):
        physics_engine.make_engine("mujoco", model)


def test_activations_are_refused():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><joint name="j"/><geom size="1"/></body>
        </worldbody><actuator><intvelocity joint="j" actrange="-1 1"/></actuator>
        </mujoco>"""
    )
    with pytest.raises(ConfigError, match="state of qpos and qvel"):
        physics_engine.make_engine("mujoco", model)


def test_the_solver_is_nearly_run_to_its_end(env, demonstration, monkeypatch):
    """One environment step under the scene's settings, and under far stricter ones.

    What they were chosen by is in benchmarks/results/physics_scene.json.
    """
    model = scene.load()
    options = model.opt
    options.iterations, options.ls_iterations, options.tolerance = 100, 50, 1e-12
    monkeypatch.setattr(scene, "load", lambda: model)
    strict = hammer.make(engine="mujoco")
    assert env.engine.model.opt.iterations < strict.engine.model.opt.iterations
    states, actions = jax.tree.map(lambda x: x[np.array(MOMENTS)], demonstration)
    after = [
        jax.jit(jax.vmap(jax.vmap(e.step)))(states, {"arm": actions})
        for e in (env, strict)
    ]
    near, exact = (np.asarray(state.data.physics.qpos) for state in after)
    assert 0.0 < np.abs(near - exact).max() < 1e-3
