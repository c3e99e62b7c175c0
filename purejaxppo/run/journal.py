"""What a run records and says: rows, the live line, faults, the best evaluation."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from purejaxppo import trees
from purejaxppo.errors import TrainingStopped
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.status import describe
from purejaxppo.ppo.types import Metrics
from purejaxppo.run.compiler import Ledger
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.run.snapshot import Snapshot, duration
from purejaxppo.run.tables import Events, Row, Table


class Best(NamedTuple):
    """The best evaluation so far.

    Attributes:
      update: the number of updates before it.
      worst: the figure of its worst block, a success rate or a return.
      mean: the same over all blocks.
    """

    update: int
    worst: float
    mean: float


class Metadata(TypedDict):
    """What a checkpoint holds of the journal, as JSON; see `Journal`."""

    best: dict[str, float]  # fields of `Best`; empty before the first evaluation
    last_eval: dict[str, float]
    faults: list[str]
    training_seconds: float
    trained_steps: int
    seconds: float


def best_evaluation(metadata: Metadata) -> Best | None:
    """The best evaluation that a checkpoint knows of."""
    best = metadata["best"]
    return Best(int(best["update"]), best["worst"], best["mean"]) if best else None


class Journal:
    """The tables of one run, and what is said about it while it goes on.

    Attributes:
      best: the best evaluation; None before the first after an update.
      last_eval: metric -> mean over seeds, of the latest evaluation.
      training_seconds: spent in updates alone, over all parts of a resumed run.
      trained_steps: environment steps of all seeds in that time.
      faults: the sentences of all faults seen.
    """

    def __init__(
        self, learner: Learner, options: Options, path: Path, progress: Progress
    ):
        """Prepare the journal; nothing is read or written before `open`.

        Args:
          learner: of the run, for its configuration and the names of its figures.
          options: of the run.
          path: the run's folder.
          progress: where to say things.
        """
        self.config, self.options = learner.task.config, options
        self.path, self.progress = path, progress
        self.success = success = learner.task.env.spec.success
        self.worst_name = f"eval/min_block_{success or 'return'}"
        self.mean_name = f"eval/episode_{success}" if success else "eval/mean_return"
        self.best: Best | None = None
        self.last_eval: dict[str, float] = {}
        self.faults: list[str] = []
        self.training_seconds, self.trained_steps = 0.0, 0
        self._seconds_before, self._start = 0.0, time.monotonic()
        self.events: Events | None = None

    # --- what a checkpoint holds of it ----------------------------------------------

    def metadata(self) -> Metadata:
        """What a resumed run must know."""
        return {
            "best": self.best._asdict() if self.best else {},
            "last_eval": self.last_eval,
            "faults": self.faults,
            "training_seconds": self.training_seconds,
            "trained_steps": self.trained_steps,
            "seconds": self.seconds,
        }

    def restore(self, metadata: Metadata) -> None:
        """Continue from what `metadata` gave."""
        self.best = best_evaluation(metadata)
        self.last_eval, self.faults = metadata["last_eval"], metadata["faults"]
        self.training_seconds = metadata["training_seconds"]
        self.trained_steps = metadata["trained_steps"]
        self._seconds_before, self._start = metadata["seconds"], time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of the run with everything in them, those before a resume too."""
        return self._seconds_before + time.monotonic() - self._start

    @property
    def steps_per_second(self) -> float:
        """Environment steps of all seeds per second of updates."""
        return self.trained_steps / max(self.training_seconds, 1e-9)

    # --- files ----------------------------------------------------------------------

    def open(self, update: int) -> None:
        """Open tables and events, without what a killed run wrote after that update."""
        self.metrics = Table(self.path / "metrics.csv")
        self.evals = Table(self.path / "evals.csv")
        for table in (self.metrics, self.evals):
            table.truncate(update)
        purge = update * self.config.batch_size + 1 if update > 0 else None
        self.events = Events(self.path, self.options.tensorboard, purge)

    def close(self) -> None:
        """Close what `open` opened, if it did."""
        if self.events is not None:
            self.events.close()

    def _write(self, table: Table, rows: Sequence[Row]) -> None:
        table.append(rows)
        if self.events is not None:
            self.events.append(rows)

    def _rows(
        self, metrics: Metrics, first_update: int, seconds: list[float]
    ) -> list[Row]:
        """One row per update and seed, from metrics [len(seconds), S] (or no S)."""
        num, seeds = len(seconds), self.options.num_seeds
        host = {n: np.asarray(x)[:num].reshape(num, -1) for n, x in metrics.items()}
        return [
            {
                "update": first_update + i,
                "steps": (first_update + i) * self.config.batch_size,
                "seconds": round(seconds[i], 3),
                "seed": self.options.seed + s,
            }
            | {name: float(host[name][i, s]) for name in sorted(host)}
            for i in range(num)
            for s in range(seeds)
        ]

    # --- events of a run ------------------------------------------------------------

    def log_updates(
        self, metrics: Metrics, first_update: int, num: int, seconds: float
    ) -> None:
        """Log a chunk of updates, and show how training goes.

        Args:
          metrics: of at least `num` updates, [num, S], or [num] of one seed.
          first_update: the number of the first of them, from 1.
          num: of updates.
          seconds: that they took together.

        Raises:
          TrainingStopped: under `strict`, at the first fault.
        """
        per_update = seconds / num
        steps = num * self.config.batch_size * self.options.num_seeds
        self.training_seconds += seconds
        self.trained_steps += steps
        now = self.seconds
        times = [now - per_update * (num - 1 - i) for i in range(num)]
        speed = {"steps_per_second": steps / seconds}
        rows = [{**row, **speed} for row in self._rows(metrics, first_update, times)]
        self._write(self.metrics, rows)
        self.progress.show(self._snapshot(rows[-1], per_update))
        self._report_faults(rows)

    def log_evaluation(self, metrics: Metrics, update: int) -> None:
        """Log an evaluation, say how it went, and note whether it is the best so far.

        With several seeds one checkpoint holds them all; the best is that of the
        highest mean over seeds. What was only cloned does not compete.

        Args:
          metrics: of the evaluation, [S], or scalars of one seed.
          update: the number of updates before it.
        """
        rows = self._rows(trees.unsqueeze(metrics), update, [self.seconds])
        self._write(self.evals, rows)
        self.last_eval = {n: float(np.mean(np.asarray(x))) for n, x in metrics.items()}
        worst, mean = self.last_eval[self.worst_name], self.last_eval[self.mean_name]
        best = self.best or Best(0, -math.inf, -math.inf)
        if update > 0 and (worst, mean) >= (best.worst, best.mean):
            self.best = Best(update, worst, mean)
        self._report_evaluation(update, worst, mean)

    def _report_evaluation(self, update: int, worst: float, mean: float) -> None:
        steps, success = update * self.config.batch_size, self.success
        text = f"evaluation at {steps:,} steps: {success or 'return'} {mean:.3f}"
        text += f", worst block {worst:.3f}"
        if success:
            text += f", return {self.last_eval['eval/mean_return']:.2f}"
        self.progress.line(text)

    def _snapshot(self, row: Row, seconds_per_update: float) -> Snapshot:
        updates_left = self.config.num_updates - row["update"]
        return Snapshot(
            steps=int(row["steps"]),
            total_steps=self.config.num_updates * self.config.batch_size,
            steps_per_second=row["steps_per_second"],
            seconds_left=updates_left * seconds_per_update,
            episode_return=row["train/episode_return"],
            success=row.get(f"train/{self.success}"),
            approx_kl=row["approx_kl/last"],
            worst_block=self.last_eval.get(self.worst_name),
        )

    def _report_faults(self, rows: Sequence[Row]) -> None:
        """Say each kind of fault once."""
        for row in rows:
            for sentence in describe(int(row["status"])):
                text = f"update {row['update']}, seed {row['seed']}: {sentence}"
                if sentence not in self.faults:
                    self.faults.append(sentence)
                    self.progress.line(f"FAULT {text}")
                if self.options.strict:
                    raise TrainingStopped(text)

    # --- the end --------------------------------------------------------------------

    def report_end(self) -> None:
        """Say what the best evaluation was, and what training took."""
        if self.best is not None:
            steps = self.best.update * self.config.batch_size
            self.progress.line(
                f"best: worst block {self.best.worst:.3f}, "
                f"mean {self.best.mean:.3f}, at {steps:,} steps"
            )
        self.progress.line(
            f"done: {self.steps_per_second:,.0f} steps/s in updates alone, "
            f"{duration(self.seconds)} in all; {self.path}"
        )

    def summary(self, update: int, ledger: Ledger) -> dict[str, object]:
        """How the run ended after that many updates, for summary.json."""
        return {
            "updates": update,
            "steps": update * self.config.batch_size,
            "best": self.best._asdict() if self.best else {},
            "last_eval": self.last_eval,
            "steps_per_second": self.steps_per_second,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "compile_seconds": ledger,
            "faults": sorted(self.faults),
        }
