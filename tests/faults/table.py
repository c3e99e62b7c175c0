"""Train runs with and without faults, and count what the doctor says of them."""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from faults.graded import GRADED
from faults.plants import PLANTS, Plant
from faults.tasks import HEALTHY
from purejaxppo import train
from purejaxppo.doctor.curve import curve
from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.log import Log
from purejaxppo.doctor.readers import read

Json = dict[str, Any]
_COUNTS = ("runs", "right_first", "found")


def run(flags: str, seed: int, num_seeds: int, folder: Path) -> None:
    """Train the seeds from `seed` on with the command line's own program.

    Args:
      flags: the flags of the command line.
      seed: the first seed.
      num_seeds: how many of them, in one run.
      folder: the run's folder.
    """
    own = f"--seed {seed} --num-seeds {num_seeds} --no-tensorboard --no-report"
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        code = train.main([*flags.split(), *own.split(), "--run-dir", str(folder)])
    if code != 0:
        raise RuntimeError(f"exit code {code} of {flags}: {text.getvalue()[-2000:]}")


def logs_of(
    plant: Plant, seed: int, num_seeds: int, keep: Path | None = None
) -> list[Log]:
    """Train with a fault; return the figures of each seed.

    Args:
      plant: the fault.
      seed: the first seed.
      num_seeds: how many.
      keep: a folder for the run; if None it is deleted.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary, "run")
        with plant.patch():
            run(plant.flags, seed, num_seeds, folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return read(folder)


def judge(plant: Plant, logs: Iterable[Log]) -> Json:
    """Count in how many runs the doctor was right.

    Args:
      plant: the fault, with the names that are right.
      logs: of each run.
    """
    logs = list(logs)
    findings = [diagnose(log) for log in logs]
    curves = [found for log in logs if (found := curve(log)) is not None]
    named = [[finding.fault for finding in own] for own in findings]
    fatal = [any(finding.fatal for finding in own) for own in findings]
    first = [own[0] if own else "" for own in named]
    return {
        "runs": len(named),
        "wanted": list(plant.verdicts),
        "kills": plant.kills,
        "source": plant.source,
        "task": plant.task,
        "returns": [[found.first, found.last] for found in curves],
        "found": sum(map(bool, named)),
        "right_first": sum(name in plant.verdicts for name in first),
        "fatal": sum(fatal),
        "is_fatal": fatal,
        "first": first,
        "all": named,
    }


def planted(names: list[str]) -> dict[str, Plant]:
    """Return the faults and healthy tasks of these names; all without names."""
    healthy = {f"healthy {name}": Plant(flags, ()) for name, flags in HEALTHY.items()}
    plants = healthy | PLANTS
    return {n: p for n, p in plants.items() if not names or n in names}


def graded(seed: int) -> Json:
    """Train with a setting ever further from its default; compare severity and loss.

    Args:
      seed: of all runs.

    Returns:
      every run, and Spearman's rank correlation of the loss in return and the largest
      severity, over all of them.
    """
    rows: list[Json] = []
    for flag, (flags, values) in GRADED.items():
        for value in values:
            (log,) = logs_of(Plant(f"{flags} --{flag} {value}", ()), seed, 1)
            found, findings = curve(log), diagnose(log)
            assert found is not None
            rows.append(
                {
                    "flag": flag,
                    "value": value,
                    "return": found.last,
                    "severity": findings[0].severity if findings else 0.0,
                    "first": findings[0].fault if findings else "",
                }
            )
    loss = -np.array([row["return"] for row in rows])
    severity = np.array([row["severity"] for row in rows])
    return {"rank_correlation": _spearman(loss, severity), "runs": rows}


def formatted(figures: Json) -> tuple[list[list[str]], list[str]]:
    """Format the table of faults and verdicts, and sentences with the totals."""
    rows = [["", "right suspect first", "any finding", "fatal", "first of each run"]]
    found = figures["diagnoses"]
    for name, row in found.items():
        right = f"{row['right_first']} of {row['runs']}" if row["wanted"] else "-"
        first = ", ".join(dict.fromkeys(x or "healthy" for x in row["first"]))
        rows.append([name, right, str(row["found"]), str(row["fatal"]), first])
    ours = [r for r in found.values() if r["wanted"] and r["source"] == "ours"]
    runs, right, some = (sum(row[key] for row in ours) for key in _COUNTS)
    notes = [
        f"Planted by us: the right suspect comes first in {right} of {runs} runs "
        f"({right / runs:.0%}), and there is a finding in {some}."
    ]
    killed, right, some, harmless, fatal = _mutants(found)
    notes.append(
        f"RLMutation's operators: {killed} runs lose more than half of what the task's "
        f"healthy runs gain; of these {some} have a finding, and in {right} the right "
        f"suspect comes first. Of the other {harmless} runs {fatal} have a fatal one."
    )
    own = [row for name, row in found.items() if name.startswith("healthy")]
    runs, _, some = (sum(row[key] for row in own) for key in _COUNTS)
    fatal = sum(row["fatal"] for row in own)
    notes.append(
        f"Healthy: {runs} runs, {some} with a finding, {fatal} with a fatal one."
    )
    correlation = figures["graded"]["rank_correlation"]
    notes.append(
        "Settings ever further from their defaults: Spearman's rank correlation of the "
        f"loss in return and the severity is {correlation:.2f} over "
        f"{len(figures['graded']['runs'])} runs."
    )
    foreign = figures["stable_baselines3"]
    for rate, runs in foreign.items():
        first = sorted({(x[0] if x else "healthy") for run in runs for x in run})
        notes.append(
            f"Stable-Baselines3 on CartPole with a learning rate of {rate}, "
            f"{len(runs)} seeds, read from its CSV files and from its events: "
            f"{', '.join(first)}."
        )
    long, cost = figures["long_run"], figures["cost"]
    seconds = long["seconds"]
    notes.append(
        f"A run of 1M steps ({long['updates']:,} updates): the doctor answers in "
        f"{seconds['doctor']:.1f} s, the report is drawn in {seconds['report']:.1f} s "
        f"and has {long['report_bytes'] / 1e6:.1f} MB."
    )
    for name, own in cost.items():
        ratio = own["ratios"]["with_over_without"]
        notes.append(
            f"Updates per second with all diagnostics over without, {name}: "
            f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f}, "
            f"{own['rounds']} rounds)."
        )
    return rows, notes


def _mutants(found: Json) -> tuple[int, int, int, int, int]:
    """Count RLMutation's runs.

    Returns:
      the runs that are killed, those of them with the right suspect first, and with any
      finding; the runs that are not killed, and those of them that have a fatal finding
      although no suspect is the right one.
    """
    killed = right = some = harmless = fatal = 0
    for row in (row for row in found.values() if row["task"]):
        healthy = np.array(found[f"healthy {row['task']}"]["returns"])
        half = np.mean(healthy)  # between the untrained and the trained ones
        for (_, last), all_named, is_fatal in zip(
            row["returns"], row["all"], row["is_fatal"], strict=True
        ):
            if last < half:
                killed += 1
                some += bool(all_named)
                right += bool(all_named) and all_named[0] in row["wanted"]
            else:
                harmless += 1
                fatal += is_fatal and not row["wanted"]
    return killed, right, some, harmless, fatal


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of the ranks; equal values share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array(
            [np.mean(values < v) + 0.5 * np.mean(values == v) for v in values]
        )

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
