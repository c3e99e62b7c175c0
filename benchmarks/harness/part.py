"""One part of a workload, in a process of its own.

    python -m benchmarks.harness.part NAME JSON

The answer is one line of JSON. `benchmarks.workloads` starts it; the environment says
where compiled programs are kept.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import purejaxppo  # noqa: F401 (first: it prepares XLA)
from benchmarks import stages
from benchmarks.peers import ours
from purejaxppo.config import Config

Json = dict[str, Any]


def config_of(
    env: str = "", preset: str = "default", common: Json | None = None, **values: Any
) -> Config:
    """The configuration of a case.

    Args:
      env: name of the environment.
      preset: of that environment.
      common: the keys that all competitors of a race share, instead of the others.
      **values: fields of `Config` and `Hypers`; JSON has lists where they have tuples.
    """
    if common is not None:
        return ours.make_config(common)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Config.preset(env, preset, **values)


def speed(case: Json, **sizes: Any) -> Json:
    return stages.speed(config_of(**case), **sizes)


def training(case: Json) -> Json:
    return stages.training(config_of(**case))


def seeds(case: Json, **sizes: Any) -> Json:
    return stages.seeds(config_of(**case), **sizes)


PARTS: dict[str, Callable[..., Json]] = {
    part.__name__: part for part in (speed, training, seeds)
}


def main() -> None:
    answer = PARTS[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
