"""Presets of the deck: values of `Config` and `Hypers` by name.

"default" always applies; the others are applied after it.
"""

PRESETS: dict[str, dict[str, object]] = {
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
        # A start state contains the random key of its episode, so all episodes from one
        # start of a pool would draw the same cards.
        "reset": "fresh",
        "eval_blocks": 5,
        "eval_episodes": 100,
    },
    "random": {"env_kwargs": {"choice": "random"}},
}
