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
from purejaxppo.doctor.finding import Finding
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


def judge(plant: Plant, findings: Iterable[list[Finding]]) -> Json:
    """Count in how many runs the doctor was right.

    Args:
      plant: the fault, with the names that are right.
      findings: of each run, the most severe first.
    """
    named = [[finding.fault for finding in own] for own in findings]
    fatal = [any(finding.fatal for finding in own) for own in findings]
    first = [own[0] if own else "" for own in named]
    return {
        "runs": len(named),
        "wanted": list(plant.verdicts),
        "kills": plant.kills,
        "source": plant.source,
        "found": sum(map(bool, named)),
        "right_first": sum(name in plant.verdicts for name in first),
        "fatal": sum(fatal),
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
    notes = []
    for title, chosen in {
        "Planted by us": lambda n, r: r["wanted"] and r["source"] == "ours",
        "Planted by others": lambda n, r: r["wanted"] and r["source"] != "ours",
    }.items():
        own = [row for name, row in found.items() if chosen(name, row)]
        runs, right, some = (sum(r[k] for r in own) for k in _COUNTS)
        notes.append(
            f"{title}: the right suspect comes first in {right} of {runs} runs "
            f"({right / runs:.0%}), and there is a finding in {some}."
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
    return rows, notes


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of the ranks; equal values share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array(
            [np.mean(values < v) + 0.5 * np.mean(values == v) for v in values]
        )

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
