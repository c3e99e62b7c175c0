"""How fast and how exact the hammer scene is, setting by setting.

    python -m benchmarks.physics_scene [--mjx]

writes results/physics_scene.json: what the scene's solver settings were chosen by
(steps a second, error of one environment step against a solver run to the end, and
whether the demonstrator still hammers), what each contact pair costs, and what is
lost between `mujoco.rollout` and the environment inside a jitted scan. States are
those of noisy demonstrations, from reset to strike. Rates are the best of a few
rounds that are interleaved between the things compared: this measures code, and
other programs on the machine only ever make it slower.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from benchmarks import record, timing
from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.hammer import scene
from purejaxppo.envs.physics import mujoco as c_engine

NOISE = 0.1
NUM_STEPS = 76
SOLVERS = {  # iterations, line search iterations, tolerance
    "reference": (100, 50, 1e-12),
    "meta-world": (50, 50, 1e-10),
    "scene": None,
    "50 20 1e-8": (50, 20, 1e-8),
    "20 20 1e-6": (20, 20, 1e-6),
    "20 20 1e-4": (20, 20, 1e-4),
    "10 10 1e-7": (10, 10, 1e-7),
    "6 6 1e-7": (6, 6, 1e-7),
    "4 6 1e-7": (4, 6, 1e-7),
    "3 6 1e-7": (3, 6, 1e-7),
    "2 6 1e-7": (2, 6, 1e-7),
    "8 3 1e-7": (8, 3, 1e-7),
    "8 1 1e-7": (8, 1, 1e-7),
}


class Replay(NamedTuple):
    """Moments of demonstrations: [T, N, ...], as the simulator takes them."""

    state: np.ndarray
    control: np.ndarray


def demonstrations(num_worlds: int, num_steps: int, every: int) -> Replay:
    env = hammer.make(engine="mujoco")

    def body(state, key):
        action = jax.vmap(env.demonstrator)(state)["arm"]
        action += NOISE * jax.random.normal(key, action.shape)
        after = jax.vmap(env.step)(state, {"arm": action})
        start, end = state.data.physics, after.data.physics
        parts = (start.time[:, None], start.qpos, start.qvel)
        mocap = end.mocap_pos[:, 0], end.mocap_quat[:, 0]
        before = jnp.concatenate(parts, axis=1)
        return after, (before, jnp.concatenate([end.ctrl, *mocap], axis=1))

    def run(key):
        key_reset, key_noise = jax.random.split(key)
        state = jax.vmap(env.reset)(jax.random.split(key_reset, num_worlds))
        return jax.lax.scan(body, state, jax.random.split(key_noise, num_steps))[1]

    states, controls = jax.jit(run)(jax.random.key(0))
    return Replay(np.asarray(states)[::every], np.asarray(controls)[::every])


def best_rates(
    tasks: dict[str, Callable[[], Any]], amount: int, rounds: int
) -> dict[str, float]:
    """Task -> amount a second, the best of interleaved rounds after one to warm up."""
    timed = {name: timing.timed(task, amount) for name, task in tasks.items()}
    rates = timing.interleave(timed, rounds)
    return {name: round(max(values)) for name, values in rates.items()}


def run_all(simulator: c_engine.Simulator, replay: Replay) -> np.ndarray:
    """Steps every moment of a replay by one environment step: [T, N, nq + nv]."""
    size = simulator.physics.nq + simulator.physics.nv
    moments = zip(replay.state, replay.control, strict=True)
    return np.stack([simulator.advance(s, c, scene.N_SUBSTEPS) for s, c in moments])[
        ..., :size
    ]


def with_solver(settings: tuple | None) -> mujoco.MjModel:
    model = scene.load()
    if settings is not None:
        options = model.opt
        options.iterations, options.ls_iterations, options.tolerance = settings
    return model


def hammered(model: mujoco.MjModel, num_worlds: int) -> float:
    """Share of plain demonstrations that drive the nail in on that model."""
    with mock.patch.object(scene, "load", return_value=model):
        env = hammer.make(engine="mujoco")

    def body(state, _):
        return jax.vmap(env.step)(state, jax.vmap(env.demonstrator)(state)), None

    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), num_worlds))
    state, _ = jax.jit(lambda s: jax.lax.scan(body, s, length=90))(state)
    return float(state.metrics["hammered"].mean())


def errors(ours: np.ndarray, reference: np.ndarray, nq: int) -> dict[str, float]:
    error = np.abs(ours - reference)
    position, velocity = error[..., :nq].max(-1), error[..., nq:].max(-1)
    return {
        "position_p99": float(f"{np.percentile(position, 99):.2g}"),
        "position_max": float(f"{position.max():.2g}"),
        "velocity_p99": float(f"{np.percentile(velocity, 99):.2g}"),
    }


def solvers(
    replay: Replay, names: list[str], rounds: int, num_worlds: int
) -> dict[str, Any]:
    models = {n: with_solver(SOLVERS[n]) for n in names}
    simulators = {n: c_engine.Simulator(model) for n, model in models.items()}
    rates = best_rates(
        {n: lambda s=s: run_all(s, replay) for n, s in simulators.items()},
        replay.state.shape[0] * replay.state.shape[1],
        rounds,
    )
    reference = run_all(simulators["reference"], replay)
    return {
        name: {
            "env_steps_per_s": rates[name],
            **errors(run_all(simulators[name], replay), reference, models[name].nq),
            "hammered": hammered(models[name], num_worlds),
        }
        for name in names
    }


def pairs(replay: Replay, rounds: int) -> dict[str, float]:
    """Steps a second with all contact pairs, without each kind, and with none."""
    kinds = {
        "all": (),
        "no table": ("table",),
        "no handle": ("handle",),
        "no striker": ("striker",),
        "no nail bar": ("nail_bar",),
        "none": ("table", "handle", "striker", "nail_bar"),
    }
    tasks = {}
    for name, left_out in kinds.items():
        spec = mujoco.MjSpec.from_file(str(scene.SCENE_PATH))
        for pair in list(spec.pairs):
            if {pair.geomname1, pair.geomname2} & set(left_out):
                spec.delete(pair)
        for geom in [g for g in spec.geoms if g.classname.name == "visual"]:
            spec.delete(geom)
        simulator = c_engine.Simulator(spec.compile())
        tasks[name] = lambda s=simulator: run_all(s, replay)
    pretty = c_engine.Simulator(scene.load(visual=True))
    tasks["all, with visual shapes"] = lambda: run_all(pretty, replay)
    return best_rates(tasks, replay.state.shape[0] * replay.state.shape[1], rounds)


def calls(replay: Replay, rounds: int) -> dict[str, float]:
    """From the bare rollout to the environment in a scan, the same states.

    A sixth substep is the other way to the sensors of the state after the fifth.
    """
    env = hammer.make(engine="mujoco")
    model, num = scene.load(), replay.state.shape[0]
    batch = replay.state.shape[1]
    simulator = c_engine.Simulator(model)
    workers = [mujoco.MjData(model) for _ in range(c_engine.num_threads())]
    split = 1 + model.nq + model.nv
    states = replay.state.astype(np.float64)
    silent = copy.copy(model)
    silent.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR

    def bare(physics, substeps, sensors):
        controls = np.repeat(replay.control[:, :, None].astype(np.float64), substeps, 2)
        path = np.empty((batch, substeps, split))
        out = np.empty((batch, substeps, model.nsensordata)) if sensors else None
        for i in range(num):
            c_engine.thread_pool().rollout(
                [physics] * batch,
                workers,
                states[i],
                controls[i],
                control_spec=c_engine.CONTROL,
                skip_checks=True,
                nstep=substeps,
                state=path,
                sensordata=out,
            )

    first = env.reset(jax.random.key(0)).data.physics

    def engine_step(carry, moment):
        def one(state, control):
            _, qpos, qvel = jnp.split(state, [1, 1 + model.nq])
            data = first.replace(qpos=qpos, qvel=qvel)
            return env.engine.step(data, control[:2], control[None, 2:5], 5)

        return carry + jax.vmap(one)(*moment).qpos.sum(), None

    moments = jnp.asarray(replay.state), jnp.asarray(replay.control)
    scanned = jax.jit(lambda m: jax.lax.scan(engine_step, jnp.float32(0), m)[0])
    tasks = {
        "rollout, 5 substeps, no sensors": lambda: bare(silent, 5, False),
        "rollout, 6 substeps, sensors": lambda: bare(model, 6, True),
        "simulator": lambda: run_all(simulator, replay),
        "engine.step in a jitted scan": lambda: scanned(moments).block_until_ready(),
    }
    return best_rates(tasks, num * batch, rounds)


def environment(batch: int, num_steps: int, rounds: int) -> dict[str, float]:
    """Whole episodes: demonstrator and environment in a jitted scan."""
    env = hammer.make(engine="mujoco")

    def body(state, _):
        return jax.vmap(env.step)(state, jax.vmap(env.demonstrator)(state)), None

    scan = jax.jit(lambda s: jax.lax.scan(body, s, length=num_steps)[0])
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), batch))
    task = {"env.step": lambda: jax.block_until_ready(scan(state))}
    return best_rates(task, batch * num_steps, rounds)


def mjx_solvers(replay: Replay) -> dict[str, Any]:
    """MJX in float32 against MJX in float64 run to the end: half a minute a row."""
    from purejaxppo.envs.physics.mjx import mjx

    def run(settings):
        model = with_solver(settings)
        device_model = mjx.put_model(model, impl="jax")
        blank = mjx.make_data(model, impl="jax")

        def one(state, control):
            _, qpos, qvel = jnp.split(state, [1, 1 + model.nq])
            data = blank.replace(qpos=qpos, qvel=qvel, ctrl=control[:2])
            mocap_pos, mocap_quat = control[None, 2:5], control[None, 5:]
            data = data.replace(mocap_pos=mocap_pos, mocap_quat=mocap_quat)
            step = lambda d, _: (mjx.step(device_model, d), None)  # noqa: E731
            with jax.default_matmul_precision("highest"):
                data, _ = jax.lax.scan(step, data, length=scene.N_SUBSTEPS)
            return jnp.concatenate([data.qpos, data.qvel])

        batch = [jnp.asarray(x.reshape(-1, x.shape[-1]), float) for x in replay]
        program = jax.jit(jax.vmap(one))
        result = np.asarray(program(*batch))
        rate = best_rates({"": lambda: np.asarray(program(*batch))}, len(result), 1)
        return result, rate[""]

    with jax.enable_x64(True):
        reference, _ = run(SOLVERS["reference"])
    rows = {}
    for name in ("meta-world", "scene", "6 6 1e-7", "4 6 1e-7", "8 3 1e-7"):
        result, rate = run(SOLVERS[name])
        rows[name] = {"env_steps_per_s": rate, **errors(result, reference, 17)}
    return rows


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mjx", action="store_true", help="also tune MJX: minutes")
    parser.add_argument("--tiny", action="store_true", help="does it run; no file")
    args = parser.parse_args(argv)
    batch, every, rounds = (4, 40, 1) if args.tiny else (256, 4, 5)
    names = ["reference", "scene"] if args.tiny else list(SOLVERS)
    replay = demonstrations(batch, NUM_STEPS, every)
    results: dict[str, Any] = {
        "batch": batch,
        "solvers": solvers(replay, names, rounds, num_worlds=batch),
        "pairs": pairs(replay, rounds),
        "calls": calls(replay, rounds),
        "environment": {
            str(n): environment(n, NUM_STEPS, rounds)
            for n in ((4,) if args.tiny else (64, 256, 1024))
        },
    }
    if args.mjx:
        few = Replay(*(x[:, :16] for x in replay))
        results["mjx_solvers"] = mjx_solvers(few)
    if not args.tiny:
        print(record.write("physics_scene", results))
    return results


if __name__ == "__main__":
    main()
