"""The deck: a small card battle with a card-choice prompt after combats (README.md)."""

from typing import Any

from purejaxppo.env import Env

# Configuration values by preset; "default" applies whenever deck is chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "total_timesteps": 1_000_000,
        "num_envs": 64,
        "num_steps": 128,
        "num_epochs": 4,
        "num_minibatches": 4,
        "learning_rate": 2e-3,
        "learning_rate_schedule": "linear",
        "gamma": 0.999,
        "entropy_coef": 0.005,
        "normalize_rewards": True,
        "hidden_sizes": (64, 64),
        "critic_hidden_sizes": (64, 64),
        # Resets are cheap, and a start holds the luck of its whole episode: a pool
        # would give all episodes from one start the same draws.
        "reset": "fresh",
        "eval_blocks": 5,
        "eval_episodes": 100,
    },
    "random": {"env_kwargs": {"choice": "random"}},
}


def make(choice: str = "policy", num_offered: int = 5, num_taken: int = 2) -> Env:
    """Build the environment.

    Args:
      choice: who takes cards at a prompt: the head `pick` ("policy"), or chance
        ("random"), and then that head is never active.
      num_offered: kinds of cards that a prompt offers.
      num_taken: how many of them are taken.
    """
    from .env import make as make_deck

    return make_deck(choice, num_offered, num_taken)
