"""Tables of metrics: CSV files that can be continued after a kill, and TensorBoard.

Every table begins with the same columns: update, steps (of the environment, per
seed), seconds (of the run, including those before a resume) and seed.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

AXES = ("update", "steps", "seconds", "seed")
Row = Mapping[str, float]  # column -> number; update, steps and seed are integers


class Table:
    """A CSV file to which rows are appended; the first row defines the columns.

    A file of an earlier process may lack columns, because an older version wrote it:
    the first rows that are appended add them, empty in the rows before.
    """

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []
        self.may_add_columns = path.exists()
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows at the end.

        Raises:
          ValueError: a row has a column that the header lacks.
        """
        if not rows:
            return
        new = not self.columns
        added = [name for name in rows[0] if name not in self.columns]
        if added and not new and self.may_add_columns:
            self.columns = self.columns + added
            self._rewrite(self._read())
        self.may_add_columns = False
        self.columns = self.columns or list(rows[0])
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(
                file, self.columns, restval="", extrasaction="raise"
            )
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def truncate(self, update: int) -> None:
        """Delete the rows after an update, which a resumed run writes again."""
        if not self.path.exists():
            return
        rows = [row for row in self._read() if _is_whole(row)]
        rows = [row for row in rows if int(row["update"]) <= update]
        if not rows:  # the header may be incomplete too
            self.path.unlink()
            self.columns = []
            return
        self._rewrite(rows)

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


def _is_whole(row: Mapping[str, str | None]) -> bool:
    """Return whether the line is complete; a kill may have interrupted its writing."""
    return None not in row.values() and str(row.get("update")).isdigit()


class Events:
    """TensorBoard scalars by environment steps; writes nothing if disabled."""

    def __init__(self, path: Path, enabled: bool, purge_step: int | None):
        """Open an events file.

        Args:
          path: the folder for it.
          enabled: whether to write at all.
          purge_step: hide the events that a killed run wrote from this step on; None
            to hide none.
        """
        self.writer = None
        if enabled:
            from tensorboardX import SummaryWriter

            self.writer = SummaryWriter(
                str(path), purge_step=purge_step, write_to_disk=True
            )

    def append(self, rows: Sequence[Row]) -> None:
        """Write every finite number of the rows."""
        if self.writer is None:
            return
        for row in rows:
            suffix = f"/seed{row['seed']}"
            for name, value in row.items():
                # NaN means that there is no value, so no event is written.
                if name not in AXES and math.isfinite(value):
                    self.writer.add_scalar(name + suffix, value, int(row["steps"]))

    def close(self) -> None:
        """Flush and close the file."""
        if self.writer is not None:
            self.writer.close()
