"""The journal of a run: its tables, messages, faults and best evaluations."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from purejaxppo import trees
from purejaxppo.doctor import finding as finding_lib
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.status import FATAL, describe, verdicts
from purejaxppo.ppo.types import Metrics
from purejaxppo.run import best, record
from purejaxppo.run.compiler import Ledger
from purejaxppo.run.events import Events
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.run.snapshot import Snapshot, duration
from purejaxppo.run.tables import Row, Table, TableRecord
from purejaxppo.run.watch import Watch
from purejaxppo.run.weights_and_biases import WandbRun

METRICS = "metrics.csv"


class Metadata(TypedDict):
    """The part of the journal that is saved in a checkpoint; see `Journal`."""

    best: list[best.Saved]  # of each seed
    last_eval: dict[str, float]
    faults: list[str]
    training_seconds: float
    trained_steps: int
    seconds: float
    tables: NotRequired[dict[str, TableRecord]]  # since 0.3.0
    config: NotRequired[str]  # checksum of config.json; since 0.3.0
    findings: NotRequired[list[str]]  # of the doctor, by name; since 0.3.0
    num_devices: NotRequired[int]  # that trained it, 1 before; since 0.3.0


class Journal:
    """Writes the tables of one run, and prints messages about it.

    Attributes:
      bests: the best evaluation of each seed, after an update.
      last_eval: metric -> mean over seeds, of the latest evaluation.
      training_seconds: seconds spent in updates, including those before a resume.
      trained_steps: environment steps of all seeds in these updates.
      faults: the messages of all faults so far.
      watch: what the doctor sees of the run.
    """

    def __init__(
        self, learner: Learner, options: Options, path: Path, progress: Progress
    ):
        """Prepare the journal, without reading or writing a file.

        Args:
          learner: the run's learner, for its configuration and success metric.
          options: the run's options.
          path: the run's folder.
          progress: prints messages.
        """
        self.config, self.options = learner.task.config, options
        self.path, self.progress = path, progress
        self.success = success = learner.task.env.spec.success
        self.worst_name = f"eval/min_block_{success or 'return'}"
        self.mean_name = f"eval/episode_{success}" if success else "eval/mean_return"
        self.bests: best.Bests = [None] * options.num_seeds
        self.last_eval: dict[str, float] = {}
        self.faults: list[str] = []
        self.training_seconds, self.trained_steps = 0.0, 0
        self._seconds_before, self._start = 0.0, time.monotonic()
        self.writers: list[Events | WandbRun] = []  # of the tables' rows
        self.watch = Watch(path, record.watched(self.config, learner.task.env.spec))

    # --- checkpoints ----------------------------------------------------------------

    def metadata(self) -> Metadata:
        """Return the values that are saved in a checkpoint."""
        return {
            "best": best.to_json(self.bests),
            "last_eval": self.last_eval,
            "faults": self.faults,
            "training_seconds": self.training_seconds,
            "trained_steps": self.trained_steps,
            "seconds": self.seconds,
            "findings": self.watch.said(),
        }

    def restore(self, metadata: Metadata) -> None:
        """Restore the values that `metadata` returned."""
        self.bests = best.from_json(metadata["best"], self.options.num_seeds)
        self.last_eval, self.faults = metadata["last_eval"], metadata["faults"]
        self.training_seconds = metadata["training_seconds"]
        self.trained_steps = metadata["trained_steps"]
        self._seconds_before, self._start = metadata["seconds"], time.monotonic()
        self.watch.restore(metadata.get("findings", []))

    @property
    def seconds(self) -> float:
        """Seconds since the start of the run, including those before a resume."""
        return self._seconds_before + time.monotonic() - self._start

    @property
    def steps_per_second(self) -> float:
        """Environment steps of all seeds per second of updates."""
        return self.trained_steps / max(self.training_seconds, 1e-9)

    # --- files ----------------------------------------------------------------------

    def open(
        self, update: int, records: Mapping[str, TableRecord] | None = None
    ) -> None:
        """Open tables and events, and delete entries after `update` of a killed run.

        Args:
          update: the last update whose entries are kept.
          records: what `table_records` returned for the checkpoint, if known.
        """
        self.metrics = Table(self.path / METRICS)
        self.evals = Table(self.path / "evals.csv")
        for table in (self.metrics, self.evals):
            loss = table.truncate(update, (records or {}).get(table.path.name))
            if loss:
                self.progress.line(f"warning: {loss}")
        if update > 0:
            self.watch.read(self.metrics.path, self.evals.path)
        purge = update * self.config.batch_size + 1 if update > 0 else None
        enabled, warn = self.options.tensorboard, self.progress.line
        self.writers = [
            Events(self.path, enabled, purge, warn),
            WandbRun(self.path, self.options.wandb, self.options.num_seeds, warn),
        ]

    def table_records(self, update: int) -> dict[str, TableRecord]:
        """Flush the tables to the disk; return what a checkpoint records of them.

        Args:
          update: the number of updates before the checkpoint.

        Raises:
          OSError: a table cannot be written.
        """
        for table in (self.metrics, self.evals):
            table.sync()
        return {t.path.name: t.record(update) for t in (self.metrics, self.evals)}

    def close(self) -> None:
        """Close what the rows are written to in addition to the tables."""
        for writer in self.writers:
            writer.close()

    def _write(self, table: Table, rows: Sequence[Row]) -> None:
        table.append(rows)
        for writer in self.writers:
            writer.append(rows)

    def _rows(
        self, metrics: Metrics, first_update: int, seconds: list[float]
    ) -> list[Row]:
        """Make a row per update and seed, from metrics [num, S], or [num] of one seed.

        `seconds` has the time of each of the `num` updates.
        """
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
    ) -> str:
        """Log a chunk of updates, show its figures, and report its faults.

        Args:
          metrics: of at least `num` updates, [num, S], or [num] of one seed.
          first_update: the number of the first update, from 1.
          num: number of updates.
          seconds: total time of these updates.

        Returns:
          why training must stop: the first fatal fault, with `strict` the first one;
          "" if there is none.
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
        self.watch.add_updates(rows)
        self.progress.show(self._snapshot(rows[-1], per_update))
        return self._report_faults(rows)

    def log_evaluation(self, metrics: Metrics, update: int) -> None:
        """Log an evaluation, print its result, and update the best of each seed.

        The evaluation before the first update cannot be the best.

        Args:
          metrics: of the evaluation, [S], or scalars of one seed.
          update: the number of updates before it.
        """
        rows = self._rows(trees.unsqueeze(metrics), update, [self.seconds])
        self._write(self.evals, rows)
        self.watch.add_evals(rows)
        self.last_eval = {n: float(np.mean(np.asarray(x))) for n, x in metrics.items()}
        if update > 0:
            names = (self.worst_name, self.mean_name)
            worst, mean = (np.ravel(metrics[name]).tolist() for name in names)
            self.bests = best.updated(self.bests, update, worst, mean)
        worst, mean = self.last_eval[self.worst_name], self.last_eval[self.mean_name]
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

    def _report_faults(self, rows: Sequence[Row]) -> str:
        """Print each kind of fault once; return the one that stops training, or ""."""
        reason = ""
        for row in rows:
            status = int(row["status"])
            stops = self.options.strict or bool(status & FATAL)
            for sentence in describe(status):
                text = f"update {row['update']}, seed {row['seed']}: {sentence}"
                if stops and not reason:  # a fatal fault is the first of its update
                    reason = text
                if sentence not in self.faults:
                    self.faults.append(sentence)
                    self.progress.line(f"FAULT {text}")
            self.watch.skip(verdicts(status))
        return reason

    def report_findings(self) -> str:
        """Print what the doctor finds for the first time.

        Returns:
          with `strict` the first fatal finding, for which training must stop; else "".
        """
        reason = ""
        for seed, finding in self.watch.new_findings():
            text = f"seed {seed}: {finding_lib.sentence(finding)}"
            self.progress.line(f"FINDING {text}")
            if finding.fatal and self.options.strict and not reason:
                reason = text
        return reason

    # --- the end --------------------------------------------------------------------

    def report_end(self) -> None:
        """Print the best evaluations, and the speed and duration of training."""
        if text := best.sentence(self.bests, self.config.batch_size):
            self.progress.line(text)
        self.progress.line(
            f"done: {self.steps_per_second:,.0f} steps/s in updates alone, "
            f"{duration(self.seconds)} in all; {self.path}"
        )

    def summary(self, update: int, ledger: Ledger) -> dict[str, object]:
        """Return the contents of summary.json for a run of `update` updates."""
        return {
            "updates": update,
            "steps": update * self.config.batch_size,
            **best.summary(self.bests, self.options.seed),
            "last_eval": self.last_eval,
            "steps_per_second": self.steps_per_second,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "compile_seconds": ledger,
            "faults": sorted(self.faults),
            "findings": self.watch.said(),
        }
