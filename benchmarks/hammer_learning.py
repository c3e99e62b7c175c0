"""Learning on the hammer, by the command line that users run, over several seeds.

    python -m benchmarks.hammer_learning default   # sparse reward, six demonstrations
    python -m benchmarks.hammer_learning cs224r    # the course's protocol
    python -m benchmarks.hammer_learning dense --seeds 3
    python -m benchmarks.hammer_learning default --again  # from the stored curves

Each seed is one `python -m purejaxppo.train` of its own; the figures are read from the
evals.csv that it wrote. Writes benchmarks/results/hammer_learning_NAME.json.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.runs import train

Point = dict[str, float]

# Preset -> (flags, the metric of the claim, its worst block, environment steps a step)
CASES: dict[str, tuple[list[str], str, str, int]] = {
    "default": ([], "eval/episode_hammered", "eval/min_block_hammered", 1),
    "cs224r": (
        ["--preset", "cs224r"],
        "eval/episode_success",
        "eval/min_block_success",
        2,
    ),
    "dense": (
        ["--preset", "dense"],
        "eval/episode_success",
        "eval/min_block_success",
        1,
    ),
}


def run_seed(flags: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed; its evaluation rows and summary."""
    path = folder / f"seed{seed}"
    summary = train("hammer", flags, seed, path)
    with (path / "evals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {"rows": rows, "summary": summary}


def points_of(run: dict[str, Any], mean: str, worst: str, frames: int) -> list[Point]:
    """The evaluations of a run; block means are float32, 19 of 20 is 0.94999999."""
    names = ("episode_success", "episode_hammered", "mean_return")
    return [
        {
            "steps": int(row["steps"]) * frames,
            "mean": round(float(row[mean]), 6),
            "worst_block": round(float(row[worst]), 6),
            **{name: round(float(row[f"eval/{name}"]), 6) for name in names},
        }
        for row in run["rows"]
    ]


def figures_of(points: list[Point]) -> dict[str, Any]:
    """What one seed shows: before PPO, at its best, at the end, and when."""

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


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    def over(key: str, name: str) -> dict[str, float]:
        values = [seed[key][name] for seed in seeds]
        return {
            "mean": sum(values) / len(values),
            "min": min(values),
            "max": max(values),
        }

    return {
        f"{key}_{name}": over(key, name)
        for key in ("before_ppo", "best", "last")
        for name in ("mean", "worst_block")
    }


def again(name: str) -> Path:
    """Compute a result's figures anew from the curves that it holds."""
    path = record.RESULTS / f"{name}.json"
    stored = json.loads(path.read_text())
    seeds = stored["results"]["seeds"]
    for seed in seeds:
        points = [{k: round(v, 6) for k, v in p.items()} for p in seed["curve"]]
        seed |= figures_of(points)
    stored["results"]["summary"] = summarise(seeds)
    path.write_text(json.dumps(stored, indent=1) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Learning on the hammer.")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="train nothing")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    if arguments.again:
        print(again(f"hammer_learning_{arguments.case}"))
        return
    flags, mean, worst, frames = CASES[arguments.case]
    seeds: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    path = None
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            run = run_seed([*flags, *arguments.flags], seed, Path(folder))
            figures = figures_of(points_of(run, mean, worst, frames))
            summary = {k: run["summary"][k] for k in ("steps_per_second", "faults")}
            seeds.append({"seed": seed, **summary, **figures})
            results = {
                "metric": mean,
                "worst_block_metric": worst,
                "summary": summarise(seeds),
                "seeds": seeds,
            }
            # After each seed: what an interrupt leaves is whole seeds.
            path = record.write(f"hammer_learning_{arguments.case}", results)
    print(json.dumps(results["summary"], indent=1))
    print(path)


if __name__ == "__main__":
    main()
