"""The report at the end of a run, written by a process of its own.

The curves need a JavaScript engine, which must not be able to end a run: neither by an
error nor by taking its memory.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from purejaxppo.env import RenderedEnv
from purejaxppo.errors import first_line
from purejaxppo.ppo.types import Task, TrainState
from purejaxppo.report import STILL
from purejaxppo.run import encode, files, video

_SECONDS = 120.0


def write_still(
    run: Path, task: Task, state: TrainState, warn: Callable[[str], None]
) -> None:
    """Draw the end of the first evaluation episode into RUN/still.png, for the report.

    Nothing happens where the environment does not draw itself. Where it cannot draw
    here, for want of OpenGL or of space, that costs the picture.

    Args:
      run: the run's folder.
      task: the environment and the policy.
      state: the parameters and the normaliser, of one seed.
      warn: is called with a message if there is no picture.
    """
    if not isinstance(task.env, RenderedEnv):
        return
    try:
        files.replace(run / STILL, encode.png(video.still(task, state)))
    except Exception as error:  # a user's `render` may raise anything
        warn(f"warning: no picture in report.html ({first_line(error)})")


def write_run(run: Path, warn: Callable[[str], None]) -> None:
    """Write RUN/report.html; an error costs the page, and never ends a run.

    Args:
      run: the run's folder.
      warn: is called with a message if there is no page.
    """
    try:
        problem = _write(run)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        problem = str(error)
    if problem:
        warn(f"warning: no report.html ({problem.splitlines()[-1]})")


def _write(run: Path) -> str:
    """Run the command; return its last words if it fails, "" otherwise."""
    path = os.pathsep.join(filter(None, sys.path))  # as this process imports
    result = subprocess.run(
        [sys.executable, "-P", "-m", "purejaxppo.report", str(run.absolute())],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    )
    failed = f"exit code {result.returncode}"
    return "" if result.returncode == 0 else result.stderr.strip() or failed
