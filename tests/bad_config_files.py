"""Bad config files of a run, drawn from a seed, which `--resume` must refuse.

`config_files` gives the changes, `run_config_file` makes one and resumes the run.
"""

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bad_input import answer

from purejaxppo import train
from purejaxppo.config import Config
from purejaxppo.hypers import Hypers
from purejaxppo.ranges import Number, Range, ranges_of
from purejaxppo.registry import make_env
from purejaxppo.run import record
from purejaxppo.run.options import Options


class ConfigFile(NamedTuple):
    """A change to config.json after which a run must not be resumed.

    Attributes:
      name: of the case.
      change: from the text of the file to another.
      says: what the sentence must contain.
    """

    name: str
    change: Callable[[str], str]
    says: str


def config_files(seed: int = 0) -> list[ConfigFile]:
    """All bad config files of a seed, at least 100."""
    draw = random.Random(seed)
    cases = [
        ConfigFile(f"text {text[:20]!r}", lambda _, text=text: text, "")
        for text in ("", "{", "[]", "3", "null", '"run"', "{}", "[" * 5000, "\0", "NaN")
    ]
    cases.append(ConfigFile("half", lambda text: text[: len(text) // 2], ""))
    for group in ("config", "hypers", "options", "versions", "machine"):
        for value in (None, [], 3, "x"):
            cases.append(_edit(f"{group} is {value!r}", [group], value))
        cases.append(_edit(f"{group} is missing", [group], _MISSING))
    for value in (0, -1, 99, "2", None, 1.5, [2], True, {}):
        cases.append(_edit(f"format {value!r}", ["format"], value))
    for value in (None, [], 3, "x", {"gamma": 3}):
        cases.append(_edit(f"sources {value!r}", ["sources"], value))
    for value in ("1", 1.5, None, [], 7, -1):
        cases.append(_edit(f"env_version {value!r}", ["env_version"], value))
    return [*cases, *_wrong_types(draw), *_wrong_tags()]


_MISSING = object()


def _edit(name: str, path: list[str], value: object, says: str = "") -> ConfigFile:
    def change(text: str) -> str:
        entries = inner = json.loads(text)
        for key in path[:-1]:
            inner = inner[key]
        if value is _MISSING:
            del inner[path[-1]]
        else:
            inner[path[-1]] = copy.deepcopy(value)
        return json.dumps(entries)

    return ConfigFile(name, change, says)


def _wrong_types(draw: random.Random) -> Iterator[ConfigFile]:
    """Each field with values of types and ranges that are not its own."""
    owners = {"config": Config, "hypers": Hypers, "options": Options}
    for group, cls in owners.items():
        for name, range_ in ranges_of(cls).items():
            if name == "hypers":
                continue
            values = [None, [], {}, [[1]], {"x": {"y": []}}, "\0", "-1", -1.5, 10**400]
            values += [True, "0.5", math.nan, 1e308, [True], [1e9], -(10**12), "1e1"]
            wrong = [x for x in values if not _plausible(range_, x)]
            for value in draw.sample(wrong, 2):
                edit = f"{group}.{name} = {str(value)[:20]!r}"
                yield _edit(edit, [group, name], value, name)
        yield _edit(f"{group} has more", [group, "no_such"], 1, "no_such")


def _plausible(range_: Range, value: object) -> bool:
    """Whether a value of JSON may be meant by a field of that range."""
    if type(range_).__name__ in ("PerHead", "Arguments"):
        return isinstance(value, dict)
    if isinstance(range_, Number) and isinstance(value, str):
        return False
    if isinstance(range_, Number) and isinstance(value, int) and value > 2**63:
        return False
    if type(range_).__name__ == "Text":
        return isinstance(value, str) and value != "\0"
    return range_.holds(value)


def _wrong_tags() -> Iterator[ConfigFile]:
    """Marks of tuples and floats, see `record`, that are not what they say."""
    for value in ({"tuple": 5}, {"float": "x"}, {"float": []}, {"tuple": None}):
        yield _edit(f"tag {value}", ["config", "env_kwargs"], value)
        yield _edit(f"tag {value}", ["hypers", "head_entropy_coef"], {"op": value})
        yield _edit(f"tag {value}", ["hypers", "gamma"], value)
    for value in (["x"], {"1": 2}, {"kind": "x"}, 3):
        yield _edit(f"arguments {value}", ["config", "env_kwargs"], value)


def make_run(path: Path) -> None:
    """A run's folder with nothing but its config.json, of a registered environment."""
    resolved, options = train.parse(["--env", "deck", "--run-dir", str(path)])
    path.mkdir()
    record.write(path, resolved, options, [], make_env("deck").spec)


def run_config_file(case: ConfigFile, folder: Path) -> list[str]:
    """What is wrong with resuming a run of such a config.json; nothing is right.

    Args:
      case: the change.
      folder: empty.
    """
    make_run(folder / "run")
    file = folder / "run" / "config.json"
    file.write_text(case.change(file.read_text()))
    wrong = answer(["--resume", str(folder / "run")], case.says)
    if left := {path.name for path in (folder / "run").iterdir()} - {"config.json"}:
        wrong.append(f"left {left}")
    return wrong
