"""Simulation alone as a worker (see `worker`): the hammer under random actions.

The key "stack" says whose: "ours" (our environment, observation and reward with it, in
one jitted scan), "envpool" (EnvPool's C++ Meta-World) or "metaworld" (the official
package, one environment in one thread). A unit is num_envs x num_steps steps.
"""
# pyright: reportMissingImports=false

import functools
import itertools
from typing import Any

import numpy as np

from benchmarks.peers import worker


def random_actions(config: worker.Json, num_steps: int) -> np.ndarray:
    """Draw uniform actions beforehand, float32 [T, N, 4]."""
    rng = np.random.default_rng(config.get("seed", 0))
    shape = (num_steps, config["num_envs"], 4)
    return rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def ours(config: worker.Json) -> worker.Prepare:
    """Step as a rollout does, as often, with its restarts of episodes."""
    import jax

    from benchmarks import stages
    from benchmarks.peers import in_jax
    from benchmarks.peers.ours import make_config
    from benchmarks.prepared import prepare

    prepared = prepare(make_config(config))
    step, key = stages.random_rollout(prepared), jax.random.key(config.get("seed", 0))

    def run(episodes: Any, num: int) -> Any:
        return jax.lax.scan(step, episodes, jax.random.split(key, num))

    return in_jax.in_blocks(run, prepared.state.episodes)[0]


def envpool(config: worker.Json) -> worker.Prepare:
    import envpool

    sizes = {"num_envs": config["num_envs"], "seed": config.get("seed", 0)}
    pool = envpool.make_gymnasium("MetaWorld/Hammer-v3", **sizes)
    # It resets what has ended itself.
    return stepped(pool, random_actions(config, config["num_steps"]), resets=False)


def metaworld(config: worker.Json) -> worker.Prepare:
    from benchmarks.peers.hammers import official

    actions = random_actions(config, config["num_steps"]).reshape(-1, 4)
    return stepped(official(config.get("seed", 0)), actions, resets=True)


def stepped(env: Any, actions: np.ndarray, resets: bool) -> worker.Prepare:
    """Make blocks that step through the actions a number of times.

    Args:
      env: of gymnasium's protocol.
      actions: one for each step of a unit.
      resets: whether to reset it when an episode has ended.
    """
    env.reset()

    def block(num: int) -> None:
        for _, action in itertools.product(range(num), actions):
            _, _, terminated, truncated, _ = env.step(action)
            if resets and (terminated or truncated):
                env.reset()

    return lambda num: functools.partial(block, num)


STACKS = {"ours": ours, "envpool": envpool, "metaworld": metaworld}


def make(config: worker.Json) -> worker.Task:
    packages = ("jax", "jaxlib", "mujoco", "envpool", "metaworld", "gymnasium")
    return worker.Task(
        prepare=STACKS[config["stack"]](config),
        steps_per_unit=config["num_envs"] * config["num_steps"],
        versions=worker.versions(*packages),
        compiles=config["stack"] == "ours",
    )


if __name__ == "__main__":
    worker.main(make)
