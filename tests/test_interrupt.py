"""Signals while the main thread sits in C, as it does in a compiled program."""

import os
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
    interrupt.patient = {patient}
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def busy_process(patient: bool) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(patient=patient)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert line_of(process) == "ready"
    return process


def line_of(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_at_once(number):
    with busy_process(patient=True) as process:
        process.send_signal(number)
        expected = "interrupted: ending after this call; once more ends at once"
        assert line_of(process) == expected
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=10) == EXIT_INTERRUPTED


def test_one_signal_ends_where_nothing_would_be_lost():
    with busy_process(patient=False) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == EXIT_INTERRUPTED
        assert line_of(process) == "interrupted"


def test_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt(print):
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
