"""The figures of one seed of a run, as arrays."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Columns = Mapping[str, np.ndarray]  # name -> float64 [rows], NaN where there is none


@dataclasses.dataclass(frozen=True)
class Log:
    """The figures of one seed of a run.

    Attributes:
      path: the folder or file that was read.
      seed: the seed, or None where the file does not say.
      updates: the metrics of each update, [U], under our names, with `steps`.
      evals: the metrics of each evaluation, [E]; without evaluations it is empty.
      config: the values of the configuration and the hyperparameters, by their names;
        empty if there is no record.
      record: all of config.json, {} if there is none.
      source: which program wrote it, "purejaxppo" or "stable-baselines3".
      finished: whether the run says that it is complete.
    """

    path: Path
    seed: int | None
    updates: Columns
    evals: Columns
    config: Mapping[str, object] = dataclasses.field(default_factory=dict)
    record: Mapping[str, object] = dataclasses.field(default_factory=dict)
    source: str = "purejaxppo"
    finished: bool = False

    @property
    def name(self) -> str:
        """The path, and the seed if it is known."""
        return str(self.path) if self.seed is None else f"{self.path} seed {self.seed}"


def column(columns: Columns, name: str) -> np.ndarray:
    """Return a column, of NaN if the table lacks it."""
    steps = columns.get("steps", np.zeros(0))
    return columns.get(name, np.full(steps.shape, np.nan))


def finite(values: np.ndarray) -> np.ndarray:
    """Return the values that are numbers, in order."""
    return values[np.isfinite(values)]
