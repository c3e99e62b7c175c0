"""`python -m purejaxppo.doctor RUN [RUN ...]`: what is wrong with a run, in words."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.finding import Finding, paragraph
from purejaxppo.doctor.log import Log
from purejaxppo.doctor.readers import UnreadableRun, read
from purejaxppo.errors import EXIT_OK

EXIT_FINDINGS, EXIT_UNREADABLE = 1, 2


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m purejaxppo.doctor",
        description="Say what is wrong with a run, the most severe first. The exit "
        "code is 0 if nothing is, 1 with findings, and 2 if a run cannot be read.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of a run, its metrics.csv, or TensorBoard events of this or "
        "another program",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args(argv)


def _as_json(log: Log, findings: list[Finding]) -> dict[str, object]:
    plain = [dataclasses.asdict(finding) for finding in findings]
    return {"run": str(log.path), "seed": log.seed, "findings": plain}


def _as_text(log: Log, findings: list[Finding]) -> str:
    steps = int(log.updates["steps"][-1])
    state = "finished" if log.finished else "so far"
    title = f"{log.name}: {steps:,} steps, {state}"
    if not findings:
        return f"{title}: healthy"
    return "\n".join([title, *map(paragraph, findings)])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0 (healthy), 1 (findings) or 2."""
    options = _parse(argv)
    logs, errors = [], []
    for path in options.runs:
        try:
            logs += read(path)
        except UnreadableRun as error:
            errors.append(error)
    findings = [diagnose(log) for log in logs]
    if options.json:
        print(json.dumps(list(map(_as_json, logs, findings)), indent=1, default=float))
    else:
        text = "\n\n".join(map(_as_text, logs, findings))
        print(text, end="\n" if logs else "")
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        return EXIT_UNREADABLE
    return EXIT_FINDINGS if any(findings) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
