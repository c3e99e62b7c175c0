"""Figures as tables: the same rows for the terminal and for Markdown."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Figures = dict[str, Any]

STAGES = ("physics", "rollout", "update", "end_to_end")


class Table(NamedTuple):
    """Rows of cells, the first of them the header, and sentences below."""

    rows: list[list[str]]
    notes: list[str]


def number(rate: dict[str, float] | None) -> str:
    """Format the median of a rate."""
    return f"{rate['median']:,.0f}" if rate else "-"


def ratio(figures: dict[str, float] | None) -> str:
    """Format a median (smallest to largest)."""
    if figures is None:
        return "-"
    low, high = figures["min"], figures["max"]
    return f"{figures['median']:.2f} ({low:.2f} to {high:.2f})"


def span(figures: dict[str, float]) -> str:
    """Format a mean (smallest to largest)."""
    if abs(figures["mean"]) >= 10:
        return "{mean:,.0f} ({min:,.0f} to {max:,.0f})".format(**figures)
    return "{mean:.3f} ({min:.2f} to {max:.2f})".format(**figures)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def mebibytes(size: float | None) -> str:
    return _optional(size and size / 2**20, ",.0f")


def _spoken(name: str) -> str:
    return name.replace("_", " ")


# --- speed --------------------------------------------------------------------------


def _rates(
    rates: Figures, ratios: Figures, name: str = "{}", ratio_name: str = "{}"
) -> Iterator[list[str]]:
    """Make rows of a name, a rate, and its ratio; 1 is the rate compared with.

    Args:
      rates: name -> spread.
      ratios: spreads.
      name: form of a row's first cell.
      ratio_name: form of a ratio's key.
    """
    for key, rate in rates.items():
        share = ratios.get(ratio_name.format(key))
        yield [name.format(_spoken(key)), number(rate), ratio(share) if share else "1"]


def stages(figures: Figures) -> Table:
    """Tabulate steps/s of each stage; the rest is sentences."""
    measured = figures["steps_per_second"]
    rates = {name: measured[name] for name in STAGES if name in measured}
    rows = list(_rates(rates, figures["ratios"], ratio_name="{}_over_physics"))
    rows[0][0] += f" ({figures.get('physics_is', 'mujoco.rollout')})"
    header = ["", "steps/s", "of physics alone"]
    return Table([header, *rows], list(_notes(figures)))


def _notes(figures: Figures) -> Iterator[str]:
    """Say the sizes, the seconds of compiling, and what training reached."""
    if "num_envs" in figures:
        yield (
            f"{figures['num_envs']} environments x {figures['num_steps']} steps, "
            f"{figures['num_epochs']} epochs; {figures['rounds']} interleaved rounds."
        )
    for case, phases in figures.get("compile_seconds", {}).items():
        parts = ", ".join(f"{phase} {s:.1f} s" for phase, s in phases.items())
        yield f"Compiling the update, {case}: {parts}."
    if trained := figures.get("training"):
        reached = ", ".join(
            f"{_spoken(name.removeprefix('eval/'))} {value:.2f}"
            for name, value in trained.items()
            if name.startswith("eval/")
        )
        yield (
            f"Trained for {trained['steps']:,} steps in {trained['seconds']:.1f} s: "
            f"{reached}; peak memory {mebibytes(trained['peak_memory_bytes'])} MiB."
        )


def peers(figures: Figures) -> Table:
    """Tabulate rates, ratios, compile seconds, memory and returns of workers."""
    rows = [["", "steps/s", "ours over it", "compile s", "peak MiB", "return"]]
    workers = figures["workers"]
    for name, row in workers.items():
        cells = ["-"] * 5
        if "error" not in row:
            cells = [
                number(row.get("steps_per_second")),
                "1" if name == "ours" else ratio(row.get("ours_over_it")),
                _optional(row["compile_seconds"], ".1f"),
                mebibytes(row["peak_memory_bytes"]),
                f"{_optional(row['return'], '.1f')} at {row['steps']:,} steps",
            ]
        rows.append([name, *cells])
    return Table(rows, [*_versions(workers), *_failures(workers)])


def _failures(found: dict[str, Figures]) -> list[str]:
    return [f"{n}: {row['error']}." for n, row in found.items() if "error" in row]


def _versions(workers: dict[str, Figures]) -> Iterator[str]:
    """Say the version of each peer, the first package that its worker names."""
    named = {}
    for row in workers.values():
        has = {n: v for n, v in row.get("versions", {}).items() if v is not None}
        named |= dict(list(has.items())[:1])
    if named:
        yield "Versions: " + ", ".join(f"{n} {v}" for n, v in named.items()) + "."


def training(figures: Figures) -> Table:
    """Tabulate the returns of training from scratch to the same number of steps."""
    rows = [["", "steps", "seconds", *(f"seed {s}" for s in figures["seeds"])]]
    for name, row in figures["training"].items():
        cells = ["-"] * (2 + len(figures["seeds"]))
        if "error" not in row:
            returns = [_optional(value, ".1f") for value in row["returns"]]
            seconds = f"{row['seconds']['median']:.1f}"
            cells = [f"{row['steps']:,}", seconds, *returns]
        rows.append([name, *cells])
    return Table(rows, _failures(figures["training"]))


def layers(figures: Figures) -> Table:
    """Tabulate sample passes/s of the update with our layers and with flax's."""
    rates, ratios = figures["passes_per_second"], figures["ratios"]
    header = ["", "sample passes/s", "ours over it"]
    return Table([header, *_rates(rates, ratios, "{} layers", "ours_over_{}")], [])


def seeds(name: str, figures: Figures) -> Table:
    """Tabulate ways to run several seeds."""
    header = [f"{figures['num_seeds']} seeds, {name}", "steps/s of all"]
    rows = [[*header, "over one by one", "compile s"]]
    rates, ratios = figures["steps_per_second"], figures["ratios"]
    compiling = figures["compile_seconds"].values()
    ways = _rates(rates, ratios, ratio_name="{}_over_one by one")
    for way, phases in zip(ways, compiling, strict=True):
        rows.append([*way, f"{sum(phases.values()):.1f}"])
    return Table(rows, [])


def startup(figures: Figures) -> Table:
    """Tabulate seconds from the command to the end of the first update."""
    rows = [["", "run folder, s", "first update, s", "target, s", "compiling, s"]]
    for case, target in figures["targets"].items():
        run = figures[case]
        compiling = sum(sum(p.values()) for p in run["compile_seconds"].values())
        folder, first = run["seconds_to_run_folder"], run["seconds_to_first_update"]
        times = f"{first['median']:.1f} ({first['min']:.1f} to {first['max']:.1f})"
        numbers = [f"{target:.1f}", f"{compiling:.1f}"]
        rows.append([case, f"{folder['median']:.1f}", times, *numbers])
    return Table(rows, [f"Median (smallest to largest) of {figures['rounds']} starts."])


# --- learning -----------------------------------------------------------------------


def curves(figures: Figures) -> Table:
    """Tabulate what each seed reaches, and when."""
    unit = "frames" if figures["frames"] > 1 else "steps"
    header = ["seed", "before PPO", "best worst block", "best mean"]
    block, mean = figures["marks"]
    header += [f"{unit} to a worst block of {block:g}", f"{unit} to a mean of {mean:g}"]
    header.append("at the end")
    # Meta-World's success is also that of a nail pushed in without the hammer.
    also = figures["metric"] == "success"
    rows = [[*header, *(["hammered at the end"] if also else [])]]
    for seed in figures["seeds"]:
        best = seed["best"]
        reached = [seed["before_ppo"]["mean"], best["worst_block"], best["mean"]]
        shares = [_rounded(share) for share in reached]
        marks = [seed["first_worst_block"], seed["first_mean"]]
        steps = [_optional(mark, ",") for mark in marks]
        ends = [
            seed["last"]["mean"],
            *([seed["last"]["episode_hammered"]] if also else []),
        ]
        rows.append([str(seed["seed"]), *shares, *steps, *map(_rounded, ends)])
    summary = figures["summary"]
    names = ("before_ppo_mean", "best_worst_block", "best_mean")
    spans = [span(summary[name]) for name in names]
    last = [span(summary["last_mean"]), *([""] if also else [])]
    rows.append(["mean (min to max)", *spans, "", "", *last])
    kept = f"{summary['num_keep_mark']} of {len(figures['seeds'])} seeds"
    note = (
        f"`{figures['metric']}`: the last three means of {kept} are {mean:g} or more."
    )
    return Table(rows, [note])


def match(figures: Figures) -> Iterator[Table]:
    """Tabulate baselines and players, a table for each set of games."""
    players, summary = figures["players"], figures["summary"]
    for host, baselines in figures["baselines"].items():
        games = list(players[host][0]["games"])
        columns = ("mean", "worst") if len(games) > 1 else ("mean",)
        header = [f"{figures['metric']}, {', '.join(games)}", *columns]
        rows = [
            [_spoken(name), *(f"{scores[column]:.3f}" for column in columns)]
            for name, scores in baselines.items()
        ]
        for name, seeds in players.items():
            if list(seeds[0]["games"]) == games:
                cells = [span(summary["players"][name][column]) for column in columns]
                rows.append([f"{figures['about'][name]}, mean (min to max)", *cells])
        yield Table([header, *rows], list(_optimum(players[host])))
    note = (
        f"{figures['episodes']:,} episodes of each game, {len(figures['runs'])} seeds. "
        f"Largest `invalid_frac`: {summary['invalid_frac']:g}."
    )
    yield Table([], [note])


def _optimum(seeds: Iterable[Figures]) -> Iterator[str]:
    """Say how much of the optimum the worst seed reaches, where it is known."""
    shares = {
        game: min(seed["games"][game]["of_optimum"] for seed in seeds)
        for game, scores in next(iter(seeds))["games"].items()
        if scores.get("of_optimum") not in (None, scores.get("return"))
    }
    for game, share in shares.items():
        yield f"The worst seed reaches {share:.3f} of the known optimum of `{game}`."


def memory(figures: Figures) -> Table:
    """Tabulate how many seeds of each kind have learned the task."""
    solved = figures["solved"]
    cores = list(next(iter(solved.values())))
    rows = [["T", *(f"core {core}" for core in cores)]]
    rows += [[delay, *map(str, counts.values())] for delay, counts in solved.items()]
    seeds = figures["num_seeds"]
    return Table(rows, [f"How many of {seeds} seeds end with 95 % success or more."])


def faults(figures: Figures) -> Table:
    """Tabulate how often each fault was tried, and how many cases went wrong."""
    rows = [["", "tries", "lost", "silent", "traceback", "other"]]
    for kind, found in figures["faults"].items():
        for name, counts in found["rows"].items():
            rows.append([f"{kind}: {name}", *(f"{counts[n]:,}" for n in rows[0][1:])])
    return Table(rows, [])


def sweep(figures: Figures) -> Table:
    """Tabulate the fate of the trials of a sweep, and what it found beside a grid."""
    trials, grid = figures["sweep"], figures["grid"]
    best_rate = max(grid, key=grid.__getitem__)
    best, factor = trials["best"], figures["factor_to_the_best_of_the_grid"]
    names = ("finished", "complete", "interrupted_by_the_kill", "repeated", "doubled")
    rows = [
        ["trials", *(name.replace("_", " ") for name in names), "seconds"],
        [
            str(figures["trials"]),
            *(str(trials[name]) for name in names),
            f"{trials['seconds']:.0f}",
        ],
    ]
    return Table(
        rows,
        [
            "Two workers on one journal, of which one was killed with SIGKILL in the "
            "middle of a trial; those that are not complete were pruned.",
            f"Best rate found: {best['learning_rate']:.4f} (return "
            f"{best['return']:.0f}); best of a grid by factors of 2: "
            f"{float(best_rate):.4f} (return {grid[best_rate]:.0f}). The factor "
            f"between them is {factor:.1f}.",
        ],
    )


def tables_of(figures: Figures) -> Iterator[Table]:
    """Make every table that these figures allow."""
    if "end_to_end" in figures.get("steps_per_second", {}):
        yield stages(figures)
    makers = {
        "passes_per_second": layers,
        "targets": startup,
        "frames": curves,
        "updates": memory,
        "faults": faults,
        "sweep": sweep,
    }
    yield from (make(figures) for key, make in makers.items() if key in figures)
    if "players" in figures:
        yield from match(figures)
    elif isinstance(figures.get("cases"), dict):
        yield from (seeds(name, case) for name, case in figures["cases"].items())
    if "peers" in figures:
        yield peers(figures["peers"])
        if "training" in figures["peers"]:
            yield training(figures["peers"])
    if "table" in figures:  # formatted by who measured it
        yield Table(figures["table"], figures["notes"])
    if "errors" in figures:
        yield Table([], [f"Not measured: {e}" for e in figures["errors"]])
