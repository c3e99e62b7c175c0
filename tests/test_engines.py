"""The engines against plain MuJoCo, each other, and broken worlds.

One set of states serves all: a demonstration, looked at while the hand moves freely,
grips, carries and strikes.
"""

import importlib.metadata

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import quick_jit

from purejaxppo.config import Config
from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer import scene
from purejaxppo.envs.physics import engine as physics_engine
from purejaxppo.envs.physics import mujoco as c_engine
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.numerics import import_mjx, permissive_numerics
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.update import as_arrays

NUM_WORLDS = 8
NUM_STEPS = 64
STILL, FREE, GRIP, CARRY, STRIKE = 0, 8, 30, 40, 56
MOMENTS = (STILL, FREE, GRIP, CARRY, STRIKE)


@pytest.fixture(scope="module")
def env():
    return hammer.make(engine="mujoco")


@pytest.fixture(scope="module")
def demonstration(env):
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


@pytest.fixture(scope="module")
def c_step(env):
    return jax.jit(jax.vmap(env.engine.step, (0, 0, 0, None)), static_argnums=3)


@pytest.fixture(scope="session")
def mjx_env():
    return hammer.make(engine="mjx")


@pytest.fixture(scope="session")
def mjx_step(mjx_env):
    """The one MJX program of the tests: a step of NUM_WORLDS environments."""
    return quick_jit(jax.vmap(mjx_env.step))


@pytest.fixture(scope="session")
def warp_env():
    if not physics_engine.warp_installed():
        pytest.skip("warp-lang is not installed (the extra purejaxppo[warp])")
    return hammer.make(engine="warp")


@pytest.fixture(scope="session")
def warp_step(warp_env):
    return jax.jit(jax.vmap(warp_env.step))


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


@pytest.mark.parametrize("kind", ["mujoco", "mjx", "warp"])
def test_nan_in_one_world_stays_there(kind, env, demonstration, request):
    step = jax.jit(jax.vmap(env.step))
    if kind != "mujoco":
        step = request.getfixturevalue(f"{kind}_step")
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


# MJX against C


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


def test_mjx_plays_the_whole_demonstration(demonstration, mjx_env, mjx_step, env):
    """Actions from C, open loop, in MJX: the same nail, driven by the same hammer."""
    states, actions = demonstration
    state = jax.tree.map(lambda x: x[0], states)
    for action in actions:
        state = mjx_step(state, {"arm": action})
    end = jax.tree.map(lambda x: x[-1], states)
    assert largest(state.obs[:, :3], end.obs[:, :3]) < 0.02  # the hand moved 0.2
    assert largest(state.obs[:, 4:7], end.obs[:, 4:7]) < 0.02
    assert float(jnp.abs(state.metrics["success"] - end.metrics["success"]).sum()) <= 2
    assert float(state.metrics["unstable"].sum()) == 0.0


# Warp against C


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
    states, actions = demonstration
    state = jax.tree.map(lambda x: x[0], states)
    for action in actions:
        state = warp_step(state, {"arm": action})
    end = jax.tree.map(lambda x: x[-1], states)
    assert largest(state.obs[:, :3], end.obs[:, :3]) < 0.02  # the hand moved 0.2
    assert largest(state.obs[:, 4:7], end.obs[:, 4:7]) < 0.02
    assert float(jnp.abs(state.metrics["success"] - end.metrics["success"]).sum()) <= 2
    assert float(state.metrics["unstable"].sum()) == 0.0


def test_warp_folds_seeds_and_worlds_into_one_batch(
    warp_env, warp_step, demonstration, monkeypatch
):
    from purejaxppo.envs.physics import warp as warp_engine

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
    warp_engine = pytest.importorskip("purejaxppo.envs.physics.warp")
    monkeypatch.setattr(
        warp_engine, "buffer_sizes", lambda model: warp_engine.Sizes(33, 8)
    )
    engine = physics_engine.make_engine("warp", env.engine.model)
    physics = at(demonstration, GRIP)[0].data.physics
    ctrl, mocap_pos = control(physics, at(demonstration, GRIP)[1])
    step = jax.jit(jax.vmap(lambda d, c, m: engine.step(d, c, m, 1)))
    assert bool(step(physics, ctrl, mocap_pos).unstable.all())


def test_warp_needs_a_list_of_contacts():
    warp_engine = pytest.importorskip("purejaxppo.envs.physics.warp")
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="plane" size="1 1 1"/><body><freejoint/>
        <geom size="1"/></body></worldbody></mujoco>"""
    )
    with pytest.raises(ConfigError, match="allowed is a list of <pair>s"):
        warp_engine.make_advance(model)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["NONE", "JAX", "WARP", "WARP_STAGED"])
def test_warp_graph_modes_are_mj_step(mode):
    """Without the fixtures above: the C engine's programs are for a CPU."""
    if not (physics_engine.on_nvidia() and physics_engine.warp_installed()):
        pytest.skip("needs an NVIDIA GPU and the extra purejaxppo[warp]")
    import warp

    from purejaxppo.envs.physics.warp import make_advance

    env = hammer.make(engine="warp")
    model = env.engine.model
    advance = make_advance(model, warp.JaxCallableGraphMode[mode])
    step = jax.jit(
        jax.vmap(lambda d, c, m: physics_engine.step(model, advance, d, c, m, 5))
    )
    physics = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4)).data.physics
    # The first call captures a graph, the next ones replay it.
    for _ in range(4):
        ctrl, mocap_pos = control(physics, jnp.ones((4, 4), jnp.float32))
        after = step(physics, ctrl, mocap_pos)
        for i in range(4):
            world = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), physics)
            plain = plain_step(model, world, ctrl[i], mocap_pos[i], 5)
            assert largest(after.qpos[i], plain.qpos) < 2e-4
            assert largest(after.sensordata[i], plain.sensordata) < 2e-4
        physics = after


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
        quick_jit(jax.vmap(jax.vmap(e.step)))(states, {"arm": actions})
        for e in (env, strict)
    ]
    near, exact = (np.asarray(state.data.physics.qpos) for state in after)
    assert 0.0 < np.abs(near - exact).max() < 1e-3
