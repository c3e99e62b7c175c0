"""All rules on a log: the findings, most severe first."""

from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Log


def diagnose(log: Log) -> list[Finding]:
    """Return what is wrong with a run, the most severe finding first."""
    return []
