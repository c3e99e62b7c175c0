"""The hammer environment: what it promises, and that it cannot be fooled."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from purejaxppo.env import Box
from purejaxppo.envs.hammer import contact, observation, scene
from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer.presets import PRESETS
from purejaxppo.envs.physics import mujoco as c_engine
from purejaxppo.envs.physics.engine import sensor_slices
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.registry import make_env

NUM_EPISODES = 100


@pytest.fixture(scope="module")
def env():
    return hammer.make()


@pytest.fixture(scope="module")
def course():
    return hammer.make(protocol="cs224r")


@pytest.fixture(scope="module")
def resets(env):
    return jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 1000))


@pytest.fixture(scope="module")
def course_resets(course):
    return jax.jit(jax.vmap(course.reset))(jax.random.split(jax.random.key(1), 1000))


def play(env, policy, num_steps, num_worlds=NUM_EPISODES, seed=0):
    """States [T, N] after each step of a policy, no resets."""

    def body(state, _):
        state = jax.vmap(env.step)(state, {"arm": jax.vmap(policy)(state)})
        return state, state

    def run(key):
        states = jax.vmap(env.reset)(jax.random.split(key, num_worlds))
        return jax.lax.scan(body, states, length=num_steps)[1]

    return jax.jit(run)(jax.random.key(seed))


@pytest.fixture(scope="module")
def demonstrations(env):
    return play(env, lambda s: env.demonstrator(s)["arm"], 90)


@pytest.fixture(scope="module")
def pushes(env):
    """Episodes of the exploit: fists against the nail, the hammer left alone."""

    def push(state):
        hand = state.obs[:3]
        before = jnp.array([0.24, 0.55, 0.14])
        aligned = jnp.hypot(hand[0] - before[0], hand[2] - before[2]) < 0.02
        target = before.at[1].set(jnp.where(aligned, 0.95, before[1]))
        move = jnp.clip(10.0 * (target - hand), -1.0, 1.0)
        return jnp.concatenate([move, jnp.ones(1)])

    return play(env, push, 60, num_worlds=20)


def first(flags):
    """Step, from 1, at which each world's flag [T, N] first holds; 0: never."""
    flags = np.asarray(flags) > 0
    return np.where(flags.any(0), flags.argmax(0) + 1, 0)


def with_nail_at(state, slide):
    physics = state.data.physics
    physics = physics.replace(qpos=physics.qpos.at[scene.NAIL_QPOS].set(slide))
    return state.replace(data=state.data.replace(physics=physics))


# Construction


def test_spec(env, course):
    assert env.spec.name == course.spec.name == "hammer"
    assert env.spec.heads == {"arm": Box(4)}
    assert env.spec.max_episode_steps == 500
    assert course.spec.max_episode_steps == 50
    assert hammer.make(max_episode_steps=120).spec.max_episode_steps == 120


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"reward": "shaped"}, UnknownName, "reward: got 'shaped'.*dense, sparse"),
        ({"protocol": "v2"}, UnknownName, "protocol: got 'v2'.*cs224r, v3"),
        ({"engine": "bullet"}, UnknownName, "engine: got 'bullet'.*auto, mjx, mujoco"),
        ({"max_episode_steps": 0}, ConfigError, "max_episode_steps: got 0.*at least 1"),
        ({"max_episode_steps": 9.5}, ConfigError, "max_episode_steps: got 9.5"),
        ({"hammers": 2}, ConfigError, "env_kwargs: .*hammers"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        make_env("hammer", **arguments)


@pytest.mark.parametrize("name", ["default", "v3", "cs224r"])
def test_presets_can_be_made(name):
    env = make_env("hammer", **PRESETS[name].get("env_kwargs", {}))
    assert env.spec.max_episode_steps == (50 if name == "cs224r" else 500)


def test_naming_the_presets_loads_no_physics():
    code = "import sys, purejaxppo.envs.hammer; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Reset


def test_reset_observation(resets):
    obs = np.asarray(resets.obs)
    assert obs.shape == (1000, 39)
    assert obs.dtype == np.float32
    assert np.isfinite(obs).all()
    # The arm's own numbers are the baked ones, the same each time.
    np.testing.assert_allclose(obs[:, :3] - (0.0048, 0.4002, 0.1957), 0, atol=1e-4)
    np.testing.assert_array_equal(obs[:, 3], 1.0)
    np.testing.assert_array_equal(obs[:, 6], 0.0)  # the hammer, in the table
    np.testing.assert_allclose(obs[:, 11:14] - (0.24, 0.64, 0.11), 0, atol=1e-6)
    np.testing.assert_array_equal(obs[:, 14:18] - (1, 0, 0, 0), 0)
    np.testing.assert_array_equal(obs[:, 18:36], obs[:, :18])
    np.testing.assert_array_equal(obs[:, 36:], 0.0)  # the goal is hidden
    for leaf in (resets.reward, resets.terminated, resets.truncated):
        assert not np.asarray(leaf).any()
    assert all(not np.asarray(v).any() for v in resets.metrics.values())


@pytest.mark.parametrize("which", ["resets", "course_resets"])
def test_hammer_starts_everywhere(which, request):
    xy = np.asarray(request.getfixturevalue(which).obs[:, 4:6])
    assert len(np.unique(xy, axis=0)) == 1000
    low, high = np.array([-0.1, 0.4]), np.array([0.1, 0.5])
    assert (xy >= low).all()
    assert (xy <= high).all()
    # Uniform: every twentieth of both ranges is met, and the mean is the middle.
    for axis in range(2):
        counts, _ = np.histogram(xy[:, axis], 20, (low[axis], high[axis]))
        assert counts.min() > 20
    np.testing.assert_allclose(xy.mean(0), (low + high) / 2, atol=0.006)
    assert abs(np.corrcoef(xy.T)[0, 1]) < 0.1


@pytest.mark.parametrize("which", ["resets", "course_resets"])
def test_reset_sensors_are_of_the_shifted_hammer(which, env, request):
    model = env.engine.model
    world = mujoco.MjData(model)
    physics = request.getfixturevalue(which).data.physics
    for i in range(5):
        world.qpos[:] = physics.qpos[i]
        mujoco.mj_forward(model, world)
        np.testing.assert_allclose(
            physics.sensordata[i], world.sensordata, rtol=0, atol=3e-7
        )


def test_reset_is_without_physics(env, monkeypatch):
    def fail(*_):
        raise AssertionError("a reset called the engine")

    monkeypatch.setattr(c_engine.Simulator, "advance", fail)
    text = str(jax.make_jaxpr(env.reset)(jax.random.key(0)))
    assert "ffi_call" not in text
    assert "ffi_call" in str(jax.make_jaxpr(env.engine.init)(jnp.zeros(17)))
    env.reset(jax.random.key(0))


def test_the_hammer_pops_up_and_settles(env):
    """It starts inside the table; official Meta-World keeps that, and so do we."""
    states = play(env, lambda s: jnp.zeros(4), 60, num_worlds=4)
    height = np.asarray(states.obs[:, :, 6])
    assert 0.030 < height.max() < 0.036
    np.testing.assert_allclose(height[-1], 0.0284, atol=2e-4)


# Step


def test_step_keeps_shapes_dtypes_and_strong_types(env):
    state = env.reset(jax.random.key(0))
    after = env.step(state, {"arm": jnp.ones(4)})
    describe = lambda s: jax.tree.map(  # noqa: E731
        lambda x: (x.shape, x.dtype, x.weak_type), s
    )
    assert describe(state) == describe(after)
    floats = {x.dtype for x in jax.tree.leaves(after)} - {jnp.dtype(bool)}
    assert floats == {jnp.dtype(jnp.float32)}


def test_mocap_moves_from_its_own_last_place(env):
    state = env.reset(jax.random.key(0))
    np.testing.assert_allclose(state.data.physics.mocap_pos, [[0, 0.4, 0.2]])
    step = jax.jit(env.step)
    state = step(state, {"arm": jnp.array([0.5, 3.0, -1.0, 0.0])})
    state = step(state, {"arm": jnp.array([0.5, 1.0, -1.0, 0.25])})
    np.testing.assert_allclose(
        state.data.physics.mocap_pos, [[0.01, 0.42, 0.18]], atol=1e-6
    )
    np.testing.assert_allclose(state.data.physics.ctrl, [0.25, -0.25])


def test_mocap_stays_in_its_box(env):
    for direction in (-1.0, 1.0):
        action = jnp.array([direction, direction, direction, 0.0])
        states = play(env, lambda s, a=action: a, 110, num_worlds=1)
        edge = scene.MOCAP_HIGH if direction > 0 else scene.MOCAP_LOW
        mocap = states.data.physics.mocap_pos[-1, 0, 0]
        np.testing.assert_allclose(mocap, edge, atol=1e-6)


def test_observation_remembers_one_step(env):
    def wander(state):
        return 3.0 * jnp.sin(40.0 * state.data.physics.time + jnp.arange(4.0))

    states = play(env, wander, 30, num_worlds=3)
    obs, kept = np.asarray(states.obs), np.asarray(states.data.block)
    np.testing.assert_array_equal(obs[1:, :, 18:36], kept[:-1])
    assert np.ptp(obs[:, 0, 0]) > 0.02


def test_only_what_is_shown_is_clipped():
    block = jnp.arange(18.0) / 10
    shown = np.asarray(observation.clip_block(block.at[2].set(-0.3)))
    np.testing.assert_allclose(shown[:4], [0.0, 0.348, -0.0525, 0.3], atol=1e-7)
    np.testing.assert_array_equal(shown[4:], block[4:])
    high = np.asarray(observation.clip_block(jnp.full(18, 7.0)))
    np.testing.assert_allclose(high[:4], [0.525, 1.025, 0.7, 1.0], atol=1e-7)


def test_what_is_kept_is_not_clipped(env):
    """Like Meta-World: of a hand out of bounds, the next step shows it clipped."""
    state = env.reset(jax.random.key(0))
    physics = state.data.physics
    aside = physics.replace(qpos=physics.qpos.at[0].add(-1.5))  # the arm's base
    state = state.replace(data=state.data.replace(physics=aside))
    after = env.step(state, {"arm": jnp.zeros(4)})
    hand = after.data.block[:3]
    assert float(hand[1]) < 0.34
    np.testing.assert_allclose(after.obs[1], 0.348)
    next_obs = env.step(after, {"arm": jnp.zeros(4)}).obs
    np.testing.assert_allclose(next_obs[19], 0.348)


# The demonstrator, and the way around it


def test_demonstrator_v3(demonstrations):
    steps = first(demonstrations.metrics["hammered"])
    assert (steps > 0).sum() >= 99
    done = steps[steps > 0]
    assert done.min() >= 55
    assert done.max() <= 80
    np.testing.assert_array_equal(steps, first(demonstrations.metrics["success"]))
    assert np.isfinite(np.asarray(demonstrations.obs)).all()


def test_demonstrator_cs224r(course):
    states = play(course, lambda s: course.demonstrator(s)["arm"], 50)
    assert (np.asarray(states.metrics["success"][-1]) > 0).sum() >= 99


def test_demonstrator_recovers_a_dropped_hammer(env):
    """Stateless, so it starts over: let go once while it carries."""

    def clumsy(state):
        arm = env.demonstrator(state)["arm"]
        time = state.data.physics.time
        dropping = (time > 0.5) & (time < 0.75)
        return jnp.where(dropping & (jnp.arange(4) == 3), -1.0, arm)

    states = play(env, clumsy, 200, num_worlds=40)
    lifted = np.asarray(states.obs[:, :, 6])
    assert (lifted[38] > 0.05).any()  # it did carry by then
    assert (lifted[60:90].min(0) < 0.035).mean() > 0.8  # and did drop
    # Some roll where the fingers find no hold.
    assert np.asarray(states.metrics["hammered"][-1]).mean() > 0.6


def test_bare_fists_are_a_success_but_no_hammering(pushes):
    np.testing.assert_array_equal(pushes.metrics["success"][-1], 1.0)
    np.testing.assert_array_equal(pushes.metrics["hammered"][-1], 0.0)
    np.testing.assert_array_equal(pushes.reward, 0.0)
    assert not np.asarray(pushes.terminated).any()


# What counts as hammered, condition by condition


@pytest.fixture(scope="module")
def strike(env, demonstrations):
    """Sensors and nail slide of a world at the step on which it hammered."""
    step = first(demonstrations.metrics["hammered"])[0] - 1
    physics = jax.tree.map(lambda x: x[step, 0], demonstrations.data.physics)
    slices = sensor_slices(env.engine.model)
    sensors = {name: physics.sensordata[where] for name, where in slices.items()}
    return sensors, physics.qpos[scene.NAIL_QPOS]


def test_a_strike_counts(strike):
    assert bool(contact.face_on_nail(*strike))
    assert bool(contact.fingers_clear(*strike))


@pytest.mark.parametrize(
    ("moved", "why"),
    [
        ((0.0, -0.004, 0.0), "the face is short of the nail"),
        ((0.0, 0.05, 0.0), "the face is beyond it"),
        ((0.09, 0.0, 0.0), "it is beside it"),
        ((0.0, 0.0, 0.09), "it is above it"),
    ],
)
def test_a_face_elsewhere_does_not_count(strike, moved, why):
    sensors, slide = strike
    elsewhere = sensors | {"face": sensors["face"] + jnp.array(moved)}
    assert not bool(contact.face_on_nail(elsewhere, slide)), why


def test_a_turned_face_does_not_count(strike):
    sensors, slide = strike
    turned = sensors | {"face_normal": jnp.array([0.6, 0.8, 0.0])}
    assert not bool(contact.face_on_nail(turned, slide))


def test_a_hammer_on_the_table_does_not_count(strike):
    """Its disc then reaches the nail's lower edge, or nearly."""
    sensors, slide = strike
    face = contact.nail_position(slide) - jnp.array([0.0, 0.009, 0.0])
    level = sensors | {"face_normal": jnp.array([0.0, 1.0, 0.0])}
    assert not bool(
        contact.face_on_nail(level | {"face": face.at[2].set(0.045)}, slide)
    )
    assert bool(contact.face_on_nail(level | {"face": face.at[2].set(0.055)}, slide))


@pytest.mark.parametrize("pad", ["leftpad", "rightpad"])
def test_a_finger_on_the_nail_spoils_it(strike, pad):
    sensors, slide = strike
    front = contact.nail_position(slide) - jnp.array([0.0, 0.012, 0.0])
    assert not bool(contact.fingers_clear(sensors | {pad: front}, slide))
    away = front - jnp.array([0.0, 0.003, 0.0])
    assert bool(contact.fingers_clear(sensors | {pad: away}, slide))


@pytest.mark.parametrize("condition", ["face_on_nail", "fingers_clear"])
def test_each_condition_can_veto(env, demonstrations, monkeypatch, condition):
    step = first(demonstrations.metrics["hammered"])[0] - 2
    state = jax.tree.map(lambda x: x[step, 0], demonstrations)
    state = state.replace(data=state.data.replace(struck=jnp.zeros((), bool)))
    monkeypatch.setattr(contact, condition, lambda *_: jnp.zeros((), bool))
    after = env.step(state, env.demonstrator(state))
    assert float(after.metrics["success"]) == 1.0
    assert float(after.metrics["hammered"]) == 0.0
    assert not bool(after.terminated)


def test_hammering_is_passing_the_mark(env, demonstrations):
    """Holding the face to a nail that is in already is not driving it."""
    step = first(demonstrations.metrics["hammered"])[0] - 2
    state = jax.tree.map(lambda x: x[step, 0], demonstrations)
    action = env.demonstrator(state)
    assert float(env.step(state, action).metrics["hammered"]) == 1.0
    after = env.step(with_nail_at(state, 0.0901), action)
    assert float(after.metrics["success"]) == 1.0
    assert float(after.metrics["hammered"]) == 0.0


def with_nail_moving(state, slide, speed, struck):
    """The nail at that slide, metres, and speed, m/s, far from the hammer's face."""
    physics = with_nail_at(state, slide).data.physics
    moving = physics.replace(qvel=physics.qvel.at[-1].set(speed))
    data = state.data.replace(physics=moving, struck=jnp.asarray(struck))
    return state.replace(data=data)


@pytest.mark.parametrize(("struck", "counts"), [(True, 1.0), (False, 0.0)])
def test_a_nail_that_moves_on_from_a_blow_counts(env, demonstrations, struck, counts):
    away = jax.tree.map(lambda x: x[5, 0], demonstrations)
    state = with_nail_moving(away, 0.085, 1.0, struck)
    after = env.step(state, {"arm": jnp.zeros(4)})
    assert float(after.metrics["success"]) == 1.0
    assert float(after.metrics["hammered"]) == counts


def test_a_blow_is_over_when_the_nail_stops(env, demonstrations, monkeypatch):
    away = jax.tree.map(lambda x: x[5, 0], demonstrations)
    still = {"arm": jnp.zeros(4)}
    assert bool(env.step(with_nail_moving(away, 0.05, 1.0, True), still).data.struck)
    stopped = env.step(with_nail_moving(away, 0.05, 0.0, True), still)
    assert not bool(stopped.data.struck)
    monkeypatch.setattr(contact, "fingers_clear", lambda *_: jnp.zeros((), bool))
    near = env.step(with_nail_moving(away, 0.05, 1.0, True), still)
    assert not bool(near.data.struck)


# Rewards and ends


def test_sparse_pays_once_and_terminates(demonstrations):
    reward = np.asarray(demonstrations.reward)
    terminated = np.asarray(demonstrations.terminated)
    done = first(demonstrations.metrics["hammered"]) > 0
    np.testing.assert_array_equal(reward.sum(0), done.astype(np.float32))
    np.testing.assert_array_equal(reward > 0, terminated)
    assert set(np.unique(reward)) == {0.0, 1.0}


def test_success_reward_is_the_flag(pushes):
    env = hammer.make(reward="success")
    step = jax.jit(jax.vmap(env.step))
    state = jax.tree.map(lambda x: x[-2], pushes)
    after = step(state, {"arm": jnp.zeros((20, 4))})
    np.testing.assert_array_equal(after.reward, 1.0)
    assert not np.asarray(after.terminated).any()


def test_dense_pays_ten_for_success_and_goes_on():
    env = hammer.make(reward="dense")
    states = play(env, lambda s: env.demonstrator(s)["arm"], 90, num_worlds=20)
    reward = np.asarray(states.reward)
    assert reward.min() >= 0.0
    assert reward.max() == 10.0
    assert not np.asarray(states.terminated).any()
    steps = first(states.metrics["success"])
    for world in range(20):
        np.testing.assert_array_equal(reward[steps[world] - 1, world], 10.0)


def test_unstable_world_ends_unpaid(env, demonstrations):
    step = first(demonstrations.metrics["hammered"])[0] - 2
    state = jax.tree.map(lambda x: x[step, 0], demonstrations)
    good = env.step(state, env.demonstrator(state))
    assert float(good.reward) == 1.0
    bad = env.step(state, {"arm": jnp.array([0.0, jnp.nan, 0.0, 0.8])})
    assert float(bad.reward) == 0.0
    assert bool(bad.truncated)
    assert not bool(bad.terminated)
    np.testing.assert_array_equal(bad.obs, state.obs)
    assert {k: float(v) for k, v in bad.metrics.items()} == {
        "success": 0.0,
        "hammered": 0.0,
        "unstable": 1.0,
    }


# The course protocol


def test_course_decision_is_two_control_steps(course):
    state = course.reset(jax.random.key(0))
    after = course.step(state, {"arm": jnp.array([1.0, 0.0, -1.0, 0.0])})
    moved = after.data.physics.mocap_pos - state.data.physics.mocap_pos
    np.testing.assert_allclose(moved, [[0.02, 0.0, -0.02]], atol=1e-6)
    time = after.data.physics.time - state.data.physics.time
    np.testing.assert_allclose(time, 0.025, atol=1e-6)


def test_course_is_the_same_physics(course):
    """One decision there is two of v3 with the same action, remembered block too."""
    state = course.reset(jax.random.key(0))
    env = hammer.make(reward="success")
    action = {"arm": jnp.array([0.3, -0.2, -1.0, 1.0])}
    middle = env.step(state, action)
    end = env.step(middle, action)
    after = course.step(state, action)
    np.testing.assert_array_equal(after.obs[:36], end.obs[:36])


def test_course_starts(course_resets):
    """The hand at (.1, .5, .3) + .03 N(0, I), which then has ten steps to settle."""
    obs = np.asarray(course_resets.obs)
    mocap = np.asarray(course_resets.data.physics.mocap_pos)[:, 0]
    assert 200 < len(np.unique(mocap, axis=0)) <= 256
    np.testing.assert_allclose(mocap.mean(0), (0.1, 0.5, 0.3), atol=0.008)
    np.testing.assert_allclose(mocap.std(0), 0.03, atol=0.005)
    # Settling pulls the hand to where it was sent, if not to rest.
    assert np.abs(obs[:, :3] - mocap).max() < 0.06
    np.testing.assert_allclose(obs[:, 6], 0.0274, atol=1e-3)  # the hammer has popped up
    np.testing.assert_allclose(obs[:, 36:] - (0.24, 0.74, 0.11), 0, atol=1e-6)
    assert np.abs(obs[:, 18:36] - obs[:, :18]).max() > 1e-4  # one step apart


def test_course_success_is_of_the_last_decision(course, env):
    """Official v3 success is for good; the course looks at the end alone."""
    still = {"arm": jnp.zeros(4)}
    for which, kept in ((course, 0.0), (env, 1.0)):
        state = which.reset(jax.random.key(0))
        state = which.step(with_nail_at(state, 0.095), still)
        assert float(state.metrics["success"]) == 1.0
        state = which.step(with_nail_at(state, 0.0), still)
        assert float(state.metrics["success"]) == kept


def test_course_pays_every_decision_and_goes_on(course):
    states = play(course, lambda s: course.demonstrator(s)["arm"], 50, num_worlds=20)
    reward = np.asarray(states.reward)
    np.testing.assert_array_equal(reward, states.metrics["success"])
    assert (reward.sum(0) > 2).mean() > 0.8
    assert not np.asarray(states.terminated).any()


# The scene


def test_scene_is_what_the_constants_say():
    model = scene.load()
    assert (model.nq, model.nv, model.nu, model.nmocap) == (17, 16, 2, 1)
    assert model.nbody == 13  # world, mocap, 7 links, 2 claws, hammer, nail
    assert model.jnt_qposadr[model.joint("hammer").id] == scene.HAMMER_QPOS.start
    assert model.jnt_dofadr[model.joint("hammer").id] == scene.HAMMER_QVEL.start
    assert model.jnt_qposadr[model.joint("nail").id] == scene.NAIL_QPOS
    world = mujoco.MjData(model)
    mujoco.mj_forward(model, world)
    np.testing.assert_allclose(world.body("nail").xpos, contact.NAIL_AT)
    pad = model.geom("leftpad").size
    np.testing.assert_allclose(sorted(pad), sorted(contact.PAD_HALF_SIZE))


def test_visual_shapes_change_no_physics():
    bare, full = scene.load(), scene.load(visual=True)
    assert full.ngeom > bare.ngeom
    assert full.npair == bare.npair == 9
    for name in ("body_mass", "body_inertia", "dof_damping", "body_invweight0"):
        np.testing.assert_array_equal(getattr(bare, name), getattr(full, name))
