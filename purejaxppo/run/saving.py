"""When and how checkpoints of a run are written, also where the disk refuses them."""

import time
from collections.abc import Callable
from pathlib import Path

from purejaxppo.errors import StorageError
from purejaxppo.ppo.types import TrainState
from purejaxppo.run import checkpoint, folder, record
from purejaxppo.run.journal import Journal
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress

# Pauses between the tries to write what training must not end without.
LAST_TRIES_SECONDS = (1.0, 5.0)


def write_persistently(write: Callable[[], None], run: Path) -> None:
    """Call `write`, and again a few times if the disk refuses.

    Args:
      write: writes a file of the run.
      run: the run's folder, for the error.

    Raises:
      StorageError: it failed every time.
    """
    for pause in (*LAST_TRIES_SECONDS, None):
        try:
            return write()
        except OSError as error:
            if pause is None:
                advice = f"when it can, go on with --resume {run}"
                raise StorageError(run, error, advice) from None
            time.sleep(pause)


class Saver:
    """Writes the checkpoints of one run.

    Attributes:
      saved_update: the update of the newest checkpoint; -1 before the first one.
      saved_time: when the last try to save was.
    """

    def __init__(
        self,
        path: Path,
        options: Options,
        journal: Journal,
        progress: Progress,
        num_devices: int,
    ):
        """Prepare; nothing is read or written.

        Args:
          path: the run's folder.
          options: the options of the run.
          journal: its metadata and its tables are saved with each checkpoint.
          progress: prints messages.
          num_devices: the number of devices of the run, which is recorded.
        """
        self.path, self.options = path, options
        self.num_devices = num_devices
        self.journal, self.progress = journal, progress
        self.checkpoints = path / folder.CHECKPOINTS
        self.saved_update, self.saved_time = -1, time.monotonic()
        self._config = ""

    def is_due(self, update: int) -> bool:
        """Return whether a checkpoint is due that no evaluation asks for."""
        every = self.options.checkpoint_every
        age = time.monotonic() - self.saved_time
        due = age > self.options.checkpoint_seconds
        return due or bool(every and update % every == 0)

    def save(self, state: TrainState, update: int) -> None:
        """Write a checkpoint; print a message if the disk refuses it.

        Args:
          state: the state after `update` updates.
          update: the number of updates.
        """
        try:
            self._write(state, update)
        except OSError as error:
            self.progress.line(
                f"warning: update {update} could not be saved "
                f"({error.strerror or error}); training goes on, and the next "
                "checkpoint is tried when it is due"
            )

    def save_last(self, state: TrainState, update: int) -> None:
        """Write a checkpoint that training must not end without.

        Args:
          state: the state after `update` updates.
          update: the number of updates.

        Raises:
          StorageError: the disk refuses it, several times.
        """
        write_persistently(lambda: self._write(state, update), self.path)

    def _write(self, state: TrainState, update: int) -> None:
        """Flush the tables, write a checkpoint unless it exists, and delete old ones.

        The rows are on the disk before a checkpoint that counts on them.
        """
        self.saved_time = time.monotonic()
        if self.saved_update == update:
            return
        metadata = dict(self.journal.metadata())
        metadata["num_devices"] = self.num_devices
        metadata["tables"] = self.journal.table_records(update)
        metadata["config"] = self._config = self._config or record.checksum(self.path)
        checkpoint.save(self.checkpoints, update, state, metadata)
        self.saved_update = update
        protect = {best.update for best in self.journal.bests if best}
        checkpoint.prune(self.checkpoints, self.options.keep_checkpoints, protect)
