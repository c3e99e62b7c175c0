"""PPO on the scheduler against schedulers that do not learn, by the command line.

    python -m benchmarks.scheduler   # five seeds, mixture and toy
    python -m benchmarks.scheduler --seeds 1

Each seed is one `python -m purejaxppo.train` of its own. Its best policy, of the run's
own evaluations, then plays each family by itself: the same episodes for every seed and
every baseline. These episodes are not those that chose the policy: their seed is
another one. Writes benchmarks/results/scheduler.json.
"""

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import record
from benchmarks.runs import episode_keys, play, train
from purejaxppo.envs.scheduler import baselines
from purejaxppo.envs.scheduler.env import Scheduler, optimal_return
from purejaxppo.envs.scheduler.generator import FAMILIES
from purejaxppo.registry import make_env
from purejaxppo.run.trained import TrainedPolicy, load_policy

_FIGURES = ("return", "on_time", "tardiness", "success", "noop_frac", "invalid_frac")

Figures = dict[str, dict[str, float]]  # family -> figure -> mean over episodes


def _means(outcome: dict[str, jax.Array], env: Scheduler) -> dict[str, float]:
    """Means over episodes; `of_bound` is of the toy's known optimum, else of 1."""
    figures = {name: float(np.mean(outcome[name])) for name in _FIGURES}
    starts = jax.vmap(env.reset)(episode_keys(outcome["return"].shape[0]))
    bound = float(np.mean(optimal_return(starts)))
    return {**figures, "of_bound": figures["return"] / bound}


def scheduler_of(family: str) -> Scheduler:
    """The environment with instances of one family."""
    env = make_env("scheduler", family=family)
    assert isinstance(env, Scheduler)
    return env


def of_baseline(name: str, families: list[str], episodes: int) -> Figures:
    """What a baseline scores, family by family."""
    figures = {}
    for family in families:
        env = scheduler_of(family)
        score = functools.partial(
            baselines.play_baseline, env, baselines.BASELINES[name]
        )
        figures[family] = _means(jax.jit(score)(episode_keys(episodes)), env)
    return figures


def of_policy(loaded: TrainedPolicy, families: list[str], episodes: int) -> Figures:
    """What a trained policy scores, deterministic, family by family."""
    envs = {family: scheduler_of(family) for family in families}
    return {
        family: _means(play(loaded, env, episodes), env) for family, env in envs.items()
    }


def totals(figures: Figures) -> dict[str, Any]:
    """Mean and worst family, beside the families themselves."""
    returns = {family: figures[family]["return"] for family in figures}
    worst = min(returns, key=lambda family: returns[family])
    return {
        "mean_return": sum(returns.values()) / len(returns),
        "worst_family_return": returns[worst],
        "worst_family": worst,
        "invalid_frac": max(f["invalid_frac"] for f in figures.values()),
        "families": figures,
    }


def summarise(seeds: list[dict[str, Any]], edf: dict[str, Any]) -> dict[str, Any]:
    """Over seeds; by how much the worst of them beats earliest deadline first."""

    def over(name: str) -> dict[str, float]:
        values = [seed[name] for seed in seeds]
        return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}

    names = ("mean_return", "worst_family_return", "invalid_frac")
    summary: dict[str, Any] = {name: over(name) for name in names}
    for name in names[:2]:
        summary[f"{name}_over_edf"] = summary[name]["min"] - edf[name]
    summary["families_over_edf"] = {
        family: min(
            seed["families"][family]["return"] - edf["families"][family]["return"]
            for seed in seeds
        )
        for family in edf["families"]
    }
    summary["of_bound"] = {
        family: min(seed["families"][family]["of_bound"] for seed in seeds)
        for family in edf["families"]
    }
    return summary


def run_case(
    families: list[str], flags: list[str], num_seeds: int, episodes: int
) -> dict[str, Any]:
    """Baselines, then seeds, on those families."""
    result: dict[str, Any] = {
        "baselines": {
            name: totals(of_baseline(name, families, episodes))
            for name in baselines.BASELINES
        },
        "seeds": [],
    }
    for seed in range(num_seeds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            summary = train("scheduler", flags, seed, path)
            figures = totals(of_policy(load_policy(path), families, episodes))
        result["seeds"].append({"seed": seed, **figures, "run": summary})
        result["summary"] = summarise(result["seeds"], result["baselines"]["edf"])
        print(json.dumps(result["summary"], indent=1), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The scheduler, against its baselines."
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=500, help="per family")
    parser.add_argument("--cases", nargs="+", default=["mix", "toy"])
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    cases = {"mix": (list(FAMILIES), []), "toy": (["toy"], ["--preset", "toy"])}
    results: dict[str, Any] = {"episodes_per_family": arguments.episodes}
    for case in arguments.cases:
        families, flags = cases[case]
        results[case] = run_case(
            families,
            [*flags, *arguments.flags],
            arguments.seeds,
            arguments.episodes,
        )
        print(record.write("scheduler", results))


if __name__ == "__main__":
    main()
