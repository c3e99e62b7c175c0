"""Writes the results in the READMEs from the files that the benchmarks wrote.

python -m benchmarks.readme          # rewrite the sections between the markers
python -m benchmarks.readme --check  # exit 1 if they are not what the files say

The top README has what was learned and the hammer's speed, benchmarks/README.md every
workload of `python -m benchmarks`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.record import RESULTS
from benchmarks.workloads import WORKLOADS

README = Path(__file__).parent.parent / "README.md"
SPEED_README = Path(__file__).parent / "README.md"
START, END = "<!-- results -->", "<!-- end of results -->"


def _load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _where(record: dict[str, Any], command: str | None = None) -> str:
    """How to get such figures, when and where these were measured.

    Args:
      command: for one of the workloads that were measured together.
    """
    machine, versions = record["machine"], record["versions"]
    return (
        f"`{command or record['command']}`, {record['date']}, "
        f"{machine['cores']} cores of {machine['cpu']}, "
        f"jax {versions['jax']}, mujoco {versions['mujoco']}"
    )


def _span(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.3f} ({figures['min']:.2f} to {figures['max']:.2f})"


def _count(steps: float | None) -> str:
    return "-" if steps is None else f"{steps:,}"


def learning(name: str, title: str, unit: str) -> list[str]:
    """A table of one learning benchmark, a row a seed."""
    record = _load(f"hammer_learning_{name}")
    if record is None:
        return []
    results = record["results"]
    summary, seeds = results["summary"], results["seeds"]
    lines = [
        f"**{title}** (`{results['metric']}`, {len(seeds)} seeds)",
        "",
        f"| seed | before PPO | best worst block | best mean | {unit} to a worst block "
        f"of .95 | {unit} to a mean of .90 | at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for seed in seeds:
        lines.append(
            f"| {seed['seed']} | {seed['before_ppo']['mean']:.2f} "
            f"| {seed['best']['worst_block']:.2f} | {seed['best']['mean']:.2f} "
            f"| {_count(seed['first_worst_block_95'])} "
            f"| {_count(seed['first_mean_90'])} | {seed['last']['mean']:.2f} |"
        )
    lines += [
        f"| mean (min to max) | {_span(summary['before_ppo_mean'])} "
        f"| {_span(summary['best_worst_block'])} | {_span(summary['best_mean'])} | | "
        f"| {_span(summary['last_mean'])} |",
        "",
        _where(record),
        "",
    ]
    return lines


def speed() -> list[str]:
    record = _load("hammer_speed")
    if record is None:
        return []
    results = record["results"]
    lines = [
        "**Speed on the hammer**, environment steps/s, compiling excluded "
        f"({results['num_envs']} environments, networks 2 x 256, "
        f"{results['num_epochs']} epochs; median and range of {results['rounds']} "
        "interleaved rounds)",
        "",
        "| | steps/s | of physics alone |",
        "| --- | --- | --- |",
    ]
    for name, rate in results["steps_per_second"].items():
        ratio = results["ratios"].get(f"{name}_over_physics")
        share = (
            f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            if ratio
            else "1"
        )
        label = name.replace("_", " ")
        lines.append(f"| {label} | {rate['median']:,.0f} | {share} |")
    return [*lines, "", _where(record, "python -m benchmarks hammer"), ""]


def peers() -> list[str]:
    """Rates against those of others, a row for each that could run."""
    lines = [
        "**Against others on the same work**: network, batch, epochs and environment "
        "alike, each in its own process, in turn (median and range of the ratios of "
        "rounds; more in [benchmarks/README.md](benchmarks/README.md))",
        "",
        "| `python -m benchmarks ...` | | it, steps/s | ours, steps/s | ours over it |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    record = None
    for name in WORKLOADS:
        found = _load(tables.file_of(name)) or {"results": {}}
        workers = found["results"].get("peers", {}).get("workers", {})
        for peer, row in workers.items():
            if "ours_over_it" in row:
                record = found
                rates = (row["steps_per_second"], workers["ours"]["steps_per_second"])
                cells = [f"`{name}`", peer, *map(tables.number, rates)]
                cells.append(tables.spread(row["ours_over_it"]))
                lines.append(f"| {' | '.join(cells)} |")
    if record is None:
        return []
    return [*lines, "", _where(record, "python -m benchmarks"), ""]


def memory() -> list[str]:
    record = _load("memory")
    if record is None:
        return []
    results = record["results"]
    seeds = results["seeds"]
    lines = [
        "**Memory**: a cue at step 0 decides what pays at step T; how many of "
        f"{seeds} seeds end at 95 % success or more",
        "",
        "| T | core none | core gru | core lstm |",
        "| --- | --- | --- | --- |",
    ]
    delays = sorted({int(n.split()[1][:-1]) for n in results if n.startswith("delay")})
    for delay in delays:
        cells = [
            str(sum(x >= 0.95 for x in results[f"delay {delay}, core {core}"]["final"]))
            for core in ("none", "gru", "lstm")
        ]
        lines.append(f"| {delay} | " + " | ".join(cells) + " |")
    return [*lines, "", _where(record), ""]


def scheduler() -> list[str]:
    record = _load("scheduler")
    if record is None:
        return []
    results = record["results"]
    episodes, seeds = results["episodes_per_family"], len(results["mix"]["seeds"])
    lines = [
        f"**Scheduler** (return over the workload families, {episodes} episodes each, "
        f"{seeds} seeds; 1 is all weight on time)",
        "",
        "| | mean | worst family |",
        "| --- | --- | --- |",
    ]
    for name, figures in results["mix"]["baselines"].items():
        mean, worst = figures["mean_return"], figures["worst_family_return"]
        lines.append(f"| {name.replace('_', ' ')} | {mean:.3f} | {worst:.3f} |")
    summary = results["mix"]["summary"]
    lines.append(
        f"| PPO, mean (min to max) | {_span(summary['mean_return'])} "
        f"| {_span(summary['worst_family_return'])} |"
    )
    bound = results["toy"]["summary"]["of_bound"]["toy"]
    invalid = max(results[c]["summary"]["invalid_frac"]["max"] for c in ("mix", "toy"))
    lines += [
        "",
        f"On the toy, whose optimum is known, the worst seed reaches {bound:.3f} of "
        f"it. Largest `invalid_frac`: {invalid:g}.",
    ]
    return [*lines, "", _where(record), ""]


def lifecycle() -> list[str]:
    record = _load("lifecycle")
    if record is None:
        return []
    results = record["results"]
    lines = [
        f"**Lifecycle** (return over {results['episodes']:,} episodes, "
        f"{len(results['recurrent'])} seeds)",
        "",
        "| | return |",
        "| --- | --- |",
    ]
    for name, figures in results["baselines"].items():
        lines.append(f"| {name.replace('_', ' ')} | {figures['return']:.3f} |")
    for name in ("feedforward", "recurrent"):
        lines.append(
            f"| PPO, {name}, mean (min to max) | {_span(results['summary'][name])} |"
        )
    return [*lines, "", _where(record), ""]


def deck() -> list[str]:
    record = _load("deck")
    if record is None:
        return []
    results = record["results"]
    players = {
        "trained": "PPO, both heads",
        "replaced": "the same agents, cards taken by chance",
        "untaught": "PPO trained with cards taken by chance",
    }
    lines = [
        f"**Deck** (share of runs won, {results['episodes']:,} episodes, "
        f"{len(results['seeds'])} seeds)",
        "",
        "| | won |",
        "| --- | --- |",
    ]
    for name, figures in results["baselines"].items():
        lines.append(f"| {name.replace('_', ' ')} | {figures['success']:.3f} |")
    for name, label in players.items():
        span = _span(results["summary"]["success"][name])
        lines.append(f"| {label}, mean (min to max) | {span} |")
    return [*lines, "", _where(record), ""]


def workloads() -> list[str]:
    """Every workload that has a result, in the order in which they are measured."""
    lines = []
    for name, workload in WORKLOADS.items():
        record = _load(tables.file_of(name))
        if record is not None:
            lines += [f"### {name}", "", workload.about, ""]
            where = _where(record, f"python -m benchmarks {name}")
            lines += [*tables.as_markdown(record["results"]), where, ""]
    return lines


def results() -> list[str]:
    """What the top README shows."""
    return [
        *learning("default", "Sparse reward, few demonstrations", "steps"),
        *learning("cs224r", "The course's protocol, `--preset cs224r`", "frames"),
        *learning("dense", "Dense reward, no demonstrations", "steps"),
        *speed(),
        *peers(),
        *memory(),
        *scheduler(),
        *lifecycle(),
        *deck(),
    ]


SECTIONS: dict[Path, Callable[[], list[str]]] = {
    README: results,
    SPEED_README: workloads,
}


def updated(text: str, section: Callable[[], list[str]]) -> str:
    """A README with the section between its markers renewed."""
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return before + "\n".join([START, "", *section(), END]) + after


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Results into the READMEs.")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    for path, section in SECTIONS.items():
        text = path.read_text()
        new = updated(text, section)
        if arguments.check and new != text:
            sys.exit(f"{path.name} in {path.parent.name}/ is not what the files say")
        if new != text:
            path.write_text(new)


if __name__ == "__main__":
    main()
