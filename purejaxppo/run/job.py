"""A command as the job of a queue, which stops it and starts it again."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from purejaxppo.errors import EXIT_OK

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_SAVE_SECONDS = 60.0  # less than a queue leaves between its signal and the end
_POLL_SECONDS = 0.2


class Job:
    """Runs a command of this package; submitit calls it in the queue's job.

    submitit's handler of signals runs `checkpoint` and puts the job into the queue
    again. So the command is a process of its own: in this one the handler must come
    through at any moment, and not after minutes inside of a compiled program.
    """

    def __init__(self, words: Sequence[str]):
        """Prepare to run `python -m WORDS`."""
        self._words = tuple(words)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the command.

        Raises:
          RuntimeError: it ended with another exit code than 0.
        """
        self._process = subprocess.Popen([sys.executable, "-m", *self._words])
        try:
            # Not `wait`: it would hold a lock that `checkpoint` needs.
            while (code := self._process.poll()) is None:
                time.sleep(_POLL_SECONDS)
        except BaseException:  # the job ends; so does the command
            self._process.terminate()
            raise
        if code != EXIT_OK:
            raise RuntimeError(f"{' '.join(self._words)}: ended with exit code {code}")

    def checkpoint(self) -> "DelayedSubmission":
        """Make the command save and end; return what is put into the queue again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SAVE_SECONDS)
        return DelayedSubmission(Job(self._words))

    def __getstate__(self) -> dict[str, object]:
        """Return what is pickled: a process belongs to one machine."""
        return {"_words": self._words, "_process": None}
