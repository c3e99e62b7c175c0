"""What a rule found in a run, and how it is said."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
      fault: the short name of the suspect, the same in all runs and in the tables of
        the benchmarks: "overshoot".
      severity: from 0 (hardly matters) to 1 (nothing can be learned); findings are
        ordered by it.
      fatal: no later update can mend it, so that `--strict` stops the run.
      metric: the name of the metric in which it is seen, "" for several.
      steps: the first and the last step at which it is seen.
      seen: what was seen, with its figures. A clause without a full stop, as the next.
      meaning: what that means.
      suspect: the likely cause.
      knobs: what to change, the most promising first.
      source: where the rule comes from: a paper, an equation, a measurement.
    """

    fault: str
    severity: float
    fatal: bool
    metric: str
    steps: tuple[int, int]
    seen: str
    meaning: str
    suspect: str
    knobs: tuple[str, ...]
    source: str = ""


def sentence(finding: Finding) -> str:
    """Return the finding in one line, as training prints it."""
    return f"{finding.fault}: {finding.seen}; {finding.suspect}"


def paragraph(finding: Finding) -> str:
    """Return the finding in several lines, as the command prints it."""
    first, last = finding.steps
    where = f"{first:,} to {last:,} steps" if last > first else f"{first:,} steps"
    if finding.metric:
        where = f"{finding.metric}, {where}"
    kind = "FATAL" if finding.fatal else "warning"
    rows = [
        f"{kind} {finding.fault} (severity {finding.severity:.2f})",
        f"  seen     {finding.seen}",
        f"  means    {finding.meaning}",
        f"  suspect  {finding.suspect}",
        *(f"  try {i}    {knob}" for i, knob in enumerate(finding.knobs, 1)),
        f"  look at  {where}",
    ]
    return "\n".join(rows)
