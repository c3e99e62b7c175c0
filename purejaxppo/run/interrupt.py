"""Ctrl-C and SIGTERM: the first asks training to save and end, the second ends it.

Where nothing would be lost, the first ends the process too.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable

from purejaxppo.errors import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORDS_SECONDS = 1.0


class Interrupt:
    """Records the first signal for the training loop; the second ends the process.

    Python runs its signal handlers in the main thread, which may be inside a compiled
    program for minutes. C writes signals to a descriptor at once, and a thread of
    ours reads it.

    Attributes:
      requested: a signal has come; the loop should save and end.
      must_save: True once an end without saving would lose training; until then the
        first signal ends the process.
    """

    def __init__(
        self, say: Callable[[str], None], close: Callable[[], None] = lambda: None
    ):
        """Take signals over between `__enter__` and `__exit__`.

        Args:
          say: shows a sentence on screen.
          close: gives the terminal back, before the process ends.
        """
        self._say, self._close = say, close
        self.requested, self.must_save = False, False
        # Signals are the main thread's; a run inside another leaves them alone.
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Interrupt":
        if not self._in_main:
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        # A handler of ours, or Python would raise KeyboardInterrupt somewhere.
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
                    self._receive()

    def _receive(self) -> None:
        if self.requested or not self.must_save:
            self._end()
        self.requested = True
        self._say("interrupted: ending after this call; once more ends at once")

    def _end(self) -> None:
        # A terminal that was stopped (Ctrl-S) blocks whoever writes to it.
        threading.Timer(_LAST_WORDS_SECONDS, _exit).start()
        self._say("interrupted")
        self._close()
        _exit()


def _exit() -> None:
    os._exit(EXIT_INTERRUPTED)  # the main thread may not be able to
