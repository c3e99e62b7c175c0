"""A run of Stable-Baselines3's PPO on CartPole, by its own defaults and loggers.

It runs where Stable-Baselines3 is installed (.peers/sb3, see benchmarks/README.md):
`python tests/faults/sb3_run.py FOLDER --learning-rate 0.1 --seed 0`.
"""
# pyright: reportMissingImports=false

import argparse

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

parser = argparse.ArgumentParser()
parser.add_argument("folder", help="gets progress.csv and events of TensorBoard")
parser.add_argument("--learning-rate", type=float, default=3e-4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=100_000)
options = parser.parse_args()
torch.set_num_threads(1)
model = PPO(
    "MlpPolicy",
    make_vec_env("CartPole-v1", 4, options.seed),
    learning_rate=options.learning_rate,
    n_steps=512,
    seed=options.seed,
    device="cpu",
)
model.set_logger(configure(options.folder, ["csv", "tensorboard"]))
model.learn(options.steps)
