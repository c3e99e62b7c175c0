"""The doctor at work while a run trains: the rules on the figures so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Columns, Log
from purejaxppo.doctor.readers import read_csv
from purejaxppo.run.tables import Row

# Rows that are kept of each seed; of more, every second one is dropped, so that memory
# and time do not grow with the length of a run.
_MAX_ROWS = 1_000


class _Figures:
    """The rows of one seed in one table, as arrays of the same columns."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._rows: list[np.ndarray] = []

    def add(self, row: Row) -> None:
        """Append a row; rows that an older version wrote with fewer columns go."""
        names = tuple(row)
        if names != self._names:
            self._names, self._rows = names, []
        self._rows.append(np.fromiter(row.values(), np.float64, len(names)))
        if len(self._rows) > _MAX_ROWS:
            del self._rows[1:-1:2]  # the first and the last stay

    def columns(self) -> Columns:
        """Return name -> values."""
        if not self._rows:
            return {}
        return dict(zip(self._names, np.stack(self._rows, axis=1), strict=True))


class Watch:
    """The figures of a run so far, and what the doctor has said of them."""

    def __init__(self, path: Path, config: Mapping[str, object]):
        """Begin without any figures.

        Args:
          path: the run's folder, for the name of the logs.
          config: values of the configuration and of the environment, by name.
        """
        self._path, self._config = path, config
        self._updates: dict[int, _Figures] = {}
        self._evals: dict[int, _Figures] = {}
        self._said: list[str] = []
        self._skipped: set[str] = set()

    def said(self) -> list[str]:
        """Return the names of the findings so far, in the order in which they came."""
        return list(self._said)

    def restore(self, said: Sequence[str]) -> None:
        """Take over what an earlier process said, so that it is not said again."""
        self._said = list(said)

    def skip(self, faults: Sequence[str]) -> None:
        """Say nothing about these faults, which the run reports in its own way."""
        self._skipped.update(faults)

    def read(self, metrics: Path, evals: Path) -> None:
        """Read the tables of an earlier process."""
        for path, add in ((metrics, self.add_updates), (evals, self.add_evals)):
            if path.exists():
                columns = read_csv(path)
                rows = zip(*columns.values(), strict=True)
                add([dict(zip(columns, row, strict=True)) for row in rows])

    def add_updates(self, rows: Sequence[Row]) -> None:
        """Add rows of the table of updates."""
        _add(self._updates, rows)

    def add_evals(self, rows: Sequence[Row]) -> None:
        """Add rows of the table of evaluations."""
        _add(self._evals, rows)

    def new_findings(self) -> list[tuple[int, Finding]]:
        """Return each finding that has not been returned before, with its seed."""
        new = []
        for seed, figures in self._updates.items():
            log = Log(
                path=self._path,
                seed=seed,
                updates=figures.columns(),
                evals=self._evals.get(seed, _Figures()).columns(),
                config=self._config,
            )
            for finding in diagnose(log):
                if finding.fault not in (*self._said, *self._skipped):
                    self._said.append(finding.fault)
                    new.append((seed, finding))
        return new


def _add(tables: dict[int, _Figures], rows: Sequence[Row]) -> None:
    for row in rows:
        tables.setdefault(int(row["seed"]), _Figures()).add(row)
