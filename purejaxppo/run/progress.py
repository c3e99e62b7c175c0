"""What a run shows while it goes on: one live line on a terminal, rare lines in a pipe.

On a terminal the last line is a bar with the figures of training, or with the phase
that the run is in (compiling, cloning, evaluating) and its seconds; messages are
printed above it. Elsewhere all of it is plain text. Output that fails never ends a run.
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

_REFRESH_PER_SECOND = 2  # training needs the cores more than the eye needs frames
_PLAIN_SECONDS = 5.0  # between lines where the output is no terminal
_ECHO = len("^C")  # what a terminal adds to the line; were there no room, it would wrap


class _SafeStream(io.TextIOBase):
    """A text stream that goes silent where its file is closed, full or broken."""

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
        """Nothing: every write is flushed."""

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def _silence(self, stream: TextIO) -> None:
        """Write no more, and let what is buffered go nowhere.

        Python flushes standard error at its end, and would turn the exit code to 120.
        """
        self._stream = None
        with contextlib.suppress(OSError, ValueError):
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, stream.fileno())
            os.close(null_device)


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor alone: a process that is killed could not bring it back."""
        return False


class Progress:
    """Shows messages, phases and snapshots on a stream, by default standard error."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = _SafeStream(sys.stderr if stream is None else stream)
        self._console = _Console(file=cast(TextIO, self._stream))
        self._snapshot: Snapshot | None = None
        self._phase: tuple[str, float] | None = None  # what, since when
        self._last_plain = float("-inf")
        # FORCE_COLOR makes rich take a pipe for a terminal, TERM=dumb cannot rewrite.
        on_terminal = self._stream.isatty() and self._console.is_interactive
        self._live = self._make_live() if on_terminal else None

    def _make_live(self) -> Live:
        return Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
            # What others print goes above the line too, unless it goes to a file.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def line(self, text: str) -> None:
        """Print a message that stays."""
        if self._live is None:
            self._stream.write(text + "\n")
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Replace the figures that are shown; in a pipe, print them now and then."""
        self._snapshot = snapshot
        if self._live is not None:
            self._live.start(refresh=True)
        else:
            self._print_rarely(plain_text(snapshot))

    @contextlib.contextmanager
    def phase(self, what: str, announce: bool = True) -> Iterator[None]:
        """Show what a blocking call does, and the seconds that it has taken so far.

        Args:
          what: the phase, "compiling update" for example.
          announce: print it in a pipe as it begins, and not only once it takes long.
        """
        outer, self._phase = self._phase, (what, time.monotonic())
        shown = contextlib.nullcontext() if self._live else self._plain_phase(announce)
        if self._live is not None:
            self._live.start()
            self._live.refresh()
        try:
            with shown:
                yield
        finally:
            if self._snapshot is None and outer is None:
                self.close()
            self._phase = outer

    def close(self) -> None:
        """Remove the live line; messages stay. Whatever is shown next brings it back.

        A terminal is then as it was found: to be called before the process ends.
        """
        if self._live is not None:
            self._live.stop()
        self._snapshot = None

    @contextlib.contextmanager
    def _plain_phase(self, announce: bool) -> Iterator[None]:
        assert self._phase is not None
        (what, start), done = self._phase, threading.Event()

        def repeat() -> None:
            while not done.wait(_PLAIN_SECONDS):
                self._print_rarely(f"{what} ... {duration(time.monotonic() - start)}")

        if announce:
            self._last_plain = time.monotonic()
            self.line(f"{what} ...")
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
        if (current := self._phase) is not None:  # this is the thread of `Live`
            what, start = current
            phase = f"{what} {duration(time.monotonic() - start)}"
        if snapshot is None:
            return row(ProgressBar(total=None), [phase], width)
        bar = ProgressBar(snapshot.total_steps, snapshot.steps)
        return row(bar, columns(snapshot, phase), width)
