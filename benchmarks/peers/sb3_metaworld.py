"""Stable-Baselines3's PPO on Meta-World's hammer-v3 as a worker (see `worker`).

On the official environments or on EnvPool's: the key "sb3" replaces shared keys, such
as {"vector": "dummy", "num_envs": 8, "num_steps": 512} for as many samples an update
as 64 environments of 64 steps. `train` stops early at a success rate of `stop_at`, and
also tells the curve; its seconds are those of training alone, without evaluation.
"""
# pyright: reportMissingImports=false

import functools
from typing import Any

from benchmarks.peers import worker

EVAL_EPISODES = 24
EVAL_ENVS = 8
EVAL_SEED = 12345
STOP_AT = 0.95
EVAL_EVERY = 40_960  # environment steps


def make(config: worker.Json) -> worker.Task:
    import torch
    from stable_baselines3 import PPO

    from benchmarks.peers import sb3
    from benchmarks.peers.metaworld_vectors import make_vector, play

    config = {"vector": "dummy", **config, **config.get("sb3", {})}
    # With networks this small a second thread costs more than it brings.
    torch.set_num_threads(config.get("torch_threads", 1))
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config["activation"]]
    num_envs, kind = config["num_envs"], config["vector"]
    batch_size = num_envs * config["num_steps"]

    def make_model() -> Any:
        envs = make_vector(kind, num_envs, config.get("seed", 0))
        return sb3.make_model(PPO, activation, config, envs)

    def learn(model: Any, num: int) -> None:
        model.learn(num * batch_size, log_interval=None, reset_num_timesteps=False)

    # Made when first needed, and kept: a closed pool's memory does not come back.
    @functools.cache
    def eval_envs() -> Any:
        return make_vector(kind, EVAL_ENVS, EVAL_SEED)

    def evaluate(model: Any) -> tuple[float, float]:
        return play(model, eval_envs(), config.get("eval_episodes", EVAL_EPISODES))

    def train() -> worker.Json:
        fresh = make_model()
        total = config["total_steps"] // batch_size
        gap = max(1, config.get("eval_every", EVAL_EVERY) // batch_size)
        curve, steps, seconds = [], 0, 0.0
        reached, success = evaluate(fresh)
        while steps < total * batch_size:
            num = min(gap, total - steps // batch_size)
            seconds += worker.seconds_of(lambda num=num: learn(fresh, num))
            steps += num * batch_size
            reached, success = evaluate(fresh)
            curve.append({"steps": steps, "seconds": seconds, "success": success})
            if success >= config.get("stop_at", STOP_AT):
                break
        fresh.env.close()
        answer = {"return": reached, "success": success, "curve": curve}
        return {**answer, "steps": steps, "seconds": seconds}

    model = make_model()
    packages = ("stable-baselines3", "torch", "gymnasium", "mujoco")
    return worker.Task(
        prepare=lambda num: lambda: learn(model, num),
        steps_per_unit=batch_size,
        versions=worker.versions(*packages, "metaworld", "envpool"),
        compiles=False,
        evaluate=lambda: evaluate(model)[0],
        train=train,
    )


if __name__ == "__main__":
    worker.main(make)
