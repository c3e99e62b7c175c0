"""What the head that takes cards is worth in the deck, by the command line.

    python -m benchmarks.deck   # five seeds
    python -m benchmarks.deck --seeds 1 --total-timesteps 100000   # a quick look

For each seed two agents are trained, each by a `python -m purejaxppo.train` of its own:
one that takes its cards (`trained`), and one whose cards chance takes (`untaught`). The
best policy of each, of its run's own evaluations, plays the same episodes; and
the first agent plays them once more with its picks replaced by chance (`replaced`).
These episodes are not those that chose the policy. The claim is that the first agent
wins more often than the other two by more than the spread (largest less smallest) of
any of the three over seeds. Writes benchmarks/results/deck.json.
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
from purejaxppo.envs.deck import baselines
from purejaxppo.envs.deck.env import Deck
from purejaxppo.registry import make_env
from purejaxppo.run.trained import TrainedPolicy, load_policy

PLAYERS = ("trained", "replaced", "untaught")
_FIGURES = ("success", "combats_won", "return", "length", "noop_frac", "invalid_frac")

Figures = dict[str, float]


def _means(outcome: dict[str, jax.Array]) -> Figures:
    return {name: float(np.mean(outcome[name])) for name in _FIGURES}


def deck_of(choice: str) -> Deck:
    """The environment in which the policy, or chance, takes cards."""
    env = make_env("deck", choice=choice)
    assert isinstance(env, Deck)
    return env


def of_baseline(name: str, episodes: int) -> Figures:
    """What a baseline scores."""
    env, baseline = deck_of("policy"), baselines.BASELINES[name]
    score = jax.jit(lambda keys: baselines.play_baseline(env, baseline, keys))
    return _means(score(episode_keys(episodes)))


def of_policy(loaded: TrainedPolicy, choice: str, episodes: int) -> Figures:
    """What a trained policy scores, deterministic, where `choice` takes cards."""
    return _means(play(loaded, deck_of(choice), episodes))


def run_seed(flags: list[str], seed: int, episodes: int) -> dict[str, Any]:
    """Both trainings of a seed, and the three players that come of them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {preset: Path(folder) / preset for preset in ("default", "random")}
        runs = {
            preset: train("deck", ["--preset", preset, *flags], seed, path)
            for preset, path in paths.items()
        }
        taught, untaught = (load_policy(path) for path in paths.values())
        players = {
            "trained": of_policy(taught, "policy", episodes),
            "replaced": of_policy(taught, "random", episodes),
            "untaught": of_policy(untaught, "random", episodes),
        }
    return {"seed": seed, **players, "runs": runs}


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Win rates over seeds, and by how much the first player beats the others.

    `gain_of_worst` is its worst seed against the best seed of the other: the claim in
    its strictest form, and not part of `holds`.
    """
    wins = {name: [seed[name]["success"] for seed in seeds] for name in PLAYERS}
    over = {
        name: {
            "mean": float(np.mean(values)),
            "min": min(values),
            "max": max(values),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        }
        for name, values in wins.items()
    }
    spread = max(max(values) - min(values) for values in wins.values())
    gain = {n: over["trained"]["mean"] - over[n]["mean"] for n in PLAYERS[1:]}
    return {
        "success": over,
        "gain": gain,
        "gain_of_worst": {
            n: over["trained"]["min"] - over[n]["max"] for n in PLAYERS[1:]
        },
        "spread": spread,
        # One seed has no spread, and shows nothing.
        "holds": len(seeds) > 1 and all(value > spread for value in gain.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the choice head is worth.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--total-timesteps", type=int, help="instead of the preset's")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    flags = list(arguments.flags)
    if arguments.total_timesteps is not None:
        flags = ["--total-timesteps", str(arguments.total_timesteps), *flags]
    results: dict[str, Any] = {
        "episodes": arguments.episodes,
        "baselines": {
            name: of_baseline(name, arguments.episodes) for name in baselines.BASELINES
        },
        "seeds": [],
    }
    for seed in range(arguments.seeds):
        results["seeds"].append(run_seed(flags, seed, arguments.episodes))
        results["summary"] = summarise(results["seeds"])
        print(json.dumps(results["summary"], indent=1), flush=True)
        print(record.write("deck", results))


if __name__ == "__main__":
    main()
