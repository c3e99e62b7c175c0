"""TensorBoard events of a run: the figures of its tables, for TensorBoard."""

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from purejaxppo.run.tables import AXES, Row

if TYPE_CHECKING:  # imported only where events are written
    from tensorboardX.record_writer import RecordWriter

_FLUSH_SECONDS = 120.0

# The classes of `event_pb2` are made at run time, so that pyright does not know them.
# pyright: reportAttributeAccessIssue=false


class Events:
    """TensorBoard scalars over environment steps.

    An error of the disk costs the events of that moment, and never ends a run: the same
    figures are in the tables.
    """

    def __init__(
        self,
        path: Path,
        enabled: bool,
        purge_step: int | None,
        warn: Callable[[str], None],
    ):
        """Prepare the events; a file is created by the first rows.

        Args:
          path: folder of the file.
          enabled: if False, nothing is written.
          purge_step: TensorBoard hides the events of a killed run from this step on;
            None hides nothing.
          warn: is called with a message at the first error.
        """
        self._path, self._enabled, self._warn = path, enabled, warn
        self._purge_step = purge_step
        self._writer: RecordWriter | None = None
        self._warned, self._num_files, self._flushed = False, 0, 0.0

    def append(self, rows: Sequence[Row]) -> None:
        """Write every finite number of `rows`."""
        if not self._enabled:
            return
        try:
            writer = self._writer or self._open()
            for row in rows:
                self._write_row(writer, row)
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def _open(self) -> "RecordWriter":
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._path.mkdir(exist_ok=True)
        # A reader stops at the first torn record: after an error comes another file.
        name = f"{name}.{os.getpid()}.{self._num_files}"
        self._num_files += 1
        self._writer = writer = RecordWriter(str(self._path / name))
        version = {"file_version": "brain.Event:2", "wall_time": time.time()}
        writer.write(event_pb2.Event(**version).SerializeToString())
        if self._purge_step is not None:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            for fields in (version, {"session_log": log}):
                event = event_pb2.Event(step=self._purge_step, **fields)
                writer.write(event.SerializeToString())
        return writer

    def _write_row(self, writer: "RecordWriter", row: Row) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        for name, value in row.items():
            # NaN marks a metric without a value, which TensorBoard cannot represent.
            if name not in AXES and math.isfinite(value):
                summary = scalar(f"{name}/seed{row['seed']}", value)
                event = event_pb2.Event(
                    step=int(row["steps"]), wall_time=time.time(), summary=summary
                )
                writer.write(event.SerializeToString())

    def _give_up(self, error: OSError) -> None:
        if not self._warned:
            self._warn(
                f"warning: TensorBoard events are incomplete ({error.strerror}); the "
                "tables have all figures"
            )
        self._warned = True
        with contextlib.suppress(OSError):
            self._close_writer()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Flush and close the file, if there is one."""
        try:
            self._close_writer()
        except OSError as error:
            self._give_up(error)
