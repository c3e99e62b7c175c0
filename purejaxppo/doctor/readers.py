"""Run folders, CSV files and TensorBoard events -> logs, one for each seed.

A run may still be written, or may have been killed: a last row that is cut short is
left out, and so is whatever else is not a row of numbers.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purejaxppo.doctor.log import Columns, Log
from purejaxppo.errors import PurejaxppoError

_METRICS, _EVALS = "metrics.csv", "evals.csv"


class UnreadableRun(PurejaxppoError):  # noqa: N818
    """A path at which there are no figures of a run."""

    def __init__(self, path: Path, problem: str):
        allowed = "a run's folder, its metrics.csv, or a folder of TensorBoard events"
        super().__init__(f"run: {path} {problem}; allowed is {allowed}")


def read(path: Path) -> list[Log]:
    """Read the figures of a run, one log for each seed.

    Args:
      path: the folder of a run, a CSV file with a column `steps`, a folder with events
        of TensorBoard or a file of them.

    Raises:
      UnreadableRun: there are no figures.
    """
    try:
        if path.is_dir():
            if (path / _METRICS).exists():
                return _read_run(path)
            return _read_events(path, sorted(path.rglob("*tfevents*")))
        if "tfevents" in path.name:
            return _read_events(path, [path])
        if path.exists():
            return _read_tables(path, path, None, {})
    except OSError as error:
        raise UnreadableRun(path, f"cannot be read ({error.strerror})") from None
    raise UnreadableRun(path, "does not exist")


def _read_run(path: Path) -> list[Log]:
    """Read a run's folder: both tables, and what its config.json records."""
    record = _read_json(path / "config.json")
    return _read_tables(path, path / _METRICS, path / _EVALS, record)


def _read_json(path: Path) -> dict:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _read_tables(
    path: Path, metrics: Path, evals: Path | None, record: Mapping[str, object]
) -> list[Log]:
    """Read the tables of a run, and split them by seed.

    Args:
      path: the run, for the name of the log.
      metrics: the CSV file of updates.
      evals: the CSV file of evaluations, if it should be looked for.
      record: the contents of config.json, or {}.
    """
    updates = read_csv(metrics)
    if "steps" not in updates or not updates["steps"].size:
        raise UnreadableRun(path, f"has no row of figures in {metrics.name}")
    if evals is None:  # a single table, which may hold both
        updates, evaluations = _split_evaluations(updates)
    else:
        evaluations = read_csv(evals) if evals.exists() else {}
    config = _config(record)
    finished = evals is not None and (path / "summary.json").exists()
    seeds = updates.get("seed", np.zeros(0))
    seeds = np.unique(seeds[np.isfinite(seeds)])
    return [
        Log(
            path=path,
            seed=None if seed is None else int(seed),
            updates=_of_seed(updates, seed),
            evals=_of_seed(evaluations, seed),
            config=config,
            record=record,
            finished=finished,
        )
        for seed in (seeds if seeds.size else [None])
    ]


def _split_evaluations(columns: Columns) -> tuple[Columns, Columns]:
    """Split a table of updates and evaluations, as Stable-Baselines3 writes it."""
    names = [name for name in columns if name.startswith("eval/")]
    if not names:
        return columns, {}
    known = np.any([np.isfinite(columns[name]) for name in names], axis=0)
    evals = {name: columns[name][known] for name in ("steps", *names)}
    return {n: x for n, x in columns.items() if n not in names}, evals


def _config(record: Mapping[str, object]) -> dict:
    """Return the values of a config.json by name."""
    groups = [record.get(name) for name in ("config", "hypers", "environment")]
    config = {}
    for group in groups:
        config |= group if isinstance(group, dict) else {}
    return config


def _of_seed(columns: Columns, seed: float | None) -> Columns:
    if seed is None or "seed" not in columns:
        return columns
    rows = columns["seed"] == seed
    return {name: values[rows] for name, values in columns.items()}


def read_csv(path: Path) -> Columns:
    """Read a CSV file of numbers; rows that are not whole are left out.

    The last row of a run that is being written may be cut short, and a disk error may
    have damaged others.

    Args:
      path: the file. Empty fields are NaN.
    """
    with open(path, newline="", errors="replace") as file:
        lines = csv.reader(line.replace("\0", "") for line in file)
        names = next(lines, [])
        rows = [row for fields in lines if (row := _numbers(fields, len(names)))]
    if not rows:
        return {}
    table = np.array(rows, np.float64)
    columns = dict(zip(names, table.T, strict=True))
    return rename(columns) if "steps" not in columns else columns


def _numbers(fields: Sequence[str], num: int) -> list[float] | None:
    if len(fields) != num:
        return None
    try:
        return [float(field or "nan") for field in fields]
    except ValueError:
        return None


# --- other programs ------------------------------------------------------------------

# Stable-Baselines3's name -> ours, and what its figure is multiplied by.
_SB3 = {
    "time/total_timesteps": ("steps", 1.0),
    "time/fps": ("steps_per_second", 1.0),
    "rollout/ep_rew_mean": ("train/episode_return", 1.0),
    "rollout/ep_len_mean": ("train/episode_length", 1.0),
    "rollout/success_rate": ("train/success", 1.0),
    "eval/mean_reward": ("eval/mean_return", 1.0),
    "eval/mean_ep_length": ("eval/episode_length", 1.0),
    "eval/success_rate": ("eval/episode_success", 1.0),
    "train/approx_kl": ("approx_kl/last", 1.0),
    "train/clip_fraction": ("clip_frac", 1.0),
    "train/clip_range": ("clip_eps", 1.0),
    "train/entropy_loss": ("entropy", -1.0),  # it is minus the mean entropy
    "train/explained_variance": ("value/explained_variance", 1.0),
    "train/value_loss": ("loss/value", 1.0),
    "train/policy_gradient_loss": ("loss/policy", 1.0),
    "train/loss": ("loss/total", 1.0),
    "train/learning_rate": ("update/learning_rate", 1.0),
    "train/n_updates": ("update/count", 1.0),
    "train/std": ("head/action/std", 1.0),
}


def rename(columns: Columns) -> Columns:
    """Translate Stable-Baselines3's names to ours; others stay as they are."""
    renamed = {}
    for name, values in columns.items():
        ours, factor = _SB3.get(name, (name, 1.0))
        renamed[ours] = factor * values
    return renamed


def _read_events(path: Path, files: Sequence[Path]) -> list[Log]:
    """Read TensorBoard events, those of all `files` together."""
    series: dict[str, dict[int, float]] = {}
    for file in files:
        for step, name, value in _scalars(file):
            series.setdefault(name, {})[step] = value
    if not series:
        raise UnreadableRun(path, "holds no figures of a run")
    tables = _split_seeds(series)
    is_sb3 = any(name in _SB3 for name in series)
    source = "stable-baselines3" if is_sb3 else "purejaxppo"
    return [
        Log(
            path=path,
            seed=seed,
            updates=_table(own, lambda name: not name.startswith("eval/")),
            evals=_table(own, lambda name: name.startswith("eval/")),
            source=source,
        )
        for seed, own in sorted(tables.items(), key=lambda item: item[0] or 0)
    ]


Series = dict[str, dict[int, float]]  # name -> step -> value


def _split_seeds(series: Series) -> dict[int | None, Series]:
    """Split names that end with /seedN by seed, as our events have them."""
    tables: dict[int | None, Series] = {}
    for name, points in series.items():
        base, _, last = name.rpartition("/")
        is_ours = last.startswith("seed") and last[4:].isdigit()
        seed = int(last[4:]) if is_ours else None
        tables.setdefault(seed, {})[base if is_ours else name] = points
    return tables


def _table(series: Series, wanted: Callable[[str], bool]) -> Columns:
    """Put the series whose names are wanted into one table over all their steps."""
    own = {name: points for name, points in series.items() if wanted(name)}
    renamed = {_SB3.get(n, (n, 1.0)): points for n, points in own.items()}
    steps = sorted({step for points in own.values() for step in points})
    columns = {"steps": np.array(steps, np.float64)}
    for (name, factor), points in renamed.items():
        if name != "steps":
            values = [factor * points.get(step, math.nan) for step in steps]
            columns[name] = np.array(values, np.float64)
    return columns


def _scalars(path: Path) -> list[tuple[int, str, float]]:
    """Return (step, name, value) of the scalars in a file of events.

    A file consists of records: length (8 bytes), checksum (4), an `Event` message of
    that length, checksum (4). A record that is cut short ends it.
    """
    # The class is made at run time, so that pyright does not know it.
    from tensorboardX.proto import event_pb2

    event_class: Any = vars(event_pb2)["Event"]

    content, position, found = path.read_bytes(), 0, []
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 8], "little")
        start = position + 12
        if start + length + 4 > len(content):
            break
        event = event_class.FromString(content[start : start + length])
        for value in event.summary.value:
            found.append((event.step, value.tag, _number(value)))
        position = start + length + 4
    return [(step, name, x) for step, name, x in found if math.isfinite(x)]


def _number(value: Any) -> float:
    """Return a scalar in either of its two encodings; NaN for anything else."""
    if value.HasField("simple_value"):
        return value.simple_value
    tensor = value.tensor
    if len(tensor.float_val) == 1:
        return tensor.float_val[0]
    if len(tensor.tensor_content) == 4:
        return float(np.frombuffer(tensor.tensor_content, np.float32)[0])
    return math.nan
