"""Stable-Baselines3's PPO, and SBX's, as a worker (see `worker`), by its own `learn`.

The key "sb3" replaces shared keys and says what they do not: "ppo" is sb3 or sbx (the
same with JAX); "vector" is gymnasium, or the hammer of Meta-World (metaworld) or of
EnvPool (envpool). {"vector": "metaworld", "num_envs": 8, "num_steps": 512} collects as
many samples an update as 64 environments of 64 steps.
"""
# pyright: reportMissingImports=false

import functools
from typing import Any

from benchmarks.peers import worker

EVAL_EPISODES = {"gymnasium": 100, "metaworld": 24, "envpool": 24}
EVAL_ENVS = 8
PACKAGES = {"sb3": ("stable-baselines3", "torch"), "sbx": ("sbx-rl", "jax", "flax")}
SIMULATORS = ("gymnasium", "mujoco", "metaworld", "envpool")
EVAL_SEED = 12345


def ppo_of(config: worker.Json) -> tuple[Any, Any]:
    """The PPO class, and the activation function in its framework."""
    # Here, so that where they are missing the worker can say so.
    if config["ppo"] == "sbx":
        import flax.linen as nn
        from sbx import PPO

        return PPO, {"tanh": nn.tanh, "relu": nn.relu}[config["activation"]]
    import torch
    from stable_baselines3 import PPO

    # With networks this small a second thread costs more than it brings.
    torch.set_num_threads(1)
    return PPO, {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config["activation"]]


def make_envs(config: worker.Json, num_envs: int, seed: int) -> Any:
    """Environments that are stepped together, in this process.

    For environments as light as CartPole one process is the fastest way.

    Args:
      config: its "vector" and "env".
      num_envs: how many.
      seed: of the first.
    """
    if config["vector"] == "gymnasium":
        from stable_baselines3.common.env_util import make_vec_env

        return make_vec_env(config["env"].rpartition(":")[2], num_envs, seed)
    from benchmarks.peers import hammers

    if config["vector"] == "envpool":
        return hammers.EnvPoolVector(num_envs, seed)
    from stable_baselines3.common.vec_env import DummyVecEnv

    seeds = range(seed, seed + num_envs)
    return DummyVecEnv([functools.partial(hammers.official, s) for s in seeds])


def make_model(config: worker.Json) -> Any:
    ppo, activation = ppo_of(config)
    num_envs, num_steps = config["num_envs"], config["num_steps"]
    seed = config.get("seed", 0)
    return ppo(
        "MlpPolicy",
        make_envs(config, num_envs, seed),
        **worker.named(config, "sb3"),
        batch_size=num_envs * num_steps // config["num_minibatches"],
        policy_kwargs={
            "net_arch": list(config["hidden_sizes"]),
            "activation_fn": activation,
        },
        seed=seed,
        device="cpu",
    )


def make(config: worker.Json) -> worker.Task:
    config = {"ppo": "sb3", "vector": "gymnasium", **config, **config.get("sb3", {})}
    batch_size = config["num_envs"] * config["num_steps"]
    num_updates = config["total_steps"] // batch_size

    def learn(model: Any, num: int) -> Any:
        steps = num * batch_size
        return model.learn(steps, log_interval=None, reset_num_timesteps=False)

    # Made when first needed, and kept: a closed pool's memory does not come back.
    eval_envs = functools.cache(lambda: make_envs(config, EVAL_ENVS, EVAL_SEED))

    def mean_return(model: Any) -> float:
        from stable_baselines3.common.evaluation import evaluate_policy

        episodes = EVAL_EPISODES[config["vector"]]
        mean, _ = evaluate_policy(model, eval_envs(), episodes, deterministic=True)
        return float(mean)

    def train() -> worker.Json:
        run = functools.partial(learn, make_model(config), num_updates)
        return worker.trained(run, mean_return, num_updates * batch_size)

    model = make_model(config)
    return worker.Task(
        prepare=lambda num: lambda: learn(model, num),
        steps_per_unit=batch_size,
        versions=worker.versions(*PACKAGES[config["ppo"]], *SIMULATORS),
        compiles=False,
        evaluate=lambda: mean_return(model),
        train=train,
    )


if __name__ == "__main__":
    worker.main(make)
