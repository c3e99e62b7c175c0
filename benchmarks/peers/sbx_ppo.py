"""SBX's PPO on gymnasium as a worker (see `worker`): Stable-Baselines3 with JAX."""
# pyright: reportMissingImports=false

import flax.linen as nn
from sbx import PPO

from benchmarks.peers import sb3, worker


def make(config: worker.Json) -> worker.Task:
    activation = {"tanh": nn.tanh, "relu": nn.relu}[config["activation"]]
    return sb3.make_task(PPO, activation, ["sbx-rl", "jax", "flax"], config)


if __name__ == "__main__":
    worker.main(make)
