"""How long one action takes, of one environment: NumPy, ONNX Runtime and JAX.

    python -m benchmarks.export_latency

An untrained policy of each size, exported, on the first state of an episode. ONNX
Runtime has one thread; JAX is `load_policy(RUN).act`, from NumPy to NumPy.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnxruntime

from benchmarks.harness import report, timing
from purejaxppo.config import Config
from purejaxppo.export import numpy_policy, onnx, writer
from purejaxppo.policy.networks import part_of
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run.trained import TrainedPolicy, make_act

CASES = {"hammer, 2 x 256": "hammer", "lifecycle, 64, GRU 64": "lifecycle"}
CALLS = 300  # in a block


def config_of(env: str) -> Config:
    """Return the configuration of an environment, without what only training needs."""
    quick = {"num_demonstrations": 0, "critic_warmup": 0, "anchor": False}
    return Config.preset(env, normalize_observations="running", **quick)


def actors(config: Config) -> dict[str, Callable[[], Any]]:
    """Make the function that chooses one action, of each way to do it."""
    learner = make_learner(config)
    train_state, _ = jax.jit(learner.init)(jax.random.key(0))
    act = make_act(learner, train_state)
    exported = writer.export(TrainedPolicy(learner, train_state, act, 0), {})
    state = jax.device_get(jax.jit(learner.task.env.reset)(jax.random.key(1)))
    obs, mask = np.asarray(part_of(state.obs, "actor")), state.action_mask
    metadata: dict[str, Any] = exported.metadata
    policy = numpy_policy.Policy(metadata, exported.arrays)
    carry, carries = policy.initial(), learner.task.policy.initial_carry(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx.to_onnx(exported), options)
    given = {"obs": obs[None]} | {f"mask/{n}": x[None] for n, x in mask.items()}
    given |= {f"active/{n}": np.array([x]) for n, x in state.active.items()}
    given |= {f"carry/{i}": x[None] for i, x in enumerate(carry)}
    return {
        "NumPy": lambda: policy.act(obs, carry, mask),
        "ONNX Runtime": lambda: session.run(None, given),
        "JAX": lambda: jax.device_get(act(state, carries)),
    }


def repeated(act: Callable[[], Any]) -> timing.Work:
    def work() -> None:
        for _ in range(CALLS):
            act()

    return work


def measure(rounds: int) -> dict[str, Any]:
    """Time each way in turn, `rounds` times: microseconds of one action."""
    rows, found = [["one action, µs", "NumPy", "ONNX Runtime", "JAX"]], {}
    for name, env in CASES.items():
        ways = actors(config_of(env)).items()
        tasks = {n: timing.timed(repeated(f), CALLS) for n, f in ways}
        rates = timing.interleave(tasks, rounds)
        found[name] = {
            n: timing.median_and_spread([1e6 / x for x in r]) for n, r in rates.items()
        }
        spans = [
            "{median:.0f} ({min:.0f} to {max:.0f})".format(**x)
            for x in found[name].values()
        ]
        rows.append([name, *spans])
    note = f"Median (smallest to largest) of {rounds} interleaved rounds of {CALLS}."
    return {"microseconds": found, "rounds": rounds, "table": rows, "notes": [note]}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_latency")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args(argv)
    figures = measure(options.rounds)
    report.publish("export_latency", figures, write=not options.no_write)


if __name__ == "__main__":
    main()
