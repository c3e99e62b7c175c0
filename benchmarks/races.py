"""Who races whom, on what: competitors and the configurations that they share.

The keys are those of the protocol; every worker makes of them what it has under its own
name, so that all do the same work.
"""

from typing import Any

from benchmarks.compare import Competitor

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
CARTPOLE_SMALL: Common = {**CARTPOLE, "num_envs": 4, "total_steps": 100_000}
PENDULUM: Common = {
    **PPO,
    "env": "gymnax:Pendulum-v1",
    "num_epochs": 10,
    "learning_rate": 1e-3,
    "gamma": 0.95,
    "entropy_coef": 0.0,
}
BRAX_PENDULUM: Common = {**PPO, "env": "brax:inverted_pendulum", "num_steps": 32}
HAMMER: Common = {
    **PPO,
    "env": "hammer",
    "num_steps": 64,
    "hidden_sizes": [256, 256],
    "entropy_coef": 0.0,
}
NOISE: Common = {**PPO, "num_steps": 64, "hidden_sizes": [256, 256]}
# What --quick puts in their place.
FEW: Common = {"num_envs": 4, "num_steps": 32, "total_steps": 512}

OURS = Competitor("ours.py")
LIGHT = {
    "ours": OURS,
    "rejax": Competitor("rejax_ppo.py", "rejax"),
    "sb3": Competitor("sb3.py", "sb3"),
    "sbx": Competitor("sbx_ppo.py", "sb3"),
}
IN_JAX = {name: LIGHT[name] for name in ("ours", "rejax")}
BRAX = {"ours": OURS, "brax": Competitor("brax_ppo.py")}
METAWORLD = {
    "ours": OURS,
    # Few environments for many steps: what one thread of Python does best.
    "sb3, Meta-World": Competitor(
        "sb3_metaworld.py",
        "metaworld",
        {"sb3": {"vector": "dummy", "num_envs": 8, "num_steps": 512}},
    ),
    "sb3, EnvPool": Competitor(
        "sb3_metaworld.py", "envpool", {"sb3": {"vector": "envpool"}}
    ),
}
SIMULATION = {
    "ours": Competitor("random_steps.py", None, {"stack": "ours"}),
    "EnvPool": Competitor("random_steps.py", "envpool", {"stack": "envpool"}),
    "Meta-World": Competitor("random_steps.py", "metaworld", {"stack": "metaworld"}),
}
UPDATE = {
    "ours": Competitor("ours_update.py"),
    "torch": Competitor("torch_update.py", "sb3"),
}
