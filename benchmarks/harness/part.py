"""One part of a workload, in a process of its own.

    python -m benchmarks.harness.part NAME JSON

The answer is one line of JSON. `benchmarks.workloads` starts it; the environment says
where compiled programs are kept.
"""

import json
import sys
from typing import Any

import purejaxppo  # noqa: F401 (first: it prepares XLA)
from benchmarks import stages
from benchmarks.peers import ours
from benchmarks.prepared import with_tuples
from purejaxppo.config import Config

Json = dict[str, Any]
PARTS = {"speed": stages.speed, "training": stages.training}


def config_of(
    env: str = "", preset: str = "default", common: Json | None = None, **values: Any
) -> Config:
    """Make the configuration of a case.

    Args:
      env: name of the environment.
      preset: of that environment.
      common: the keys that all competitors of a race share, instead of the others.
      **values: fields of `Config` and `Hypers`; JSON has lists where they have tuples.
    """
    if common is not None:
        return ours.make_config(common)
    return Config.preset(env, preset, **with_tuples(values))


def main() -> None:
    """Measure the part that the arguments name, and print the answer."""
    part, request = PARTS[sys.argv[1]], json.loads(sys.argv[2])
    config = config_of(**request.pop("case"))
    print(json.dumps(part(config, **request)), flush=True)


if __name__ == "__main__":
    main()
