"""Our defaults against the tuned configurations that peers publish, at equal steps.

Every task gives each side the same number of environment steps from scratch, once a
seed, and plays 100 episodes with the mode of the policy reached. Returns are scaled so
that 0 is a policy that knows nothing and 1 the mean of the best peer on that task; more
than 1 counts as 1, so that a task on which peers fail makes up for no other.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from scipy import stats

from benchmarks.harness import compare
from benchmarks.harness.compare import OURS, Competitor
from benchmarks.harness.tables import span
from benchmarks.learning.runs import STUDIES, Json, over_seeds
from purejaxppo.config import Config
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run.progress import Progress

STUDY = STUDIES["others"]["peers"]
_RESAMPLES = 10_000
_Scores = list[np.ndarray]  # of each task, one a seed


def interquartile_mean(scores: _Scores) -> float:
    """Average the middle half of all scores (Agarwal et al. 2021)."""
    return float(stats.trim_mean(np.concatenate(scores), 0.25))


def interval(scores: _Scores) -> tuple[float, float]:
    """Bound the interquartile mean: 95 %, by resampling the seeds of each task."""
    rng = np.random.default_rng(0)
    means = [
        interquartile_mean([rng.choice(task, len(task)) for task in scores])
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How often a seed of ours is better than one of theirs; a tie counts half."""
    difference = ours[:, None] - theirs[None, :]
    return float(np.mean(difference > 0) + np.mean(difference == 0) / 2)


def untrained(env: str) -> float:
    """Play the evaluation episodes with a new policy, which samples its actions."""
    config = Config.preset(env)
    learner = make_learner(config)
    state, _ = jax.jit(learner.init)(jax.random.key(0), config.hypers)
    evaluation = jax.jit(learner.evaluate, static_argnames="deterministic")
    return float(evaluation(state, deterministic=False)["eval_stochastic/mean_return"])


def _scaled(returns: np.ndarray, untrained: float, best: float) -> np.ndarray:
    """Scale returns to 0 for an untrained policy and 1 for the best peer, or more.

    Where no peer learned anything, a seed has 1 if it is as good as they are, else 0.
    """
    if best <= untrained:
        return (returns >= best).astype(float)
    return np.minimum((returns - untrained) / (best - untrained), 1.0)


def summarise(tasks: Json) -> Json:
    """Compare what all tasks measured so far say; peers that failed are left out."""
    ours, wins = [], []
    for task in tasks.values():
        found = {
            name: np.asarray(row["returns"])
            for name, row in task["stacks"].items()
            if "error" not in row
        }
        own = found.pop(OURS, None)
        if own is None or not found:
            continue
        best = max(found.values(), key=np.mean)
        ours.append(_scaled(own, task["untrained"], float(np.mean(best))))
        wins.append(probability_of_improvement(own, best))
    if not ours:
        return {}
    return {
        "interquartile_mean": interquartile_mean(ours),
        "interval": interval(ours),
        "probability_of_improvement": float(np.mean(wins)),
        "num_tasks": len(ours),
    }


def measure(num_seeds: int, only: Sequence[str]) -> Iterator[Json]:
    """Train every stack on every task; yield the results after each task.

    Args:
      num_seeds: trainings of each.
      only: names of tasks; all if empty.
    """
    tasks: Json = {}
    for name, task in STUDY["tasks"].items():
        if only and name not in only:
            continue
        stacks = {OURS: Competitor("ours.py", changes={"defaults": True})}
        for peer, published in task.items():
            if peer != "env":
                worker = STUDY["workers"][peer.partition("-")[0]]
                changes = STUDY["configurations"][published]
                stacks[peer] = Competitor(**worker, changes=changes)
        config = {"env": task["env"], "total_steps": STUDY["steps"]}
        rows = compare.train(stacks, config, range(num_seeds), Progress())
        tasks[name] = {**task, "untrained": untrained(task["env"]), "stacks": rows}
        yield with_table({"tasks": tasks, "steps": STUDY["steps"]})


def with_table(results: Json) -> Json:
    """Add the summary, and its table and sentences."""
    rows = [["task", "stack", "return, mean (min to max)", "seconds"]]
    notes = []
    for name, task in results["tasks"].items():
        for stack, row in task["stacks"].items():
            if "error" in row:
                notes.append(f"{name}, {stack}: {row['error']}.")
                continue
            reached = span(over_seeds(row["returns"]))
            rows.append([name, stack, reached, f"{row['seconds']['median']:.1f}"])
    summary = summarise(results["tasks"])
    if summary:
        low, high = summary["interval"]
        notes.append(
            f"Interquartile mean of ours over {summary['num_tasks']} tasks, 1 is the "
            f"best peer of each: {summary['interquartile_mean']:.3f} (95 %: {low:.3f} "
            f"to {high:.3f}). Probability that a seed of ours is better: "
            f"{summary['probability_of_improvement']:.2f}."
        )
    notes.append(f"{results['steps']:,} steps; seconds without compiling.")
    return {**results, "summary": summary, "table": rows, "notes": notes}
