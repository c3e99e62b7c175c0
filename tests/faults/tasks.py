"""Small tasks that a healthy run learns in seconds: name -> command-line flags.

They name all that matters, so that other defaults do not make other tasks of them.
"""

_PLAIN = "--entropy-coef 0 --learning-rate-schedule constant"
_SMALL = (
    "--num-envs 16 --num-steps 64 --num-minibatches 4 --num-epochs 4 "
    "--hidden-sizes 64 64 --critic-hidden-sizes 64 64 --learning-rate 1e-3 "
    "--num-evals 10 --eval-episodes 8 --eval-blocks 5 --normalize-rewards "
    f"{_PLAIN}"
)

TASKS: dict[str, str] = {
    "cartpole": f"--env gymnax:CartPole-v1 --total-timesteps 100000 {_SMALL}",
    "acrobot": f"--env gymnax:Acrobot-v1 --total-timesteps 150000 {_SMALL}",
    "pendulum": (
        "--env gymnax:Pendulum-v1 --total-timesteps 200000 --num-envs 16 "
        "--num-steps 128 --num-epochs 10 --num-minibatches 32 --normalize-rewards "
        "--distribution normal --init-std 1 --max-std 1.5 --hidden-sizes 64 64 "
        "--critic-hidden-sizes 64 64 --num-evals 10 --eval-episodes 8 --eval-blocks 5 "
        f"{_PLAIN}"
    ),
    "scheduler": (
        "--env scheduler --total-timesteps 300000 --num-envs 64 --num-steps 64 "
        "--num-evals 8 --eval-episodes 8 --hidden-sizes 64 64 "
        "--critic-hidden-sizes 64 64"
    ),
    "lander": f"--env faults.lander:make --total-timesteps 400000 {_SMALL}",
    "deck": (
        "--env deck --total-timesteps 200000 --num-envs 32 --num-steps 64 "
        "--num-evals 8 --eval-episodes 20"
    ),
}

# What nothing may be said of: name -> flags. The smaller ones are TASKS.
HEALTHY: dict[str, str] = TASKS | {
    "hammer": "--env hammer",
    "hammer, cs224r": "--env hammer --preset cs224r --total-timesteps 200000",
    "lifecycle": "--env lifecycle --total-timesteps 600000",
    "lifecycle, feedforward": (
        "--env lifecycle --preset feedforward --total-timesteps 600000"
    ),
    "deck, random": "--env deck --preset random --total-timesteps 300000",
    "cartpole, lstm": f"{TASKS['cartpole']} --core lstm --num-epochs 2",
    "breakout": (
        "--env gymnax:Breakout-MinAtar --total-timesteps 500000 --num-envs 64 "
        "--num-steps 64 --hidden-sizes 64 64 --critic-hidden-sizes 64 64 "
        "--learning-rate 1e-3 --entropy-coef 0.01 --num-evals 8 --eval-episodes 8 "
        "--no-normalize-rewards --learning-rate-schedule constant"
    ),
    "catch": (
        "--env gymnax:Catch-bsuite --total-timesteps 200000 --num-envs 32 "
        "--num-steps 32 --hidden-sizes 64 --critic-hidden-sizes 64 "
        "--learning-rate 1e-3 --num-evals 8 --eval-episodes 8 "
        f"--no-normalize-rewards {_PLAIN}"
    ),
    "inverted pendulum": (
        "--env brax:inverted_pendulum --total-timesteps 200000 --num-envs 32 "
        "--num-steps 64 --num-minibatches 8 --num-epochs 4 --hidden-sizes 64 64 "
        "--critic-hidden-sizes 64 64 --normalize-rewards --learning-rate 1e-3 "
        "--num-evals 6 --eval-episodes 8 --distribution truncated_normal "
        f"--init-std 0.5 --max-std 1 {_PLAIN}"
    ),
}


def wrapped(task: str, fault: str, **arguments: object) -> str:
    """Return the flags of a task whose environment has a fault, see `envs`."""
    words = TASKS[task].split()
    place = words.index("--env")
    own = words[place + 1]
    pairs = [f"env={own}", f"fault={fault}"]
    pairs += [f"{name}={value}" for name, value in arguments.items()]
    words[place + 1] = "faults.envs:make"
    return " ".join([*words, "--env-kwargs", *pairs])
