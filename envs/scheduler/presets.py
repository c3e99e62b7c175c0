"""Presets of the scheduler: values of `Config` and `Hypers` by name.

"default" always applies; the others are applied after it.
"""

PRESETS: dict[str, dict[str, object]] = {
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
