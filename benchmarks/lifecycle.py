"""PPO with and without memory on the lifecycle, against gardeners that do not learn.

    python -m benchmarks.lifecycle   # five seeds of each preset
    python -m benchmarks.lifecycle --seeds 1

Each seed is one `python -m purejaxppo.train` of its own. Its policy at the end of
training then plays the same episodes as every other seed and every baseline; no
evaluation in training used them. Writes benchmarks/results/lifecycle.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import record
from benchmarks.runs import episode_keys, play, train
from purejaxppo.envs.lifecycle import baselines
from purejaxppo.envs.lifecycle.env import Lifecycle
from purejaxppo.registry import make_env
from purejaxppo.run.trained import TrainedPolicy, load_policy

PRESETS = {"recurrent": "default", "feedforward": "feedforward"}

Figures = dict[str, float]  # figure -> mean over episodes


def _means(outcome: dict[str, jax.Array]) -> Figures:
    figures = {name: float(np.mean(values)) for name, values in outcome.items()}
    error = np.std(outcome["return"]) / np.sqrt(outcome["return"].shape[0])
    return {**figures, "return_standard_error": float(error)}


def of_baseline(name: str, episodes: int) -> Figures:
    """What a baseline scores."""
    env = make_env("lifecycle")
    assert isinstance(env, Lifecycle)

    def play(keys: jax.Array) -> dict[str, jax.Array]:
        return baselines.play_baseline(env, baselines.BASELINES[name], keys)

    return _means(jax.jit(play)(episode_keys(episodes)))


def of_policy(loaded: TrainedPolicy, episodes: int) -> Figures:
    """What a trained policy scores, deterministic."""
    return _means(play(loaded, make_env("lifecycle"), episodes))


def run_preset(
    preset: str, flags: list[str], num_seeds: int, episodes: int
) -> list[dict[str, Any]]:
    """The figures of each seed."""
    seeds = []
    for seed in range(num_seeds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            summary = train("lifecycle", ["--preset", preset, *flags], seed, path)
            figures = of_policy(load_policy(path, "latest"), episodes)
        seeds.append({"seed": seed, **figures, "run": summary})
        print(f"{preset}, seed {seed}: return {figures['return']:.3f}", flush=True)
    return seeds


def spread(seeds: list[dict[str, Any]]) -> dict[str, float]:
    """Of the return, over seeds."""
    returns = [seed["return"] for seed in seeds]
    return {
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "min": min(returns),
        "max": max(returns),
    }


def summarise(
    gardener: Figures,
    recurrent: list[dict[str, Any]],
    feedforward: list[dict[str, Any]],
) -> dict[str, Any]:
    """What memory is worth: the worst seed with it against the best one without.

    And by how much the worst and the mean seed with memory beat the gardener.
    """
    with_memory, without = spread(recurrent), spread(feedforward)
    return {
        "recurrent": with_memory,
        "feedforward": without,
        "recurrent_over_feedforward": with_memory["mean"] - without["mean"],
        "worst_recurrent_over_best_feedforward": with_memory["min"] - without["max"],
        "recurrent_over_gardener": with_memory["mean"] - gardener["return"],
        "worst_recurrent_over_gardener": with_memory["min"] - gardener["return"],
        "invalid_frac": max(s["invalid_frac"] for s in [*recurrent, *feedforward]),
    }


def measure(num_seeds: int, episodes: int, flags: list[str]) -> dict[str, Any]:
    """Baselines, then the seeds of both presets."""
    results: dict[str, Any] = {
        "episodes": episodes,
        "baselines": {
            name: of_baseline(name, episodes) for name in baselines.BASELINES
        },
    }
    for name, preset in PRESETS.items():
        results[name] = run_preset(preset, flags, num_seeds, episodes)
    results["summary"] = summarise(
        results["baselines"]["gardener"], results["recurrent"], results["feedforward"]
    )
    return results


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The lifecycle, with memory and not.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--total-timesteps", type=int, help="else the presets' own")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args(argv)
    flags = arguments.flags
    if arguments.total_timesteps is not None:
        flags = ["--total-timesteps", str(arguments.total_timesteps), *flags]
    results = measure(arguments.seeds, arguments.episodes, flags)
    print(json.dumps(results["summary"], indent=1))
    print(record.write("lifecycle", results))


if __name__ == "__main__":
    main()
