"""All rules on a log: the findings, most severe first."""

import numpy as np

from purejaxppo.doctor.evidence import progress
from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.log import Log
from purejaxppo.doctor.rules import RULES


def diagnose(log: Log) -> list[Finding]:
    """Return what is wrong with a run, the most severe finding first; [] if nothing.

    Rules that judge what was learned are silent in the first half of a run.
    """
    findings = []
    done, updates = progress(log), log.updates["steps"].size
    with np.errstate(all="ignore"):
        for rule in RULES:
            if done < rule.after or updates < rule.updates:
                continue
            evidence = rule.find(log, rule.limits)
            if evidence is None:
                continue
            findings.append(
                Finding(
                    fault=rule.fault,
                    severity=round(evidence.severity, 3),
                    fatal=rule.fatal,
                    metric=evidence.metric,
                    steps=evidence.steps,
                    seen=evidence.seen,
                    meaning=rule.meaning,
                    suspect=rule.suspect,
                    knobs=rule.knobs,
                    source=rule.source,
                )
            )
    return sorted(findings, key=lambda finding: -finding.severity)
