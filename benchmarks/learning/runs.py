"""What the studies of learning share: runs of the command line, figures over seeds."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
STUDIES = tomllib.loads(Path(__file__).with_name("studies.toml").read_text())


def train(env: str, flags: Sequence[str], seed: int, path: Path) -> Json:
    """Train one seed as a user would, and return the run's summary.

    Args:
      env: its name.
      flags: of the command line.
      seed: of the run.
      path: the run's folder.
    """
    command = [sys.executable, "-m", "purejaxppo.train", "--env", env, *flags]
    command += f"--seed {seed} --no-tensorboard --no-report".split()
    command += ["--run-dir", str(path)]
    subprocess.run(command, check=True)
    return json.loads((path / "summary.json").read_text())


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Compute mean, sample deviation, smallest and largest."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    mean = float(np.mean(values))
    return {"mean": mean, "std": deviation, "min": min(values), "max": max(values)}
