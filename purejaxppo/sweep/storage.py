"""Where a study is: Optuna's journal in a folder, or a database."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from purejaxppo.errors import ConfigError, StorageError, first_line
from purejaxppo.run import files
from purejaxppo.run import folder as run_folder
from purejaxppo.run.folder import Record
from purejaxppo.sweep import locks

JOURNAL, REPORT = "journal.log", "report.html"
QUEUE_LOCK, REPORT_LOCK = "queue.lock", "report.lock"
_JOURNAL_LOCK = f"{JOURNAL}.lock"
_FILES = (JOURNAL, _JOURNAL_LOCK, QUEUE_LOCK, locks.WORKERS, REPORT, REPORT_LOCK)
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 60
PLAN = "plan"  # attribute of a study

OnKilled = Callable[[optuna.Study, FrozenTrial], None]


class Place(NamedTuple):
    """Where a study is.

    Attributes:
      folder: of its locks and its report, and of the journal if it is in one.
      storage: URL of a database; "" for the journal.
      name: of the study, as a database may hold several.
    """

    folder: Path
    storage: str
    name: str

    @property
    def url(self) -> str:
        """The URL of the database without its password; "" for the journal."""
        try:
            url = make_url(self.storage) if self.storage else None
        except ArgumentError:
            return "a URL of another form"
        return url.render_as_string(hide_password=True) if url else ""

    @property
    def shown(self) -> str:
        """The place in words."""
        return f"{self.name} of {self.url}" if self.storage else str(self.folder)


class _JournalLock(BaseJournalFileLock):
    """Locks a journal, and removes the line of a writer that was killed in it."""

    def __init__(self, journal: Path):
        self._journal, self._descriptor = journal, -1

    def acquire(self) -> bool:
        self._descriptor = locks.take(self._journal.with_name(_JOURNAL_LOCK))
        _remove_torn_line(self._journal)
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def _remove_torn_line(journal: Path) -> None:
    with open(journal, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without warnings that the heartbeat may change, and that we ask for trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


def open_storage(place: Place, on_killed: OnKilled | None = None) -> BaseStorage:
    """Open the journal or the database of a study.

    Args:
      place: where the study is.
      on_killed: is called with a trial of a database whose heartbeat has stopped, by
        one of the workers.

    Raises:
      ConfigError: it cannot be opened or read.
      StorageError: the folder cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not place.storage:
        journal = place.folder / JOURNAL
        try:
            backend = JournalFileBackend(str(journal), _JournalLock(journal))
            return JournalStorage(backend)
        except OSError as error:
            raise StorageError(journal, error) from None
        except (ValueError, KeyError, AssertionError) as error:
            allowed = f"a folder whose {JOURNAL} can be read ({first_line(error)})"
            raise ConfigError("run_dir", str(place.folder), allowed) from None
    try:
        with quietly():
            return RDBStorage(
                place.storage,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=on_killed,
            )
    except Exception as error:  # of SQLAlchemy, of a driver, or of its import
        allowed = f"a database that Optuna can open ({first_line(error)})"
        raise ConfigError("storage", place.shown, allowed) from None


def create_folder(path: Path) -> None:
    """Make the folder of a study, if it is not there.

    Raises:
      ConfigError: it holds something else, or cannot be written.
    """
    run_folder.check_path("run_dir", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(entry.name not in _FILES for entry in path.iterdir()):
            allowed = "a new or empty folder, or that of a sweep"
            raise ConfigError("run_dir", str(path), allowed)
        files.refuse_links(path, "run_dir")
    except OSError as error:
        allowed = f"a folder that can be written ({error.strerror})"
        raise ConfigError("run_dir", str(path), allowed) from None


def recorded_plan(place: Place) -> Record:
    """Read the plan of a study that is to be resumed.

    Raises:
      ConfigError: there is no study.
    """
    allowed = f"the folder of a sweep, with its {JOURNAL}"
    if place.storage:
        allowed = "that of a study in the database that --storage names"
    elif not (place.folder / JOURNAL).is_file():
        raise ConfigError("resume", str(place.folder), allowed)
    try:
        storage = open_storage(place)
        study = optuna.load_study(study_name=place.name, storage=storage)
        return study.user_attrs[PLAN]
    except KeyError:
        raise ConfigError("resume", place.shown, allowed) from None
