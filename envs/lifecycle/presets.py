"""Presets of the lifecycle: values of `Config` and `Hypers` by name.

"default" always applies; the others are applied after it.

"feedforward" differs from "default" only by the recurrent core of width 64, which it
lacks. Observations, hidden layers, heads, epochs, samples per minibatch, learning rate
and schedules are the same.
"""

PRESETS: dict[str, dict[str, object]] = {
    "default": {
        "total_timesteps": 8_000_000,
        "num_envs": 256,
        # A rollout is one whole episode of each environment. So each training sequence
        # starts with a zero recurrent state, not with one stored by an older policy.
        "num_steps": 25,
        "num_epochs": 1,
        "num_minibatches": 8,
        "learning_rate": 4e-3,
        "learning_rate_schedule": "linear",
        "gamma": 1.0,
        # With a smaller lambda the policy stops blending early in training.
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
