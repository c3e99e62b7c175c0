"""Tries many faults of every kind, two cases at once, and counts what goes wrong.

    python tests/fault_campaign.py '{"kinds": {"kills": 9, "damages": 9}, "seed": 0}'

The answer is a line of JSON for each kind; `python -m benchmarks.faults` asks for it.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fault_runs import variables

WORKER = Path(__file__).with_name("fault_worker.py")
WORKERS = 2
COLUMNS = ("lost", "silent", "traceback", "other")  # the worst first
Json = dict[str, Any]


class Tried(NamedTuple):
    """A case that was tried.

    Attributes:
      row: of the table.
      what: the case in words.
      tries: how often; a run is killed several times.
      wrong: sentences, each after its column and a colon.
    """

    row: str
    what: str
    tries: int
    wrong: list[str]


def _objects(lines: Iterator[str]) -> Iterator[Json]:
    """Read the JSON objects among lines; the others are of the code under test."""
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            yield answer


def try_part(request: Json) -> Iterator[Tried]:
    """Try one worker's part of a kind.

    A worker that ends before its time is a finding, and another one goes on after it.

    Raises:
      RuntimeError: a worker ended without a case.
    """
    worker = [sys.executable, str(WORKER)]
    skip, case = 0, None
    while True:
        with subprocess.Popen(
            [*worker, json.dumps({**request, "skip": skip})],
            stdout=subprocess.PIPE,
            text=True,
            env=variables(Path(request["root"])),
        ) as process:
            assert process.stdout is not None
            for answer in _objects(process.stdout):
                if "end" in answer:
                    return
                if case is None:
                    case = answer
                else:
                    yield Tried(**case, **answer)
                    skip, case = skip + 1, None
        if case is None:
            raise RuntimeError(f"a worker ended with exit code {process.returncode}")
        sentence = f"other: it ended the worker, exit code {process.returncode}"
        yield Tried(**case, tries=1, wrong=[sentence])
        skip, case = skip + 1, None


def try_kind(kind: str, tries: int, seed: int, root: Path) -> list[Tried]:
    """Try all cases of a kind.

    Args:
      kind: see `fault_worker.KINDS`.
      tries: how many, about.
      seed: of the draws.
      root: folder with the runs that faults are tried on.
    """
    request = {"kind": kind, "tries": tries, "seed": seed, "root": str(root)}
    requests = [{**request, "part": i, "parts": WORKERS} for i in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(lambda part: list(try_part(part)), requests)
        return list(itertools.chain(*found))


def count(tried: list[Tried]) -> dict[str, dict[str, int]]:
    """Count by row of the table: tries, and cases with something in each column.

    A case counts once, in the worst column that any of its sentences belongs to.
    """
    rows: dict[str, dict[str, int]] = {}
    for case in tried:
        row = rows.setdefault(case.row, dict.fromkeys(("tries", *COLUMNS), 0))
        row["tries"] += case.tries
        columns = {sentence.partition(":")[0] for sentence in case.wrong}
        for column in [name for name in COLUMNS if name in columns][:1]:
            row[column] += 1
    return dict(sorted(rows.items()))


def campaign(kinds: dict[str, int], seed: int) -> Iterator[Json]:
    """Try all these kinds; yield the counts and the findings of each.

    Args:
      kinds: kind -> tries.
      seed: of the draws.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        list(try_part({"kind": "prepare", "root": folder}))
        for kind, tries in kinds.items():
            begin = time.monotonic()
            tried = try_kind(kind, tries, seed, root)
            found = [{"what": x.what, "wrong": x.wrong} for x in tried if x.wrong]
            seconds = round(time.monotonic() - begin)
            yield {"rows": count(tried), "findings": found, "seconds": seconds}


def main() -> None:
    """Answer the request of the argument."""
    for answer in campaign(**json.loads(sys.argv[1])):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
