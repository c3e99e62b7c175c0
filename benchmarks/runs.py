"""What benchmarks of learning share: runs of the command line, and play on one set of
episodes that no evaluation in training used."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from purejaxppo.env import Env
from purejaxppo.ppo import evaluation
from purejaxppo.run.trained import Loaded

EVAL_SEED = 777


def train(env: str, flags: list[str], seed: int, path: Path) -> dict[str, Any]:
    """Train one seed as a user would, into the folder `path`; its summary."""
    command = [sys.executable, "-m", "purejaxppo.train", "--env", env, *flags]
    command += ["--seed", str(seed), "--run-dir", str(path), "--no-tensorboard"]
    subprocess.run(command, check=True)
    return json.loads((path / "summary.json").read_text())


def episode_keys(episodes: int) -> jax.Array:
    """The same episodes for every seed and every baseline."""
    return jax.random.split(jax.random.key(EVAL_SEED), episodes)


def play(loaded: Loaded, env: Env, episodes: int) -> dict[str, jax.Array]:
    """Return, length and metrics of a trained policy, deterministic: [E] each."""

    @jax.jit
    def run(params: Any, obs_stats: Any, keys: jax.Array) -> dict[str, jax.Array]:
        policy = loaded.learner.task.policy
        played = evaluation.play_policy(env, policy, params, obs_stats, keys)
        return played.figures()

    state = loaded.state
    return run(state.params, state.obs_stats, episode_keys(episodes))
