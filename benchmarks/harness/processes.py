"""Programs of their own, that answer in JSON lines and never outlive the harness.

Whatever is measured runs in a process of its own: its peak memory is its own, it
compiles from nothing, and it may need another Python environment than ours.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).parents[2]
_PATIENCE = 5.0  # seconds from asking a program to end until it is killed


class ProgramFailed(Exception):  # noqa: N818
    """A program that cannot do its part: one sentence why."""


class Program(NamedTuple):
    """A running program."""

    process: subprocess.Popen
    answers: "queue.Queue[dict[str, Any] | None]"  # None: no more will come
    errors: IO[str]  # what it writes to stderr


def _listen(stream: IO[str], answers: "queue.Queue[dict[str, Any] | None]") -> None:
    """Queue the JSON objects of a stream; what libraries print there is ignored."""
    for line in stream:
        with contextlib.suppress(json.JSONDecodeError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                answers.put(answer)
    answers.put(None)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make environment variables: our checkout is importable, devices are shared."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        # Programs that wait for their turn must not hold a whole accelerator.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        **(extra or {}),
    }


@contextlib.contextmanager
def running(
    command: Sequence[str], extra: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Start a program in a process group of its own; nothing of it is left behind.

    Raises:
      ProgramFailed: it cannot be started.
    """
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                env=environment(extra),
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it
            )
        except OSError as error:
            raise ProgramFailed(f"cannot be started ({error})") from None
        answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        listener = threading.Thread(
            target=_listen, args=(process.stdout, answers), daemon=True
        )
        listener.start()
        try:
            yield Program(process, answers, errors)
        finally:
            end(process)
            listener.join()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):  # what was not read any more
                process.stdin.close()
            process.stdout.close()


def end(process: subprocess.Popen) -> None:
    """End the process group: the program, and what it has started."""
    for kill in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, kill)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)


def ask(
    program: Program,
    request: str | None,
    timeout: float,
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Send a line, if there is one, and wait for the answer.

    Args:
      program: from `running`.
      request: the line; None only waits.
      timeout: seconds.
      required: names that the answer must have.

    Raises:
      ProgramFailed: it answers with an error or without such a name, it ended, or it
        took too long.
    """
    if request is not None:
        stdin = program.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            stdin.write(request + "\n")
            stdin.flush()
    try:
        answer = program.answers.get(timeout=timeout)
    except queue.Empty:
        what = f"to `{request}` " if request else ""
        raise ProgramFailed(f"gave no answer {what}in {timeout:g} s") from None
    if answer is None:
        program.answers.put(None)
        raise ProgramFailed(ended_how(program))
    if "error" in answer:
        raise ProgramFailed(str(answer["error"]))
    for name in required:
        if name not in answer:
            raise ProgramFailed(f"answered `{request}` without {name}")
    return answer


def ended_how(program: Program) -> str:
    """Say the exit code of a program that ended, and its last line of stderr."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.process.wait(_PATIENCE)
    program.errors.seek(0)
    lines = [line.strip() for line in program.errors if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    return f"ended with exit code {program.process.returncode}{said}"


def answer_of(
    command: Sequence[str], timeout: float, extra: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a program that gives one answer.

    Args:
      command: the program and its arguments.
      timeout: seconds until it must have answered.
      extra: environment variables besides our own.

    Raises:
      ProgramFailed: it gave none.
    """
    with running(command, extra) as program:
        return ask(program, None, timeout)
