"""Weights & Biases: the figures of a run's tables, for those who log there."""

import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purejaxppo.errors import ConfigError, first_line
from purejaxppo.run import files
from purejaxppo.run.tables import AXES, Row

if TYPE_CHECKING:  # an extra, imported only where it is asked for
    import wandb

_ID = "wandb-id"  # file with the run's id there, so that a resumed run goes on


def check(project: str) -> None:
    """Check that figures can be logged to a project.

    Raises:
      ConfigError: the package is missing.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ConfigError("wandb", project, "none until purejaxppo[wandb] is installed")


class WandbRun:
    """Logs rows of figures to a project, over environment steps.

    An error of Weights & Biases costs the figures there, and never ends a run. Without
    a network, WANDB_MODE=offline keeps them in ./wandb for `wandb sync`.
    """

    def __init__(
        self, path: Path, project: str, num_seeds: int, warn: Callable[[str], None]
    ):
        """Prepare the run; nothing is sent before the first rows.

        Args:
          path: the run's folder, whose config.json is sent, too.
          project: the project's name; if empty, nothing is logged.
          num_seeds: if more than 1, a name is followed by /seedN.
          warn: is called with a message at the first error.
        """
        self._path, self._project = path, project
        self._num_seeds, self._warn = num_seeds, warn
        self._run: wandb.Run | None = None

    def append(self, rows: Sequence[Row]) -> None:
        """Log every finite number of `rows`."""
        if not self._project:
            return
        try:
            run = self._run or self._open()
            figures: dict[float, dict[str, float]] = {}
            for row in rows:
                figures.setdefault(row["steps"], {}).update(self._figures(row))
            for steps, own in figures.items():
                run.log({"steps": int(steps), **own})
        except Exception as error:  # of the network, the account, the server
            self._give_up(error)

    def _figures(self, row: Row) -> dict[str, float]:
        suffix = f"/seed{row['seed']:.0f}" if self._num_seeds > 1 else ""
        return {
            f"{name}{suffix}": value
            for name, value in row.items()
            if name not in AXES and math.isfinite(value)
        }

    def _open(self) -> "wandb.Run":
        import wandb

        file = self._path / _ID
        if not file.exists():
            files.replace(file, secrets.token_hex(6).encode())
        # It must neither catch our output nor write into the run's folder.
        settings = wandb.Settings(silent=True, console="off")
        self._run = run = wandb.init(
            project=self._project,
            id=file.read_text(),
            resume="allow",
            name=self._path.name,
            config=_config(self._path),
            settings=settings,
        )
        run.define_metric("*", step_metric="steps")
        return run

    def _give_up(self, error: Exception) -> None:
        self._warn(
            f"warning: Weights & Biases gets no more figures "
            f"({first_line(error)}); the tables have all"
        )
        self._project = ""

    def close(self) -> None:
        """Send what is left, if anything was logged."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish()
        except Exception as error:
            self._give_up(error)


def _config(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text())
