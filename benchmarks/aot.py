"""`python -m benchmarks.aot`: updates compiled for TPUs that are not here.

The package libtpu (of the version that jax's extra `tpu` names) holds the compiler.
Each program is compiled for several numbers of v5e chips, with as many environments on
each chip. results/aot.json has what the compiler says of memory and code, the
collectives of an update (`benchmarks.harness.hlo`), and what follows for many chips at
stated bandwidths. A program that does not compile leaves its reason.
"""

import argparse
import math
import os
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, PartitionSpec

from benchmarks.harness import hlo, report
from benchmarks.peers import worker
from purejaxppo import platforms
from purejaxppo.config import Config
from purejaxppo.errors import first_line
from purejaxppo.ppo import mesh as mesh_lib
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import devices

Json = dict[str, Any]

# Chips -> topology of v5e. One chip is the first of the smallest one.
TOPOLOGIES = {1: "v5e:2x2", 4: "v5e:2x2", 8: "v5e:2x4", 256: "v5e:16x16"}
ENVS_PER_CHIP = 1024
_ON_CHIP = {"num_steps": 16, "num_minibatches": 8, "num_epochs": 4}
PROGRAMS: dict[str, Json] = {
    "cartpole": {"env": "gymnax:CartPole-v1", **_ON_CHIP},
    "lifecycle": {"env": "lifecycle", **_ON_CHIP, "num_epochs": 1},
    "hammer": {"env": "hammer", **_ON_CHIP},
}
# What the efficiency of many chips is computed for: bytes/s of a chip's links, for
# neighbours of one slice and over a data centre's network; seconds that an all-reduce
# waits before it moves data, for every doubling of the chips; seconds of an update on
# one chip.
BANDWIDTHS = {"one slice, 100 GB/s": 100e9, "a network, 12.5 GB/s": 12.5e9}
LATENCY = 5e-6
UPDATE_SECONDS = (0.01, 0.1)
CHIPS = (8, 64, 512)


def compile_update(config: Config, chips: int) -> Json:
    """Compile the update of a configuration for a number of chips.

    Args:
      config: its `num_envs` counts the environments of all chips.
      chips: a key of `TOPOLOGIES`.

    Returns:
      seconds of tracing, lowering and compiling, bytes on one chip, and collectives.
    """
    topology = topologies.get_topology_desc(TOPOLOGIES[chips], platform="tpu")
    mesh = Mesh(np.asarray(topology.devices[:chips]), (mesh_lib.ENVS,))
    with platforms.compiled_for("tpu"):
        state, _ = jax.eval_shape(make_learner(config).init, jax.random.key(0))
        hypers = jax.eval_shape(lambda: as_arrays(config.hypers))
        arguments = (
            devices.state_shapes(mesh, config, 1, state),
            devices.with_shardings(mesh, PartitionSpec(), hypers),
        )
        times = [time.monotonic()]
        traced = jax.jit(make_learner(config, mesh=mesh).update).trace(*arguments)
        times.append(time.monotonic())
        lowered = traced.lower()
        times.append(time.monotonic())
        compiled = lowered.compile()
        times.append(time.monotonic())
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None, "TPU programs have it"
    assert text is not None, "TPU programs have it"
    phases = ("trace", "lower", "compile")
    return {
        "seconds": dict(zip(phases, np.diff(times).tolist(), strict=True)),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "collectives": {
            kind: found._asdict() for kind, found in hlo.collectives(text).items()
        },
    }


def efficiency(
    collectives: Json, chips: int, bandwidth: float, seconds: float
) -> float:
    """Compute the share of its time that a chip trains, and does not wait for others.

    A ring of D chips sends and receives 2 (D - 1) / D times the bytes of an all-reduce.

    Args:
      collectives: of an update, each with `calls` and `bytes`.
      chips: D.
      bandwidth: bytes/s.
      seconds: of an update on one chip, which nothing overlaps.
    """
    calls = sum(found["calls"] for found in collectives.values())
    moved = sum(found["bytes"] for found in collectives.values())
    waiting = calls * LATENCY * math.log2(chips)
    waiting += 2 * (chips - 1) / chips * moved / bandwidth
    return seconds / (seconds + waiting)


def with_table(results: Json) -> Json:
    """Add the table of what was compiled, and that of the efficiency of many chips."""
    rows = [
        ["program", "chips", "MB on a chip", "MB of code", "compile s", "collectives"]
    ]
    notes = []
    for name, found in results["programs"].items():
        for chips, one in found.items():
            if "error" in one:
                notes.append(f"{name}, {chips} chips: {one['error']}")
                continue
            size = one["temporary_bytes"] + one["argument_bytes"]
            said = "; ".join(
                f"{c['calls']} {kind}, {c['bytes'] / 1e6:.2f} MB"
                for kind, c in one["collectives"].items()
            )
            cells = (f"{size / 1e6:.0f}", f"{one['code_bytes'] / 1e6:.1f}")
            seconds = f"{one['seconds']['compile']:.0f}"
            rows.append([name, chips, *cells, seconds, said or "none"])
    for name, shares in results["efficiency"].items():
        for case, of_chips in shares.items():
            said = ", ".join(f"{share:.0%} on {n}" for n, share in of_chips.items())
            notes.append(f"Time in which a chip of {name} trains, {case}: {said}.")
    notes.append(
        f"{ENVS_PER_CHIP:,} environments a chip x {_ON_CHIP['num_steps']} steps; "
        f"collectives are those of one update, with {LATENCY * 1e6:.0f} us each for "
        "every doubling of the chips before data moves, and nothing overlaps them; "
        f"libtpu {results['libtpu']}."
    )
    return {**results, "table": rows, "notes": notes}


def measure(names: list[str], chips: list[int]) -> Json:
    """Compile programs for numbers of chips, and compute what follows."""
    programs: Json = {}
    for name in names:
        programs[name] = {}
        for num in chips:
            config = Config.preset(
                **{**PROGRAMS[name], "num_envs": ENVS_PER_CHIP * num, "num_evals": 0}
            )
            print(f"{name} for {num} chips ...", flush=True)
            try:
                found = compile_update(config, num)
            except Exception as error:  # of a compiler that is not ours
                found = {"error": first_line(error)}
            programs[name][str(num)] = found
    efficiencies: Json = {}
    for name, found in programs.items():
        largest = [x for n, x in found.items() if int(n) > 1 and "error" not in x]
        if largest:
            efficiencies[name] = {
                f"{seconds * 1e3:.0f} ms an update, {link}": {
                    str(n): efficiency(largest[-1]["collectives"], n, speed, seconds)
                    for n in CHIPS
                }
                for link, speed in BANDWIDTHS.items()
                for seconds in UPDATE_SECONDS
            }
    results = {"programs": programs, "efficiency": efficiencies}
    return with_table({**results, **worker.versions("libtpu")})


def main(argv: list[str] | None = None) -> None:
    """Compile, and write results/aot.json and what is shown of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot")
    parser.add_argument("programs", nargs="*", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--chips", type=int, nargs="+", default=list(TOPOLOGIES))
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args(argv)
    # There is no TPU whose metadata could be asked for.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    results = measure(arguments.programs or list(PROGRAMS), arguments.chips)
    report.publish("aot", results, write=not arguments.no_write)


if __name__ == "__main__":
    main()
