"""What a run says and remembers: rows, the live line, faults, the best so far."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purejaxppo.errors import TrainingStopped
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.status import describe
from purejaxppo.ppo.types import Metrics
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress, duration
from purejaxppo.run.tables import Events, Row, Table


class Journal:
    """The tables of one run, and what is said about it while it goes on.

    Attributes:
      best: update, worst block and mean of the best evaluation; empty before one.
      last_eval: metric -> mean over seeds, of the latest evaluation.
      training_seconds: spent in updates alone, over all parts of a resumed run.
      faults: the sentences of all faults seen.
    """

    def __init__(
        self, learner: Learner, options: Options, path: Path, progress: Progress
    ):
        self.config, self.options = learner.task.config, options
        self.path, self.progress = path, progress
        success = learner.task.env.spec.success
        self.worst_name = f"eval/min_block_{success or 'return'}"
        self.mean_name = f"eval/episode_{success}" if success else "eval/mean_return"
        self.success_name = f"train/{success}"
        self.best: dict[str, Any] = {}
        self.last_eval: dict[str, float] = {}
        self.faults: list[str] = []
        self.training_seconds, self.trained_steps = 0.0, 0
        self._seconds_before, self._began = 0.0, time.monotonic()
        self.events: Events | None = None

    # --- what a checkpoint remembers ------------------------------------------------

    _REMEMBERED = "best last_eval faults training_seconds trained_steps".split()

    def memory(self) -> dict[str, Any]:
        """What a resumed run must know; JSON."""
        return {n: getattr(self, n) for n in self._REMEMBERED} | {
            "seconds": self.seconds
        }

    def recall(self, memory: dict[str, Any]) -> None:
        for name in self._REMEMBERED:
            setattr(self, name, memory[name])
        self._seconds_before, self._began = memory["seconds"], time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of the run, resumed time included, everything in them."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def steps_per_second(self) -> float:
        """Environment steps of all seeds per second of updates."""
        return self.trained_steps / max(self.training_seconds, 1e-9)

    # --- files ----------------------------------------------------------------------

    def open(self, update: int) -> None:
        """Tables and events, without what a killed run wrote after that update."""
        self.metrics = Table(self.path / "metrics.csv")
        self.evals = Table(self.path / "evals.csv")
        for table in (self.metrics, self.evals):
            table.truncate(update)
        purge = update * self.config.batch_size + 1 if update > 0 else None
        self.events = Events(self.path, self.options.tensorboard, purge)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()

    def _log(self, table: Table, rows: list[Row]) -> None:
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

    def updates(
        self, metrics: Metrics, first_update: int, num: int, seconds: float
    ) -> None:
        """Log a chunk of `num` updates that took `seconds`, and show how it goes.

        Raises:
          TrainingStopped: under `strict`, at the first fault.
        """
        per_update, steps = seconds / num, num * self.config.batch_size
        steps *= self.options.num_seeds
        self.training_seconds += seconds
        self.trained_steps += steps
        now = self.seconds
        times = [now - per_update * (num - 1 - i) for i in range(num)]
        rows = self._rows(metrics, first_update, times)
        rows = [row | {"steps_per_second": steps / seconds} for row in rows]
        self._log(self.metrics, rows)
        self._show(rows[-1], per_update)
        self._report_faults(rows)

    def evaluation(self, metrics: Metrics, update: int) -> None:
        """Log an evaluation, and remember whether it is the best so far.

        With several seeds one checkpoint holds them all; the best is that of the
        highest mean over seeds. What was only cloned does not compete.
        """
        stacked = jax.tree.map(lambda x: x[None], metrics)
        self._log(self.evals, self._rows(stacked, update, [self.seconds]))
        self.last_eval = {n: float(np.mean(np.asarray(x))) for n, x in metrics.items()}
        worst, mean = self.last_eval[self.worst_name], self.last_eval[self.mean_name]
        before = self.best.get("worst", -np.inf), self.best.get("mean", -np.inf)
        if update > 0 and (worst, mean) >= before:
            self.best = {"update": update, "worst": worst, "mean": mean}
        self.progress.line(
            f"evaluation at {update * self.config.batch_size:,} steps: "
            f"{self.mean_name} {mean:.3f}, worst block {worst:.3f}, "
            f"return {self.last_eval['eval/mean_return']:.2f}"
        )

    def _show(self, row: Row, per_update: float) -> None:
        left = (self.config.num_updates - row["update"]) * per_update
        parts = [
            f"{row['steps']:>9,} steps",
            f"{row['steps_per_second']:,.0f} steps/s",
            f"{duration(left)} left",
            f"return {row['train/episode_return']:.2f}",
        ]
        if self.success_name in row:
            parts.append(f"success {row[self.success_name]:.2f}")
        parts.append(f"kl {row['approx_kl/last']:.3f}")
        if self.last_eval:
            parts.append(f"worst block {self.last_eval[self.worst_name]:.2f}")
        self.progress.status("  ".join(parts))

    def _report_faults(self, rows: list[Row]) -> None:
        """Say each kind of fault once, aloud."""
        for row in rows:
            for sentence in describe(int(row["status"])):
                text = f"update {row['update']}, seed {row['seed']}: {sentence}"
                if sentence not in self.faults:
                    self.faults.append(sentence)
                    self.progress.line(f"FAULT {text}")
                if self.options.strict:
                    raise TrainingStopped(text)

    def summary(self, update: int, ledger: dict[str, Any]) -> dict[str, Any]:
        """How the run ended, for summary.json; says it too."""
        steps = update * self.config.batch_size
        if self.best:
            at = self.best["update"] * self.config.batch_size
            self.progress.line(
                f"best: worst block {self.best['worst']:.3f}, "
                f"mean {self.best['mean']:.3f}, at {at:,} steps"
            )
        self.progress.line(
            f"done: {self.steps_per_second:,.0f} steps/s in updates alone, "
            f"{duration(self.seconds)} in all; {self.path}"
        )
        return {
            "updates": update,
            "steps": steps,
            "best": self.best,
            "last_eval": self.last_eval,
            "steps_per_second": self.steps_per_second,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "compile_seconds": ledger,
            "faults": sorted(self.faults),
        }
