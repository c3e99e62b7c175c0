"""Ctrl-C, SIGTERM, SIGUSR1 and 2: the first signal makes training save and end.

The second signal ends the process at once, as does the first if there is nothing to
save. SIGUSR1 or SIGUSR2 is what SLURM sends ahead of the end of a job, as it was told
(`--signal=USR1@60`). A second one is no haste: SIGTERM follows when there is.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable

from purejaxppo.errors import EXIT_INTERRUPTED

_AHEAD = (signal.SIGUSR1, signal.SIGUSR2)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *_AHEAD)
_EXIT_SECONDS = 1.0  # longest time for the last messages before the process ends


class Interrupt:
    """Records the first signal for the training loop; the second ends the process.

    Python runs signal handlers in the main thread, which may be inside a compiled
    program for minutes. The C handler, however, writes each signal to a socket at once
    (`signal.set_wakeup_fd`), from which a thread of this class reads it.

    Attributes:
      requested: a signal was received, and the loop should save and end.
      must_save: ending without a checkpoint would lose training; while it is False the
        first signal ends the process.
    """

    def __init__(
        self, say: Callable[[str], None], close: Callable[[], None] = lambda: None
    ):
        """Prepare to handle signals between `__enter__` and `__exit__`.

        Args:
          say: prints a message.
          close: restores the terminal, before the process ends.
        """
        self._say, self._close = say, close
        self.requested, self.must_save = False, False
        # Only the main thread can set signal handlers.
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Interrupt":
        if not self._in_main:
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        # A handler that does nothing, so that Python does not raise KeyboardInterrupt.
        self._handlers = {n: signal.signal(n, lambda *_: None) for n in _SIGNALS}
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._in_main:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self._writer.close()  # ends the thread

    def _watch(self) -> None:
        with self._reader:
            while numbers := self._reader.recv(1):
                if numbers[0] in _SIGNALS:
                    self._receive(numbers[0])

    def _receive(self, number: int) -> None:
        if self.requested and self.must_save and number in _AHEAD:
            return
        if self.requested or not self.must_save:
            self._end()
        self.requested = True
        with contextlib.suppress(OSError, ValueError):  # the output is closed
            self._say("interrupted: ending after this call; once more ends at once")

    def _end(self) -> None:
        # The timer is for a terminal stopped by Ctrl-S, on which writing blocks.
        threading.Timer(_EXIT_SECONDS, _exit).start()
        try:
            self._say("interrupted")
            self._close()
        finally:  # also when the output is closed
            _exit()


def _exit() -> None:
    os._exit(EXIT_INTERRUPTED)  # the main thread may be inside a compiled program
