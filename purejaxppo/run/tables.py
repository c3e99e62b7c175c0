"""Rows on disk: CSV tables that survive a kill, and the same for TensorBoard.

Every table begins with the same columns: update, steps (of the environment, per
seed), seconds (of the run, resumed time included) and seed.
"""

import csv
import math
from pathlib import Path
from typing import Any

AXES = ("update", "steps", "seconds", "seed")
Row = dict[str, Any]


class Table:
    """A CSV file that rows are appended to; its header is that of the first row."""

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    def append(self, rows: list[Row]) -> None:
        if not rows:
            return
        new = not self.columns
        self.columns = self.columns or list(rows[0])
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(
                file, self.columns, restval="", extrasaction="raise"
            )
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def truncate(self, update: int) -> None:
        """Drop rows after that update: a resumed run will write them again."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if self._is_whole(row)]
        kept = [row for row in kept if int(row["update"]) <= update]
        if not kept:  # then the header, too, may have been cut short
            self.path.unlink()
            self.columns = []
            return
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)
        temporary.replace(self.path)

    def _is_whole(self, row: Row) -> bool:
        """Whether a kill let the line be written to its end."""
        return None not in row.values() and str(row.get("update")).isdigit()


class Events:
    """TensorBoard scalars, by environment steps; nothing at all where switched off."""

    def __init__(self, path: Path, enabled: bool, purge_step: int | None):
        self.writer = None
        if enabled:
            from tensorboardX import SummaryWriter

            self.writer = SummaryWriter(
                str(path), purge_step=purge_step, write_to_disk=True
            )

    def append(self, rows: list[Row]) -> None:
        if self.writer is None:
            return
        for row in rows:
            suffix = f"/seed{row['seed']}"
            for name, value in row.items():
                # NaN means "nothing to report" here, for which it has no notion.
                if name not in AXES and math.isfinite(value):
                    self.writer.add_scalar(name + suffix, value, row["steps"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
