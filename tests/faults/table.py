"""Train runs with and without faults, and count what the doctor says of them."""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from faults.plants import PLANTS, Plant
from faults.tasks import TASKS
from purejaxppo import train
from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.readers import read


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


def findings_of(
    plant: Plant, seed: int, num_seeds: int, keep: Path | None = None
) -> list[list[Finding]]:
    """Train with a fault; return the findings of each seed.

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
        return [diagnose(log) for log in read(folder)]


def healthy(task: str) -> Plant:
    """Return the task without a fault, of which nothing may be said."""
    return Plant(TASKS[task], ())


def summarise(findings: Iterable[list[Finding]]) -> list[list[str]]:
    """Return the names of the findings of each seed, the most severe first."""
    return [[finding.fault for finding in own] for own in findings]


def main(names: list[str], seed: int, num_seeds: int, keep: Path | None) -> dict:
    """Train the named faults, or all, and return name -> findings per seed."""
    plants = {f"healthy {task}": healthy(task) for task in TASKS} | PLANTS
    chosen = {n: p for n, p in plants.items() if not names or n in names}
    table = {}
    for name, plant in chosen.items():
        folder = keep / name.replace(" ", "_").replace("/", "_") if keep else None
        table[name] = summarise(findings_of(plant, seed, num_seeds, folder))
        wanted = plant.verdicts
        right = [
            bool(own) and own[0] in wanted if wanted else not own for own in table[name]
        ]
        print(
            name,
            "|",
            sum(right),
            "of",
            len(right),
            "|",
            json.dumps(table[name]),
            flush=True,
        )
    return table
