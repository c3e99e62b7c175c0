"""Records what official Meta-World does, for tests that must run without it.

The package pins mujoco==3.3.0 and so cannot live beside ours. In an environment of
its own:

    python -m venv official && official/bin/pip install metaworld==3.1.1 packaging
    official/bin/python tests/official/record.py

writes hammer_v3.json beside this file: reset states, episodes (its own scripted
policy, and random actions) and dense rewards of random states. Numbers only.
"""

import json
import pathlib
import warnings
from importlib.metadata import version

import mujoco
import numpy as np
from metaworld.envs.sawyer_hammer_v3 import SawyerHammerEnvV3
from metaworld.policies.sawyer_hammer_v3_policy import SawyerHammerV3Policy

TARGET = pathlib.Path(__file__).with_name("hammer_v3.json")
NUM_RESETS = 20
NUM_EPISODES = 3
NUM_STEPS = 60
NUM_STATES = 120
DIGITS = 6


def main() -> None:
    warnings.simplefilter("ignore")  # the policy's gain is above what it warns of
    env = SawyerHammerEnvV3()
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env.seed(7)
    record = {
        "model": model_facts(env.model),
        "versions": {n: version(n) for n in ("metaworld", "mujoco", "numpy")},
        "resets": [reset(env) for _ in range(NUM_RESETS)],
        "demonstrations": [
            episode(env, SawyerHammerV3Policy().get_action) for _ in range(NUM_EPISODES)
        ],
        "random_episodes": [
            episode(env, RandomWalk(seed)) for seed in range(NUM_EPISODES)
        ],
        "states": states(env, np.random.default_rng(11)),
    }
    TARGET.write_text(json.dumps(rounded(record), separators=(",", ":")) + "\n")
    print(
        f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB, mujoco {mujoco.__version__}"
    )


def model_facts(model) -> dict:
    """What the scene must share: dofs in the same order, whatever the bodies are."""
    hammer, hand = model.body("hammer"), model.body("hand").id
    limited = model.jnt_limited.astype(bool)
    joints = [model.joint(i).name for i in np.flatnonzero(limited)]
    return {
        "timestep": model.opt.timestep,
        "dof_damping": model.dof_damping,
        "dof_armature": model.dof_armature,
        "dof_invweight0": model.dof_invweight0,
        "ranges": dict(zip(joints, model.jnt_range[limited], strict=True)),
        "hammer_mass": float(hammer.mass[0]),
        "hammer_inertia": np.sort(hammer.inertia),
        "hammer_com": hammer.ipos,
        "hand_invweight0": model.body_invweight0[hand],
        "rightpad_invweight0": model.body_invweight0[model.body("rightpad").id],
        "leftpad_invweight0": model.body_invweight0[model.body("leftpad").id],
        "actuator_kp": model.actuator_gainprm[:, 0],
        "actuator_ctrlrange": model.actuator_ctrlrange[0],
        "weld_solref": model.eq_solref[0],
        "weld_solimp": model.eq_solimp[0],
        "weld_torquescale": float(model.eq_data[0, 10]),
    }


class RandomWalk:
    """Actions that drift, so that the hand gets somewhere."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.action = np.zeros(4)

    def __call__(self, obs):
        self.action = 0.9 * self.action + 0.4 * self.rng.standard_normal(4)
        return np.float32(self.action)


def reset(env) -> dict:
    obs, _ = env.reset()
    return {"obs": obs, **snapshot(env), **reference(env)}


def episode(env, policy) -> dict:
    obs, _ = env.reset()
    start = {"obs": obs, **snapshot(env), **reference(env)}
    steps = []
    for _ in range(NUM_STEPS):
        action = policy(obs)
        obs, reward, _, _, info = env.step(action)
        steps.append(
            {
                "action": action,
                "obs": obs,
                "reward": reward,
                "success": info["success"],
                **snapshot(env),
            }
        )
    names = steps[0]
    return {"start": start, "steps": {n: [s[n] for s in steps] for n in names}}


def states(env, rng) -> dict:
    """Rewards of states that no episode visits: turned hammers, driven nails, ..."""
    rows = []
    env.reset()
    for index in range(NUM_STATES):
        if index % 20 == 0:
            env.reset()
            for _ in range(rng.integers(0, 60)):
                env.step(np.float32(rng.uniform(-1, 1, 4)))
        qpos, qvel = env.data.qpos.copy(), 0 * env.data.qvel
        qpos[7], qpos[8] = rng.uniform(0.0, 0.04), rng.uniform(-0.03, 0.0)
        spread = rng.choice([0.005, 0.05, 0.3])
        place = env.tcp_center
        if index % 3 == 0:  # held: pads about as far apart as the handle is thick
            qpos[7:9] = (0.0295, -0.0295) + 0.001 * rng.standard_normal(2)
            spread = 0.003
        elif index % 3 == 1:  # at the goal, where the in-place term is large
            place = env._target_pos - (0.16, 0.06, 0)
        qpos[9:12] = place + spread * rng.uniform(-1, 1, 3)
        quat = (1, 0, 0, 0) + rng.choice([0.02, 0.2]) * rng.standard_normal(4)
        qpos[12:16] = quat / np.linalg.norm(quat)
        qpos[16] = rng.uniform(0.0, 0.1)
        env.set_state(qpos, qvel)
        obs = env._get_obs()
        action = np.float32(rng.uniform(-1.5, 1.5, 4))
        reward, info = env.evaluate_state(obs, action)
        rows.append(
            {
                "action": action,
                "obs": obs,
                "reward": reward,
                "grab": info["grasp_reward"],
                "success": info["success"],
                **snapshot(env),
                **reference(env),
            }
        )
    return {n: [r[n] for r in rows] for n in rows[0]}


def snapshot(env) -> dict:
    """What the reward reads of the simulation besides the observation."""
    return {
        "qpos": env.data.qpos.copy(),
        "leftpad": env.data.body("leftpad").xpos.copy(),
        "rightpad": env.data.body("rightpad").xpos.copy(),
        "tcp": env.tcp_center.copy(),
    }


def reference(env) -> dict:
    """What the reward remembers of the reset."""
    return {"tcp_start": env.init_tcp.copy(), "hammer_start": env.obj_init_pos.copy()}


def rounded(value):
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, np.ndarray):
        return [rounded(float(v)) for v in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DIGITS)
    return value


if __name__ == "__main__":
    main()
