"""Locks that end with the process that holds them, also if it is killed (`flock`).

A worker holds a file in FOLDER/workers for as long as it lives. Network file systems
carry these locks from machine to machine (NFS since version 4).
"""

import contextlib
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from purejaxppo.errors import ConfigError, StorageError

WORKERS = "workers"
_NAME = re.compile(r"[\w.-]+")  # of a worker: a study may come from somebody else
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


def take(path: Path) -> int:
    """Open and lock a file, after whoever holds it; return its descriptor.

    Raises:
      StorageError: it cannot be written, or the file system has no locks.
    """
    try:
        descriptor = os.open(path, _FLAGS, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise StorageError(path, error) from None
    return descriptor


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file.

    Raises:
      StorageError: see `take`.
    """
    descriptor = take(path)
    try:
        yield
    finally:
        os.close(descriptor)


class Worker:
    """The presence of this process among the workers of a study.

    Attributes:
      name: no other worker has it.
    """

    def __init__(self, folder: Path):
        """Tell the other workers that this one is alive.

        Args:
          folder: of the study.

        Raises:
          ConfigError: the file system has no locks.
          StorageError: the folder cannot be written.
        """
        host = re.sub(r"[^\w.-]", "-", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = _path(folder, self.name)
        try:
            self._path.parent.mkdir(exist_ok=True)
            self._descriptor = os.open(self._path, _FLAGS, 0o666)
        except OSError as error:
            raise StorageError(self._path, error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            allowed = f"a folder whose file system has locks ({error.strerror})"
            raise ConfigError("run_dir", str(folder), allowed) from None

    def close(self) -> None:
        """Tell the others that this worker has ended."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _path(folder: Path, name: str) -> Path:
    return folder / WORKERS / f"{name}.lock"


def is_alive(folder: Path, name: str) -> bool:
    """Return whether a worker runs; the file of one that does not is removed.

    To be called while no worker is about to lock its file.

    Args:
      folder: of the study.
      name: of the worker.
    """
    path = _path(folder, name)
    if not _NAME.fullmatch(name):
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


def count_alive(folder: Path) -> int:
    """Return how many workers run."""
    names = [path.stem for path in (folder / WORKERS).glob("*.lock")]
    return sum(is_alive(folder, name) for name in names)
