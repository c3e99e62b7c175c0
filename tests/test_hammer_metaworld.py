"""Our hammer against official Meta-World 3.1.1 on MuJoCo 3.3.0, as recorded.

tests/official/record.py makes the recording, in an environment that can have both.
Physics differ by MuJoCo's version (its welds have one term more since 3.7) and by
our contacts between primitive shapes; the bounds are what was measured, times two.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer import observation, protocol, reward, scene
from purejaxppo.envs.physics.engine import sensor_slices

RECORDING = Path(__file__).parent / "official" / "hammer_v3.json"


@pytest.fixture(scope="module")
def official():
    return json.loads(RECORDING.read_text())


@pytest.fixture(scope="module")
def env():
    return hammer.make(reward="dense")


@pytest.fixture(scope="module")
def step(env):
    return jax.jit(env.step)


def reset_at(env, place):
    """A reset whose hammer lies where the recording's did."""
    state = env.reset(jax.random.key(0))
    shift = jnp.array(place[:2]) - state.data.block[4:6]
    physics = state.data.physics
    face = sensor_slices(env.engine.model)["face"].start
    physics = physics.replace(
        qpos=physics.qpos.at[9:11].add(shift),
        sensordata=physics.sensordata.at[face : face + 2].add(shift),
    )
    block = state.data.block.at[4:6].add(shift)
    data = state.data.replace(
        physics=physics, block=block, hammer_start=jnp.array([*place[:2], 0.0])
    )
    return state.replace(data=data, obs=observation.join(block, block, (0.0, 0.0, 0.0)))


def test_recording_is_of_the_official_versions(official):
    assert official["versions"]["metaworld"] == "3.1.1"
    assert official["versions"]["mujoco"] == "3.3.0"


def test_scene_has_the_official_constants(official):
    ours, theirs = scene.load(), official["model"]

    def same(value, name, rtol=1e-6):
        np.testing.assert_allclose(value, theirs[name], rtol=rtol, atol=2e-6)

    same(ours.opt.timestep, "timestep")
    same(ours.dof_damping, "dof_damping")
    same(ours.dof_armature, "dof_armature")
    # All of the arm's kinematics and inertias, in one number a joint.
    same(ours.dof_invweight0, "dof_invweight0", rtol=1e-4)
    for name in ("hand", "rightpad", "leftpad"):
        body = ours.site(name).bodyid[0]
        same(ours.body_invweight0[body], f"{name}_invweight0", rtol=1e-4)
    hammer_body = ours.body("hammer")
    same(hammer_body.mass[0], "hammer_mass")
    same(np.sort(hammer_body.inertia), "hammer_inertia")
    same(hammer_body.ipos, "hammer_com")
    same(ours.actuator_gainprm[:, 0], "actuator_kp")
    same(ours.actuator_ctrlrange[0], "actuator_ctrlrange")
    same(ours.eq_solref[0], "weld_solref")
    same(ours.eq_solimp[0], "weld_solimp")
    same(ours.eq_data[0, 10], "weld_torquescale")
    names = {"j1": "right_j1", "nail": "NailSlideJoint"}
    limited = np.flatnonzero(ours.jnt_limited)
    assert {ours.joint(i).name for i in limited} == {"r_close", "l_close", *names}
    for i in limited:
        name = ours.joint(i).name
        expected = theirs["ranges"][names.get(name, name)]
        np.testing.assert_allclose(ours.jnt_range[i], expected)


def test_reset_observation(official, env):
    for recorded in official["resets"]:
        ours = np.asarray(reset_at(env, recorded["hammer_start"]).obs)
        theirs = np.asarray(recorded["obs"])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=6e-4)
        # Layout: what is exact must be exactly there.
        for where in (slice(4, 7), slice(11, 18), slice(22, 25), slice(29, 39)):
            np.testing.assert_allclose(ours[where], theirs[where], rtol=0, atol=2e-6)


def test_reset_state(official, env):
    recorded = official["resets"][0]
    state = reset_at(env, recorded["hammer_start"])
    qpos = np.asarray(state.data.physics.qpos)
    np.testing.assert_allclose(qpos[:7], recorded["qpos"][:7], rtol=0, atol=0.03)
    np.testing.assert_allclose(qpos[7:], recorded["qpos"][7:], rtol=0, atol=6e-4)
    np.testing.assert_allclose(state.data.tcp_start, recorded["tcp_start"], atol=6e-4)


def test_reset_distribution(official):
    """All of the recorded starts are possible here, and they use the range."""
    places = np.array([r["hammer_start"] for r in official["resets"]])
    assert (places[:, :2] >= hammer.HAMMER_LOW).all()
    assert (places[:, :2] <= hammer.HAMMER_HIGH).all()
    np.testing.assert_array_equal(places[:, 2], 0.0)
    assert (np.ptp(places[:, :2], axis=0) > (0.15, 0.07)).all()


@pytest.mark.parametrize("kind", ["demonstrations", "random_episodes"])
def test_same_actions_same_trajectory(official, env, step, kind):
    """60 actions, open loop: the hammer goes up and onto the nail in both."""
    bounds = {
        "hand": (slice(0, 3), 4e-3),
        "gripper": (slice(3, 4), 7e-3),
        "hammer": (slice(4, 7), 1.5e-3),
        "quaternion": (slice(7, 11), 8e-3),
        "nail": (slice(11, 18), 3e-3),
    }
    for episode in official[kind]:
        state = reset_at(env, episode["start"]["hammer_start"])
        for action, theirs in zip(
            episode["steps"]["action"], episode["steps"]["obs"], strict=True
        ):
            state = step(state, {"arm": jnp.array(action, jnp.float32)})
            for name, (where, bound) in bounds.items():
                error = np.abs(np.asarray(state.obs)[where] - np.array(theirs)[where])
                assert error.max() < bound, (kind, name)
        if kind == "demonstrations":
            driven = np.array(episode["steps"]["qpos"])[-1, scene.NAIL_QPOS]
            assert driven > 0.02, "the recording shows no hammering"


def test_same_rewards_along_the_way(official, env, step):
    """Trajectories differ by millimetres, and the reward by what that makes of it."""
    for episode in official["demonstrations"]:
        state = reset_at(env, episode["start"]["hammer_start"])
        errors = []
        for action, theirs in zip(
            episode["steps"]["action"], episode["steps"]["reward"], strict=True
        ):
            state = step(state, {"arm": jnp.array(action, jnp.float32)})
            errors.append(abs(float(state.reward) - theirs))
        # The last steps may be those at which it jumps to 10, a step apart.
        assert max(errors[:-3]) < 0.2
        assert np.median(errors) < 0.01


def arrays(rows, *names):
    # By way of NumPy: JAX takes its time over lists of lists.
    return [jnp.array(np.array(rows[name], np.float32)) for name in names]


def formula(obs, action, left_pad, right_pad, tcp, tcp_start, hammer_start, qpos):
    target = reward.grab_target(obs[:3], obs[4:7])
    grab = reward.caging(
        action[3], target, hammer_start, left_pad, right_pad, tcp, tcp_start
    )
    goal = jnp.array(protocol.GOAL)
    success = qpos[scene.NAIL_QPOS] > hammer.DRIVEN
    return reward.dense(obs[4:7], obs[7:11], grab, goal, success), grab


def test_dense_reward_number_by_number(official):
    """Their states, our formula. Turned hammers, driven nails, open fingers."""
    states = official["states"]
    ours, grab = jax.jit(jax.vmap(formula))(
        *arrays(states, "obs", "action", "leftpad", "rightpad", "tcp"),
        *arrays(states, "tcp_start", "hammer_start", "qpos"),
    )
    np.testing.assert_allclose(ours, states["reward"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grab, states["grab"], rtol=1e-4, atol=1e-4)
    # The states must be worth the test.
    values = np.array(states["reward"])
    assert (values == 10).any()
    assert (values == 0).any()
    assert ((values > 1) & (values < 5)).sum() > 20
    assert np.array(states["success"]).sum() > 3
    assert sum(grab > 0.51 for grab in states["grab"]) > 3


@pytest.mark.parametrize("kind", ["demonstrations", "random_episodes"])
def test_dense_reward_of_episodes(official, kind):
    for episode in official[kind]:
        start, steps = episode["start"], episode["steps"]
        fixed = arrays(start, "tcp_start", "hammer_start")
        ours, _ = jax.jit(jax.vmap(formula, (0, 0, 0, 0, 0, None, None, 0)))(
            *arrays(steps, "obs", "action", "leftpad", "rightpad", "tcp"),
            *fixed,
            *arrays(steps, "qpos"),
        )
        np.testing.assert_allclose(ours, steps["reward"], rtol=1e-4, atol=1e-4)
    if kind == "demonstrations":
        assert max(max(e["steps"]["reward"]) for e in official[kind]) > 5


def test_tolerance_by_hand():
    """1 inside, 0.1 at one margin outside, 0 outside where there is no margin."""
    one = jnp.float32(1.0)
    tail = lambda x, margin: float(  # noqa: E731
        reward.long_tail(jnp.float32(x), 0.02, margin, lower=0.015)
    )
    assert tail(0.015, one) == tail(0.02, one) == 1.0
    np.testing.assert_allclose(tail(1.02, one), 0.1, rtol=1e-6)
    np.testing.assert_allclose(tail(0.015 - 0.5, one), 1 / (1 + 9 / 4), rtol=1e-6)
    assert tail(0.03, 0 * one) == 0.0
    assert np.isfinite(jax.grad(lambda m: reward.long_tail(one, 0.0, m))(0 * one))


def test_hamacher_by_hand():
    product = lambda a, b: float(  # noqa: E731
        reward.hamacher(jnp.float32(a), jnp.float32(b))
    )
    assert product(0, 0) == 0.0
    assert product(1, 1) == 1.0
    np.testing.assert_allclose(product(0.5, 0.5), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(product(1, 0.3), 0.3, rtol=1e-6)
