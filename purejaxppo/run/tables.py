"""Tables of metrics: CSV files that survive kills, damages and full disks.

Every table begins with the same columns: update, steps (environment steps per seed),
seconds (since the start of the run, including those before a resume) and seed.
"""

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from purejaxppo.run import files

AXES = ("update", "steps", "seconds", "seed")
Row = Mapping[str, float]  # column -> number; update, steps and seed are integers


class TableRecord(TypedDict):
    """What a checkpoint records of a table: with it a damaged one is recognised.

    Attributes:
      rows: the number of rows.
      columns: the names of the columns.
      sha256: the checksum of the file.
    """

    rows: int
    columns: list[str]
    sha256: str


class Table:
    """A CSV file of rows; its columns are those of the first row.

    A file of an earlier process may lack columns, because an older version wrote it:
    the first rows that are appended add them, empty in the rows before. Rows that the
    disk refuses stay in memory, and are written with later ones.
    """

    def __init__(self, path: Path):
        self.path = path
        self._load(path.read_bytes() if path.exists() else b"")

    def _load(self, content: bytes) -> None:
        lines = content.splitlines()
        self.columns = _fields(lines[0]) if lines else []
        self.may_add_columns = bool(lines)
        self.rows = max(len(lines) - 1, 0)
        self._digest, self._size = hashlib.sha256(content), len(content)
        self._pending, self._synced = b"", -1 if content else 0

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows to the file, or keep them where it cannot be written.

        Raises:
          ValueError: a row has a column that the file lacks.
        """
        if not rows:
            return
        header = b""
        added = [name for name in rows[0] if name not in self.columns]
        if not self.columns:
            self.columns = added
            header = _line(added)
        elif added and self.may_add_columns:
            self._add_columns(added)
        self.may_add_columns = False
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="raise")
        writer.writerows(rows)
        content = header + text.getvalue().encode()
        self._digest.update(content)
        self._pending += content
        self.rows += len(rows)
        try:
            self._write()
        except OSError:
            pass  # tried again with the next rows, and by `sync`

    def _add_columns(self, added: Sequence[str]) -> None:
        """Rewrite the file with more columns, which are empty in the rows before."""
        lines = self.path.read_bytes().splitlines()[1:]
        empty = b"," * len(added) + b"\r\n"
        content = _line([*self.columns, *added])
        content += b"".join(line + empty for line in lines)
        files.replace(self.path, content)
        self._load(content)

    def _write(self) -> None:
        """Write what is pending at the end of the file."""
        if not self._pending:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o666)
        with open(descriptor, "wb", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            content = memoryview(self._pending)
            if size > self._size:  # the part of a row that a full disk still took
                file.truncate(self._size)
            elif size == 0 and self._size > 0:  # deleted by somebody
                content = memoryview(_line(self.columns) + self._pending)
            end = file.seek(min(size, self._size)) + len(content)
            while content:
                content = content[file.write(content) :]
        self._size, self._pending = end, b""

    def sync(self) -> None:
        """Write pending rows and flush the file to the disk.

        Raises:
          OSError: the file cannot be written.
        """
        self._write()
        if self._synced != self._size:
            files.sync(self.path)
        self._synced = self._size

    def record(self) -> TableRecord:
        """Return what a checkpoint records of the table."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "sha256": self._digest.hexdigest(),
        }

    def truncate(self, update: int, record: TableRecord | None = None) -> str:
        """Delete the rows after an update, because a resumed run writes them again.

        Rows that are cut short or damaged are deleted too, and a damaged header is
        restored from `record`.

        Args:
          update: the last update whose rows are kept.
          record: what the checkpoint of that update recorded of the table, if known.

        Returns:
          a message about what was lost, empty if nothing was.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.splitlines(keepends=True)
        columns = record["columns"] if record else _fields(lines[0] if lines else b"")
        header = _line(columns)
        whole = [(line, _update_of(line, columns)) for line in lines]
        rows = [line for line, n in whole if n is not None and n <= update]
        kept = b"".join([header, *rows]) if rows else b""
        if not rows:  # the header may be incomplete, too
            self.path.unlink(missing_ok=True)
        elif kept != content:
            files.replace(self.path, kept)
        self._load(kept)
        intact_header = bool(lines) and lines[0] == header
        return self._loss(record, update, intact_header) if record else ""

    def _loss(self, record: TableRecord, update: int, intact_header: bool) -> str:
        lost = record["rows"] - self.rows
        if lost > 0:
            return (
                f"{self.path.name}: {lost} of its {record['rows']} rows up to update "
                f"{update} are missing or damaged"
            )
        if self.rows and not intact_header:
            return f"{self.path.name}: its header is damaged, and restored"
        if self._digest.hexdigest() != record["sha256"]:
            return f"{self.path.name}: not as it was written, though no row is missing"
        return ""


def _line(columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(columns)
    return text.getvalue().encode()


def _fields(line: bytes) -> list[str]:
    return next(csv.reader([line.decode(errors="replace").rstrip("\r\n")]), [])


def _update_of(line: bytes, columns: Sequence[str]) -> int | None:
    """Return the update of a row; None if the row is cut short, damaged or a header."""
    fields = _fields(line)
    if not line.endswith(b"\n") or len(fields) != len(columns):
        return None
    try:
        for field in fields:
            float(field or "nan")  # a row without a metric leaves its field empty
        return int(fields[columns.index("update")])
    except ValueError:
        return None
