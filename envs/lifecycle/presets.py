"""Presets of the lifecycle: values of `Config` and `Hypers` by plain name.

"default" applies whenever the lifecycle is chosen, the others on top of it.

"feedforward" is the same without the recurrent core: equal are trunks, heads, what
actor and critic observe, samples, epochs, minibatches (of as many samples), rates and
schedules. The core, 64 wide, is what it lacks, and with it the core's parameters.
"""

PRESETS: dict[str, dict[str, object]] = {
    "default": {
        "total_timesteps": 8_000_000,
        "num_envs": 256,
        # A rollout is one whole episode of each environment, so that a sequence
        # starts with an empty memory and no stored one can be stale.
        "num_steps": 25,
        "num_epochs": 1,
        "num_minibatches": 8,
        "learning_rate": 4e-3,
        "learning_rate_schedule": "linear",
        "gamma": 1.0,
        # Shorter, and blends are given up before it is known when they pay.
        "gae_lambda": 0.85,
        "entropy_coef": 0.1,
        "entropy_schedule": "linear",
        "entropy_coef_final": 0.02,
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
