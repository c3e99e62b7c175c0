"""`python tests/faults [NAME ...]`: the table of faults and verdicts.

Without names it tries all faults, healthy tasks and graded settings, and writes
benchmarks/results/doctor.json.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.harness import record, report  # noqa: E402
from faults import measured, table  # noqa: E402

parser = argparse.ArgumentParser(prog="python tests/faults")
parser.add_argument("names", nargs="*")
parser.add_argument("--seed", type=int, default=300, help="the first; thresholds: 100")
parser.add_argument("--num-seeds", type=int, default=3)
parser.add_argument("--keep", type=Path, help="a folder for the runs")
options = parser.parse_args()
rows = {}
for name, plant in table.planted(options.names).items():
    folder = options.keep and options.keep / name.replace(" ", "_").replace("/", "_")
    logs = table.logs_of(plant, options.seed, options.num_seeds, folder)
    rows[name] = found = table.judge(plant, logs)
    right = f"{found['right_first']} of {found['runs']}"
    print(f"{name} | {right} | {found['all']}", flush=True)
if not options.names:
    figures = {"seed": options.seed, "diagnoses": rows}
    figures["graded"] = table.graded(options.seed)
    figures["stable_baselines3"] = measured.foreign(options.seed, options.num_seeds)
    figures["long_run"] = measured.long_run(options.seed)
    figures["cost"] = measured.cost()
    figures["table"], figures["notes"] = table.formatted(figures)
    record.write("doctor", figures)
    report.main()
