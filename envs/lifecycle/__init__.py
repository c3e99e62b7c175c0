"""The lifecycle of seeds whose vigour and progress are hidden (README.md)."""

from typing import Any

from purejaxppo.env import Env

# Configuration values by preset; "default" applies whenever lifecycle is chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "total_timesteps": 3_000_000,
        "num_envs": 256,
        "num_steps": 25,
        "num_epochs": 1,
        "num_minibatches": 8,
        "learning_rate": 2e-3,
        "learning_rate_schedule": "linear",
        "gamma": 1.0,
        "entropy_coef": 0.01,
        "normalize_rewards": True,
        "hidden_sizes": (64,),
        "critic_hidden_sizes": (64,),
        "core": "gru",
        "core_size": 64,
        "reset": "fresh",
        "eval_blocks": 5,
        "eval_episodes": 100,
    },
    "feedforward": {"core": "none"},
}


def make(num_slots: int = 4, noise: float = 1.0) -> Env:
    """Build the environment.

    Args:
      num_slots: places for seeds.
      noise: standard deviation of a reading of vigour; vigour is within -1 to 1.
    """
    from .env import make as make_lifecycle

    return make_lifecycle(num_slots, noise)
