"""`python -m benchmarks.faults`: kills, damages, full disks, bad words and bad files.

Drawn from a seed, written to results/faults.json; exit code 1 if anything goes wrong.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.harness import record, report
from benchmarks.harness.processes import ROOT, ask, running
from purejaxppo.run.progress import Progress

# Kind -> tries. Of command lines and config files, these are all that a seed draws.
KINDS = {
    "kills": 108,
    "full disks": 12,
    "damages": 120,
    "command lines": 1000,
    "config files": 1000,
    "demonstrations": 400,
}
TIMEOUT = 3600.0  # seconds for a kind
Json = dict[str, Any]


def measure(kinds: dict[str, int], seed: int) -> Json:
    """Try kinds of faults, so often each: the counts, and every finding in words."""
    progress = Progress()
    request = json.dumps({"kinds": kinds, "seed": seed})
    campaign = str(ROOT / "tests" / "fault_campaign.py")
    figures: Json = {"seed": seed, "faults": {}}
    with running([sys.executable, campaign, request]) as program:
        for kind in kinds:
            with progress.phase(f"trying {kind}"):
                figures["faults"][kind] = ask(program, None, TIMEOUT)
    return figures


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; print and write what it finds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    flag = parser.add_argument
    flag("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    flag("--tries", type=int, help="of each kind, instead of its own number")
    flag("--seed", type=int, default=0)
    flag("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args(argv)
    kinds = {name: arguments.tries or KINDS[name] for name in arguments.kinds}
    figures = measure(kinds, arguments.seed)
    findings = [x for kind in figures["faults"].values() for x in kind["findings"]]
    for finding in findings:
        print("\n  ".join([finding["what"], *finding["wrong"]]))
    print(report.as_text("faults", figures))
    if not arguments.no_write:
        record.write("faults", figures)
        report.main()
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
