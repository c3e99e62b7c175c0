"""Runs that were never trained: folders with the figures that a report draws."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

HEADS = ("arm", "grip")
ROWS = 50
BATCH = 1000  # steps of an update


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def update(number: int, seed: int) -> dict[str, object]:
    x = number / ROWS
    row: dict[str, object] = {
        "update": number,
        "steps": number * BATCH,
        "seconds": number * 0.1,
        "seed": seed,
        "loss/policy": -0.01 * x,
        "loss/value": 1.0 - x + 0.1 * seed,
        "entropy": 1.0 - 0.5 * x,
        "approx_kl/mean": 0.01,
        "approx_kl/max": 0.02 + (0.5 if number == 20 else 0.0),
        "approx_kl/last": 0.01,
        "ratio/mean": 1.0,
        "ratio/min": 0.5,
        "ratio/max": 1.6,
        "value/explained_variance": x,
        "update/learning_rate": 3e-4,
        "steps_per_second": 5000.0,
        "train/episode_return": x,
        "train/noop_frac": 0.0,
        "status": 0.0,
    }
    for head in HEADS:
        row |= {f"head/{head}/entropy": 0.5 - 0.1 * x, f"head/{head}/std": 0.4}
    return row


def evaluation(number: int, seed: int) -> dict[str, object]:
    blocks = [min(number / 40, 1.0) - 0.05 * block for block in range(3)]
    row: dict[str, object] = {"update": number, "steps": number * BATCH, "seed": seed}
    for name in ("return", "success"):
        row |= {f"eval/block{i}_{name}": x for i, x in enumerate(blocks)}
        row[f"eval/min_block_{name}"] = min(blocks)
    mean = sum(blocks) / 3
    return row | {"eval/mean_return": mean, "eval/episode_success": mean}


def write_run(
    path: Path, seeds: Sequence[int] = (0,), finished: bool = True, **changes: object
) -> Path:
    """Write the folder of a run.

    Args:
      path: the folder, new.
      seeds: its seeds.
      finished: whether it has a summary.
      changes: entries of its config.json.
    """
    path.mkdir(parents=True)
    numbers, points = range(1, ROWS + 1), range(0, ROWS + 1, 10)
    write_table(path / "metrics.csv", [update(i, s) for i in numbers for s in seeds])
    write_table(path / "evals.csv", [evaluation(i, s) for i in points for s in seeds])
    record = {
        "format": 2,
        "config": {"env": "reach", "total_timesteps": ROWS * BATCH, "num_epochs": 4},
        "hypers": {"target_kl": 0.02, "clip_eps": 0.2, "gamma": 0.9},
        "sources": {"env": "flag", "gamma": "flag", "num_epochs": 'preset "default"'},
        "environment": {"success": "success"},
        "command": ["python", "-m", "purejaxppo.train", "--env", "reach"],
        "versions": {"purejaxppo": "0.3.0", "jax": "0.10.2"},
        "machine": {"system": "Linux", "cores": 2},
        "revision": "abc",
    }
    (path / "config.json").write_text(json.dumps(record | changes))
    if finished:
        (path / "summary.json").write_text("{}")
    return path
