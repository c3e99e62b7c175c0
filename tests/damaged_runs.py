"""Files of an interrupted run, damaged one by one, and what resuming makes of it.

`damages` draws them; `try_damage` resumes the damaged run in this process. All is well
if the run is refused, or if it says what is damaged and ends with the same numbers
(rows of a damaged table cannot come back).
"""

import contextlib
import functools
import io
import itertools
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fault_runs import ENV, Runs, differences

from purejaxppo import train
from purejaxppo.errors import EXIT_OK, EXIT_USAGE
from purejaxppo.run import checkpoint

WAYS = ("deleted", "emptied", "cut in half", "a bit flipped")


class Damage(NamedTuple):
    """Files of a run, damaged in one way.

    Attributes:
      name: of the kind.
      files: below the run's folder.
      way: see `WAYS`.
      place: of the bit that is flipped, from 0 to 1 of the file.
    """

    name: str
    files: tuple[str, ...]
    way: str
    place: float


def damages(seed: int, tries: int, half: Path) -> list[Damage]:
    """Draw damages: at first of the newest checkpoint and of what is in the folder.

    Args:
      seed: of the draw.
      tries: how many.
      half: folder of the interrupted run.
    """
    draw, steps = random.Random(seed), checkpoint.steps(half / "checkpoints")
    files = [path for path in half.rglob("*") if path.is_file() and path.stat().st_size]
    names = sorted(path.relative_to(half).as_posix() for path in files)
    newest = f"checkpoints/{steps[-1]:08d}/"
    older = [n for n in names if n.startswith("checkpoints/") and newest not in n]
    first = [(name,) for name in names if name not in older]
    every = [tuple(f"checkpoints/{step:08d}/{n}" for step in steps) for n in _OF_EACH]
    found: list[Damage] = []
    for group in ([*first, *every], [(name,) for name in older]):
        pairs = list(itertools.product(group, WAYS))
        draw.shuffle(pairs)
        found += [Damage(_kind(f, newest), f, w, draw.random()) for f, w in pairs]
    while len(found) < tries:  # other bits of the same files
        found += [case._replace(place=draw.random()) for case in found]
    return found[:tries]


_OF_EACH = ("done", "meta.json")


def _kind(files: tuple[str, ...], newest: str) -> str:
    """Name the kind of damage by the files."""
    name = files[0]
    if not name.startswith("checkpoints/"):
        return name
    what = "arrays" if "/state/" in name else Path(name).name
    if len(files) > 1:
        return f"{what} of every checkpoint"
    return f"{what} of {'the newest' if name.startswith(newest) else 'an older'}"


def damage(path: Path, case: Damage) -> None:
    """Damage the files of a run.

    Args:
      path: the run's folder.
      case: which, and how.
    """
    for file in (path / name for name in case.files):
        content = bytearray(file.read_bytes())
        if case.way == "deleted":
            file.unlink()
        elif case.way == "emptied":
            file.write_bytes(b"")
        elif case.way == "cut in half":
            file.write_bytes(content[: len(content) // 2])
        else:
            bit = int(case.place * 8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)


def resume(path: Path) -> tuple[int, str]:
    """Resume a run in this process: exit code and what it says."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = train.main([*ENV, "--resume", str(path)])
    return code, said.getvalue()


def _lines(text: str, path: Path) -> set[str]:
    """Lines without the folder and without numbers."""
    plain = text.replace(str(path), "RUN")
    return {re.sub(r"[\d][\d.,:]*", "N", line).strip() for line in plain.splitlines()}


@functools.cache
def _healthy_lines(runs: Runs) -> set[str]:
    """What the run says if it is resumed undamaged, which must be without a loss."""
    with tempfile.TemporaryDirectory(dir=runs.root) as folder:
        path = Path(folder) / "run"
        shutil.copytree(runs.half, path)
        code, said = resume(path)
        lost = differences(path, runs.whole)
        assert code == EXIT_OK, said
        assert not lost, lost
    return _lines(said, path)


def _first_row(path: Path) -> str:
    """The first row of the table, in which the clock is that of the first start."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return (path / "metrics.csv").read_text(errors="replace").splitlines()[1]
    return ""


def try_damage(case: Damage, folder: Path, runs: Runs) -> tuple[int, list[str]]:
    """Resume a damaged copy of the interrupted run.

    Args:
      case: the damage.
      folder: empty.
      runs: from `fault_runs.prepare`.

    Returns:
      1, and what is wrong.
    """
    healthy, path = _healthy_lines(runs), folder / "run"
    shutil.copytree(runs.half, path)
    damage(path, case)
    before = _first_row(path)
    try:
        code, said = resume(path)
    except BaseException as error:  # whatever escapes is the finding
        return 1, [f"traceback: {type(error).__name__}: {error}"[:200]]
    if code == EXIT_USAGE:
        return 1, [] if said.strip() else ["other: refused without a sentence"]
    if code != EXIT_OK:
        return 1, [f"other: exit code {code}"]
    warned = bool(_lines(said, path) - healthy)
    wrong = list(_losses(differences(path, runs.whole), warned, case))
    if before == _first_row(runs.half) and before != _first_row(path):
        wrong.append("lost: it was trained from the start again")
    return 1, wrong


def _losses(found: list[str], warned: bool, case: Damage) -> Iterator[str]:
    """Say which differences are losses: rows of a damaged table are none, if said.

    Args:
      found: see `fault_runs.differences`.
      warned: whether the run said more than one that is undamaged.
      case: the damage.
    """
    for sentence in found:
        if not warned:
            yield f"silent: {sentence}"
        elif sentence.partition(":")[0] not in case.files:
            yield f"lost: {sentence}"
