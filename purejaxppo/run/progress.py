"""Display of a run's progress: a live line on a terminal, else a line now and then.

On a terminal the last line is a progress bar with the figures of training, or with the
phase of the run (compiling, cloning, evaluating) and its seconds. Messages are printed
above it. If the output is no terminal, everything is printed as plain text. An error
while printing never ends a run.
"""

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from purejaxppo.run.snapshot import Snapshot, columns, duration, plain_text, row

_REFRESH_PER_SECOND = 2  # low, because drawing takes processor time from training
_PLAIN_SECONDS = 5.0  # shortest time between lines if the output is no terminal
_ECHO = len("^C")  # columns kept free, because a terminal echoes Ctrl-C on the line


class _SafeStream(io.TextIOBase):
    """A text stream that ignores writes if its file is closed, full or broken."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream  # None: Python was started without this descriptor

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the file is closed
                self._silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Do nothing, because every write is flushed."""

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def _silence(self, stream: TextIO) -> None:
        """Stop writing, and redirect the file to the null device.

        Python flushes standard error when it exits. An error of this flush would change
        the exit code to 120.
        """
        self._stream = None
        with contextlib.suppress(OSError, ValueError):
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, stream.fileno())
            os.close(null_device)


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing: a process that is killed could not show a hidden cursor again."""
        return False


class Progress:
    """Shows messages, phases and snapshots on a stream, by default standard error."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = _SafeStream(sys.stderr if stream is None else stream)
        self._console = _Console(file=cast(TextIO, self._stream))
        self._snapshot: Snapshot | None = None
        self._phase: tuple[str, float] | None = None  # name, start in seconds
        self._last_plain = float("-inf")
        # Both are checked: with FORCE_COLOR rich treats a pipe as a terminal, and a
        # terminal with TERM=dumb cannot rewrite a line.
        on_terminal = self._stream.isatty() and self._console.is_interactive
        self._live = self._make_live() if on_terminal else None

    def _make_live(self) -> Live:
        return Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
            # Standard output is printed above the live line if it is the terminal.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def line(self, text: str) -> None:
        """Print a message, above the live line if there is one."""
        if self._live is None:
            self._stream.write(text + "\n")
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Update the live line; if there is no terminal, print a line now and then."""
        self._snapshot = snapshot
        if self._live is not None:
            self._live.start(refresh=True)
        else:
            self._print_rarely(plain_text(snapshot))

    @contextlib.contextmanager
    def phase(self, name: str, announce: bool = True) -> Iterator[None]:
        """Show the name of a phase and its seconds while the `with` block runs.

        Args:
          name: for example "compiling update".
          announce: without a terminal, print the name when the phase starts; if False,
            print it only if the phase takes several seconds.
        """
        outer_phase, self._phase = self._phase, (name, time.monotonic())
        shown = contextlib.nullcontext() if self._live else self._plain_phase(announce)
        if self._live is not None:
            self._live.start()
            self._live.refresh()
        try:
            with shown:
                yield
        finally:
            if self._snapshot is None and outer_phase is None:
                self.close()
            self._phase = outer_phase

    def close(self) -> None:
        """Remove the live line and restore the terminal; messages stay.

        Call this before the process ends. `show` and `phase` display the line again.
        """
        if self._live is not None:
            self._live.stop()
        self._snapshot = None

    @contextlib.contextmanager
    def _plain_phase(self, announce: bool) -> Iterator[None]:
        assert self._phase is not None
        (name, start), done = self._phase, threading.Event()

        def repeat() -> None:
            while not done.wait(_PLAIN_SECONDS):
                self._print_rarely(f"{name} ... {duration(time.monotonic() - start)}")

        if announce:
            self._last_plain = time.monotonic()
            self.line(f"{name} ...")
        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _print_rarely(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_plain >= _PLAIN_SECONDS:
            self._last_plain = now
            self.line(text)

    def _render(self) -> Table | Text:
        snapshot, phase, width = self._snapshot, "", self._console.width - _ECHO
        # Read once, because this runs in the thread of `Live`.
        if (current := self._phase) is not None:
            name, start = current
            phase = f"{name} {duration(time.monotonic() - start)}"
        if snapshot is None:
            return row(ProgressBar(total=None), [phase], width)
        bar = ProgressBar(snapshot.total_steps, snapshot.steps)
        return row(bar, columns(snapshot, phase), width)
