"""Tries cases of one kind of fault, and answers in JSON lines.

    python tests/fault_worker.py '{"kind": "kills", "root": FOLDER, "seed": 0, ...}'

`fault_campaign` starts it, with "tries" of the whole kind, its "part" of "parts", and
how many of them to "skip". Each case is two lines: its name and what it is, then how
often it was tried and what is wrong, a list of "COLUMN: sentence".
"""

import faulthandler
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fault_runs import Runs, prepare

Tried = tuple[int, list[str]]
Answer = dict[str, Any]
TIMEOUT = 900.0  # seconds for a case, in which a run may be started four times


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
      cases: (seed, tries, runs) -> cases, each with a `name`.
      try_case: (case, empty folder, runs) -> how often, and what is wrong.
    """

    cases: Callable[[int, int, Runs], list[Any]]
    try_case: Callable[[Any, Path, Runs], Tried]


def _kills() -> Kind:
    from disturbed_runs import kills, try_kill

    return Kind(lambda seed, tries, _: kills(seed, tries), try_kill)


def _full_disks() -> Kind:
    from disturbed_runs import full_disks, try_full_disk

    return Kind(lambda seed, tries, _: full_disks(seed, tries), try_full_disk)


def _damages() -> Kind:
    from damaged_runs import damages, try_damage

    cases = lambda seed, tries, runs: damages(seed, tries, runs.half)  # noqa: E731
    return Kind(cases, try_damage)


def _command_lines() -> Kind:
    import bad_input

    return _refused(bad_input.command_lines, bad_input.run_command_line)


def _config_files() -> Kind:
    import bad_config_files

    return _refused(bad_config_files.config_files, bad_config_files.run_config_file)


def _refused(
    cases: Callable[[int], list[Any]], run_one: Callable[[Any, Path], list[str]]
) -> Kind:
    """Make a kind of what must be refused: all its cases, or so many of them.

    Args:
      cases: of a seed.
      run_one: (case, empty folder) -> what is wrong with the answer.
    """

    def drawn(seed: int, tries: int, _: Runs) -> list[Any]:
        found = cases(seed)
        return found[:: max(1, len(found) // tries)]

    def try_case(case: Any, folder: Path, _: Runs) -> Tried:
        return 1, [in_column(sentence) for sentence in run_one(case, folder)]

    return Kind(drawn, try_case)


def in_column(sentence: str) -> str:
    """Put a sentence about a bad answer into a column of the table."""
    name, colon, _ = sentence.partition(":")
    if sentence.startswith(("accepted", "taken")):
        return f"silent: {sentence}"
    if sentence == "a traceback" or (colon and name.isidentifier()):
        return f"traceback: {sentence.removeprefix('traceback: ')}"
    return f"other: {sentence}"


def _demonstrations() -> Kind:
    import bad_demonstrations as bad

    def try_case(case: Any, folder: Path, _: Runs) -> Tried:
        found = bad.outcome(case, folder)
        return 1, [] if found in (bad.REFUSED, bad.SAME) else [in_column(found)]

    return Kind(lambda seed, tries, _: bad.bad_files(seed, tries), try_case)


KINDS: dict[str, Callable[[], Kind]] = {
    "kills": _kills,
    "full disks": _full_disks,
    "damages": _damages,
    "command lines": _command_lines,
    "config files": _config_files,
    "demonstrations": _demonstrations,
}


def row_of(kind: str, name: str) -> str:
    """Name the table's row of a case, which it shares with its like."""
    if kind == "demonstrations":
        return "a flipped bit" if name.endswith("flipped") else "another file"
    if kind == "config files":
        return "config.json"
    return name.split()[0].rstrip(":") if kind == "command lines" else name


def serve(request: Answer, send: Callable[[Answer], None]) -> None:
    """Try the cases that are asked for.

    Args:
      request: see the module.
      send: takes an answer.
    """
    runs = Runs(Path(request["root"]))
    if request["kind"] == "prepare":
        prepare(runs.root)
        return
    kind = KINDS[request["kind"]]()
    cases = kind.cases(request["seed"], request["tries"], runs)
    for case in cases[request["part"] :: request["parts"]][request["skip"] :]:
        row = row_of(request["kind"], case.name)
        send({"row": row, "what": repr(case) if row == case.name else case.name})
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        with tempfile.TemporaryDirectory(dir=runs.root) as folder:
            tries, wrong = kind.try_case(case, Path(folder), runs)
        faulthandler.cancel_dump_traceback_later()
        wrong = [sentence.replace(str(folder), "FOLDER") for sentence in wrong]
        send({"tries": tries, "wrong": wrong})


def main() -> None:
    """Answer on standard output; other lines there are those of the code under test."""
    request = json.loads(sys.argv[1])
    output = sys.stdout

    def send(answer: Answer) -> None:
        print(json.dumps(answer), file=output, flush=True)

    serve(request, send)
    send({"end": True})


if __name__ == "__main__":
    main()
