"""Files in a run's folder: written as a whole, never through a link, and locked.

A run may come from somebody else. A symbolic link in it would lead reads, writes and
deletions to files of the user that do not belong to the run.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from purejaxppo.errors import ConfigError, StorageError

LOCK = ".lock"


def check_writable(field: str, path: Path) -> None:
    """Check that a file can be written there, before what it is to hold is computed.

    Raises:
      ConfigError: its folder is missing or cannot be written.
    """
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        allowed = "a file in a folder that can be written"
        raise ConfigError(field, str(path), allowed)


def checksum(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_new(path: Path) -> BinaryIO:
    """Create a file for writing; delete a file or link of that name first."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o666), "wb")


def write_synced(path: Path, content: bytes) -> None:
    """Create a file with this content, and flush it to the disk."""
    with open_new(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: after a kill or an error the old one is still there."""
    temporary = path.with_suffix(".tmp")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def refuse_links(run: Path, field: str) -> None:
    """Check that a run holds only files and folders; `run` itself may be a link.

    Args:
      run: the run's folder.
      field: name of the run in an error.

    Raises:
      ConfigError: there is a symbolic link or a special file.
    """
    for folder, folders, names in os.walk(run):
        for name in (*folders, *names):
            path = Path(folder, name)
            try:
                mode = path.lstat().st_mode
            except OSError:  # deleted meanwhile, by a process that trains
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                allowed = "a run with no symbolic link and no special file in it"
                raise ConfigError(field, str(path), allowed)


def _open_lock(run: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.open(run / LOCK, flags, 0o666)
    except OSError as error:
        raise StorageError(run, error) from None


def _take_lock(
    descriptor: int, run: Path, field: str, warn: Callable[[str], None]
) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        allowed = "a run that no other process trains"
        raise ConfigError(field, str(run), allowed) from None
    except OSError as error:
        warn(
            f"warning: {run} cannot be locked ({error.strerror}); do not resume it in "
            "another process while it trains"
        )


def _check_linked(descriptor: int, run: Path, field: str) -> None:
    """Refuse the lock file of a process that ended between our opening and locking."""
    if os.fstat(descriptor).st_nlink == 0:
        allowed = "a run that no other process has just stopped to train; try again"
        raise ConfigError(field, str(run), allowed)


@contextlib.contextmanager
def lock(run: Path, field: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a run: one process at a time may train it.

    Args:
      run: the run's folder.
      field: name of the run in an error.
      warn: is called with a message where the file system has no locks.

    Raises:
      ConfigError: another process holds the lock.
      StorageError: the folder cannot be written.
    """
    descriptor = _open_lock(run)
    try:
        _take_lock(descriptor, run, field, warn)
        _check_linked(descriptor, run, field)
        try:
            yield
        finally:  # still locked: whoever opened the file meanwhile finds it unlinked
            with contextlib.suppress(OSError):
                (run / LOCK).unlink(missing_ok=True)
    finally:
        os.close(descriptor)
