"""Physics alone: `mujoco.rollout` itself on the scene of an environment.

No JAX, no policy, no observation. It replays from the same states the very controls
that the policy gave in a rollout, so that both do the same work.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import rollout as mujoco_rollout

from purejaxppo.env import executed
from purejaxppo.envs.hammer.scene import N_SUBSTEPS
from purejaxppo.envs.physics.mujoco import CONTROL, num_threads
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run.compiler import Compiler


def replay(
    learner: Learner, state: TrainState, compile: Compiler
) -> tuple[np.ndarray, np.ndarray]:
    """Start states [N, 1 + nq + nv] and the controls [N, T * substeps, nu + 7]."""
    env, num = learner.task.env, learner.task.config.num_envs

    def collect(state: TrainState):
        def step(carry, key):
            states, policy_carry = carry
            inputs = _inputs(states, state.obs_stats)
            action, *_, policy_carry = learner.task.policy.sample(
                state.params, inputs, policy_carry, learner.task.policy.noise(key, num)
            )
            states = jax.vmap(env.step)(states, executed(env.spec, action))
            physics = states.data.physics
            return (states, policy_carry), (physics.ctrl, physics.mocap_pos)

        keys = jax.random.split(jax.random.key(1), learner.task.config.num_steps)
        return jax.lax.scan(step, (state.episodes.state, state.carry), keys)[1]

    ctrl, mocap_pos = compile("replay", collect, state)(state)
    physics = state.episodes.state.data.physics
    start = np.concatenate(
        [np.asarray(physics.time)[:, None], physics.qpos, physics.qvel], axis=1
    ).astype(np.float64)
    shape = (learner.task.config.num_steps, len(start), 4)
    quat = np.broadcast_to(
        np.asarray(physics.mocap_quat).reshape(1, len(start), 4), shape
    )
    control = np.concatenate(
        [np.asarray(ctrl), np.asarray(mocap_pos)[:, :, 0], quat], axis=-1
    )
    control = np.repeat(np.swapaxes(control, 0, 1), N_SUBSTEPS, axis=1)
    return start, np.ascontiguousarray(control, np.float64)


def _inputs(states: Any, obs_stats: Any) -> PolicyInput:
    return PolicyInput(
        obs=normalize.apply(obs_stats, states.obs),
        start=jnp.zeros(states.reward.shape, bool),
        action_mask=states.action_mask,
        active=states.active,
    )


def replayed(
    learner: Learner, state: TrainState, compile: Compiler
) -> Callable[[], Any]:
    """One rollout's worth of physics, on as many threads as the engine has."""
    start, control = replay(learner, state, compile)
    model = learner.task.env.engine.model
    pool = mujoco_rollout.Rollout(nthread=num_threads())
    workers = [mujoco.MjData(model) for _ in range(num_threads())]
    models = [model] * len(start)
    return lambda: pool.rollout(models, workers, start, control, control_spec=CONTROL)
