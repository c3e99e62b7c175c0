"""Who races whom, on what: competitors and the configurations that they share.

The keys are those of the protocol; every worker makes of them what it has under its own
name, so that all do the same work.
"""

from typing import Any

from benchmarks.harness.compare import Competitor

Common = dict[str, Any]

PPO: Common = {
    "num_envs": 64,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "hidden_sizes": [64, 64],
    "activation": "tanh",
    "learning_rate": 2.5e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "entropy_coef": 0.01,
    "value_coef": 0.5,
    "max_grad_norm": 0.5,
    "total_steps": 500_000,
}
CARTPOLE: Common = {**PPO, "env": "gymnax:CartPole-v1"}
CARTPOLE_8: Common = {**CARTPOLE, "num_envs": 8, "total_steps": 200_000}
CARTPOLE_4: Common = {**CARTPOLE, "num_envs": 4, "total_steps": 100_000}
PENDULUM: Common = {
    **PPO,
    "env": "gymnax:Pendulum-v1",
    "num_epochs": 10,
    "learning_rate": 1e-3,
    "gamma": 0.95,
    "entropy_coef": 0.0,
}
# Brax starts all episodes of an environment in the one state that it drew first.
_AS_BRAX_STARTS: Common = {"ours": {"reset": "cached"}}
BRAX_PENDULUM: Common = {
    **PPO,
    "env": "brax:inverted_pendulum",
    "env_kwargs": {"backend": "mjx"},
    "num_envs": 512,
    "num_steps": 16,
    "hidden_sizes": [256, 256],
    **_AS_BRAX_STARTS,
}
HAMMER: Common = {
    **PPO,
    "env": "hammer",
    "num_steps": 64,
    "hidden_sizes": [256, 256],
    "entropy_coef": 0.0,
}
BRAX_HAMMER: Common = {**HAMMER, **_AS_BRAX_STARTS}
# 32,768 samples.
NOISE: Common = {
    **PPO,
    "num_steps": 512,
    "num_minibatches": 8,
    "hidden_sizes": [256, 256],
}
# What --quick puts in their place.
FEW: Common = {
    "num_envs": 4,
    "num_steps": 32,
    "total_steps": 512,
    "block_seconds": 0.1,
    "ours": {"eval_blocks": 1, "eval_episodes": 2},
}

OURS = Competitor("ours.py")
LIGHT = {
    "ours": OURS,
    "rejax": Competitor("rejax_ppo.py", "rejax"),
    "sb3": Competitor("sb3.py", "sb3"),
    "sbx": Competitor("sb3.py", "sb3", {"sb3": {"ppo": "sbx"}}),
}
IN_JAX = {name: LIGHT[name] for name in ("ours", "rejax")}
IN_PYTHON = {name: LIGHT[name] for name in ("ours", "sb3", "sbx")}
BRAX = {"ours": OURS, "brax": Competitor("brax_ppo.py", "brax")}
METAWORLD = {
    "ours": OURS,
    # Few environments for many steps: what one thread of Python does best.
    "sb3, Meta-World": Competitor(
        "sb3.py",
        "sb3_metaworld",
        {"sb3": {"vector": "metaworld", "num_envs": 8, "num_steps": 512}},
    ),
    "sb3, EnvPool": Competitor(
        "sb3.py", "sb3_metaworld", {"sb3": {"vector": "envpool"}}
    ),
}
SIMULATION = {
    "ours": Competitor("random_steps.py", None, {"stack": "ours"}),
    "EnvPool": Competitor("random_steps.py", "sb3_metaworld", {"stack": "envpool"}),
    "Meta-World": Competitor(
        "random_steps.py", "sb3_metaworld", {"stack": "metaworld"}
    ),
}
UPDATE = {
    "ours": Competitor("ours_update.py"),
    "torch": Competitor("torch_update.py", "sb3"),
}
