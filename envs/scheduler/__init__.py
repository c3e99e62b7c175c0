"""The scheduler: jobs with deadlines on machines with a capacity (README.md)."""

from typing import Any

from purejaxppo.env import Env

# Configuration values by preset; "default" applies whenever scheduler is chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "total_timesteps": 2_000_000,
        "num_envs": 128,
        "num_steps": 64,
        "num_epochs": 4,
        "num_minibatches": 4,
        "learning_rate": 2e-3,
        "learning_rate_schedule": "linear",
        "gamma": 0.995,
        "entropy_coef": 0.01,
        "normalize_rewards": True,
        "hidden_sizes": (128, 128),
        "critic_hidden_sizes": (128, 128),
        "num_starts": 512,
        "eval_blocks": 5,
        "eval_episodes": 50,
    },
    "toy": {"env_kwargs": {"family": "toy"}, "total_timesteps": 1_000_000},
}


def make(
    family: str = "mix",
    num_jobs: int = 32,
    num_machines: int = 2,
    capacity: int = 8,
    num_slots: int = 10,
) -> Env:
    """Build the environment.

    Args:
      family: mix, light, bursty, tight, heavy or toy.
      num_jobs: of an instance; the toy has its own number.
      num_machines: machines, all alike.
      capacity: resource of each machine.
      num_slots: waiting jobs that can be seen, those of the earliest deadlines.
    """
    from .env import make as make_scheduler

    return make_scheduler(family, num_jobs, num_machines, capacity, num_slots)
