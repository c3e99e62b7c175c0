"""How policies get better with their steps, by a run's own evaluations."""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.learning.runs import STUDIES, Json, over_seeds, train

Point = dict[str, float]


class Curve(NamedTuple):
    """A study of how the policy of one configuration gets better with its steps.

    Attributes:
      title: for the reader.
      flags: of the command line.
      metric: the environment's metric that the claim is about, or "return".
      frames: steps of the environment in a step of the agent.
      env: its name.
      marks: what the worst block, and the mean, should reach.
    """

    title: str
    flags: list[str]
    metric: str
    frames: int = 1
    env: str = "hammer"
    marks: tuple[float, float] = (0.95, 0.90)


CURVES = {name: Curve(**study) for name, study in STUDIES["curves"].items()}


def points_of(rows: list[dict[str, str]], study: Curve) -> list[Point]:
    """Read a run's evaluations, rounded: in float32, 19 of 20 is 0.94999999."""
    names = ("episode_success", "episode_hammered", "mean_return")
    kind = "mean" if study.metric == "return" else "episode"
    columns = {
        "mean": f"eval/{kind}_{study.metric}",
        "worst_block": f"eval/min_block_{study.metric}",
        **{name: f"eval/{name}" for name in names if f"eval/{name}" in rows[0]},
    }
    return [
        {
            "steps": int(row["steps"]) * study.frames,
            "seconds": round(float(row["seconds"]), 1),
            **{name: round(float(row[key]), 6) for name, key in columns.items()},
        }
        for row in rows
    ]


def figures_of(points: list[Point], marks: tuple[float, float]) -> Json:
    """Compute what one seed reaches: before PPO, at its best, at the end, and when."""

    def first(name: str, bar: float) -> float | None:
        return next((p["steps"] for p in points[1:] if p[name] >= bar), None)

    return {
        "before_ppo": points[0],
        "best": max(points[1:], key=lambda p: (p["worst_block"], p["mean"])),
        "last": points[-1],
        "keeps_mark": min(point["mean"] for point in points[-3:]) >= marks[1],
        "first_worst_block": first("worst_block", marks[0]),
        "first_mean": first("mean", marks[1]),
        "curve": points,
    }


def summarise(results: Json) -> Json:
    """Summarise the seeds; steps are a median, if every seed has come so far."""
    seeds = results["seeds"]
    steps = [seed["first_mean"] for seed in seeds]
    return {
        **{
            f"{when}_{name}": over_seeds([seed[when][name] for seed in seeds])
            for when in ("before_ppo", "best", "last")
            for name in ("mean", "worst_block")
        },
        "steps_to_mean": None if None in steps else float(np.median(steps)),
        "num_keep_mark": sum(seed["keeps_mark"] for seed in seeds),
    }


def measure(
    study: Curve, num_seeds: int, flags: list[str], first_seed: int = 0
) -> Iterator[Json]:
    """Train the seeds; yield the results after each.

    Args:
      study: what is trained.
      num_seeds: how often.
      flags: of the command line, after the study's own.
      first_seed: the seeds are this one and those after it.
    """
    results: Json = {**study._asdict(), "seeds": []}
    for seed in range(first_seed, first_seed + num_seeds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            summary = train(study.env, [*study.flags, *flags], seed, path)
            with (path / "evals.csv").open(newline="") as file:
                points = points_of(list(csv.DictReader(file)), study)
        speed = {name: summary[name] for name in ("steps_per_second", "faults")}
        results["seeds"].append(
            {"seed": seed, **speed, **figures_of(points, study.marks)}
        )
        yield {**results, "summary": summarise(results)}
