"""`python -m purejaxppo.report RUN`: the curves of runs as one page."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.readers import read
from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STORAGE,
    EXIT_USAGE,
    ConfigError,
    PurejaxppoError,
    StorageError,
)
from purejaxppo.report.page import render
from purejaxppo.run import files

REPORT = "report.html"


def write_report(
    runs: Annotated[list[Path], tyro.conf.Positional], output: Path | None = None
) -> int:
    """Write the curves of runs, and what the doctor finds, as one page.

    Args:
      runs: Folders of runs, CSV files, or folders of TensorBoard events.
      output: The page; RUN/report.html for one folder, else report.html.
    """
    if not runs:
        raise ConfigError("run", [], "at least one run")
    for run in runs:
        if run.is_dir():
            files.refuse_links(run, "run")
    logs = [log for run in dict.fromkeys(runs) for log in read(run)]
    content = render(logs, [diagnose(log) for log in logs])
    is_folder = len(runs) == 1 and runs[0].is_dir()
    path = output or (runs[0] / REPORT if is_folder else Path(REPORT))
    try:
        files.replace(path, content)
    except OSError as error:
        raise StorageError(path, error) from None
    print(path)
    return EXIT_OK


def main() -> int:
    """Run the command line; the exit code is 0, 2 (usage), 4 (storage) or 130."""
    try:
        return tyro.cli(write_report, prog="python -m purejaxppo.report")
    except StorageError as error:
        print(error, file=sys.stderr)
        return EXIT_STORAGE
    except PurejaxppoError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
