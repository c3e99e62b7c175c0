"""Ctrl-C and SIGTERM: the first asks for an end, the second does not ask."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from purejaxppo.errors import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Notes the first signal for the loop to see; the second ends the process.

    Python runs its signal handlers in the main thread, which may sit in a compiled
    program for minutes. C writes signals to a descriptor at once, and a thread of
    ours reads it.

    Attributes:
      asked: a signal has come; the loop should save and end.
      patient: False while an end at once loses nothing: then the first signal does.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say, self.asked, self.patient = say, False, False
        # Signals are the main thread's; a run inside another leaves them alone.
        self._ours = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Interrupt":
        if not self._ours:
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

    def __exit__(self, *_: Any) -> None:
        if not self._ours:
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
        if self.asked or not self.patient:
            self.say("interrupted")
            os._exit(EXIT_INTERRUPTED)  # the main thread may not be able to
        self.asked = True
        self.say("interrupted: ending after this call; once more ends at once")
