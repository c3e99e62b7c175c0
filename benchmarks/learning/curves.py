"""How the hammer's presets get better with their steps, by a run's own evaluations."""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.learning.runs import STUDIES, Json, over_seeds, train

Point = dict[str, float]


class Curve(NamedTuple):
    """A study of how one preset of the hammer gets better with its steps.

    Attributes:
      title: for the reader.
      flags: of the command line.
      metric: the environment's metric that the claim is about.
      frames: steps of the environment in a step of the agent.
    """

    title: str
    flags: list[str]
    metric: str
    frames: int


CURVES = {name: Curve(**study) for name, study in STUDIES["curves"].items()}


def points_of(rows: list[dict[str, str]], study: Curve) -> list[Point]:
    """Read a run's evaluations, rounded: in float32, 19 of 20 is 0.94999999."""
    names = ("episode_success", "episode_hammered", "mean_return")
    columns = {
        "mean": f"eval/episode_{study.metric}",
        "worst_block": f"eval/min_block_{study.metric}",
        **{name: f"eval/{name}" for name in names},
    }
    return [
        {
            "steps": int(row["steps"]) * study.frames,
            "seconds": round(float(row["seconds"]), 1),
            **{name: round(float(row[key]), 6) for name, key in columns.items()},
        }
        for row in rows
    ]


def figures_of(points: list[Point]) -> Json:
    """Compute what one seed reaches: before PPO, at its best, at the end, and when."""

    def first(name: str, bar: float) -> float | None:
        return next((p["steps"] for p in points[1:] if p[name] >= bar), None)

    return {
        "before_ppo": points[0],
        "best": max(points[1:], key=lambda p: (p["worst_block"], p["mean"])),
        "last": points[-1],
        "first_worst_block_95": first("worst_block", 0.95),
        "first_mean_90": first("mean", 0.90),
        "curve": points,
    }


def summarise(results: Json) -> Json:
    """Summarise the seeds; steps are a median, if every seed has come so far."""
    seeds = results["seeds"]
    steps = [seed["first_mean_90"] for seed in seeds]
    return {
        **{
            f"{when}_{name}": over_seeds([seed[when][name] for seed in seeds])
            for when in ("before_ppo", "best", "last")
            for name in ("mean", "worst_block")
        },
        "steps_to_mean_90": None if None in steps else float(np.median(steps)),
    }


def measure(study: Curve, num_seeds: int, flags: list[str]) -> Iterator[Json]:
    """Train the seeds; yield the results after each.

    Args:
      study: what is trained.
      num_seeds: how often.
      flags: of the command line, after the study's own.
    """
    results: Json = {"metric": study.metric, "frames": study.frames, "seeds": []}
    for seed in range(num_seeds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            summary = train("hammer", [*study.flags, *flags], seed, path)
            with (path / "evals.csv").open(newline="") as file:
                points = points_of(list(csv.DictReader(file)), study)
        speed = {name: summary[name] for name in ("steps_per_second", "faults")}
        results["seeds"].append({"seed": seed, **speed, **figures_of(points)})
        yield {**results, "summary": summarise(results)}
