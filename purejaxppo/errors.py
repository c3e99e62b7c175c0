"""The errors that a user can cause and correct. Each message is one sentence.

The constructors take the field, the value and the allowed values and compose the
message, so that a caller cannot omit one of them.
"""

import traceback
from collections.abc import Iterable

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_STRICT = 3
EXIT_STORAGE = 4
EXIT_INTERRUPTED = 130


_LONGEST_VALUE = 200  # characters of a value in a message


def _shortened(value: object) -> str:
    """Return `repr(value)`, without its middle if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of above 4,300 digits
        return "a number of thousands of digits"
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[: _LONGEST_VALUE // 2]}...{text[-_LONGEST_VALUE // 2 :]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def summary(error: BaseException) -> str:
    """Return type, first line and place of an error in the code of a user.

    The place is the innermost line outside of installed packages.
    """
    text = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    foreign = ("site-packages", "<frozen ")
    own = [x for x in frames if not any(part in x.filename for part in foreign)]
    place = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {text[0] if text else ''}{place}"


class PurejaxppoError(Exception):
    """Base of all errors that the user can correct: printed without a traceback."""


class ConfigError(PurejaxppoError):
    """A configuration value that cannot be used."""

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field}: got {_shortened(value)}; allowed is {allowed}")


class UnknownName(ConfigError):  # noqa: N818
    """A name that is not among the known ones."""

    def __init__(self, field: str, value: object, known: Iterable[str]):
        names = ", ".join(sorted(known))
        allowed = f"one of {names}" if names else "none, because there are no names"
        super().__init__(field, value, allowed)


class EnvironmentFault(PurejaxppoError):  # noqa: N818
    """An environment outside of JAX that failed while a program called it."""

    def __init__(self, name: str, problem: str):
        super().__init__(f"env: {name} {problem}")


def fault_behind(error: BaseException) -> str | None:
    """Return the sentence of the `EnvironmentFault` that made JAX raise an error.

    JAX raises an error of its own, whose text ends with the error on the host.

    Args:
      error: any error.

    Returns:
      the sentence; None if the error has another cause.
    """
    _, found, sentence = str(error).rpartition(f"{EnvironmentFault.__name__}: ")
    return sentence.splitlines()[0] if found else None


def whole_number(field: str, value: object, low: int, high: int) -> int:
    """Return `value` if it is a whole number from `low` to `high`.

    Args:
      field: name of the value in an error.
      value: the value to check.
      low: the smallest allowed value.
      high: the largest allowed value.

    Raises:
      ConfigError: the value is no whole number or is out of range.
    """
    # bool is a subclass of int, so True would pass as 1.
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ConfigError(field, value, f"a whole number from {low} to {high}")


class CheckpointError(PurejaxppoError):
    """A checkpoint that is missing, unreadable or of an unknown format."""

    def __init__(self, path: object, problem: str, allowed: str):
        super().__init__(f"checkpoint: {path} {problem}; allowed is {allowed}")


class DamagedCheckpoint(CheckpointError):  # noqa: N818
    """A checkpoint whose files have changed since they were written.

    `restore_latest` then tries the checkpoint before it.
    """


class TrainingStopped(PurejaxppoError):  # noqa: N818
    """Training was stopped by a fault: by a fatal one, with `--strict` by any."""


class StorageError(PurejaxppoError):
    """A file of a run that cannot be written: a full disk, a missing folder."""

    def __init__(self, path: object, error: OSError, advice: str = ""):
        reason = error.strerror or error
        advice = f"; {advice}" if advice else ""
        super().__init__(f"storage: {path} cannot be written ({reason}){advice}")
