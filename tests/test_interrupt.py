"""Signals while the main thread sits in C, as it does in a compiled program."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from purejaxppo.errors import EXIT_INTERRUPTED
from purejaxppo.run.interrupt import Interrupt

# pbkdf2 works for minutes, without the interpreter's lock and deaf to signals.
BUSY = """
import hashlib
from purejaxppo.run.interrupt import Interrupt

with Interrupt(lambda text: print(text, flush=True)) as interrupt:
    interrupt.must_save = {must_save}
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def busy_process(must_save: bool) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(must_save=must_save)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert line_of(process) == "ready"
    return process


def line_of(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_asks_and_the_second_ends_at_once(number):
    with busy_process(must_save=True) as process:
        process.send_signal(number)
        expected = "interrupted: ending after this call; once more ends at once"
        assert line_of(process) == expected
        assert process.poll() is None
        if number == signal.SIGUSR1:  # repeated by the queue, and no haste
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            number = signal.SIGTERM
        process.send_signal(number)
        assert process.wait(timeout=10) == EXIT_INTERRUPTED


def test_one_signal_ends_where_nothing_would_be_lost():
    with busy_process(must_save=False) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == EXIT_INTERRUPTED
        assert line_of(process) == "interrupted"


def test_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt(print):
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# The same behind a live line.
SHOWN = """
import hashlib
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.progress import Progress

progress = Progress()
with Interrupt(progress.line, progress.close), progress.phase("compiling init"):
    progress.line("ready")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_the_terminal_is_given_back_before_the_process_ends():
    ours, theirs = pty.openpty()
    variables = {"PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", SHOWN], env=os.environ | variables, stderr=theirs
    ) as process:
        output = b""
        while b"ready" not in output or not output.endswith(b"s"):
            output += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == EXIT_INTERRUPTED
    os.close(theirs)
    output = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"interrupted\r\n" in output
    # The line with the bar is erased: one up, and all of it.
    assert output.endswith(b"\x1b[1A\x1b[2K")
