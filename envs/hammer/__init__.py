"""The hammer task: a Sawyer arm picks up a hammer and drives a nail (README.md)."""

from typing import Any

from purejaxppo.env import Env

# Configuration values by preset; "default" applies whenever hammer is chosen.
PRESETS: dict[str, dict[str, Any]] = {
    # Six noisy demonstrations leave the cloned policy well short of the task. Their
    # noise is what PPO explores with, and a wide policy can move far at a small KL.
    "default": {
        "reset": "fresh",
        "total_timesteps": 500_000,
        "num_envs": 64,
        "num_steps": 64,
        "num_epochs": 4,
        "num_minibatches": 4,
        "learning_rate": 3e-4,
        "learning_rate_schedule": "linear",
        "learning_rate_final": 0.05,
        "learning_rate_warmup": 10,
        "target_kl": 0.03,
        # The clone that the anchor holds to fails where PPO still has to learn.
        "kl_coef": 0.01,
        "kl_schedule": "linear",
        "kl_coef_final": 0.0,
        "min_std": 0.05,
        "max_std": 0.6,
        "init_std": 0.3,
        "normalize_observations": "fixed",
        "train_episode_steps": 150,
        "num_demonstrations": 6,
        "demonstration_noise": 0.3,
        "critic_warmup": 8,
        "anchor": True,
    },
    "v3": {},
    # The protocol and the demonstrations are the course's; total_timesteps counts
    # decisions, of two frames each.
    "cs224r": {
        "env_kwargs": {"protocol": "cs224r", "reward": "success"},
        "train_episode_steps": 0,
        "num_demonstrations": 20,
        # Its reward goes on after success: values of tens, against 1 in `v3`.
        "normalize_rewards": True,
        "num_evals": 40,
        "eval_episodes": 10,
    },
    # No demonstrations: the shaped reward alone.
    "dense": {
        "env_kwargs": {"reward": "dense"},
        "total_timesteps": 5_000_000,
        "num_demonstrations": 0,
        "critic_warmup": 0,
        "anchor": False,
        "normalize_observations": "running",
        "normalize_rewards": True,
        "learning_rate_final": 0.2,
        "num_envs": 128,
        "num_steps": 128,
        "num_minibatches": 8,
        "hidden_sizes": (64, 64),
        "critic_hidden_sizes": (64, 64),
        "train_episode_steps": 200,
        "entropy_coef": 1e-3,
        "min_std": 0.05,
        "max_std": 1.0,
        "init_std": 0.5,
        "num_evals": 10,
    },
}


def make(
    reward: str | None = None,
    protocol: str = "v3",
    engine: str = "auto",
    max_episode_steps: int | None = None,
) -> Env:
    """Build the environment.

    Args:
      reward: "sparse", "dense" or "success"; None is the protocol's own.
      protocol: "v3", Meta-World's, or "cs224r", the Stanford homework's.
      engine: "auto", "mujoco", "mjx" or "warp".
      max_episode_steps: the time limit in decisions; None is the protocol's own.
    """
    # Here, so that naming the presets does not load MuJoCo.
    from .env import make as make_hammer

    return make_hammer(reward, protocol, engine, max_episode_steps)
