"""The live line: compiling, then steps/s, time left, and the last evaluation."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

_CALM = 5.0  # seconds between lines where the output is no terminal


class Progress:
    """One line that is rewritten on a terminal; plain lines, rarely, in a pipe."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self.last = 0.0
        self.open = False  # a rewritten line waits for its end
        self.lock = threading.RLock()  # the ticking thread writes too

    def line(self, text: str) -> None:
        """Something to keep on screen."""
        with self.lock:
            if self.open:
                self.stream.write("\n")
                self.open = False
            print(text, file=self.stream, flush=True)

    def status(self, text: str, force: bool = False) -> None:
        """Something that the next status replaces; `force` prints it in a pipe too."""
        now = time.monotonic()
        with self.lock:
            if self.terminal:
                # A line that wraps could not be rewritten.
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[2K{text[:width]}")
                self.stream.flush()
                self.open = True
            elif force or now - self.last >= _CALM:
                self.last = now
                print(text, file=self.stream, flush=True)

    @contextlib.contextmanager
    def ticking(self, what: str, announce: bool = True) -> Iterator[None]:
        """Show the seconds that a blocking call has taken so far.

        `announce` also in a pipe, from the start.
        """
        start, done = time.monotonic(), threading.Event()

        def tick() -> None:
            while not done.wait(1.0):
                self.status(f"{what} ... {time.monotonic() - start:.0f} s")

        self.status(f"{what} ...", force=announce)
        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def duration(seconds: float) -> str:
    """As a person would say it: 41 s, 3:20, 1:02:11."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
