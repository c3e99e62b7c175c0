"""Steps per second of the hammer: physics alone, the rollout, and training end to end.

    python -m benchmarks.hammer_speed [--rounds 25] [--num-envs 64]

Physics alone is `mujoco.rollout` itself on the scene of the environment: no JAX, no
policy, no observation; it replays from the same states the very controls that the
rollout's policy gave, so both do the same work. The three are measured in turn within
each round, and compared within it: ratios do not drift with the machine. Compiling is
excluded. Writes benchmarks/results/hammer_speed.json.
"""

import argparse
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import rollout as mujoco_rollout

from benchmarks import record
from purejaxppo.config import Config
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import Learner, as_arrays, make_learner
from purejaxppo.ppo.rollout import rollout

SUBSTEPS = 5


def median_and_spread(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return {"median": float(middle), "min": float(low), "max": float(high)}


def physics_inputs(learner: Learner, state: Any, num_steps: int) -> tuple[Any, Any]:
    """Start states [N, 1 + nq + nv] and the controls [N, T * substeps, nu + 7]."""
    env = learner.env

    def collect(state):
        def step(carry, key):
            states, policy_carry = carry
            inputs = _inputs(states, state.obs_stats)
            action, *_, policy_carry = learner.policy.sample(
                state.params, inputs, policy_carry, key
            )
            states = jax.vmap(env.step)(states, action)
            physics = states.data.physics
            return (states, policy_carry), (physics.ctrl, physics.mocap_pos)

        keys = jax.random.split(jax.random.key(1), num_steps)
        return jax.lax.scan(step, (state.episodes.state, state.carry), keys)[1]

    ctrl, mocap_pos = jax.jit(collect)(state)
    physics = state.episodes.state.data.physics
    start = np.concatenate(
        [np.asarray(physics.time)[:, None], physics.qpos, physics.qvel], axis=1
    ).astype(np.float64)
    quat = np.broadcast_to(
        np.asarray(physics.mocap_quat).reshape(1, len(start), 4),
        (num_steps, len(start), 4),
    )
    control = np.concatenate(
        [np.asarray(ctrl), np.asarray(mocap_pos)[:, :, 0], quat], axis=-1
    )
    control = np.repeat(np.swapaxes(control, 0, 1), SUBSTEPS, axis=1)
    return start, np.ascontiguousarray(control, np.float64)


def _inputs(states: Any, obs_stats: Any) -> PolicyInput:
    return PolicyInput(
        obs=normalize.apply(obs_stats, states.obs),
        start=jnp.zeros(states.reward.shape, bool),
        action_mask=states.action_mask,
        active=states.active,
    )


def measure(rounds: int, num_envs: int, num_threads: int) -> dict[str, Any]:
    """Time the three, `rounds` times in turn."""
    config = Config.preset("hammer", num_envs=num_envs)
    learner = make_learner(config)
    hypers = as_arrays(config.hypers)
    state, _ = jax.jit(learner.init)(jax.random.key(0), hypers)
    update = jax.jit(learner.update)
    roll = jax.jit(
        lambda state, key: rollout(
            learner.env, learner.policy, config, state, None, key
        )[:2]
    )
    # Past the critic's warm-up, so that whole updates are timed, and into episodes.
    for _ in range(config.critic_warmup + 4):
        state, _ = update(state, hypers)
    start, control = physics_inputs(learner, state, config.num_steps)
    model = learner.env.engine.model
    workers = [mujoco.MjData(model) for _ in range(num_threads)]
    spec = int(
        mujoco.mjtState.mjSTATE_CTRL
        | mujoco.mjtState.mjSTATE_MOCAP_POS
        | mujoco.mjtState.mjSTATE_MOCAP_QUAT
    )
    key = jax.random.key(2)

    with mujoco_rollout.Rollout(nthread=num_threads) as pool:

        def physics():
            pool.rollout(
                [model] * len(start), workers, start, control, control_spec=spec
            )

        tasks = {
            "physics": physics,
            "rollout": lambda: jax.block_until_ready(roll(state, key)),
            "end_to_end": lambda: jax.block_until_ready(update(state, hypers)),
        }
        for task in tasks.values():
            task()
        rates: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(rounds):
            for name, task in tasks.items():
                begin = time.perf_counter()
                task()
                rates[name].append(config.batch_size / (time.perf_counter() - begin))
    ratios = {
        f"{name}_over_physics": median_and_spread(
            [a / b for a, b in zip(rates[name], rates["physics"], strict=True)]
        )
        for name in ("rollout", "end_to_end")
    }
    _, metrics = update(state, hypers)
    return {
        "steps_per_second": {n: median_and_spread(v) for n, v in rates.items()},
        "ratios": ratios,
        "rounds": rounds,
        "num_envs": num_envs,
        "num_steps": config.num_steps,
        "num_epochs": config.epochs,
        "num_minibatches": config.num_minibatches,
        "minibatches_run": float(metrics["update/minibatches"]),
        "networks": [list(config.hidden_sizes), list(config.critic_hidden_sizes)],
        "engine": learner.env.engine.name,
        "threads": num_threads,
    }


def table(results: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'steps/s':>10}{'of physics':>12}   (median; min to max)"]
    for name, rate in results["steps_per_second"].items():
        ratio = results["ratios"].get(f"{name}_over_physics")
        share = f"{ratio['median']:.2f}" if ratio else "1.00"
        spread = f"{ratio['min']:.2f} to {ratio['max']:.2f}" if ratio else ""
        lines.append(f"{name:<12}{rate['median']:>10,.0f}{share:>12}   {spread}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second of the hammer.")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()
    results = measure(arguments.rounds, arguments.num_envs, os.cpu_count() or 1)
    print(table(results))
    if not arguments.no_write:
        print(record.write("hammer_speed", results))


if __name__ == "__main__":
    main()
