"""Stable-Baselines3's PPO on gymnasium as a worker (see `worker`), by its own `learn`.

SBX has the same interface: `sbx_ppo` is this worker with its PPO.
"""
# pyright: reportMissingImports=false

import time
from typing import Any

from benchmarks.peers import worker

EVAL_EPISODES = 100


def make_envs(config: worker.Json) -> Any:
    """All in this process: for environments as light as these the fastest way."""
    from stable_baselines3.common.env_util import make_vec_env

    seed = config.get("seed", 0)
    return make_vec_env(config["env"].rpartition(":")[2], config["num_envs"], seed)


def make_model(ppo: Any, activation: Any, config: worker.Json, envs: Any) -> Any:
    batch_size = config["num_envs"] * config["num_steps"]
    return ppo(
        "MlpPolicy",
        envs,
        n_steps=config["num_steps"],
        batch_size=batch_size // config["num_minibatches"],
        n_epochs=config["num_epochs"],
        learning_rate=config["learning_rate"],
        gamma=config["gamma"],
        gae_lambda=config["gae_lambda"],
        clip_range=config["clip_range"],
        ent_coef=config["entropy_coef"],
        vf_coef=config["value_coef"],
        max_grad_norm=config["max_grad_norm"],
        policy_kwargs={
            "net_arch": list(config["hidden_sizes"]),
            "activation_fn": activation,
        },
        seed=config.get("seed", 0),
        device="cpu",
    )


def mean_return(model: Any, config: worker.Json) -> float:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    envs = make_vec_env(config["env"].rpartition(":")[2], 8, seed=12345)
    mean, _ = evaluate_policy(model, envs, EVAL_EPISODES, deterministic=True)
    return float(mean)


def make_task(ppo: Any, activation: Any, packages: list[str], config: worker.Json):
    """The task of a PPO class with this interface."""
    batch_size = config["num_envs"] * config["num_steps"]
    num_updates = config["total_steps"] // batch_size
    model = make_model(ppo, activation, config, make_envs(config))

    def learn(model: Any, num: int) -> None:
        model.learn(num * batch_size, log_interval=None, reset_num_timesteps=False)

    def train() -> worker.Json:
        fresh = make_model(ppo, activation, config, make_envs(config))
        begin = time.perf_counter()
        learn(fresh, num_updates)
        seconds = time.perf_counter() - begin
        return {
            "return": mean_return(fresh, config),
            "steps": num_updates * batch_size,
            "seconds": seconds,
        }

    return worker.Task(
        prepare=lambda num: lambda: learn(model, num),
        steps_per_unit=batch_size,
        versions=worker.versions(*packages, "stable-baselines3", "torch", "gymnasium"),
        compiles=False,
        evaluate=lambda: mean_return(model, config),
        train=train,
    )


def make(config: worker.Json) -> worker.Task:
    import torch
    from stable_baselines3 import PPO

    # With networks this small a second thread costs more than it brings.
    torch.set_num_threads(config.get("torch_threads", 1))
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config["activation"]]
    return make_task(PPO, activation, [], config)


if __name__ == "__main__":
    worker.main(make)
