"""Every way in which a user can be wrong, one sentence each.

The constructors take the facts and write the sentence, so that a caller cannot
forget the field, the value or what is allowed.
"""

from collections.abc import Iterable

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_STRICT = 3
EXIT_INTERRUPTED = 130


class PurejaxppoError(Exception):
    """Base of all errors that are the user's to mend: one sentence, no trace."""


class ConfigError(PurejaxppoError):
    """A configuration value that cannot be used."""

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field}: got {value!r}; allowed is {allowed}")


class UnknownName(ConfigError):  # noqa: N818
    """A name that is not among the known ones."""

    def __init__(self, field: str, value: object, known: Iterable[str]):
        names = ", ".join(sorted(known))
        allowed = f"one of {names}" if names else "none, because there are no names"
        super().__init__(field, value, allowed)


def whole_number(field: str, value: object, low: int, high: int) -> int:
    """The value, if it is a whole number from `low` to `high`.

    Args:
      field: what an error calls it.
      value: the number.
      low: smallest that is allowed.
      high: largest that is allowed.

    Raises:
      ConfigError: it is not.
    """
    # True is an int.
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ConfigError(field, value, f"a whole number from {low} to {high}")


class CheckpointError(PurejaxppoError):
    """A checkpoint that is missing, unreadable or of an unknown format."""

    def __init__(self, path: object, problem: str, allowed: str):
        super().__init__(f"checkpoint: {path} {problem}; allowed is {allowed}")


class DamagedCheckpoint(CheckpointError):  # noqa: N818
    """A checkpoint whose files are not what was written: the one before may serve."""


class TrainingStopped(PurejaxppoError):  # noqa: N818
    """Training ended on a fault that `--strict` does not let pass."""
