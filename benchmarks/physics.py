"""Physics alone: `mujoco.rollout` itself on the scene of an environment.

No JAX, no policy, no observation. It replays from the same states the very controls
that the policy gave in a rollout, so that both do the same work.
"""
# pyright: reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from benchmarks.harness.timing import Work
from benchmarks.prepared import Prepared
from purejaxppo.env import State, executed
from purejaxppo.envs.hammer.scene import N_SUBSTEPS
from purejaxppo.envs.physics.mujoco import CONTROL, num_threads, thread_pool
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.ppo import normalize
from purejaxppo.ppo.types import TrainState


def replay(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Collect start states [N, 1 + nq + nv], controls [N, T * substeps, nu + 7]."""
    state = prepared.state
    ctrl, mocap_pos = prepared.compile("replay", _collect(prepared), state)(state)
    physics = state.episodes.state.data.physics
    start = np.column_stack([physics.time, physics.qpos, physics.qvel])
    shape = (len(ctrl), len(start), 4)
    quat = np.broadcast_to(np.reshape(physics.mocap_quat, (1, len(start), 4)), shape)
    control = np.concatenate([ctrl, np.asarray(mocap_pos)[:, :, 0], quat], axis=-1)
    control = np.repeat(np.swapaxes(control, 0, 1), N_SUBSTEPS, axis=1)
    return start.astype(np.float64), np.ascontiguousarray(control, np.float64)


def _collect(prepared: Prepared):
    """Make state -> controls and mocap positions of a rollout, [T, N, ...]."""
    env, policy, config = prepared.env, prepared.learner.task.policy, prepared.config

    def collect(state: TrainState) -> tuple[jax.Array, jax.Array]:
        def step(carry: tuple[State, dict], key: jax.Array):
            states, policy_carry = carry
            inputs = PolicyInput(
                obs=normalize.apply(state.obs_stats, states.obs),
                start=jnp.zeros(states.reward.shape, bool),
                action_mask=states.action_mask,
                active=states.active,
            )
            noise = policy.noise(key, config.num_envs)
            action, *_, policy_carry = policy.sample(
                state.params, inputs, policy_carry, noise
            )
            states = jax.vmap(env.step)(states, executed(env.spec, action))
            physics = states.data.physics
            return (states, policy_carry), (physics.ctrl, physics.mocap_pos)

        keys = jax.random.split(jax.random.key(1), config.num_steps)
        return jax.lax.scan(step, (state.episodes.state, state.carry), keys)[1]

    return collect


def replayed(prepared: Prepared) -> Work:
    """Make the work of stepping one rollout's physics on the engine's threads."""
    start, control = replay(prepared)
    model = prepared.env.engine.model
    workers = [mujoco.MjData(model) for _ in range(num_threads())]
    models = [model] * len(start)
    return lambda: thread_pool().rollout(
        models, workers, start, control, control_spec=CONTROL
    )
