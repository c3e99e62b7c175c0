"""Runs whose process is killed, or whose disk is full, and which then are resumed.

A case is one run that is disturbed several times; `try_case` says what it lost.
"""

import contextlib
import ctypes
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fault_runs import (
    NUM_UPDATES,
    Process,
    Runs,
    differences,
    num_rows,
    start,
    until,
)

from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK

EXIT_STORAGE = 4
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM")
MOMENTS = ("starting", "compiling", "training", "saving")
_KILLS_A_RUN = 3
_SAVE_SECONDS = 0.05  # about what it takes to write a checkpoint
_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_AT_ONCE = 30.0  # seconds from a signal to the end, on a machine that is busy


class Kill(NamedTuple):
    """A run that is killed several times by a signal, at moments of one kind.

    Attributes:
      name: of the kind.
      signal: its name.
      moment: see `MOMENTS`.
      shares: one for each kill, from 0 to 1: where in the moment it comes.
    """

    name: str
    signal: str
    moment: str
    shares: tuple[float, ...]


class FullDisk(NamedTuple):
    """A run that can write no more, and then can.

    Attributes:
      name: of the kind.
      kind: "file" is a limit for the size of a file, "disk" a file system of a size.
      share: of what the run without faults takes.
    """

    name: str
    kind: str
    share: float


# --- kills --------------------------------------------------------------------------


def kills(seed: int, tries: int) -> list[Kill]:
    """Draw runs that are killed about `tries` times in all."""
    draw, pairs = random.Random(seed), [(s, m) for s in SIGNALS for m in MOMENTS]
    num_runs = -(-tries // _KILLS_A_RUN)
    pairs = [pairs[i % len(pairs)] for i in range(num_runs)]
    if num_runs < len(SIGNALS) * len(MOMENTS):
        draw.shuffle(pairs)
    found = []
    for name, moment in pairs:
        shares = [draw.random() for _ in range(min(tries, _KILLS_A_RUN))]
        found.append(Kill(f"{name}, {moment}", name, moment, tuple(shares)))
    return found


def _wait_for(
    process: Process, path: Path, runs: Runs, moment: str, share: float
) -> bool:
    """Wait for a moment of a process; False if the process ended before.

    Args:
      process: that trains.
      path: the run's folder.
      runs: for the seconds that its phases take.
      moment: see `MOMENTS`.
      share: where in the moment, from 0 to 1.
    """
    if moment in ("starting", "compiling"):
        if moment == "compiling":  # begins when the process first says something
            until(lambda: process.output, process)
        end = time.monotonic() + share * runs.seconds()[moment]
        return until(lambda: time.monotonic() > end, process)
    before = num_rows(path)
    row = before + 1 + int(share * 0.4 * (NUM_UPDATES - before))
    until(lambda: num_rows(path) >= row, process)
    if moment == "training":
        return process.popen.poll() is None
    until(lambda: list(path.glob("checkpoints/*.unfinished")), process)
    time.sleep(share * _SAVE_SECONDS)
    return process.popen.poll() is None


def _kill(process: Process, path: Path, name: str) -> Iterator[str]:
    """Send the signal, wait for the end, and say what is wrong with it."""
    number, rows = getattr(signal, name), num_rows(path)
    process.popen.send_signal(number)
    begin = time.monotonic()
    code = process.wait()
    # A process that has no handler yet ends by the signal itself.
    allowed = {EXIT_INTERRUPTED, -number}
    if rows >= NUM_UPDATES - 1:
        allowed.add(EXIT_OK)  # it was about to end
    if code not in allowed:
        yield f"other: {name} was followed by exit code {code}"
    elif time.monotonic() - begin > _AT_ONCE:
        yield f"other: it took more than {_AT_ONCE:g} s to end after {name}"
    yield from _trace(process)


def _trace(process: Process) -> Iterator[str]:
    """Say that there is a traceback of our code, and not of Python's own start."""
    said = process.said()
    if "Traceback" in said and "/purejaxppo/" in said:
        yield f"traceback: {said.strip().splitlines()[-1][:200]}"


def try_kill(case: Kill, folder: Path, runs: Runs) -> tuple[int, list[str]]:
    """Kill a run again and again, and let it come to its end.

    Args:
      case: how it is killed.
      folder: empty.
      runs: from `prepare`.

    Returns:
      How often it was killed, and what is wrong.
    """
    path, wrong, killed = folder / "run", [], 0
    for share in case.shares:
        process = start(path, runs.root)
        if not _wait_for(process, path, runs, case.moment, share):
            process.wait()
            break
        wrong += _kill(process, path, case.signal)
        killed += 1
    return killed, wrong + list(_come_to_an_end(path, runs))


def _come_to_an_end(path: Path, runs: Runs) -> Iterator[str]:
    """Resume the run without another fault, and say what it has lost."""
    process = start(path, runs.root)
    if code := process.wait():
        said = process.said().strip().splitlines()[-1:]
        yield f"lost: cannot be resumed, exit code {code}: {' '.join(said)[:200]}"
        yield from _trace(process)
    else:
        yield from (f"lost: {sentence}" for sentence in differences(path, runs.whole))


# --- full disks ---------------------------------------------------------------------


def full_disks(seed: int, tries: int) -> list[FullDisk]:
    """Draw runs that find no room: for a file, and where we may mount, on a disk."""
    draw, kinds = random.Random(seed), ["file", "disk"] if _may_mount() else ["file"]
    names = {"file": "a file may not grow", "disk": "a disk is full"}
    kinds = [kinds[i % len(kinds)] for i in range(tries)]
    return [FullDisk(names[kind], kind, draw.random()) for kind in kinds]


def _may_mount() -> bool:
    try:
        return not subprocess.run(
            ["unshare", "--mount", "true"], check=False
        ).returncode
    except OSError:
        return False


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of so many bytes, for this process and those it starts."""
    # However this process ends, a mount of its own namespace ends with it.
    if ctypes.CDLL(None).unshare(_NEW_MOUNTS):
        raise OSError("no namespace of its own for mounts")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _size_of_a_file(whole: Path, draw: random.Random) -> int:
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    return draw.choice(files).stat().st_size


def try_full_disk(case: FullDisk, folder: Path, runs: Runs) -> tuple[int, list[str]]:
    """Train without room, then resume with room.

    Args:
      case: what is full, and when.
      folder: empty.
      runs: from `prepare`.

    Returns:
      Whether it found no room, 0 or 1, and what is wrong.
    """
    if case.kind == "file":
        # Any file of a run may be the one that finds no room, however small it is.
        size = _size_of_a_file(runs.whole, random.Random(case.share))
        path = folder / "run"
        process, limit = start(path, runs.root), int(case.share * size)
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (limit, limit))
        return _without_room(process, path, runs)
    path = folder / "disk" / "run"
    used = sum(path.stat().st_blocks * 512 for path in runs.whole.rglob("*"))
    with _disk(path.parent, max(4096, int(case.share * used))):
        process = start(path, runs.root)
        process.popen.wait()
        # The mount is this thread's alone: those in which orbax reads would not see it.
        roomy = shutil.copytree(path.parent, folder / "roomy")
    return _without_room(process, roomy / "run", runs)


def _without_room(process: Process, path: Path, runs: Runs) -> tuple[int, list[str]]:
    """Say what is wrong with a process that found no room, and with its run.

    Args:
      process: its end is waited for.
      path: the run's folder, where there is room again.
      runs: from `prepare`.
    """
    code = process.wait()
    wrong = list(_trace(process))
    if code not in (EXIT_OK, EXIT_STORAGE):
        wrong.append(f"other: no room was followed by exit code {code}")
    return int(code != EXIT_OK), wrong + list(_come_to_an_end(path, runs))
