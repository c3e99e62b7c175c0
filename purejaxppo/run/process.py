"""The process of a command: signals during its imports, and its exit.

This module imports nothing slow, because commands call it before their other imports.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STORAGE,
    EXIT_STRICT,
    EXIT_USAGE,
    PurejaxppoError,
    StorageError,
    TrainingStopped,
    fault_behind,
)
from purejaxppo.run.interrupt import Interrupt


def end_on_signals() -> None:
    """End the process on these signals with exit code 130, and without a traceback.

    A run replaces this by an `Interrupt` of its own while it trains.
    """
    Interrupt(_say).__enter__()


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def exit_code(command: Callable[[], int]) -> int:
    """Run a command, and return its exit code; an error that a user can mend is said.

    The code of such an error is 2 (usage), 3 (a fault with `--strict`), 4 (a folder
    that cannot be written) or 130 (an interrupt).
    """
    try:
        return command()
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_STRICT
    except StorageError as error:
        print(error, file=sys.stderr)
        return EXIT_STORAGE
    except PurejaxppoError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except RuntimeError as error:  # JAX's, of an environment that a program calls
        fault = fault_behind(error)
        if fault is None:
            raise
        print(fault, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # before a run has a handler of its own
        return EXIT_INTERRUPTED


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its exit code.

    The process does not wait for threads: a compilation whose result is not needed any
    more can take minutes. A standard output that is closed, by `head` for example, is
    no error.
    """
    try:
        code = main()
    except SystemExit as error:  # by tyro, after --help and after an unknown flag
        code = error.code if isinstance(error.code, int) else EXIT_OK
    except BrokenPipeError:
        code = EXIT_OK
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
